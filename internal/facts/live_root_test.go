// SPDX-License-Identifier: Apache-2.0

//go:build root

package facts

import (
	"os/exec"
	"testing"

	"github.com/hostcheck/hostcheck/internal/host"
)

// TestRootPCI compares the pci and acs facts of this machine with lspci, which
// as root sees all of configuration space.
func TestRootPCI(t *testing.T) {
	if _, err := exec.LookPath("lspci"); err != nil {
		t.Skip("skipped: lspci (pciutils) is not installed")
	}
	h, err := host.Open("/", host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	f := New(h)
	switch bus := f.PCIAll(); {
	case bus.Functions == nil:
		t.Fatalf("cannot see the PCI bus: %s", bus.Why)
	case len(bus.Functions) == 0:
		t.Skip("skipped: this machine has no PCI bus")
	}
	compareWithLspci(t, f)
}
