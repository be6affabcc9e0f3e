// SPDX-License-Identifier: Apache-2.0

package host

import (
	"slices"
	"testing"
)

func TestFilterLog(t *testing.T) {
	got := FilterLog("<6>[    0.000000] Command line: secret=1\n" +
		"<5>[    0.010000] Unknown kernel command line parameters \"foo\", will be passed to user space.\n" +
		"[   12.5] HugeTLB: registered 1.00 GiB page size, pre-allocated 2 pages\n" +
		"<6>[    1.0] eth0: link up\n")
	want := []string{
		"Unknown kernel command line parameters \"foo\", will be passed to user space.",
		"HugeTLB: registered 1.00 GiB page size, pre-allocated 2 pages",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzFilterLog(f *testing.F) {
	f.Add("<6>[    0.1] HugeTLB: x\n\xff isolcpus \xff\n")
	f.Fuzz(func(t *testing.T, text string) {
		if got := FilterLog(text); len(got) > klogLines {
			t.Errorf("kept %d lines of at most %d", len(got), klogLines)
		}
	})
}
