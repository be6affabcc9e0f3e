// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// managed gives the interfaces through which the host is managed, each with
// why: those of the default routes, those that lead to who is logged in by
// SSH, and whatever these stand on (ports of a bond or bridge, the parent of a
// VLAN, the VF of a synthetic interface). Who breaks one of them may have
// nobody left to repair it.
func managed(h *host.Host) (map[string]string, error) {
	routes, unknown := facts.MainRoutes(h)
	if unknown != "" {
		return nil, errors.New(unknown)
	}
	m := map[string]string{}
	for _, r := range routes {
		if r.Net.Bits() == 0 && m[r.IfName] == "" {
			m[r.IfName] = "it has the default route"
		}
	}
	for _, session := range sshSessions(h) {
		// its own address counts, too: rules may send its packets another way than the main table
		for _, via := range []string{bestRoute(routes, session.peer, 0), bestRoute(routes, session.local, 1)} {
			if via != "" && m[via] == "" {
				m[via] = "an SSH session from " + session.peer.String() + " comes through it"
			}
		}
	}
	for todo := sortedNames(m); len(todo) > 0; todo = todo[1:] {
		for _, below := range lowers(h, todo[0]) {
			if m[below] == "" {
				m[below] = todo[0] + " stands on it, and " + m[todo[0]]
				todo = append(todo, below)
			}
		}
	}
	return m, nil
}

// mgmtRule refuses to touch what the host is managed through.
type mgmtRule struct {
	allow bool              // --allow-mgmt
	why   map[string]string // of managed
	err   error
}

func newMgmtRule(h *host.Host, allow bool) mgmtRule {
	why, err := managed(h)
	return mgmtRule{allow, why, err}
}

// refuses says why an interface is not touched, "" when it may be. byHand is
// the command for somebody at a console.
func (m mgmtRule) refuses(ifname, byHand string) (why string, steps []string) {
	switch {
	case m.allow:
	case m.err != nil:
		return "which interface this host is managed through is not known: " + m.err.Error(),
			[]string{"if it is not " + ifname + ": run hostcheck again with --allow-mgmt"}
	case m.why[ifname] != "":
		return fmt.Sprintf("%s is not touched without --allow-mgmt: %s", ifname, m.why[ifname]),
			[]string{"from a console that does not depend on " + ifname + ": hostcheck fix --allow-mgmt, or " + byHand}
	}
	return "", nil
}

// AllowMgmt gives the verbs with --allow-mgmt, or without.
func AllowMgmt(verbs []plan.Verb, allow bool) []plan.Verb {
	verbs = slices.Clone(verbs)
	for i, v := range verbs {
		switch v := v.(type) {
		case Ethtool:
			v.AllowMgmt = allow
			verbs[i] = v
		case DCB:
			v.AllowMgmt = allow
			verbs[i] = v
		case SRIOV:
			v.AllowMgmt = allow
			verbs[i] = v
		}
	}
	return verbs
}

func sortedNames(m map[string]string) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// lowers lists the interfaces that one stands on.
func lowers(h *host.Host, ifname string) []string {
	var out []string
	names, _ := h.List(facts.NetClass + "/" + ifname)
	for _, n := range names {
		if below, ok := strings.CutPrefix(n, "lower_"); ok {
			out = append(out, below)
		}
	}
	all, _ := h.List(facts.NetClass)
	for _, n := range all {
		if to, err := h.LinkBase(facts.NetClass + "/" + n + "/master"); err == nil && to == ifname && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// address4 reads an IPv4 address as /proc/net prints it.
func address4(s string) netip.Addr {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 {
		return netip.Addr{}
	}
	slices.Reverse(b)
	return netip.AddrFrom4([4]byte(b))
}

// address6 reads an IPv6 address as /proc/net/tcp6 prints it: four words, each
// with its lowest byte first.
func address6(s string) netip.Addr {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 16 {
		return netip.Addr{}
	}
	for i := 0; i < 16; i += 4 {
		slices.Reverse(b[i : i+4])
	}
	return netip.AddrFrom16([16]byte(b)).Unmap()
}

// bestRoute gives the interface of the longest route to an address, with so many
// bits at least; "" is none.
func bestRoute(routes []facts.Route, to netip.Addr, bits int) (ifname string) {
	return facts.OutOf(slices.DeleteFunc(slices.Clone(routes), func(r facts.Route) bool { return r.Net.Bits() < bits }), to)
}

// session is an established connection to port 22.
type session struct{ local, peer netip.Addr }

// sshSessions lists those that come from elsewhere.
func sshSessions(h *host.Host) []session {
	var all []session
	for _, p := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := h.Read(p)
		if err != nil {
			continue // no session that could be cut is known of
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 4 || f[3] != "01" || !strings.HasSuffix(f[1], ":0016") {
				continue
			}
			s := session{socketAddress(f[1]), socketAddress(f[2])}
			if s.peer.IsValid() && !s.peer.IsLoopback() && !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return all
}

// socketAddress reads the address of "ADDRESS:PORT".
func socketAddress(s string) netip.Addr {
	s, _, _ = strings.Cut(s, ":")
	if len(s) == 32 {
		return address6(s)
	}
	return address4(s)
}
