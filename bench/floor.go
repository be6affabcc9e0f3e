// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/host"
)

// The floor: the same files, links and directories, each opened and read once
// with as many readers as hostcheck has, and nothing else. No type, size or
// deadline is looked at, nothing is kept, and a link may lead anywhere.

// readAll measures one pass over the list.
func readAll(root string, list []host.Op) (cost, error) {
	return measure(func() error { return readOnce(root, list) })
}

func readOnce(root string, list []host.Op) error {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range host.Workers() {
		wg.Go(func() {
			buf := make([]byte, 64<<10)
			for {
				i := next.Add(1) - 1
				if i >= int64(len(list)) {
					return
				}
				readOp(dir, list[i], buf)
			}
		})
	}
	wg.Wait()
	return nil
}

// readOp reads one source; what fails for hostcheck fails here too.
func readOp(dir int, op host.Op, buf []byte) {
	p := strings.TrimPrefix(op.Path, "/")
	if op.Kind == host.ReadLink {
		_, _ = unix.Readlinkat(dir, p, buf)
		return
	}
	fd, err := unix.Openat(dir, p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if op.Kind == host.ListDir {
		for {
			if n, err := unix.ReadDirent(fd, buf); n <= 0 || err != nil {
				return
			}
		}
	}
	for {
		if n, err := unix.Read(fd, buf); n < len(buf) || err != nil {
			return
		}
	}
}

// floorMain is the floor as a process of its own: ROOT LIST.
func floorMain(args []string) int {
	b, err := os.ReadFile(args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	list, err := parseList(b)
	if err == nil {
		err = readOnce(args[0], list)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}

// writeList stores a list in a form that costs little to read.
func writeList(path string, list []host.Op) error {
	var b bytes.Buffer
	for _, op := range list {
		fmt.Fprintf(&b, "%d%s\n", op.Kind, op.Path)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

func parseList(b []byte) ([]host.Op, error) {
	text := string(b)
	list := make([]host.Op, 0, strings.Count(text, "\n"))
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if len(line) < 2 || line[0] < '0' || line[0] > '2' {
			return nil, fmt.Errorf("not a source: %q", line)
		}
		list = append(list, host.Op{Kind: host.Kind(line[0] - '0'), Path: line[1:]})
	}
	return list, nil
}
