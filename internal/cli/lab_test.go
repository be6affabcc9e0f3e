// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// labVerb sets the knobs of a made-up kernel: /proc/sys/lab/NAME, and a file
// that sets them again at boot. Knobs of an interface are of tier link.
type labVerb struct{}

func (labVerb) Kind() string { return "lab" }

func (labVerb) path(s plan.Setting) string {
	if s.Target != "" {
		return "/sys/class/net/" + s.Target + "/" + s.Name
	}
	return "/proc/sys/lab/" + s.Name
}

func (v labVerb) Read(_ context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	text, err := h.Text(v.path(s))
	return plan.Text(text), err
}

func (v labVerb) Apply(_ context.Context, tx *plan.Tx, changes []plan.Change) error {
	for _, c := range changes {
		if err := tx.WriteKnob(v.path(c.Setting), c.After.Text); err != nil {
			return err
		}
	}
	return nil
}

const labFile = "/etc/lab.d/90-hostcheck.conf"

func (labVerb) Expand(_ context.Context, _ *host.Host, wishes []plan.Wish) ([]plan.Change, []plan.Refusal, error) {
	var changes []plan.Change
	var refused []plan.Refusal
	var text strings.Builder
	why := ""
	for _, w := range wishes {
		because := w.Check + ": " + w.Why
		switch {
		case strings.HasPrefix(w.Want, "!"):
			refused = append(refused, plan.Refusal{Setting: w.Setting, Want: w.Want[1:], Reason: "it is beyond what this kernel has", Steps: []string{"boot another kernel", "lab-tool --set " + w.Name}})
		case w.Target != "":
			changes = append(changes, plan.Change{Setting: w.Setting, After: plan.Text(w.Want), Tier: plan.Link, Why: because, Disturbs: w.Target + " drops packets for about a second"})
		default:
			fmt.Fprintf(&text, "%s = %s\n", w.Name, w.Want)
			changes = append(changes, plan.Change{Setting: w.Setting, After: plan.Text(w.Want), Tier: plan.Safe, Persist: true, Why: because})
			why = because
		}
	}
	if text.Len() > 0 {
		file := plan.Change{Setting: plan.Setting{Kind: plan.KindFile, Target: labFile}, After: plan.Text(text.String()), Tier: plan.Safe, Why: why}
		changes = slices.Insert(changes, 0, file)
	}
	return changes, refused, nil
}

func (v labVerb) ByHand(c plan.Change) string {
	return fmt.Sprintf("echo %s > %s", c.After.Text, v.path(c.Setting))
}

// labCheck wants one knob to have a value.
func labCheck(id, target, name, want string, tier plan.Tier) *check.Check {
	s := plan.Setting{Kind: "lab", Target: target, Name: name}
	p := labVerb{}.path(s)
	return &check.Check{
		ID: id, Title: "The " + name + " of the lab is right", Severity: check.Medium, FixTier: tier,
		Run: func(_ context.Context, r *check.Run) error {
			got, err := r.Facts.Host().Text(p)
			if err != nil {
				return err
			}
			wanted := strings.TrimPrefix(want, "!")
			f := check.Finding{Subject: target, Want: wanted, Got: got, Why: "small ones overflow under load", Evidence: []check.Evidence{{Source: p, Value: got}}}
			if f.Status = check.Pass; got != wanted {
				f.Status = check.Fail
				f.Fix = []plan.Wish{{Setting: s, Got: got, Want: want, Tier: tier, Why: f.Why}}
			}
			r.Report(f)
			return nil
		},
	}
}

// labTree is what a lab host has.
func labTree() map[string]string {
	return map[string]string{
		"/proc/sys/lab/queue":               "128\n",
		"/proc/sys/lab/depth":               "128\n",
		"/proc/sys/kernel/hostname":         "lab1\n",
		"/proc/sys/kernel/osrelease":        "6.12.57-lab\n",
		"/proc/sys/kernel/random/boot_id":   "11111111-2222-4333-8444-555555555555\n",
		"/proc/net/route":                   "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\nbond0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n",
		"/proc/net/ipv6_route":              "",
		"/sys/class/net/bond0/operstate":    "up\n",
		"/sys/class/net/bond0/lower_eth0/x": "",
		"/sys/class/net/eth0/operstate":     "up\n",
		"/sys/class/net/eth0/ring":          "512\n",
		"/sys/class/net/eth1/operstate":     "up\n",
		"/sys/class/net/eth1/ring":          "512\n",
		"/boot/grub/grub.cfg":               "set default=0\n",
		"/etc/hostname":                     "lab1\n",
		"/root/hostcheck":                   "the program\n",
		"/usr/local/sbin/":                  "",
		"/run/systemd/system/":              "",
		"/run/lab/":                         "",
		"/etc/systemd/system/":              "",
	}
}

