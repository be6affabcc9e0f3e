// SPDX-License-Identifier: Apache-2.0

//go:build vm

package programs

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// scaling is a setting of a network namespace that every host should have at 1.
const scaling = "/proc/sys/net/ipv4/tcp_window_scaling"

// control gives a control node with the role as it is published, and hosts
// that it reaches through ssh.
func control(t *testing.T, ctx context.Context, names ...string) (node *lab.Room, hosts []*lab.Room) {
	t.Helper()
	all := rooms(t, ctx, append([]string{"control"}, names...)...)
	node, hosts = all[0], all[1:]
	must(t, ctx, node, "make a key", "mkdir -pm 700 /root/.ssh && ssh-keygen -qt ed25519 -N '' -f /root/.ssh/id_ed25519")
	key := must(t, ctx, node, "read the key", "cat /root/.ssh/id_ed25519.pub")
	inventory := ""
	for _, h := range hosts {
		push(t, ctx, h, "/root/.ssh/authorized_keys", key, 0o600)
		must(t, ctx, h, "start sshd", "chmod 700 /root/.ssh && rm -f /etc/ssh/ssh_host_* && ssh-keygen -qt ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key && mkdir -p /run/sshd && /usr/sbin/sshd")
		inventory += h.Name + " ansible_user=root\n"
	}
	push(t, ctx, node, "/root/ansible/hosts", inventory, 0o644)
	push(t, ctx, node, "/root/ansible/ansible.cfg", "[defaults]\ninventory = hosts\nhost_key_checking = false\ninterpreter_python = /usr/bin/python3\nnocolor = true\n", 0o644)
	root := filepath.Join(theLab.Source(), "packaging/ansible")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		push(t, ctx, node, filepath.Join("/root/ansible", rel), string(b), st.Mode().Perm())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return node, hosts
}

