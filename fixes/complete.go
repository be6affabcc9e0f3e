// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// The unit that sets again at boot what a reboot loses, and what starts it for
// devices that come later.
const (
	settingsService = "hostcheck-settings.service"
	settingsRule    = "/etc/udev/rules.d/99-hostcheck-settings.rules"
)

// settingsServiceText is ordered as early as it can be: behind the drivers that
// udev has bound by then, and before whatever configures the network, which
// would be disturbed by a restarting link. Without the default dependencies it
// is behind nothing that waits for the network itself (cloud-init on Ubuntu
// comes before sysinit.target and after the network). Starts are not limited: a
// driver that is loaded anew brings one device after another, each starts it.
func settingsServiceText(program string) string {
	return unitHeader + `[Unit]
Description=Settings that hostcheck keeps over a reboot
DefaultDependencies=no
Wants=systemd-udev-settle.service
After=local-fs.target sys-kernel-debug.mount network-pre.target systemd-udev-settle.service systemd-modules-load.service systemd-sysctl.service
Before=network.target NetworkManager.service systemd-networkd.service networking.service
Before=shutdown.target
Conflicts=shutdown.target
RequiresMountsFor=/var/lib/hostcheck ` + program + `
ConditionKernelCommandLine=!hostcheck.settings=off
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=` + program + ` settings apply
TimeoutStartSec=120

[Install]
WantedBy=multi-user.target
`
}

// settingsRuleText has systemd start the unit when one of the devices comes;
// udev itself runs nothing. It holds for all events but the last: systemd looks
// at an interface that gets another name only when it has it ("move").
func settingsRuleText(devices []string) string {
	var b strings.Builder
	b.WriteString(unitHeader)
	for _, d := range devices {
		fmt.Fprintf(&b, "ACTION!=\"remove\", SUBSYSTEM==\"net|infiniband\", KERNELS==%q, TAG+=\"systemd\", ENV{SYSTEMD_WANTS}+=%q\n", d, settingsService)
	}
	return b.String()
}

// Complete adds to a plan for a running host what its changes need beside
// themselves. What a reboot would lose is written to a file, and a unit sets it
// again at each boot. Around changes of tier link a timer is armed that takes
// them back unless they are confirmed; then the file is written only with the
// confirmation. With the trial of a command line comes the unit that confirms
// it, and goes with the confirmation. Where there can be no such unit, changes
// of tier link are refused, others do not last, and a person confirms.
func Complete(ctx context.Context, e *plan.Engine, h *host.Host, p plan.Plan, j Judging) (plan.Plan, error) {
	link := slices.ContainsFunc(p.Changes, func(c plan.Change) bool { return c.Tier == plan.Link })
	trial, confirmed := trials(p.Changes)
	confirmed = confirmed && exists(h, etcSystemd+trialService)
	lost := losses(p.Changes)
	if !link && !trial && !confirmed && len(lost) == 0 {
		return p, nil
	}
	var run string
	var install *plan.Change
	err := errors.New("systemd does not run this host")
	if Systemd(h) {
		run, install, err = program(h, e.Self)
	}
	if link && err == nil {
		err = disarmed(ctx, h)
	}
	if err != nil {
		if link {
			p = refuseLink(p, "nothing outside hostcheck could take it back if this host were cut off: "+err.Error())
			lost = losses(p.Changes)
			link = false
		}
		if len(lost) > 0 {
			p.Refused = append(p.Refused, notKept(lost, err.Error())...)
		}
		if trial {
			p.Refused = append(p.Refused, unjudged(err.Error()))
		}
		p.Seal()
		return p, nil
	}
	tier := plan.Safe
	if link {
		tier = plan.Link
	}
	var first, last []plan.Change
	add := func(to *[]plan.Change, c plan.Change, why string) {
		if c.Tier == "" {
			c.Tier = tier
		}
		c.Why, c.Persist = why, true
		c.Deferred = to == &last && link
		*to = append(*to, c)
	}
	boot := func(c plan.Change) plan.Change {
		c.Tier = plan.Boot
		return c
	}
	file := func(p string, v plan.Value) plan.Change {
		return plan.Change{Setting: plan.Setting{Kind: plan.KindFile, Target: p}, After: v}
	}
	kept, refused, err := keepAll(h, &p, lost)
	p.Refused = append(p.Refused, refused...)
	if err != nil {
		return p, err
	}
	const (
		arms   = "takes the changes back unless they are confirmed in time, also when hostcheck is killed or the host reboots"
		lasts  = "sets again at each boot what a reboot loses"
		over   = "confirmed: the timer has nothing left to do"
		copied = "units run this copy: others than root could change the program that runs now, or it may not stay where it is"
		judges = "confirms the new command line once the host is healthy with it"
		judged = "confirmed: there is nothing left to judge"
	)
	if install != nil && (link || trial) {
		add(&first, *install, copied)
	}
	if trial {
		add(&first, boot(file(etcSystemd+trialService, plan.Text(trialServiceText(run, j())))), judges)
		add(&first, boot(plan.Change{Setting: UnitSetting(trialService, UnitEnabled), After: plan.Text(enabled)}), judges)
	}
	if link {
		add(&first, file(etcSystemd+expireService, plan.Text(expireServiceText(run))), arms)
		add(&first, file(etcSystemd+expireTimer, plan.Text(expireTimerText)), arms)
		add(&first, plan.Change{Setting: deadlineSetting, After: plan.Text(armed)}, arms)
	}
	if kept != nil {
		if install != nil && !link && !trial {
			add(&last, *install, copied)
		}
		add(&last, file(settingsFile, renderSettings(kept)), lasts)
		add(&last, file(etcSystemd+settingsService, plan.Text(settingsServiceText(run))), lasts)
		if devices := devicesOf(kept); devices != nil {
			add(&last, file(settingsRule, plan.Text(settingsRuleText(devices))), "has systemd set it also when the device comes later")
		}
		add(&last, plan.Change{Setting: UnitSetting(settingsService, UnitEnabled), After: plan.Text(enabled)}, lasts)
	}
	if link {
		add(&last, plan.Change{Setting: deadlineSetting, After: plan.Absent}, over)
		add(&last, file(etcSystemd+expireTimer, plan.Absent), over)
		add(&last, file(etcSystemd+expireService, plan.Absent), over)
		if was, err := plan.Sum(h, Installed); install != nil && kept == nil && !trial && err == nil {
			back := *install
			back.After = was
			add(&last, back, over)
		}
	}
	if confirmed {
		add(&last, boot(plan.Change{Setting: UnitSetting(trialService, UnitEnabled), After: plan.Text(disabled)}), judged)
		add(&last, boot(file(etcSystemd+trialService, plan.Absent)), judged)
	}
	done, err := e.Around(ctx, h, p, first, last)
	if err != nil {
		return p, fmt.Errorf("cannot plan what the changes need to last or to be taken back: %w", err)
	}
	return done, nil
}

