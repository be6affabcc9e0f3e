// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Unit sets what systemd does with a unit: kind "unit", Target the unit, Name
// "enabled" (values enabled, disabled, masked, and static, which cannot be
// set) or "active" (active, inactive). Read takes both from files, so that it
// works in a tree and asks nobody; systemctl makes the changes. Some units are
// ours to make: see [ownUnit].
type Unit struct{}

// The two sides of a unit.
const (
	UnitEnabled = "enabled"
	UnitActive  = "active"
)

// Values of a unit's sides.
const (
	enabled  = "enabled"
	disabled = "disabled"
	masked   = "masked"
	static   = "static"
	active   = "active"
	inactive = "inactive"
)

// Kind is "unit".
func (Unit) Kind() string { return "unit" }

// UnitSetting names one side of a unit.
func UnitSetting(unit, side string) plan.Setting {
	return plan.Setting{Kind: "unit", Target: unit, Name: side}
}

// systemd.unit(5); templates and their instances are left to people.
var unitForm = pattern.Late(`^[A-Za-z0-9:_.\\-]{1,200}\.(service|socket|mount|timer|path|target|swap|slice)$`)

func checkUnit(s plan.Setting) error {
	if !unitForm().MatchString(s.Target) || s.Target[0] == '-' || s.Target[0] == '.' {
		return fmt.Errorf("%q is not the name of a unit that hostcheck can set", s.Target)
	}
	switch kind := s.Target[strings.LastIndexByte(s.Target, '.'):]; {
	case s.Name == UnitEnabled:
	case s.Name == UnitActive && (kind == ".service" || kind == ".socket" || kind == ".mount"):
	case s.Name == UnitActive:
		return fmt.Errorf("whether %s is active shows in no file", s.Target)
	default:
		return fmt.Errorf("a unit has the sides %s and %s, not %q", UnitEnabled, UnitActive, s.Name)
	}
	return nil
}

// Read tells one side of a unit.
func (Unit) Read(_ context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	if err := checkUnit(s); err != nil {
		return plan.Absent, err
	}
	if s.Name == UnitActive {
		on, err := unitActive(h, s.Target)
		if err != nil {
			return plan.Absent, err
		}
		if on {
			return plan.Text(active), nil
		}
		return plan.Text(inactive), nil
	}
	u, err := readUnit(h, s.Target)
	if err != nil {
		return plan.Absent, err
	}
	return plan.Text(u.state()), nil
}

// Kept: links enable a unit; whether it is active, the manager that runs knows.
func (Unit) Kept(s plan.Setting) bool { return s.Name == UnitEnabled }

