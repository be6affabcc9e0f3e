// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/host"
)

// vxlanTree is a host with a bond of two NICs, a VLAN on it, and the VXLAN
// interfaces that the recorded answer lists.
func vxlanTree(t *testing.T, links string, files map[string]string) *VXLAN {
	t.Helper()
	root := t.TempDir()
	all := map[string]string{
		"/proc/net/route": "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n" +
			"bond0.5\t00050A0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n" +
			"eth9\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n" +
			"vx0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n",
		"/proc/net/ipv6_route": "fd000000000000000000000000000000 10 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000001 00000000 00000001 bond0\n" +
			"00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n",
		"/sys/class/net/bond0.5/lower_bond0": "",
		"/sys/class/net/bond0.5/mtu":         "8900\n",
		"/sys/class/net/bond0/lower_eth0":    "",
		"/sys/class/net/bond0/lower_eth1":    "",
		"/sys/class/net/bond0/mtu":           "9000\n",
		"/sys/class/net/eth0/mtu":            "9000\n",
		"/sys/class/net/eth1/mtu":            "9000\n",
		"/sys/class/net/eth9/mtu":            "1500\n",
		"/sys/class/net/vx0/mtu":             "1450\n",
		"/.hostcheck/capture.json":           `{"schema": "hostcheck.capture/v1", "whole": ["/sys", "/proc"], "queries": {"rtnetlink vxlan links": {"answer": ` + links + `}}}`,
	}
	for p, text := range files {
		all[p] = text
	}
	for p, text := range all {
		p = filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h, err := host.Open(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return New(h).VXLAN()
}

// The interface below is the lower device, else that of the route to the
// remote; the NICs are at the bottom of it.
func TestVXLANUnderlay(t *testing.T) {
	for name, tt := range map[string]struct {
		link, underlay string
		mtu            int
		nics           []string
		why            string
	}{
		"lower device":     {`"lower": "bond0.5", "lower_index": 5`, "bond0.5", 8900, []string{"eth0", "eth1"}, ""},
		"route":            {`"remote": "10.10.5.9"`, "bond0.5", 8900, []string{"eth0", "eth1"}, ""},
		"default route":    {`"remote": "192.0.2.1"`, "eth9", 1500, []string{"eth9"}, ""},
		"route of IPv6":    {`"remote": "fd00::2"`, "bond0", 9000, []string{"eth0", "eth1"}, ""},
		"no route of IPv6": {`"remote": "2001:db8::2"`, "", 0, []string{}, "no route of the main table leads to 2001:db8::2"},
		"into itself":      {`"remote": "10.9.9.9"`, "", 0, []string{}, "no route of the main table"},
		"gone":             {`"lower_index": 77`, "", 0, []string{}, "is gone"},
		"elsewhere":        {`"lower_index": 5, "elsewhere": true`, "", 0, []string{}, "another network namespace"},
		"metadata":         {`"external": true`, "", 0, []string{}, "each packet brings its endpoint"},
		"forwarding table": {`"local": "10.10.5.1"`, "", 0, []string{}, "forwarding table"},
	} {
		t.Run(name, func(t *testing.T) {
			v := vxlanTree(t, `[{"name": "vx0", "index": 9, "up": true, "mtu": 1450, "port": 4789, `+tt.link+`}]`, nil)
			if len(v.Devices) != 1 {
				t.Fatalf("%+v", v)
			}
			d := v.Devices[0]
			switch {
			case tt.underlay == "" && (d.Underlay != nil || !strings.Contains(d.Unknown["underlay"], tt.why) || d.Unknown["underlay_mtu"] == ""):
				t.Errorf("underlay %v, %v", d.Underlay, d.Unknown)
			case tt.underlay != "" && (d.Underlay == nil || *d.Underlay != tt.underlay || d.UnderlayMTU == nil || *d.UnderlayMTU != tt.mtu):
				t.Errorf("%+v", d)
			}
			if !slices.Equal(d.NICs, tt.nics) {
				t.Errorf("NICs %v, want %v", d.NICs, tt.nics)
			}
		})
	}
	v := vxlanTree(t, `[{"name": "vx0", "index": 9, "remote": "10.10.5.9"}]`, map[string]string{"/proc/net/route": "\xff\xfe"})
	if d := v.Devices[0]; d.Underlay != nil {
		t.Errorf("routes that are none: %+v", d)
	}
}

// That there is no VXLAN interface is proved without the kernel's answer too,
// and not by what is merely absent.
func TestNoVXLAN(t *testing.T) {
	fine := fixture.Load(t, "../../testdata/hosts/rdma-intel.txtar").Host(t)
	if v := New(fine).VXLAN(); v.Devices == nil || len(v.Devices) > 0 {
		t.Errorf("a host without the module: %+v", v)
	}
	const lost = `{"errno": 1}`
	tree := func(files map[string]string) *VXLAN {
		files["/.hostcheck/capture.json"] = `{"schema": "hostcheck.capture/v1", "queries": {"rtnetlink vxlan links": ` + lost + `}}`
		return vxlanTree(t, "", files)
	}
	uevents := map[string]string{}
	for _, n := range []string{"bond0", "bond0.5", "eth0", "eth1", "eth9", "vx0"} {
		uevents["/sys/class/net/"+n+"/uevent"] = "INTERFACE=" + n + "\n"
	}
	if v := tree(uevents); v.Devices == nil || v.Source != "/sys/class/net/*/uevent" {
		t.Errorf("each interface says what it is: %+v", v)
	}
	uevents["/sys/class/net/vx0/uevent"] = "DEVTYPE=vxlan\nINTERFACE=vx0\n"
	if v := tree(uevents); v.Devices != nil || v.Unknown["devices"] == "" {
		t.Errorf("one is a tunnel: %+v", v)
	}
	delete(uevents, "/sys/class/net/vx0/uevent")
	if v := tree(uevents); v.Devices != nil {
		t.Errorf("one does not say: %+v", v)
	}
}

func TestVXLANOverhead(t *testing.T) {
	for d, want := range map[*VXLANDevice]int{{}: 50, {Local: "fd00::1"}: 70, {Remote: "192.0.2.1"}: 50, {Remote: "ff05::100"}: 70, {GPE: true}: 36} {
		if got := d.Overhead(); got != want {
			t.Errorf("%+v: %d, want %d", d, got, want)
		}
	}
}

func TestParseModuleOption(t *testing.T) {
	for text, want := range map[string]struct {
		value string
		line  int
	}{
		"options mlx4_core log_num_mgm_entry_size=-1\n":                                                    {"-1", 1},
		"# options mlx4_core log_num_mgm_entry_size=-1\n":                                                  {"", 0},
		"options mlx4-core a=1 log-num-mgm-entry-size=-7 b=2":                                              {"-7", 1},
		"options mlx4_en log_num_mgm_entry_size=-1\noptions mlx4_core num_vfs=4\n":                         {"", 0},
		"\noptions \\\n mlx4_core \\\n log_num_mgm_entry_size=10\n":                                        {"10", 2},
		"options mlx4_core log_num_mgm_entry_size=10\noptions mlx4_core log_num_mgm_entry_size=\"-1\"\r\n": {"-1", 2},
		"options mlx4_core log_num_mgm_entry_size":                                                         {"", 0},
	} {
		if v, line := parseModuleOption(text, MLX4Module, MLX4Parameter); v != want.value || line != want.line {
			t.Errorf("%q: %q on line %d", text, v, line)
		}
	}
}

func TestOutOf(t *testing.T) {
	routes := []Route{
		{netip.MustParsePrefix("0.0.0.0/0"), "wan", 200}, {netip.MustParsePrefix("0.0.0.0/0"), "lan", 100},
		{netip.MustParsePrefix("10.0.0.0/8"), "dc", 500}, {netip.MustParsePrefix("::/0"), "six", 0},
	}
	for to, want := range map[string]string{"192.0.2.1": "lan", "10.1.1.1": "dc", "2001:db8::1": "six", "239.1.1.1": "lan"} {
		if got := OutOf(routes, netip.MustParseAddr(to)); got != want {
			t.Errorf("%s leaves through %q, want %q", to, got, want)
		}
	}
	if got := OutOf(routes[2:3], netip.MustParseAddr("192.0.2.1")); got != "" {
		t.Errorf("a route that is none: %q", got)
	}
}

func FuzzRoutes(f *testing.F) {
	f.Add("eth0\t00000000\t0100640A\t0003\t0\t0\t100\t00000000\t0\t0\t0")
	f.Add("fd000000000000000000000000000000 10 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000001 00000000 00000001 eth0")
	f.Fuzz(func(t *testing.T, line string) {
		for _, parse := range []func([]string) (Route, bool){parseRoute4, parseRoute6} {
			if r, ok := parse(strings.Fields(line)); ok && (!r.Net.IsValid() || r.Net.Bits() > r.Net.Addr().BitLen() || r.IfName == "") {
				t.Errorf("%+v", r)
			}
		}
	})
}

func FuzzModuleOption(f *testing.F) {
	f.Add("options mlx4_core \\\n log_num_mgm_entry_size=-1\n")
	f.Fuzz(func(t *testing.T, text string) {
		if v, line := parseModuleOption(text, MLX4Module, MLX4Parameter); line < 0 || line > strings.Count(text, "\n")+1 || line == 0 && v != "" {
			t.Errorf("%q on line %d", v, line)
		}
	})
}
