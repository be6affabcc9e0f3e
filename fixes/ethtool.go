// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Ethtool sets one thing of one network interface: kind "ethtool", Target the
// device ("0000:18:00.0 ens1np0"; the PCI address counts, for names change; a
// virtual interface has its name alone), Name a group and a word:
//
//	rings rx | tx                                       entries
//	channels combined | rx | tx                         queues
//	feature rx-gro | …                                  on, off; names as ethtool -k has them
//	flag rx_striding_rq | …                             on, off; private flags of the driver
//	coalesce rx-usecs | rx-frames | tx-usecs | tx-frames  number
//	coalesce adaptive-rx | adaptive-tx                  on, off
//	pause rx | tx | autoneg                             on, off
//
// One word is set per call and only where it differs. Nothing survives a
// reboot or a new probe of the driver.
type Ethtool struct {
	// AllowMgmt lets the interfaces be touched through which the host is managed.
	AllowMgmt bool
	// Set makes one change of a live interface; nil is the kernel's ioctl. For tests.
	Set func(ifname, group, word, value string) error
}

// Kind is "ethtool".
func (Ethtool) Kind() string { return "ethtool" }

// EthtoolSetting names one word of an interface, whose subject is as in
// findings ("0000:18:00.0 ens1np0").
func EthtoolSetting(subject, group, word string) plan.Setting {
	return plan.Setting{Kind: "ethtool", Target: subject, Name: group + " " + word}
}

// ethtoolGroup is one topic of ethtool: how its words are read and spelled.
type ethtoolGroup struct {
	option string // of ethtool(8), to set by hand
	bool   func(word string) bool
	read   func(h *host.Host, ifname string) (map[string]string, error)
}

var ethtoolGroups = map[string]ethtoolGroup{
	"rings": {"-G", never, func(h *host.Host, n string) (map[string]string, error) {
		r, err := h.EthtoolRings(n)
		return map[string]string{"rx": strconv.Itoa(r.RX), "tx": strconv.Itoa(r.TX)}, err
	}},
	"channels": {"-L", never, func(h *host.Host, n string) (map[string]string, error) {
		c, err := h.EthtoolChannels(n)
		return map[string]string{"rx": strconv.Itoa(c.RX), "tx": strconv.Itoa(c.TX), "combined": strconv.Itoa(c.Combined)}, err
	}},
	"coalesce": {"-C", func(w string) bool { return strings.HasPrefix(w, "adaptive-") }, func(h *host.Host, n string) (map[string]string, error) {
		c, err := h.EthtoolCoalesce(n)
		return map[string]string{
			"rx-usecs": strconv.Itoa(c.RXUsecs), "rx-frames": strconv.Itoa(c.RXFrames), "tx-usecs": strconv.Itoa(c.TXUsecs), "tx-frames": strconv.Itoa(c.TXFrames),
			"adaptive-rx": onOff(c.AdaptiveRX), "adaptive-tx": onOff(c.AdaptiveTX),
		}, err
	}},
	"pause": {"-A", always, func(h *host.Host, n string) (map[string]string, error) {
		p, err := h.EthtoolPause(n)
		return map[string]string{"rx": onOff(p.RX), "tx": onOff(p.TX), "autoneg": onOff(p.Autoneg)}, err
	}},
	"feature": {"-K", always, func(h *host.Host, n string) (map[string]string, error) { return words(h.EthtoolFeatures(n)) }},
	"flag":    {"--set-priv-flags", always, func(h *host.Host, n string) (map[string]string, error) { return words(h.EthtoolPrivFlags(n)) }},
}

func never(string) bool  { return false }
func always(string) bool { return true }

func words(m map[string]bool, err error) (map[string]string, error) {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = onOff(v)
	}
	return out, err
}

func onOff(v bool) string {
	if v {
		return "on"
	}
	return "off"
}

