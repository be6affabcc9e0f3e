# hostcheck: "make" lists the targets.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo none)
LDFLAGS := -s -w -X github.com/hostcheck/hostcheck/internal/cli.version=$(VERSION) -X github.com/hostcheck/hostcheck/internal/cli.commit=$(COMMIT)
BUILD   := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
FUZZTIME ?= 5s

.DEFAULT_GOAL := help
.PHONY: help build test test-root test-vm test-programs test-api e2e lab race fuzz lint check fmt vet generate drift golden cross dist dist-check bench clean

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the static binary for this machine: ./hostcheck
	$(BUILD) -o hostcheck .

test: vet ## everything that needs no root and changes nothing on the machine
	@sh .ci/skips
	$(GO) test -shuffle=on -timeout 30m ./...

test-root: ## as root: real devices in network namespaces that the tests make
	@sh .ci/skips root
	$(GO) test -tags root -run 'Root' ./...

test-vm: ## as root: the quick set of scenarios on real kernels in QEMU guests (cold about 5 minutes more)
	$(GO) test -tags vm -short -count=1 -v -timeout 40m ./e2e

test-programs: ## as root: through real Slurm, Ansible, Prometheus and others, in namespaces (cold about 3 minutes more)
	$(GO) test -tags vm -count=1 -v -timeout 20m ./e2e/programs

test-api: ## the Kubernetes manifests against the types of its API, in a module of their own (cold under a minute)
	cd packaging/kubernetes/apitest && $(GO) test ./...

e2e: test-programs ## as root: every scenario, also on real kernels; prints the table of docs/reliability.md
	$(GO) test -tags vm -count=1 -v -timeout 3h ./e2e

lab: ## as root: a guest of the VM lab on this terminal, with hostcheck in it (LAB='-uefi': systemd-boot)
	$(GO) run ./internal/lab/open $(LAB)

# Packages in which goroutines share anything; the others are plain functions.
RACE := $(addprefix ./internal/,bench bundle check cli facts host plan/... profile slurm)

race: ## the tests of what runs in several goroutines, under the race detector (needs cgo)
	CGO_ENABLED=1 $(GO) test -race -timeout 30m $(RACE)

fuzz: ## every decoder's fuzz target for FUZZTIME each (default 5s)
	@bash .ci/fuzz $(FUZZTIME)

fmt: ## format the code
	gofmt -w $$(git ls-files '*.go')

vet: ## gofmt and go vet
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofmt-clean:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags root,vm ./...

lint: ## the short list of linters in .golangci.yml
	$(GO) tool -modfile=tools/go.mod golangci-lint run

generate: ## rebuild generated files (check catalogue, schemas)
	$(GO) generate ./...

drift: generate ## fail when a generated file is not what the code says
	git diff --exit-code -- docs internal/facts internal/report testdata

check: vet lint test drift ## what a reviewer runs

golden: ## rewrite golden outputs after a wanted change; read the diff
	$(GO) test $$(git grep -l 'flag.Bool("update"' -- '*_test.go' | xargs -n1 dirname | sort -u | sed 's|^|./|') -update

cross: ## static binaries for linux/amd64 and linux/arm64 in dist/
	GOOS=linux GOARCH=amd64 $(BUILD) -o dist/hostcheck-linux-amd64 .
	GOOS=linux GOARCH=arm64 $(BUILD) -o dist/hostcheck-linux-arm64 .

dist: ## what is published, in dist/release: static binaries, deb and rpm, SBOMs, checksums
	packaging/build dist/release

dist-check: ## make it twice: the same bytes; and look into the packages
	packaging/check

bench: ## time a check run against merely reading the same files, the shell checklist; a fleet against jq
	$(GO) run ./bench

clean: ## remove what was built
	rm -rf hostcheck dist
