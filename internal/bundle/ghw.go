// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// KindGHW is a snapshot of ghw (github.com/jaypipes/ghw, pkg/snapshot): a
// gzipped tar archive of files of /proc and /sys, and nothing else. The
// snapshots of OpenShift's node tuning are such ones with a file more.
const KindGHW = "ghw"

type ghw struct{}

var ghwTops = []string{"etc", "proc", "run", "sys", "usr", "var"}

func isGHW(head []byte) bool {
	if !bytes.HasPrefix(head, []byte{0x1f, 0x8b}) {
		return false
	}
	z, err := opened(bytes.NewReader(head), head)
	if err != nil {
		return false
	}
	top, _, _ := strings.Cut(firstName(z), "/")
	return top == "machineinfo.json" || slices.Contains(ghwTops, top)
}

func readGHW(r io.Reader) (*Bundle, error) {
	z, err := opened(r, []byte{0x1f, 0x8b})
	if err != nil {
		return nil, fmt.Errorf("it is not gzipped: %w", err)
	}
	f := newForeign("a snapshot of ghw")
	if err := f.readTar(z, ghw{}); err != nil {
		return nil, err
	}
	if f.names["/sys"] == nil && f.names["/proc"] == nil {
		return nil, fmt.Errorf("it is no snapshot of ghw: it has neither sys nor proc")
	}
	f.list(ghwWhole)
	return &Bundle{Kind: KindGHW, Host: f.snap}, nil
}

func (ghw) place(p string) string {
	top, _, _ := strings.Cut(p, "/")
	if !slices.Contains(ghwTops, top) {
		return ""
	}
	return "/" + p
}

func (ghw) extra(string) bool { return false }

// ghwWhole: every PCI function and node is there. Of interfaces those with a
// device alone are.
func ghwWhole(dir string) bool {
	switch dir {
	case "/sys/bus/pci/devices", "/sys/devices/system/cpu", "/sys/devices/system/node":
		return true
	}
	return path.Base(dir) == "hugepages" && strings.HasPrefix(dir, "/sys/devices/system/node/node")
}