// lab is a tree that plays a live machine, and what a hostcheck of it has.
type lab struct {
	testing.TB
	root   string
	checks []*check.Check
	knob   func(path, text string) error // the kernel
	ctl    func(argv []string) error     // what happens when systemctl is called
	limit  time.Duration                 // how long the kernel may take
	stdin  *os.File                      // nil: /dev/null
	app    *app                          // of the run under way
}

func newLab(t *testing.T, checks ...*check.Check) *lab {
	t.Helper()
	l := &lab{TB: t, root: plantest.TempDir(t), checks: checks}
	if checks == nil {
		l.checks = []*check.Check{labCheck("lab.queue", "", "queue", "4096", plan.Safe), labCheck("lab.depth", "", "depth", "128", plan.Safe)}
	}
	plantest.Files(t, l.root, labTree())
	l.knob = plantest.Knob(l.root)
	return l
}

func (l *lab) path(p string) string { return filepath.Join(l.root, p) }

func (l *lab) text(p string) string {
	l.Helper()
	b, err := os.ReadFile(l.path(p))
	if err != nil {
		l.Fatal(err)
	}
	return string(b)
}

func (l *lab) write(p, text string) {
	l.Helper()
	if err := os.WriteFile(l.path(p), []byte(text), 0o644); err != nil {
		l.Fatal(err)
	}
}

// on gives an app whose output goes to these files.
func (l *lab) on(stdin, stdout, stderr *os.File, args ...string) *app {
	l.app = &app{
		args: append(args, "--root", l.root), env: []string{"LANG=C.UTF-8", "COLUMNS=80"}, stdin: stdin, stdout: stdout, stderr: stderr,
		checks: l.checks, verbs: []plan.Verb{labVerb{}, fixes.Sysfs{}, fixes.DCQCN{}, fixes.Unit{}, fixes.Deadline{}}, self: "/root/hostcheck",
		machine: &plan.Machine{Knob: func(p, text string) error { return l.knob(p, text) }, Run: plantest.Systemctl(l.root, l.ctl), Limit: l.limit},
	}
	return l.app
}

// run is one hostcheck.
func (l *lab) run(args ...string) (stdout, stderr string, code int) {
	l.Helper()
	file := func() *os.File {
		f, err := os.CreateTemp(l.TempDir(), "")
		if err != nil {
			l.Fatal(err)
		}
		return f
	}
	read := func(f *os.File) string {
		defer f.Close()
		b, err := os.ReadFile(f.Name())
		if err != nil {
			l.Fatal(err)
		}
		return string(b)
	}
	in := l.stdin
	if in == nil {
		null, err := os.Open(os.DevNull)
		if err != nil {
			l.Fatal(err)
		}
		defer null.Close()
		in = null
	}
	out, errs := file(), file()
	code = l.on(in, out, errs, args...).run()
	return read(out), read(errs), code
}

// exits runs hostcheck and wants an exit code.
func (l *lab) exits(want int, args ...string) (stdout, stderr string) {
	l.Helper()
	stdout, stderr, code := l.run(args...)
	if code != want {
		l.Fatalf("hostcheck %s: exit %d, want %d\n%s%s", strings.Join(args, " "), code, want, stdout, stderr)
	}
	return stdout, stderr
}

// wants looks for texts.
func (l *lab) wants(got string, texts ...string) {
	l.Helper()
	for _, s := range texts {
		if !strings.Contains(got, s) {
			l.Errorf("no %q in:\n%s", s, got)
		}
	}
}

// same wants the tree as it was; the journal does not count.
func (l *lab) same(before plantest.Tree, when string) {
	l.Helper()
	now := plantest.Snapshot(l, l.root)
	for _, tree := range []plantest.Tree{before, now} { // the journal's own parents may stay
		for _, p := range []string{"/", "/var", "/var/lib"} {
			delete(tree, p)
		}
	}
	if d := plantest.Diff(before, now); d != "" {
		l.Errorf("%s: the tree differs:\n%s", when, d)
	}
}
