// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// route is one line of the kernel's main routing tables.
type route struct {
	dev    string
	to     netip.Prefix
	metric uint64
}

func (r route) isDefault() bool { return r.to.Bits() == 0 }

const (
	routeUp     = 0x1   // RTF_UP of linux/route.h
	routeReject = 0x200 // RTF_REJECT: "unreachable"
)

// routes reads the routes that are up, of both families. What cannot be read
// has none.
func routes(h *host.Host) []route {
	v4, _ := h.Text("/proc/net/route")
	v6, _ := h.Text("/proc/net/ipv6_route")
	return append(parseRoutes4(v4), parseRoutes6(v6)...)
}

// parseRoutes4 decodes /proc/net/route (net/ipv4/fib_trie.c): interface,
// destination, gateway, flags, refcnt, use, metric, mask, …; addresses are
// hexadecimal in the byte order of the machine, which is little-endian on
// both architectures that hostcheck runs on.
func parseRoutes4(text string) []route {
	var out []route
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		to, ok1 := address4(f[1])
		mask, ok2 := address4(f[7])
		flags, err := strconv.ParseUint(f[3], 16, 32)
		metric, err2 := strconv.ParseUint(f[6], 10, 32)
		if !ok1 || !ok2 || err != nil || err2 != nil || flags&routeUp == 0 || flags&routeReject != 0 {
			continue
		}
		bits := 0
		for _, b := range mask.AsSlice() {
			for ; b&0x80 != 0; b <<= 1 {
				bits++
			}
		}
		out = append(out, route{f[0], netip.PrefixFrom(to, bits).Masked(), metric})
	}
	return out
}

func address4(s string) (netip.Addr, bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 {
		return netip.Addr{}, false
	}
	slices.Reverse(b)
	return netip.AddrFrom4([4]byte(b)), true
}

// parseRoutes6 decodes /proc/net/ipv6_route (net/ipv6/route.c): destination,
// its length, source, its length, next hop, metric, refcnt, use, flags,
// interface; all hexadecimal.
func parseRoutes6(text string) []route {
	var out []route
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 10 {
			continue
		}
		b, err := hex.DecodeString(f[0])
		bits, err1 := strconv.ParseUint(f[1], 16, 8)
		metric, err2 := strconv.ParseUint(f[5], 16, 32)
		flags, err3 := strconv.ParseUint(f[8], 16, 32)
		if errors.Join(err, err1, err2, err3) != nil || len(b) != 16 || bits > 128 || flags&routeUp == 0 || flags&routeReject != 0 {
			continue
		}
		out = append(out, route{f[9], netip.PrefixFrom(netip.AddrFrom16([16]byte(b)), int(bits)).Masked(), metric})
	}
	return out
}

// towards is the interface that leads to an address, "" when none does.
func towards(all []route, to netip.Addr) string {
	if to.Zone() != "" {
		return to.Zone()
	}
	to = to.Unmap()
	best := slices.DeleteFunc(slices.Clone(all), func(r route) bool { return !r.to.Contains(to) })
	if len(best) == 0 {
		return ""
	}
	return slices.MinFunc(best, func(a, b route) int {
		return cmp.Or(cmp.Compare(b.to.Bits(), a.to.Bits()), cmp.Compare(a.metric, b.metric))
	}).dev
}

// management is what keeps this host within reach: the interfaces of the
// default routes and of the way to peer, and all below them (bond, bridge,
// VLAN), each with its reason; PCI addresses of their functions too.
func management(h *host.Host, peer netip.Addr) map[string]string {
	out := map[string]string{}
	var add func(dev, why string)
	add = func(dev, why string) {
		if _, ok := out[dev]; ok || dev == "" || dev == "lo" || strings.Contains(dev, "/") {
			return
		}
		out[dev] = why
		class := path.Join("/sys/class/net", dev)
		if bdf, err := h.LinkBase(path.Join(class, "device")); err == nil {
			out[bdf] = why
		}
		names, _ := h.List(class)
		for _, n := range names {
			if below, ok := strings.CutPrefix(n, "lower_"); ok {
				add(below, why+", and that over "+below)
			}
		}
		above, _ := h.List(path.Join(class, "device/physfn/net")) // a VF goes with its PF
		for _, n := range above {
			add(n, why+", a VF of "+n)
		}
	}
	all := routes(h)
	for _, r := range all {
		if r.isDefault() {
			add(r.dev, "the default route runs over "+r.dev)
		}
	}
	if peer.IsValid() {
		dev := towards(all, peer)
		add(dev, "your SSH session from "+peer.String()+" runs over "+dev)
	}
	return out
}

// spare refuses what would disturb an interface of the management.
func spare(p plan.Plan, mgmt map[string]string) plan.Plan {
	out := map[plan.Setting]bool{}
	why := map[plan.Setting]string{}
	for _, c := range p.Changes {
		if c.Tier != plan.Link {
			continue
		}
		for _, word := range append(strings.Fields(c.Target), strings.FieldsFunc(c.Name, func(r rune) bool { return r == ' ' || r == '/' })...) {
			if reason, ok := mgmt[word]; ok && !out[c.Setting] {
				out[c.Setting], why[c.Setting] = true, reason
			}
		}
	}
	p, held := without(p, out)
	for _, c := range held {
		if why[c.Setting] == "" {
			continue // said already
		}
		p.Refused = append(p.Refused, plan.Refusal{
			Setting: c.Setting, Want: c.After.String(), Why: c.Why, Reason: why[c.Setting],
			Steps: []string{"have another way to reach this host, then add --allow link --allow-mgmt"},
		})
		why[c.Setting] = ""
	}
	p.Seal()
	return p
}

