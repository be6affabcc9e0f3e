module github.com/hostcheck/hostcheck

go 1.26.0

require (
	github.com/aymanbagabas/go-udiff v0.4.1 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
