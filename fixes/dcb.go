// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// DCB is the data center bridging of an interface: kind "dcb", Target
// "0000:18:00.0 ens1np0". A check wishes
//
//	trust           dscp | pcp
//	pfc             priorities with flow control: "3", "3,5", "none"
//	dcbx            host | firmware
//	dscp-prio 26    the priority of that DSCP
//	app dscp        all of the table, as below: what a boot sets again
//
// and a change sets what there is to set:
//
//	dcbx            the mode's flags: "host,cee,ieee", "none"
//	trust           dscp | pcp, where the out-of-tree mlx5 driver has its file
//	app dscp        the DSCP entries of the application table: "26:3 48-55:6", "none"
//	pfc             as wished
//
// Without that file trust is the table: mlx5 trusts DSCP exactly while it has
// a DSCP entry. No driver keeps any of it over a reboot or a new probe.
type DCB struct {
	// AllowMgmt lets the interfaces be touched through which the host is managed.
	AllowMgmt bool
	// Send makes one request of a driver; nil is the kernel's netlink. For tests.
	Send func(ifname string, r host.DCBRequest) error
}

// Kind is "dcb".
func (DCB) Kind() string { return "dcb" }

// DCBSetting names one setting of an interface.
func DCBSetting(subject, name string) plan.Setting {
	return plan.Setting{Kind: "dcb", Target: subject, Name: name}
}

const (
	dcbDCBX  = "dcbx"
	dcbTrust = "trust"
	dcbApp   = "app dscp"
	dcbPFC   = "pfc"
)

func trustFile(ifname string) string { return path.Join(facts.NetClass, ifname, "qos/trust") }

// Read gives a setting in the spelling above.
func (DCB) Read(_ context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	ifname, err := interfaceOf(h, s.Target)
	if err != nil {
		return plan.Absent, err
	}
	return readDCB(h, ifname, s.Name)
}

func readDCB(h *host.Host, ifname, name string) (plan.Value, error) {
	if name == dcbTrust {
		text, err := h.Text(trustFile(ifname))
		return plan.Text(text), err
	}
	d, err := h.DCB(ifname)
	if host.NotOffered(err) {
		return plan.Absent, fmt.Errorf("the driver of %s has no data center bridging", ifname)
	}
	if err != nil {
		return plan.Absent, err
	}
	switch {
	case name == dcbDCBX && d.DCBX != nil:
		return plan.Text(modeText(*d.DCBX)), nil
	case name == dcbApp && d.Apps != nil:
		return plan.Text(appText(d.Apps)), nil
	case name == dcbPFC && d.PFC != nil:
		return plan.Text(prioText(d.PFC.Enable)), nil
	case name == dcbDCBX, name == dcbApp, name == dcbPFC:
		return plan.Absent, fmt.Errorf("the driver of %s does not tell its %s", ifname, name)
	}
	return plan.Absent, fmt.Errorf("data center bridging has no %q", name)
}

