// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"slices"
	"testing"
)

const routeHead = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"

func TestParseOnLink(t *testing.T) {
	links, err := parseOnLink(routeHead +
		"eno1\t00000000\t0100640A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" + // the default route
		"ens1\t0000640A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n" +
		"ens2\t0401640A\t00000000\t0001\t0\t0\t0\tFEFFFFFF\t0\t0\t0\n" +
		"*\t0001A8C0\t00000000\t0201\t0\t0\t0\t00FFFFFF\t0\t0\t0\n" + // unreachable
		"ens3\t0001A8C0\t0100640A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n") // by a gateway
	var got []string
	for _, l := range links {
		got = append(got, fmt.Sprint(l.Interface, " ", l.Network))
	}
	if want := []string{"ens1 10.100.0.0/16", "ens2 10.100.1.4/31"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"eth0\t00", "eth0\tx\t0\t1\t0\t0\t0\t0\t0\n"} {
		if _, err := parseOnLink(routeHead + bad); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

func FuzzParseOnLink(f *testing.F) {
	f.Add(routeHead + "ens2\t0401640A\t00000000\t0001\t0\t0\t0\tFEFFFFFF\t0\t0\t0\n")
	f.Fuzz(func(t *testing.T, text string) {
		links, err := parseOnLink(text)
		for _, l := range links {
			if again, ok := ParseIPv4Net(l.Network.String()); err != nil || !ok || again != l.Network || !l.Network.Contains(l.Network.Addr) || l.Interface == "" {
				t.Errorf("%q: %+v, %v", text, l, err)
			}
		}
	})
}

func TestGIDIPv4(t *testing.T) {
	if a, ok := (RDMAGID{GID: "0000:0000:0000:0000:0000:ffff:0a64:010a"}).IPv4(); !ok || a.String() != "10.100.1.10" {
		t.Errorf("%v, %v", a, ok)
	}
	for _, g := range []string{"fe80:0000:0000:0000:0000:5eff:fe10:0100", "x", ""} {
		if _, ok := (RDMAGID{GID: g}).IPv4(); ok {
			t.Errorf("%q is an IPv4 address", g)
		}
	}
}

func TestIPv4Net(t *testing.T) {
	for _, tt := range []struct {
		a, b     string
		overlaps bool
	}{
		{"10.0.0.0/24", "10.0.0.0/24", true}, {"10.0.0.0/24", "10.0.1.0/24", false}, {"10.0.0.0/16", "10.0.7.0/24", true},
		{"10.0.7.0/24", "10.0.0.0/16", true}, {"10.0.0.4/31", "10.0.0.6/31", false}, {"0.0.0.0/0", "10.0.0.4/32", true},
	} {
		a, ok1 := ParseIPv4Net(tt.a)
		b, ok2 := ParseIPv4Net(tt.b)
		if !ok1 || !ok2 || a.Overlaps(b) != tt.overlaps || a.String() != tt.a {
			t.Errorf("%+v: %v, %v", tt, a, b)
		}
	}
	for _, bad := range []string{"", "10.0.0.0", "10.0.0/8", "10.0.0.0/33", "10.0.0.256/8", "10.0.0.0/x", "::/0"} {
		if n, ok := ParseIPv4Net(bad); ok {
			t.Errorf("%q is %v", bad, n)
		}
	}
}