// disarmed refuses to arm a timer that is: it would not start to count again.
func disarmed(ctx context.Context, h *host.Host) error {
	v, err := Deadline{}.Read(ctx, h, deadlineSetting)
	if err == nil && v.Present {
		err = fmt.Errorf("%s is enabled, and no transaction of hostcheck needs it: systemctl disable --now %s", expireTimer, expireTimer)
	}
	return err
}

// losses gives the settings that a reboot loses, with the values that they
// have after the plan. What the plan only borrows is none.
func losses(changes []plan.Change) []plan.Change {
	var out []plan.Change
	at := map[plan.Setting]int{}
	for _, c := range changes {
		if _, ok := savables[c.Kind]; !ok || c.Persist || !c.After.Present {
			continue
		}
		if i, ok := at[c.Setting]; ok {
			out[i].After = c.After
			continue
		}
		at[c.Setting] = len(out)
		out = append(out, c)
	}
	return slices.DeleteFunc(out, func(c plan.Change) bool { return c.Before == c.After })
}

// keepAll gives all settings of our file, with those of a plan that lose their
// value at a reboot among them, and marks these in the plan. It is nil where
// none of the plan can be kept.
func keepAll(h *host.Host, p *plan.Plan, lost []plan.Change) (kept []Saved, refused []plan.Refusal, err error) {
	if len(lost) == 0 {
		return nil, nil, nil
	}
	if exists(h, settingsFile) {
		if b, readErr := h.Read(settingsFile); readErr != nil || !own(string(b)) {
			return nil, nil, fmt.Errorf("%s is there and is not of hostcheck's making; move it away", settingsFile)
		}
		if kept, err = readSettingsFile(h, settingsFile); err != nil {
			return nil, nil, fmt.Errorf("cannot add to %s: %w", settingsFile, err)
		}
	}
	others := map[plan.Setting]Saved{}
	for _, s := range ReadSettings(h).All {
		others[s.setting()] = s
	}
	saved := false
	for _, c := range lost {
		n, err := savables[c.Kind].save(h, Saved{Kind: c.Kind, Target: c.Target, Name: c.Name, Value: c.After.Text, Why: clip(c.Why)})
		if err == nil {
			err = n.check()
		}
		s := n.setting()
		if o, ok := others[s]; err == nil && ok && o.File > settingsFile && o.Value != n.Value {
			err = fmt.Errorf("%s says %s, and counts more; change it there", o.File, o.Value)
		}
		if err != nil {
			refused = append(refused, notKept([]plan.Change{c}, err.Error())...)
			continue
		}
		kept = slices.DeleteFunc(kept, func(o Saved) bool { return o.setting() == s })
		kept = append(kept, n)
		saved = true
		for i := range p.Changes {
			p.Changes[i].AtBoot = p.Changes[i].AtBoot || p.Changes[i].Setting == c.Setting
		}
	}
	if !saved {
		return nil, refused, nil
	}
	sortSaved(kept)
	return kept, refused, nil
}

// clip is a reason that fits into a line of a file.
func clip(why string) string {
	why, _, _ = strings.Cut(why, "; certain only when")
	if r := []rune(why); len(r) > 100 {
		why = string(r[:99]) + "…"
	}
	return why
}

func devicesOf(all []Saved) []string {
	var out []string
	for _, s := range all {
		if d := savedDevice(s.setting()); d != "" && !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	slices.Sort(out)
	return out
}

// notKept says of settings that they are set, and lost at the next boot.
func notKept(lost []plan.Change, why string) []plan.Refusal {
	var out []plan.Refusal
	for _, c := range lost {
		out = append(out, plan.Refusal{
			Setting: plan.Setting{Kind: "settings", Target: c.Target, Name: c.Kind + " " + c.Name}, Want: c.After.Text,
			Reason: "it is set until the next boot, and not at each boot: " + why,
		})
	}
	return out
}

// refuseLink takes all changes of tier link out of a plan, with every other
// change of the same settings.
func refuseLink(p plan.Plan, why string) plan.Plan {
	out := map[plan.Setting]bool{}
	for _, c := range p.Changes {
		if c.Tier == plan.Link && !out[c.Setting] {
			out[c.Setting] = true
			p.Refused = append(p.Refused, plan.Refusal{Setting: c.Setting, Want: c.After.String(), Reason: why, Why: c.Why})
		}
	}
	p.Changes = slices.DeleteFunc(slices.Clone(p.Changes), func(c plan.Change) bool { return out[c.Setting] })
	return p
}