// peer is the other end of the SSH session that hostcheck runs in, also behind
// sudo, which takes SSH_CONNECTION away: then it is that of an ancestor.
func (a *app) peer(h *host.Host) netip.Addr {
	if !h.Live() {
		return netip.Addr{}
	}
	to := sshPeer(a.getenv("SSH_CONNECTION"))
	for pid, n := os.Getppid(), 0; !to.IsValid() && pid > 1 && n < 32; n++ {
		dir := path.Join("/proc", strconv.Itoa(pid))
		environ, _ := h.Read(path.Join(dir, "environ")) // of our own user, or as root
		for kv := range strings.SplitSeq(string(environ), "\x00") {
			if v, ok := strings.CutPrefix(kv, "SSH_CONNECTION="); ok {
				to = sshPeer(v)
			}
		}
		stat, _ := h.Text(path.Join(dir, "stat"))
		pid = parentOf(stat)
	}
	return to
}

// sshPeer decodes SSH_CONNECTION (ssh(1)): client address, client port, …
func sshPeer(s string) netip.Addr {
	client, _, _ := strings.Cut(s, " ")
	to, _ := netip.ParseAddr(client) // the zero address where it is none
	return to
}

// parentOf decodes /proc/PID/stat (proc_pid_stat(5)): pid, name in brackets,
// which may hold anything, state, parent. 0 where it cannot.
func parentOf(stat string) int {
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 2 {
		return 0
	}
	pid, _ := strconv.Atoi(f[1])
	return pid
}

// stands is how things stand that no change may break.
type stands struct {
	routes []string          // interfaces of default routes
	state  map[string]string // interface of the management -> operstate
	boot   map[string]string // file of a boot loader -> what it holds
}

// bootFiles hold the default boot entry of GRUB (Debian, Red Hat, SUSE) and
// systemd-boot; bootEntries the entries themselves.
var (
	bootFiles = []string{
		"/boot/grub/grub.cfg", "/boot/grub/grubenv", "/boot/grub2/grub.cfg", "/boot/grub2/grubenv",
		"/boot/loader/loader.conf", "/boot/efi/loader/loader.conf", "/efi/loader/loader.conf",
	}
	bootEntries = []string{"/boot/loader/entries", "/boot/efi/loader/entries", "/efi/loader/entries"}
)

func readGuards(h *host.Host) stands {
	s := stands{state: map[string]string{}, boot: map[string]string{}}
	for _, r := range routes(h) {
		if r.isDefault() && !slices.Contains(s.routes, r.dev) {
			s.routes = append(s.routes, r.dev)
		}
	}
	for dev := range management(h, netip.Addr{}) {
		if text, err := h.Text(path.Join("/sys/class/net", dev, "operstate")); err == nil {
			s.state[dev] = text
		}
	}
	files := slices.Clone(bootFiles)
	for _, dir := range bootEntries {
		names, _ := h.List(dir)
		for _, n := range names {
			files = append(files, path.Join(dir, n))
		}
	}
	for _, p := range files {
		if b, err := h.Read(p); err == nil {
			s.boot[p] = string(b)
		} else if !host.Absent(err) {
			s.boot[p] = "\x00" + err.Error()
		}
	}
	return s
}

// compareGuards says how the guards stand after p, and what is broken.
func compareGuards(before, after stands, p plan.Plan) ([]report.Guard, error) {
	var out []report.Guard
	var broken error
	guard := func(name, got string, problems []string) {
		g := report.Guard{Name: name, Held: len(problems) == 0, Got: got}
		if !g.Held {
			g.Got = strings.Join(problems, "; ")
			broken = errors.Join(broken, fmt.Errorf("%s: %s", name, g.Got))
		}
		out = append(out, g)
	}
	if len(before.routes) > 0 {
		var problems []string
		for _, dev := range before.routes {
			if !slices.Contains(after.routes, dev) {
				problems = append(problems, "that of "+dev+" is gone")
			}
		}
		for _, dev := range slices.Sorted(maps.Keys(before.state)) {
			if now := after.state[dev]; before.state[dev] == "up" && now != "up" {
				problems = append(problems, dev+" was up and is "+cmp.Or(now, "gone"))
			}
		}
		guard("default route", "as before, over "+strings.Join(before.routes, ", "), problems)
	}
	booting := slices.ContainsFunc(p.Changes, func(c plan.Change) bool { return c.Tier == plan.Boot })
	if len(before.boot) > 0 && !booting {
		paths := slices.Sorted(maps.Keys(before.boot))
		for _, name := range slices.Sorted(maps.Keys(after.boot)) {
			if _, ok := before.boot[name]; !ok {
				paths = append(paths, name)
			}
		}
		var problems []string
		for _, name := range paths {
			if before.boot[name] != after.boot[name] {
				problems = append(problems, name+" changed")
			}
		}
		guard("boot entry", "untouched", problems)
	}
	return out, broken
}
