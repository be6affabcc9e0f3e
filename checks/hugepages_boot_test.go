// SPDX-License-Identifier: Apache-2.0

package checks_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fixture"
)

// Pages of 1G that are missing are wished of the boot as well, in place of what
// the command line asks for, and only where the kernel makes of it what is wanted.
func TestPoolBootWishes(t *testing.T) {
	const add = "+hugepagesz=1G hugepages=0:32,1:32"
	for line, want := range map[string][]string{
		"":                                    {add},
		"default_hugepagesz=1G":               {add},
		"hugepagesz=2M hugepages=0:512,1:512": {add},
		"hugepagesz=1G hugepages=0:32,1:20":   {add, "-hugepagesz=1G hugepages=0:32,1:20"},
		"hugepagesz=1024M hugepages=52 hugepagesz=2M hugepages=7":                     {add, "-hugepagesz=1024M hugepages=52"},
		"hugepagesz=1G hugepages=0:32,1:32":                                           nil, // the boot had too little
		"default_hugepagesz=1G hugepages=52":                                          nil, // a count that has no size of its own
		"hugepagesz=1GB hugepages=0:32":                                               nil,
		"hugepagesz=1G hugetlb_cma=4G":                                                nil, // switches them off
		"default_hugepagesz=1G hugepagesz=1G hugepages=0:32,1:20 hugepagesz=2M quiet": {add, "-hugepagesz=1G hugepages=0:32,1:20"},
	} {
		if got := poolWishes(t, "6.12.107+deb13-amd64", line); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	if got := poolWishes(t, "5.15.0-100-generic", ""); got != nil {
		t.Errorf("a kernel that knows no counts per node: %q", got)
	}
}

// poolWishes gives the wishes of the command line where node1 has 20 pages of
// 1G and 32 are wanted.
func poolWishes(t *testing.T, release, line string) (wishes []string) {
	t.Helper()
	path := filepath.Join(fixtures, "hugepages.pool", "fail.txtar")
	f := fixture.Load(t, path)
	for p, text := range map[string]string{"/proc/cmdline": "BOOT_IMAGE=/vmlinuz root=/dev/sda1 " + line, "/proc/sys/kernel/osrelease": release} {
		if err := os.WriteFile(filepath.Join(f.Root, p), []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"/boot", "/etc/default"} { // whose next boot asks for the pages
		if err := os.RemoveAll(filepath.Join(f.Root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	i := slices.IndexFunc(checks.All(), func(c *check.Check) bool { return c.ID == "hugepages.pool" })
	for _, finding := range judge(t, path, f, checks.All()[i:i+1]).Results[0].Findings {
		for _, w := range finding.Fix {
			switch {
			case w.Kind != "cmdline":
			case w.Want == "present":
				wishes = append(wishes, "+"+w.Name)
			default:
				wishes = append(wishes, "-"+w.Name)
			}
		}
	}
	if slices.ContainsFunc(wishes, func(s string) bool { return strings.Contains(s, "2M") }) {
		t.Errorf("%q: %q", line, wishes)
	}
	return wishes
}
