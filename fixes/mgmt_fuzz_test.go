// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"strings"
	"testing"
)

// FuzzConnections decodes the addresses of connections, which decide what is not
// touched: nothing panics, and what comes out is an address of its kind.
func FuzzConnections(f *testing.F) {
	f.Add("0200A8C0:0016")
	f.Add("0000000000000000FFFF00000200A8C0:0016")
	f.Add(":")
	f.Fuzz(func(t *testing.T, peer string) {
		addr, _, _ := strings.Cut(peer, ":")
		if a := address4(addr); a.IsValid() && !a.Is4() {
			t.Errorf("%q gives %s", peer, a)
		}
		if a := address6(addr); a.IsValid() && a.Is4In6() {
			t.Errorf("%q gives %s", peer, a)
		}
	})
}

// FuzzTokens looks for tokens in GRUB's settings and quotes them for it: what
// is added is found again, in one line.
func FuzzTokens(f *testing.F) {
	f.Add(`"quiet iommu=pt"`, "iommu=pt")
	f.Add(`"$GRUB_CMDLINE_LINUX_DEFAULT"`, "pci=realloc,config_acs=xx000x0@0000:17:00.0;xx000x0@0000:18:00.0")
	f.Add("", "hugepagesz=2M hugepages=0:1")
	f.Fuzz(func(t *testing.T, text, token string) {
		if strings.ContainsAny(token, "\n\"'\\$`") || strings.TrimSpace(token) == "" {
			return
		}
		line := `"` + strings.NewReplacer(`"`, "", "\n", "").Replace(text) + " " + grubQuoted(token) + `"`
		if !hasTokens(line, token) || strings.Contains(grubQuoted(token), "\n") {
			t.Errorf("%q in %q is not found", token, line)
		}
	})
}

// FuzzSysfs reads files and checks wanted values: a value that is taken reads
// as itself once it is there.
func FuzzSysfs(f *testing.F) {
	for _, s := range []string{"0x30", "always [madvise] never", "Global tclass=106", "-1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for i := range knobs {
			form := &knobs[i].form
			_, _ = form.read(s)
			v, err := form.check(s)
			if err != nil {
				continue
			}
			if again, err := form.check(v); err != nil || again != v || strings.ContainsAny(v, " \n") {
				t.Errorf("%s: %q becomes %q, which becomes %q (%v)", knobs[i].pattern, s, v, again, err)
			}
		}
	})
}
