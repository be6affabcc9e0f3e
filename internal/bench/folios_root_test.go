// SPDX-License-Identifier: Apache-2.0

//go:build root

package bench

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// The kernel tells apart what is in pages and what is in huge pages; a wrong
// claim of either is found.
func TestRootFoliosProven(t *testing.T) {
	page := os.Getpagesize()
	f := node0(t, page, 8<<20)
	if err := f.Prove(); errors.Is(err, ErrNoFrames) || errors.Is(err, os.ErrPermission) {
		t.Skipf("skipped: %v", err)
	} else if err != nil {
		t.Error(err)
	}
	f.Size = 2 << 20
	if err := f.Prove(); err == nil {
		t.Error("pages pass as huge pages")
	}
	b, err := os.ReadFile("/" + thpDir + "/enabled")
	if err != nil || strings.Contains(string(b), "[never]") || pmdKB(os.DirFS("/")) != 2048 {
		t.Skip("skipped: no huge pages of 2 MiB here")
	}
	f = node0(t, 2<<20, 8<<20)
	if err := f.Prove(); err != nil {
		t.Error(err)
	}
	f.Size = page
	if err := f.Prove(); err == nil {
		t.Error("huge pages pass as pages")
	}
}
