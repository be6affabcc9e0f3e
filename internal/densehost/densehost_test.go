// SPDX-License-Identifier: Apache-2.0

package densehost_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/hostcheck/hostcheck/internal/densehost"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/host"
)

// digest is over every path, type, target and byte below dir.
func digest(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		fmt.Fprintln(h, rel, d.Type())
		switch {
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(p)
			fmt.Fprintln(h, target)
			if _, gone := os.Stat(p); gone != nil && filepath.Base(p) != "driver" {
				t.Errorf("%s leads nowhere: %s", rel, target)
			}
			return err
		case d.Type().IsRegular():
			b, err := os.ReadFile(p)
			h.Write(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestSameShapeSameBytes(t *testing.T) {
	a, b := fixture.TempDir(t), fixture.TempDir(t)
	for _, dir := range []string{a, b} {
		if err := densehost.Write(dir, densehost.Small); err != nil {
			t.Fatal(err)
		}
	}
	if digest(t, a) != digest(t, b) {
		t.Error("two trees of one shape differ")
	}
}

func TestShape(t *testing.T) {
	for name, tc := range map[string]struct {
		shape                                 densehost.Shape
		functions, pfs, vfs, gpus, ib, groups int
	}{
		"small":    {densehost.Small, 16, 2, 2, 1, 3, 16},
		"two":      {densehost.Small.Times(2), 32, 4, 4, 2, 6, 32},
		"dense":    {densehost.Dense, 512, 9, 256, 8, 264, 512},
		"unfilled": {densehost.Shape{Copies: 1, Switches: 2, NICsPerSwitch: 1, GPUsPerSwitch: 0, VFs: 9}, 2 + 2*(3+10), 3, 18, 0, 20, 28},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fixture.TempDir(t)
			if err := densehost.Write(dir, tc.shape); err != nil {
				t.Fatal(err)
			}
			h, err := host.Open(dir, host.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			f := facts.New(h)
			var pfs, vfs, gpus int
			for _, fn := range f.PCIAll().Functions {
				if len(fn.Unknown) > 0 && fn.Network() && !fn.VF() {
					t.Errorf("%s: %v", fn.BDF, fn.Unknown)
				}
				switch {
				case fn.VF():
					vfs++
				case fn.Network():
					pfs++
				case fn.GPU():
					gpus++
				}
			}
			n := len(f.PCI().Functions)
			if n != tc.functions || n != tc.shape.Functions() {
				t.Errorf("%d functions, want %d; Functions() says %d", n, tc.functions, tc.shape.Functions())
			}
			ib, groups := len(f.RDMA().Devices), len(f.IOMMU().Groups)
			if pfs != tc.pfs || vfs != tc.vfs || gpus != tc.gpus || ib != tc.ib || groups != tc.groups {
				t.Errorf("%d PFs, %d VFs, %d GPUs, %d RDMA devices, %d groups; want %+v", pfs, vfs, gpus, ib, groups, tc)
			}
			if nics := len(f.NICs().List); nics != pfs+vfs+1 {
				t.Errorf("%d interfaces", nics)
			}
		})
	}
	if err := densehost.Write(t.TempDir(), densehost.Shape{Copies: 1, Switches: 5}); err == nil {
		t.Error("a shape with too many buses was written")
	}
}
