// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// Pages of 1G are had at the trial boot where there is one, and while the host
// runs where there is none; pages of 2M always while it runs.
func TestLeaveToBoot(t *testing.T) {
	const token = "hugepagesz=1G hugepages=0:16,1:16"
	online := []plan.Wish{pages(0, 1<<20, "16"), pages(1, 1<<20, "16"), pages(0, 2048, "64")}
	for name, tt := range map[string]struct {
		wishes []plan.Wish
		grub   bool // a boot loader that can try
		allow  bool
		want   string
	}{
		"both":             {append(slices.Clone(online), tokenWish(token, fixes.TokenPresent)), true, true, "node0 2048kB, boot"},
		"not allowed":      {append(slices.Clone(online), tokenWish(token, fixes.TokenPresent)), true, false, "node0 1048576kB, node1 1048576kB, node0 2048kB"},
		"cannot try":       {append(slices.Clone(online), tokenWish(token, fixes.TokenPresent)), false, true, "node0 1048576kB, node1 1048576kB, node0 2048kB"},
		"another token":    {append(slices.Clone(online), tokenWish("iommu=pt", fixes.TokenPresent)), true, true, "node0 1048576kB, node1 1048576kB, node0 2048kB, boot"},
		"more than fit":    {append([]plan.Wish{pages(0, 1<<20, "100")}, tokenWish("hugepagesz=1G hugepages=0:100", fixes.TokenPresent)), true, true, ""},
		"taken away":       {append(slices.Clone(online), tokenWish("hugepages=8", fixes.TokenAbsent)), true, true, "node0 1048576kB, node1 1048576kB, node0 2048kB, boot"},
		"and a pool of 2M": {append(slices.Clone(online), tokenWish("hugepagesz=2M hugepages=0:64", fixes.TokenPresent)), true, true, "node0 1048576kB, node1 1048576kB, node0 2048kB, boot"},
	} {
		root := plantest.TempDir(t)
		setupGrub(t, root)
		files := memHost()
		files["/sys/devices/system/node/online"] = "0-2\n"
		files["/sys/devices/system/node/possible"] = "0-2\n"
		if !tt.grub {
			files["/boot/grub/grubenv"] = "x"
		}
		plantest.Files(t, root, files)
		p := plantest.Make(t, grubEngine(root), tt.wishes)
		refused := len(p.Refused)
		if !tt.allow { // as the command holds them back
			p.Changes = slices.DeleteFunc(p.Changes, func(c plan.Change) bool { return c.Tier == plan.Boot })
		}
		var got []string
		for _, c := range fixes.LeaveToBoot(p, tt.wishes).Changes {
			what := c.Target + " " + c.Name
			if c.Tier == plan.Boot {
				what = "boot"
			}
			if !slices.Contains(got, what) {
				got = append(got, what)
			}
		}
		if s := strings.Join(got, ", "); s != tt.want {
			t.Errorf("%s: %s, want %s; refused: %q", name, s, tt.want, reasonsOf(p))
		}
		if name == "more than fit" && (refused != 2 || !strings.Contains(strings.Join(reasonsOf(p), "\n"), "its huge pages would take 100 GiB of the 128 GiB of node0")) {
			t.Errorf("%s: %q", name, reasonsOf(p))
		}
	}
}
