// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// TestPackage is the Debian package's life: installed, used, upgraded over a
// change in force, refused to go while one waits, removed and purged; and what
// is left of it then is the journal.
func TestPackage(t *testing.T) {
	if testing.Short() {
		t.Skip("the package is installed by make e2e; make dist-check looks into it")
	}
	ctx := limit(t, 20*time.Minute)
	began := time.Now()
	first, second := debOf(t, "0.1"), debOf(t, "0.2")
	g := settled(t, ctx, lab.Options{})
	must(t, ctx, g, "no other hostcheck", "rm "+hostcheck)
	for _, f := range []string{first, second} {
		if err := g.PushFile(ctx, f, "/root/"+filepath.Base(f), 0o644); err != nil {
			t.Fatalf("step \"push %s\": %v", f, err)
		}
	}
	list := func(step string) string {
		return must(t, ctx, g, step, "find /etc /usr /var/lib/systemd -xdev ! -path '/usr/share/mime*' ! -name '*cache*' -printf '%p %y %m %l\\n' | sort")
	}
	const profile = "schema: hostcheck.profile/v1\nname: site\nlayer: site\nsource: the operator\nsysctl:\n  keys:\n    - {id: somaxconn, key: net.core.somaxconn, min: 16384}\n"
	before := list("before")
	must(t, ctx, g, "install", "dpkg -i /root/"+filepath.Base(first))
	must(t, ctx, g, "version", "hostcheck version")
	must(t, ctx, g, "manual", "dpkg -L hostcheck | grep -q /usr/share/man/man1/hostcheck-plan.1.gz")
	must(t, ctx, g, "the shell completes", `bash -c '. /usr/share/bash-completion/completions/hostcheck && complete -p hostcheck'`)
	must(t, ctx, g, "the unit is known and off", "test \"$(systemctl is-enabled hostcheck-settings.service)\" = disabled")

	must(t, ctx, g, "make it sick", "sysctl -q -w net.core.somaxconn=128")
	if err := g.Push(ctx, "/etc/hostcheck/profile.yaml", []byte(profile), 0o644); err != nil {
		t.Fatal(err)
	}
	exits(t, ctx, g, "check", 1, "hostcheck sysctl.somaxconn")
	must(t, ctx, g, "fix", "hostcheck fix --yes sysctl.somaxconn")
	must(t, ctx, g, "check again", "hostcheck sysctl.somaxconn")
	must(t, ctx, g, "upgrade over it", "dpkg -i /root/"+filepath.Base(second))
	must(t, ctx, g, "the fix holds", "hostcheck sysctl.somaxconn")
	must(t, ctx, g, "the journal of the older one is read", "hostcheck history | grep -q ' applied ' && hostcheck status")

	must(t, ctx, g, "removal tells what stays", "apt-get -y remove hostcheck 2>&1 | grep -q 'what its fixes set stays' || dpkg -r hostcheck 2>&1 | grep -q 'what its fixes set stays'")
	must(t, ctx, g, "the value stays", "test \"$(sysctl -n net.core.somaxconn)\" != 128")
	must(t, ctx, g, "install again", "dpkg -i /root/"+filepath.Base(second))
	must(t, ctx, g, "undo", "hostcheck undo --all && rm /etc/hostcheck/profile.yaml")
	must(t, ctx, g, "the value is back", "test \"$(sysctl -n net.core.somaxconn)\" = 128")
	guide(t, ctx, g)
	must(t, ctx, g, "purge", "dpkg -P hostcheck")
	if after := list("after"); after != before {
		t.Errorf("the package leaves more than its journal:\n%s", lines(before, after))
	}
	must(t, ctx, g, "the journal stays", "test -d /var/lib/hostcheck")
	count("package", "installs, upgrades and removals", 5, 5, time.Since(began))
}

// guide follows the operator's guide word for word: each hostcheck command in
// it, in order, with the profile that it shows.
func guide(t *testing.T, ctx context.Context, g *lab.Guest) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(theLab.Source(), "docs/operators-guide.md"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	ran := 0
	block, lang := "", ""
	in := false
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "```") {
			if in = !in; in {
				block, lang = "", strings.TrimSpace(line[3:])
				continue
			}
			switch lang {
			case "yaml":
				if err := g.Push(ctx, "/etc/hostcheck/profile.yaml", []byte(block), 0o644); err != nil {
					t.Fatal(err)
				}
			case "":
				for line := range strings.Lines(block) {
					ran += guideLine(t, ctx, g, strings.TrimSpace(line))
				}
			}
			continue
		}
		block += line
	}
	must(t, ctx, g, "guide: all is taken back", "hostcheck undo --all || hostcheck history; rm -f /etc/hostcheck/profile.yaml /var/log/hostcheck.json plan.json; hostcheck status")
	count("package", "commands of the operator's guide", ran, ran, time.Since(began))
	if ran < 10 {
		t.Errorf("only %d commands found in the guide", ran)
	}
}

// guideLine runs one command of the guide. The lab's guest has no GPU, so it may
// be unfit; what it must not be is misunderstood, or the host left half way.
func guideLine(t *testing.T, ctx context.Context, g *lab.Guest, line string) int {
	t.Helper()
	line = strings.TrimPrefix(line, "sudo ")
	if !strings.HasPrefix(line, "hostcheck") || strings.Contains(line, "/mnt/") {
		return 0
	}
	line = strings.ReplaceAll(line, "HASH", `$(sed -n 's/^ *"hash": "\(.*\)",*$/\1/p' plan.json | head -n1)`)
	if strings.HasPrefix(line, "hostcheck --fix  ") {
		line = "hostcheck --fix --yes" // there is no terminal to ask at
	}
	if strings.HasSuffix(line, "-o plan.json") {
		must(t, ctx, g, "guide: something to plan", "sysctl -qw net.ipv4.tcp_timestamps=0")
	}
	r, err := g.Run(ctx, line)
	if err != nil {
		t.Fatalf("guide: %s: %v", line, err)
	}
	if r.Late || r.Code != 0 && r.Code != 1 && r.Code != 3 && r.Code != 10 {
		t.Errorf("guide: %s: exit code %d\n%s%s", line, r.Code, r.Out, r.Err)
	}
	return 1
}

// lines gives the lines that only one of two lists has.
func lines(before, after string) string {
	had := map[string]bool{}
	for l := range strings.Lines(before) {
		had[l] = true
	}
	var b strings.Builder
	for l := range strings.Lines(after) {
		if !had[l] {
			b.WriteString("+ " + l)
		}
		delete(had, l)
	}
	for l := range had {
		b.WriteString("- " + l)
	}
	return b.String()
}

// debOf gives the Debian package with that version, built once.
func debOf(t *testing.T, version string) string {
	t.Helper()
	dir := filepath.Join(madeIn, "package-"+version)
	if all, err := filepath.Glob(filepath.Join(dir, "*.deb")); err == nil && len(all) == 1 {
		return all[0]
	}
	c := exec.CommandContext(t.Context(), "packaging/build", dir)
	c.Dir = theLab.Source()
	c.Env = append(os.Environ(), "ARCHES=amd64", "FORMATS=deb", "PACKAGE_VERSION="+version)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the package: %v\n%s", err, out)
	}
	all, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(all) != 1 {
		t.Fatalf("packages: %v, %v", all, err)
	}
	return all[0]
}