// ethtoolName takes the name of a setting apart.
func ethtoolName(s plan.Setting) (group, word string, g ethtoolGroup, err error) {
	group, word, ok := strings.Cut(s.Name, " ")
	g, known := ethtoolGroups[group]
	if !ok || !known || word == "" || s.Target == "" {
		return "", "", g, fmt.Errorf("%s is not a setting of ethtool: it wants a device and a name such as \"rings rx\"", s)
	}
	return group, word, g, nil
}

// interfaceOf gives the interface that a target means now.
func interfaceOf(h *host.Host, target string) (string, error) {
	bdf, name := device(target)
	if bdf == "" {
		if _, err := h.Link(facts.NetClass + "/" + name); err != nil {
			if _, err := h.List(facts.NetClass + "/" + name); err != nil {
				return "", fmt.Errorf("there is no interface %s: %w", name, err)
			}
		}
		return name, nil
	}
	names, err := h.List(facts.PCIDevices + "/" + bdf + "/net")
	if err != nil { // drivers on another bus below the function (virtio, auxiliary devices)
		names = nil
		for _, n := range facts.New(h).NICs().Of(bdf) {
			names = append(names, n.Name)
		}
	}
	switch {
	case len(names) == 1:
		return names[0], nil
	case slices.Contains(names, name):
		return name, nil
	case len(names) == 0:
		return "", gone(bdf + " has no network interface: it is gone, or has no driver")
	}
	return "", fmt.Errorf("%s has the interfaces %s, and none is %q", bdf, strings.Join(names, ", "), name)
}

// Read gives the word's value: a number, or on or off.
func (Ethtool) Read(_ context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	_, word, g, err := ethtoolName(s)
	if err != nil {
		return plan.Absent, err
	}
	ifname, err := interfaceOf(h, s.Target)
	if err != nil {
		return plan.Absent, err
	}
	all, err := g.read(h, ifname)
	if err != nil {
		return plan.Absent, err
	}
	v, ok := all[word]
	if !ok {
		return plan.Absent, fmt.Errorf("%s has no %s", ifname, s.Name)
	}
	return plan.Text(v), nil
}

// Apply sets one word after the other.
func (v Ethtool) Apply(_ context.Context, tx *plan.Tx, changes []plan.Change) error {
	set := v.Set
	if set == nil {
		set = ethtoolSet
	}
	for _, c := range changes {
		group, word, _, err := ethtoolName(c.Setting)
		if err != nil {
			return err
		}
		h, err := tx.Host()
		if err != nil {
			return err
		}
		ifname, err := interfaceOf(h, c.Target)
		h.Close()
		if err != nil {
			return err
		}
		err = tx.Patient(ethtoolTime).Call(fmt.Sprintf("set %s of %s to %s", c.Name, ifname, c.After.Text), func() error { return set(ifname, group, word, c.After.Text) })
		if err != nil {
			return err
		}
	}
	return nil
}

// ByHand is the command that sets it.
func (Ethtool) ByHand(c plan.Change) string {
	_, word, g, err := ethtoolName(c.Setting)
	if err != nil {
		return "set it to " + c.After.Text
	}
	_, ifname := device(c.Target)
	return fmt.Sprintf("ethtool %s %s %s %s", g.option, ifname, word, c.After.Text)
}

// Expand refuses what the device cannot do, what costs more memory than there
// is, and every interface through which the host is managed.
func (v Ethtool) Expand(_ context.Context, h *host.Host, wishes []plan.Wish) (changes []plan.Change, refused []plan.Refusal, _ error) {
	mgmt := newMgmtRule(h, v.AllowMgmt)
	cost := newRingCost(h)
	f := facts.New(h)
	for _, w := range wishes {
		cost.note(w)
	}
	for _, w := range wishes {
		c := plan.Change{Setting: w.Setting, After: plan.Text(w.Want), Tier: plan.Link, Why: because(w)}
		ifname, err := v.change(h, &c)
		if err == nil && c.Before == c.After {
			continue
		}
		if owned := ownedBy(f, w); owned != nil && err == nil {
			refused = append(refused, *owned)
			continue
		}
		why, steps := "", []string(nil)
		if err != nil {
			why = err.Error()
		} else {
			why, steps = mgmt.refuses(ifname, v.ByHand(c))
		}
		if why == "" {
			why, steps = cost.refuses(w, ifname)
		}
		if why != "" {
			refused = append(refused, refuse(w, why, steps...))
			continue
		}
		c.Before = plan.Absent // the engine reads it
		changes = append(changes, c)
	}
	return changes, refused, nil
}

