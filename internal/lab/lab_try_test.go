package lab

import (
	"context"
	"os"
	"testing"
	"time"
)

func TestTry(t *testing.T) {
	l, err := Open(os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	t0 := time.Now()
	g, err := l.Settled(ctx, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	t.Log("settled after", time.Since(t0))
	r, err := g.Run(ctx, "uname -a; lspci; uptime; exit 7")
	t.Log(r, err)
}
