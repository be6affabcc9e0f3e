// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hostcheck/hostcheck/internal/host"
)

func TestACSKernelOf(t *testing.T) {
	for release, want := range map[string]ACSKernel{
		"": ACSNotKnown, "custom": ACSNotKnown, "5.14.0-503.el9.x86_64": ACSRedirOnly, "6.10.14": ACSRedirOnly,
		"6.11.0-29-generic": ACSFirstPort, "6.12.22+deb13-amd64": ACSFirstPort, "6.12.23": ACSWhole, "6.12.107+deb13-amd64": ACSWhole,
		"6.13.10": ACSFirstPort, "6.13.11": ACSWhole, "6.14.0-27-generic": ACSFirstPort, "6.14.2": ACSWhole, "6.15-rc1": ACSWhole, "7.0.1": ACSWhole,
	} {
		if got := ACSKernelOf(release); got != want {
			t.Errorf("%q is %d, want %d", release, got, want)
		}
	}
}

// What a command line makes of a port whose bits are SrcValid, ReqRedir,
// CmpltRedir and UpstreamFwd now. The kernel's own log of the fix has the rest.
func TestACSAfter(t *testing.T) {
	const bdf = "0000:17:00.0"
	for _, tt := range []struct {
		release, pci string
		quirk        string
		want         uint16
	}{
		{"6.12.107", "config_acs=xx000x0@17:00.0", "", 0},
		{"6.12.107", "config_acs=1xxxxxx@0000:17:00.0", "", 0x1d}, // DirectTrans is not in the capability
		{"6.12.107", "config_acs=xx111x1@0000:05:00.0;xxx00xx@0000:17:00.0", "", 0x11},
		{"6.12.107", "config_acs=xx0@0000:17:00.0;xx000x0@0000:17:00.0", "", 0x1c}, // the first that fits
		{"6.12.107", "disable_acs_redir=0000:17:00.0", "", 0x11},
		{"6.12.107", "disable_acs_redir=0000:17:00.0,config_acs=xx111x1@0000:17:00.0", "", 0x1d},
		{"6.12.107", "config_acs=xx111x1@0000:17:00.0", quirkIntelPCH, 0x11},
		{"6.14.1", "config_acs=xx000x0@0000:17:00.0", "", 0x1d},
		{"6.14.1", "config_acs=xx111x1@0000:05:00.0;xxxxx1x@0000:17:00.0", "", 0x1d},
		{"6.14.1", "config_acs=xxxxx1x@0000:17:00.0", "", 0x1f},
		{"6.14.1", "disable_acs_redir=0000:17:00.0", "", 0x1d},
		{"6.8.0", "config_acs=xx000x0@0000:17:00.0", "", 0x1d},
		{"6.8.0", "disable_acs_redir=0000:05:00.0;0000:17:00.0", "", 0x11},
		{"custom", "config_acs=xx000x0@0000:17:00.0", "", 0x1d},
		{"6.12.107", "realloc", "", 0x1d},
	} {
		root := t.TempDir()
		p := filepath.Join(root, "proc/sys/kernel/osrelease")
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(tt.release+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		h, err := host.Open(root, host.Options{})
		if err != nil {
			t.Fatal(err)
		}
		f := New(h)
		a := &ACS{Cap: 0x1f, Ctl: 0x1d, Quirk: tt.quirk}
		if got := f.ACSAfter(ParseCmdline("pci="+tt.pci, f.CmdlineEnv()), bdf, a); got != tt.want {
			t.Errorf("%s on %s: %07b, want %07b", tt.pci, tt.release, got, tt.want)
		}
		h.Close()
	}
	a := &ACS{Cap: 0x1f}
	if !a.As(0x1d, "xx111x1") || a.As(0x1c, "xx111x1") || a.As(0x1d, "xx000x0") || !a.As(0, "x000000") || a.As(0x1d, "1xxxxxx") {
		t.Error("patterns are read otherwise")
	}
}
