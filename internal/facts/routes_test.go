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
		got = append(got, fmt.Sprint(l.Interface, " ", l.Prefix))
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
			if err != nil || !l.Prefix.IsValid() || l.Prefix != l.Prefix.Masked() || l.Interface == "" {
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