// change completes c: Before as it is, After in the kernel's spelling, tier
// and disturbance. The error is why the device cannot take it.
func (v Ethtool) change(h *host.Host, c *plan.Change) (ifname string, err error) {
	group, word, g, err := ethtoolName(c.Setting)
	if err != nil {
		return "", err
	}
	if ifname, err = interfaceOf(h, c.Target); err != nil {
		return "", err
	}
	all, err := g.read(h, ifname)
	switch {
	case host.NotOffered(err):
		return ifname, fmt.Errorf("the driver of %s has no %s to set", ifname, group)
	case errors.Is(err, host.ErrNotCaptured):
		return ifname, fmt.Errorf("the %s of %s are not in this tree", group, ifname)
	case err != nil:
		return ifname, errors.New(host.Reason(err))
	}
	now, ok := all[word]
	if !ok {
		return ifname, fmt.Errorf("the driver of %s has no %s %s; it has %s", ifname, group, word, orNothing(slices.Sorted(maps.Keys(all))))
	}
	c.Before = plan.Text(now)
	driver, _ := h.LinkBase(path.Join(facts.NetClass, ifname, "device/driver"))
	want, err := ethtoolValue(h, ifname, driver, group, word, c.After.Text, g.bool(word))
	if err != nil {
		return ifname, err
	}
	c.After = plan.Text(want)
	if why := precondition(h, ifname, driver, group, word, want); why != "" {
		return ifname, errors.New(why)
	}
	c.Tier, c.Disturbs = ethtoolTier(driver, group, word)
	return ifname, nil
}

// ethtoolValue gives a wanted value as the kernel would show it, or says why
// the device does not take it.
func ethtoolValue(h *host.Host, ifname, driver, group, word, want string, isBool bool) (string, error) {
	if isBool {
		if want != "on" && want != "off" {
			return "", fmt.Errorf("%s %s is on or off, not %q", group, word, want)
		}
		if group == "feature" {
			if fixed, err := h.EthtoolFixed(ifname); err == nil && fixed[word] {
				return "", fmt.Errorf("the driver of %s fixes %s: nobody can change it", ifname, word)
			}
		}
		return want, nil
	}
	n, err := strconv.ParseUint(want, 10, 31)
	if err != nil {
		return "", fmt.Errorf("%q is not a number", want)
	}
	if group == "rings" && roundsRings(driver) && n > 0 {
		p := uint64(1)
		for p < n {
			p *= 2
		}
		n = p
	}
	most, least, what := 1<<31-1, 0, word
	switch group {
	case "rings":
		r, _ := h.EthtoolRings(ifname)
		most, least, what = map[string]int{"rx": r.RXMax, "tx": r.TXMax}[word], 1, word+" ring entries"
	case "channels":
		c, _ := h.EthtoolChannels(ifname)
		most, what = map[string]int{"rx": c.RXMax, "tx": c.TXMax, "combined": c.CombinedMax}[word], word+" queues"
		if c.RX+c.Combined == 0 || word == "combined" && c.RX == 0 || word == "rx" && c.Combined == 0 {
			least = 1 // the last queue that receives
		}
	}
	switch {
	case n > uint64(most):
		return "", fmt.Errorf("%s can have %d %s at most, and %s are wanted", ifname, most, what, want)
	case n < uint64(least):
		return "", fmt.Errorf("%s needs %d %s at least", ifname, least, what)
	}
	return strconv.FormatUint(n, 10), nil
}
