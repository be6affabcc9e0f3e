// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"strings"
	"testing"
)

// FuzzLinkFile: any text is read without a panic; what is repeated of it never
// has the number or the match of the old file, and gets exactly one number.
func FuzzLinkFile(f *testing.F) {
	f.Add("[Match]\nOriginalName=*\n\n[Link]\nNamePolicy=path\n", "pci-0000:18:00.0")
	f.Add("[Match]\nPath=pci-0000:18:* !x\n[Link]\n SR-IOVVirtualFunctions = 4 \n[SR-IOV]\nVirtualFunction=0\n", "pci-0000:18:00.0")
	f.Add("[Link]\n[Match]\n=\n[", "")
	f.Add("[[Match]\n[[Link]\n", "")
	f.Fuzz(func(t *testing.T, text, idPath string) {
		l := linkSays(text)
		_ = l.couldMatch(idPath)
		again := linkSays("[Match]\nPath=x\n" + insertVFs(l.rest, 7))
		if strings.Contains("\n"+l.rest, "\n[Match]\n") || again.vfs != "7" || !strings.Contains("\n"+again.rest, "\n[Link]\n") {
			t.Fatalf("%q became %q, with %q", text, l.rest, again.vfs)
		}
	})
}

func TestLinkFile(t *testing.T) {
	l := linkSays("# c\n[Match]\nPath=pci-0000:18:00.?\nDriver=igb\n[Link]\n; c\nSR-IOVVirtualFunctions = 4\nMTUBytes=9000\n[SR-IOV]\nVirtualFunction=0\nTrust=yes\n")
	if l.vfs != "4" || l.rest != "[Link]\nMTUBytes=9000\n[SR-IOV]\nVirtualFunction=0\nTrust=yes\n" || !l.couldMatch("pci-0000:18:00.0") || l.couldMatch("pci-0000:19:00.0") {
		t.Errorf("%+v", l)
	}
	if got := insertVFs(l.rest, 8); got != "[Link]\nSR-IOVVirtualFunctions=8\nMTUBytes=9000\n[SR-IOV]\nVirtualFunction=0\nTrust=yes\n" {
		t.Errorf("%q", got)
	}
}