// Apply makes each change; the engine reads back what came of it.
func (v DCB) Apply(_ context.Context, tx *plan.Tx, changes []plan.Change) error {
	for _, c := range changes {
		h, err := tx.Host()
		if err != nil {
			return err
		}
		err = v.apply(h, tx.Patient(dcbTime), c)
		h.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (v DCB) apply(h *host.Host, tx *plan.Tx, c plan.Change) error {
	ifname, err := interfaceOf(h, c.Target)
	if err != nil {
		return err
	}
	now, err := readDCB(h, ifname, c.Name)
	switch {
	case err != nil:
		return fmt.Errorf("cannot set %s of %s: %w", c.Name, ifname, err)
	case now == c.After: // mlx5 takes the link down even so
		return nil
	case c.Name == dcbTrust:
		return tx.WriteKnob(trustFile(ifname), c.After.Text)
	}
	d, err := h.DCB(ifname)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("set %s of %s to %s", c.Name, ifname, c.After.Text)
	send := v.Send
	if send == nil {
		send = dcbSend
	}
	call := func(r host.DCBRequest) error {
		return tx.Call(what, func() error { return send(ifname, r) })
	}
	switch c.Name {
	case dcbDCBX:
		mode, err := parseMode(c.After.Text)
		if err != nil {
			return err
		}
		if mode&host.DCBXHost == 0 && driverOf(h, ifname) == "mlx5_core" {
			mode = 0 // its word for "the firmware" (mlx5e_dcbnl_setdcbx)
		}
		return call(host.DCBRequest{DCBX: &mode})
	case dcbPFC:
		pfc := *d.PFC
		if pfc.Enable, err = parsePrios(c.After.Text); err != nil {
			return err
		}
		return call(host.DCBRequest{PFC: &pfc})
	}
	want, err := parseApps(c.After.Text)
	if err != nil {
		return err
	}
	trust, trustErr := h.Text(trustFile(ifname))
	if err := setApps(tx, ifname, want, d.Apps, call); err != nil || trustErr != nil {
		return err
	}
	// the driver moves trust with the first entry and the last; its file, where
	// there is one, is a setting of its own
	after, err := tx.Host()
	if err != nil {
		return err
	}
	defer after.Close()
	if now, err := after.Text(trustFile(ifname)); err != nil || now == trust {
		return err
	}
	return tx.WriteKnob(trustFile(ifname), trust)
}

// setApps makes the DSCP entries those of want: first what is missing, then
// what is too much, so that a table that is not to end up empty is never
// empty on the way, which would switch trust. mlx5 replaces the entry of a
// DSCP by itself; others keep both.
func setApps(tx *plan.Tx, ifname string, want, have []host.DCBApp, call func(host.DCBRequest) error) error {
	lacks := func(list []host.DCBApp) func(host.DCBApp) bool {
		return func(a host.DCBApp) bool { return a.Selector != host.DCBSelDSCP || slices.Contains(list, a) }
	}
	if add := slices.DeleteFunc(slices.Clone(want), lacks(have)); len(add) > 0 {
		if err := call(host.DCBRequest{Add: add}); err != nil {
			return err
		}
		h, err := tx.Host()
		if err != nil {
			return err
		}
		defer h.Close()
		d, err := h.DCB(ifname)
		if err != nil {
			return err
		}
		have = d.Apps
	}
	if del := slices.DeleteFunc(slices.Clone(have), lacks(want)); len(del) > 0 {
		return call(host.DCBRequest{Del: del})
	}
	return nil
}

// ByHand is the command that sets it.
func (DCB) ByHand(c plan.Change) string {
	_, ifname := device(c.Target)
	switch c.Name {
	case dcbTrust:
		return fmt.Sprintf("echo %s > %s", c.After.Text, trustFile(ifname))
	case dcbDCBX:
		words := strings.ReplaceAll(strings.ReplaceAll(c.After.Text, ",", " "), "lld_managed", "lld-managed")
		if !strings.Contains(words, "host") {
			return fmt.Sprintf("mlnx_qos -i %s -d fw; with another driver: dcb dcbx set dev %[1]s %s", ifname, words)
		}
		return fmt.Sprintf("dcb dcbx set dev %s %s", ifname, words)
	case dcbPFC:
		mask, err := parsePrios(c.After.Text)
		if err != nil {
			break
		}
		set := "all:off"
		for i := range 8 {
			if mask&(1<<i) != 0 {
				set += fmt.Sprintf(" %d:on", i)
			}
		}
		return fmt.Sprintf("dcb pfc set dev %s prio-pfc %s", ifname, set)
	case dcbApp:
		s := fmt.Sprintf("dcb app flush dev %s dscp-prio", ifname)
		if apps, err := parseApps(c.After.Text); err == nil && len(apps) > 0 {
			s += fmt.Sprintf("; dcb app add dev %s dscp-prio", ifname)
			for _, a := range apps {
				s += fmt.Sprintf(" %d:%d", a.Protocol, a.Priority)
			}
		}
		return s
	}
	return "set it to " + c.After.Text
}

// modeNames are the bits of DCBX from the lowest on.
var modeNames = []string{"host", "lld_managed", "cee", "ieee", "static"}

func modeText(mode uint8) string {
	var words []string
	for i := range 8 {
		if mode&(1<<i) == 0 {
			continue
		}
		if i < len(modeNames) {
			words = append(words, modeNames[i])
		} else {
			words = append(words, strconv.Itoa(1<<i))
		}
	}
	if words == nil {
		return "none"
	}
	return strings.Join(words, ",")
}

func parseMode(s string) (mode uint8, err error) {
	if s == "none" {
		return 0, nil
	}
	for w := range strings.SplitSeq(s, ",") {
		if i := slices.Index(modeNames, w); i >= 0 {
			mode |= 1 << i
			continue
		}
		n, err := strconv.ParseUint(w, 10, 8)
		if err != nil || bits.OnesCount64(n) != 1 || int(n) < 1<<len(modeNames) {
			return 0, fmt.Errorf("%.40q is not a DCBX mode", s)
		}
		mode |= uint8(n)
	}
	return mode, nil
}

func prioText(mask uint8) string {
	var p []string
	for i := range 8 {
		if mask&(1<<i) != 0 {
			p = append(p, strconv.Itoa(i))
		}
	}
	if p == nil {
		return "none"
	}
	return strings.Join(p, ",")
}

// parsePrios reads "3,5"; "none" is none.
func parsePrios(s string) (mask uint8, err error) {
	if s == "none" {
		return 0, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 0 || n > 7 {
			return 0, fmt.Errorf("%.40q is not a list of priorities from 0 to 7", s)
		}
		mask |= 1 << n
	}
	return mask, nil
}

// appText writes the DSCP entries of a table, neighbours of one priority as a
// range: "0-7:0 26:3".
func appText(apps []host.DCBApp) string {
	var mine []host.DCBApp
	for _, a := range apps {
		if a.Selector == host.DCBSelDSCP {
			mine = append(mine, a)
		}
	}
	slices.SortFunc(mine, func(a, b host.DCBApp) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Protocol, b.Protocol))
	})
	type span struct {
		from, to uint16
		prio     uint8
	}
	var spans []span
	for _, a := range slices.Compact(mine) {
		if n := len(spans); n > 0 && spans[n-1].prio == a.Priority && int(spans[n-1].to)+1 == int(a.Protocol) {
			spans[n-1].to = a.Protocol
			continue
		}
		spans = append(spans, span{a.Protocol, a.Protocol, a.Priority})
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.prio, b.prio)) })
	if spans == nil {
		return "none"
	}
	words := make([]string, len(spans))
	for i, s := range spans {
		words[i] = fmt.Sprintf("%d:%d", s.from, s.prio)
		if s.to > s.from {
			words[i] = fmt.Sprintf("%d-%d:%d", s.from, s.to, s.prio)
		}
	}
	return strings.Join(words, " ")
}

const mostApps = 1024 // entries of a table; a NIC has 64

// parseApps reads what appText writes, in its order.
func parseApps(s string) (apps []host.DCBApp, err error) {
	if s == "none" {
		return nil, nil
	}
	for word := range strings.FieldsSeq(s) {
		keys, prio, ok := strings.Cut(word, ":")
		from, to, isRange := strings.Cut(keys, "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		p, err3 := strconv.ParseUint(prio, 10, 8)
		if !ok || errors.Join(err1, err2, err3) != nil || b < a || b-a >= mostApps || len(apps) >= mostApps {
			return nil, fmt.Errorf("%.40q is not an entry such as 26:3 or 0-7:0", word)
		}
		for k := a; k <= b; k++ {
			apps = append(apps, host.DCBApp{Selector: host.DCBSelDSCP, Priority: uint8(p), Protocol: uint16(k)})
		}
	}
	if len(apps) == 0 {
		return nil, errors.New("it has no entry, and does not say none")
	}
	return apps, nil
}