// TestAnsible: a real Ansible on a control node, two hosts behind real ssh. What
// --check --diff shows is what the run does; the second run changes nothing; a
// host that is not fit fails; undo gives back what there was.
func TestAnsible(t *testing.T) {
	ctx := limit(t, 10*time.Minute)
	node, hosts := control(t, ctx, "gpu1", "gpu2")
	t.Log(strings.SplitN(must(t, ctx, node, "versions", "ansible --version"), "\n", 2)[0])
	t.Log(strings.TrimSpace(must(t, ctx, node, "versions", "ssh -V 2>&1; python3 --version")))
	ansible := func(step string, code int, command string) string {
		t.Helper()
		start := time.Now()
		out := exits(t, ctx, node, step, code, "cd /root/ansible && "+command).Out
		t.Logf("%s: %.1f s", step, time.Since(start).Seconds())
		return out
	}
	play := func(step string, code int, more string) string {
		t.Helper()
		return ansible(step, code, `ansible-playbook playbook.yml -e '{"hostcheck_only": ["sysctl"]}' `+more)
	}
	wants := func(step, out string, texts ...string) {
		t.Helper()
		for _, s := range texts {
			if !strings.Contains(out, s) {
				t.Fatalf("step %q: no %q in:\n%s", step, s, out)
			}
		}
	}
	live := func(step, want string, untouched bool) {
		t.Helper()
		for _, h := range hosts {
			if got := strings.TrimSpace(must(t, ctx, h, step, "cat "+scaling)); got != want {
				t.Fatalf("step %q: %s of %s is %s, want %s", step, scaling, h.Name, got, want)
			}
			if untouched {
				must(t, ctx, h, step+": nothing is written", "! test -e /var/lib/hostcheck && ! test -e /etc/sysctl.d/99-zz-hostcheck.conf")
			}
		}
	}
	// what the recap says of a host: tasks that were ok, those of the fact among
	// them or not, and that changed something
	changed := func(h *lab.Room, ok, n int) string {
		return fmt.Sprintf("%-26s : ok=%d    changed=%d ", h.Name, ok, n)
	}

	for _, h := range hosts {
		must(t, ctx, h, "make it unfit", "echo 0 >"+scaling)
	}
	out := play("check mode", 0, "--check --diff")
	wants("check mode", out, "--- before: sysctl net.ipv4.tcp_window_scaling\n+++ after: sysctl net.ipv4.tcp_window_scaling\n@@ -1 +1 @@\n-0\n+1\n",
		"+++ after: /etc/sysctl.d/99-zz-hostcheck.conf", "+net.ipv4.tcp_window_scaling = 1", changed(hosts[0], 2, 1), changed(hosts[1], 2, 1))
	live("check mode", "0", true)

	out = play("judge only", 2, "-e hostcheck_state=checked")
	wants("judge only", out, "NOT FIT (1 fail, ", "sysctl.tcp_defaults net.ipv4.tcp_window_scaling: 0, want 1", "failed=1", "NO MORE HOSTS LEFT")
	if strings.Contains(out, "gpu2") {
		t.Errorf("the first host failed, and the play went on:\n%s", out)
	}
	live("judge only", "0", true)

	wants("fix", play("fix", 0, "--diff -e hostcheck_fact=true"), "-0\n+1\n", changed(hosts[0], 5, 3), changed(hosts[1], 5, 3)) // with the fact and its directory
	live("fix", "1", false)
	wants("fix again", play("fix again", 0, "--diff -e hostcheck_fact=true"), changed(hosts[0], 5, 0), changed(hosts[1], 5, 0))
	for _, h := range hosts {
		if n := strings.TrimSpace(must(t, ctx, h, "history", "hostcheck history -f json | jq '.transactions | length'")); n != "1" {
			t.Errorf("%s has %s transactions after several runs, want 1", h.Name, n)
		}
	}
	wants("the fact", ansible("the fact", 0, "ansible gpu1 -m setup -a filter=ansible_local"), `"fit": `, `"schema": "hostcheck.fact/v1"`, `"layers": [`)

	// a report of each host, as the page says
	page, err := os.ReadFile(filepath.Join(theLab.Source(), "docs/ansible.md"))
	if err != nil {
		t.Fatal(err)
	}
	const begin = "- name: Judge the host\n  ansible.builtin.command: hostcheck -f jsonl\n"
	_, recipe, _ := strings.Cut(string(page), begin)
	recipe, _, found := strings.Cut(begin+recipe, "\n```")
	if !found {
		t.Fatal("docs/ansible.md no longer says how to collect reports")
	}
	push(t, ctx, node, "/root/ansible/collect.yml", "- hosts: all\n  gather_facts: false\n  tasks:\n    "+strings.ReplaceAll(recipe, "\n", "\n    ")+"\n", 0o644)
	wants("collect", ansible("collect", 0, "mkdir reports && ansible-playbook collect.yml"), changed(hosts[0], 2, 0), changed(hosts[1], 2, 0))
	wants("what was collected", must(t, ctx, node, "what was collected", "cd /root/ansible && hostcheck fleet merge --expect hosts reports | jq -c '[.summary.hosts, .summary.missing, .summary.problems]'"), "[2,0,0]")

	// the module alone, as a static binary, on a host without hostcheck
	must(t, ctx, hosts[0], "hostcheck is not installed", "rm "+hostcheck)
	wants("no hostcheck", ansible("no hostcheck", 2, "ansible gpu1 -M roles/hostcheck/library -m hostcheck"), "FAILED!", "hostcheck is not installed on this host")
	must(t, ctx, node, "the binary as a module", "mkdir /root/ansible/library && cp "+hostcheck+" /root/ansible/library/")
	txn := strings.TrimSpace(must(t, ctx, hosts[1], "the transaction", "hostcheck history -f json | jq -r '.transactions[0].id'"))
	must(t, ctx, hosts[0], "unfit once more", "echo 0 >"+scaling)
	wants("binary", ansible("binary", 0, "ansible gpu1 -M library -m hostcheck -a 'state=fixed only=sysctl'"), `"changed": true`, `"txn": "20`, `"undo": "hostcheck undo 20`)
	wants("undone", ansible("undone", 0, "ansible gpu2 -M library -m hostcheck -a 'state=undone txn="+txn+"' --diff"), "-1\n+0\n", `"changed": true`)
	must(t, ctx, hosts[1], "as it was", "grep -qx 0 "+scaling+" && ! test -e /etc/sysctl.d/99-zz-hostcheck.conf")
}