// Apply sets the enabled side of all units first: a masked one cannot start.
func (v Unit) Apply(ctx context.Context, tx *plan.Tx, changes []plan.Change) error {
	for _, side := range []string{UnitEnabled, UnitActive} {
		for _, c := range changes {
			if c.Name != side {
				continue
			}
			if err := v.set(ctx, tx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v Unit) set(ctx context.Context, tx *plan.Tx, c plan.Change) error {
	if err := checkUnit(c.Setting); err != nil {
		return err
	}
	run := func(verb string) error { return tx.Run("systemctl", "--no-ask-password", verb, "--", c.Target) }
	for range 3 { // unmasking may uncover another state
		h, err := tx.Host()
		if err != nil {
			return err
		}
		now, err := v.Read(ctx, h, c.Setting)
		h.Close()
		if err != nil {
			return err
		}
		verb := ""
		switch want := c.After.Text; {
		case now == c.After:
			return nil
		case tx.Offline():
			return offlineUnit(tx, c, now.Text)
		case now.Text == masked:
			verb = "unmask"
		case want == masked:
			verb = "mask"
		case want == enabled:
			verb = "enable"
		case want == disabled:
			verb = "disable"
		case want == active:
			verb = "start"
		case want == inactive:
			verb = "stop"
		default:
			return fmt.Errorf("cannot make %s %s", c.Target, want)
		}
		if err := run(verb); err != nil {
			return err
		}
	}
	return nil // the engine reads back
}

// offlineUnit enables or disables a unit of a tree, as systemctl does it where
// it runs: by the links that the unit's file names.
func offlineUnit(tx *plan.Tx, c plan.Change, now string) error {
	h, err := tx.Host()
	if err != nil {
		return err
	}
	defer h.Close()
	u, err := readUnit(h, c.Target)
	if err != nil {
		return err
	}
	to := u.path
	switch {
	case now == enabled && c.After.Text == disabled:
		to = ""
	case now == disabled && c.After.Text == enabled && u.path != "":
	default:
		return fmt.Errorf("cannot make %s %s, which is %s: %w", c.Target, c.After.Text, now, plan.ErrOffline)
	}
	for _, l := range u.links() {
		if err := tx.Link(path.Join(unitDirs[0], l), to); err != nil {
			return err
		}
	}
	return nil
}

// ByHand is how a person sets c.After.
func (Unit) ByHand(c plan.Change) string {
	verb := map[string]string{enabled: "enable", disabled: "disable", masked: "mask", active: "start", inactive: "stop"}[c.After.Text]
	if c.Before.Text == masked {
		verb = "unmask"
	}
	return "systemctl " + verb + " " + c.Target
}

// Expand makes the unit's file where it is ours to make, then sets its sides.
func (v Unit) Expand(ctx context.Context, h *host.Host, wishes []plan.Wish) (changes []plan.Change, refused []plan.Refusal, err error) {
	f := facts.New(h)
	made := map[string]bool{}
	for _, side := range []string{UnitEnabled, UnitActive} {
		for _, w := range wishes {
			if w.Name != side && checkUnit(w.Setting) == nil || checkUnit(w.Setting) != nil && side != UnitEnabled {
				continue
			}
			file, r := v.judge(ctx, h, f, w)
			if r != nil {
				refused = append(refused, *r)
				continue
			}
			if file != "" && !made[w.Target] {
				made[w.Target] = true
				changes = append(changes, ownFile("/etc/systemd/system/"+w.Target, file, w.Tier, because(w)))
			}
			changes = append(changes, plan.Change{
				Setting: w.Setting, After: plan.Text(w.Want), Tier: w.Tier, Persist: side == UnitEnabled, Why: because(w), Disturbs: unitDisturbs(w),
			})
		}
	}
	// files first, then the rest in the order above
	slices.SortStableFunc(changes, func(a, b plan.Change) int {
		switch {
		case a.Kind == plan.KindFile && b.Kind != plan.KindFile:
			return -1
		case a.Kind != plan.KindFile && b.Kind == plan.KindFile:
			return 1
		}
		return 0
	})
	return changes, refused, nil
}

func unitDisturbs(w plan.Wish) string {
	switch w.Want {
	case inactive:
		return w.Target + " stops, and what depends on it"
	case active:
		return w.Target + " starts"
	}
	return ""
}

// judge refuses a wish, or gives the text of the unit's file where there is
// none and it is ours to make.
func (v Unit) judge(ctx context.Context, h *host.Host, f *facts.Facts, w plan.Wish) (file string, r *plan.Refusal) {
	no := func(reason string, steps ...string) (string, *plan.Refusal) {
		x := refuse(w, reason, steps...)
		return "", &x
	}
	if err := checkUnit(w.Setting); err != nil {
		return no(err.Error())
	}
	want := map[string][]string{UnitEnabled: {enabled, disabled, masked}, UnitActive: {active, inactive}}[w.Name]
	if !slices.Contains(want, w.Want) {
		return no(fmt.Sprintf("%q is not one of %s", w.Want, strings.Join(want, ", ")))
	}
	u, err := readUnit(h, w.Target)
	if err != nil {
		return no(err.Error())
	}
	now, err := v.Read(ctx, h, w.Setting)
	if err == nil && now.Text == w.Want {
		return "", nil // nothing to do, and nobody to fight
	}
	if r := ownedBy(f, w); r != nil {
		return "", r
	}
	if u.path == "" {
		if file = ownUnit(w.Target); file == "" {
			return no("there is no unit " + w.Target + " on this host")
		}
		u.parse(file)
	}
	switch {
	case u.alias != "":
		return no(fmt.Sprintf("%s is another name of %s", w.Target, u.alias))
	case u.masked && w.Want != disabled && w.Want != inactive:
		return no(fmt.Sprintf("somebody masked %s: %s is a link to /dev/null", w.Target, u.path), "systemctl unmask "+w.Target+", if that is no longer meant; then run hostcheck again")
	case w.Name == UnitActive && w.Want == active && u.oneshot && !u.remains:
		return no(w.Target+" ends by itself when it has done its work, so it is never active for long", "systemctl start "+w.Target)
	case w.Name == UnitActive || w.Want == masked:
	case len(u.links()) == 0:
		return no(fmt.Sprintf("%s is static: it says nowhere what would start it, so it cannot be enabled or disabled", w.Target))
	case u.also != "":
		return no(fmt.Sprintf("systemctl would change other units with it, and undo could not tell how they were: Also=%s", u.also), fmt.Sprintf("systemctl %s %s", strings.TrimSuffix(w.Want, "d"), w.Target))
	case w.Want == disabled && !slices.Equal(u.linked, u.links()):
		return no(fmt.Sprintf("it is enabled by links that its file does not name, and enabling it again would not bring them back: %s", strings.Join(u.linked, ", ")), "systemctl disable "+w.Target)
	}
	return file, nil
}

// ownUnit gives the text of a unit that is ours to make, "" for any other: a
// mount of huge pages of one size, dev-hugepages1G.mount.
func ownUnit(name string) string {
	m := hugeMount().FindStringSubmatch(name)
	if m == nil {
		return ""
	}
	kb := map[string]int{"K": 1, "M": 1 << 10, "G": 1 << 20}[m[2]]
	var n int
	if _, err := fmt.Sscanf(m[1], "%d", &n); err != nil {
		return ""
	}
	return fmt.Sprintf(`[Unit]
Description=Huge pages of %[1]s
Documentation=https://docs.kernel.org/admin-guide/mm/hugetlbpage.html
DefaultDependencies=no
Before=sysinit.target
ConditionPathExists=/sys/kernel/mm/hugepages/hugepages-%[2]dkB

[Mount]
What=hugetlbfs
Where=/dev/hugepages%[1]s
Type=hugetlbfs
Options=nosuid,nodev,pagesize=%[1]s

[Install]
WantedBy=sysinit.target
`, m[1]+m[2], n*kb)
}

var hugeMount = pattern.Late(`^dev-hugepages([1-9][0-9]{0,6})([KMG])\.mount$`)
