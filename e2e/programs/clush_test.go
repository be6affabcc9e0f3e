// SPDX-License-Identifier: Apache-2.0

//go:build vm

package programs

import (
	"strings"
	"testing"
	"time"
)

// TestClush: clush and dshbak fold the texts of hosts that are alike, whatever
// they are called, and the largest exit code comes through.
func TestClush(t *testing.T) {
	ctx := limit(t, 8*time.Minute)
	r := rooms(t, ctx, "admin")[0]
	t.Log(must(t, ctx, r, "versions", "clush --version; pdsh -V | head -1"))
	for name, host := range map[string]string{"n1": "rdma-intel", "n2": "rdma-intel", "n3": "rdma-intel-sick", "n4": "rdma-intel"} {
		plant(t, ctx, r, host, "/srv/"+name)
		must(t, ctx, r, "its own name and boot", "echo "+name+" | tee /srv/"+name+"/proc/sys/kernel/hostname >/srv/"+name+"/etc/hostname; "+
			"cat /proc/sys/kernel/random/uuid >/srv/"+name+"/proc/sys/kernel/random/boot_id")
	}
	// a worker on each "host" is a hostcheck on its tree
	const clush = "clush -w n[1-4] -R exec -f 2 "
	alone := must(t, ctx, r, "one alone", "hostcheck --only link,cmdline --root /srv/n1")
	res := exits(t, ctx, r, "clush folds, and gives the largest code", 1, clush+"-b -S hostcheck --only link,cmdline --root /srv/%h")
	if head := "---------------\nn[1-2,4] (3)\n---------------\n" + alone; !strings.Contains(res.Out, head) {
		t.Errorf("the hosts that are alike are not one:\n%s", res.Out)
	}
	if n := strings.Count(res.Out, "\nhost     Linux"); n != 2 || !strings.Contains(res.Out, "---------------\nn3\n---------------\n") {
		t.Errorf("%d texts of two kinds of host:\n%s", n, res.Out)
	}
	exits(t, ctx, r, "hosts that are well", 0, "clush -w n[1-2,4] -R exec -b -S hostcheck -q --only link --root /srv/%h")
	exits(t, ctx, r, "one that cannot be judged is not well", 3, "clush -w n[1-2,4] -R exec -b -S hostcheck -q --root /srv/n1/proc --only cmdline")
	diff := must(t, ctx, r, "what differs", clush+"--diff hostcheck -q --only link --root /srv/%h || true")
	for _, want := range []string{"--- n[1-2,4] (3)", "+++ n3", "\n+✗ FAIL      link.speed  "} {
		if !strings.Contains(diff, want) {
			t.Errorf("clush --diff does not say %q:\n%s", want, diff)
		}
	}

	res = exits(t, ctx, r, "pdsh gives the largest code", 1, "pdsh -S -R exec -w n[1-4] hostcheck --only link,cmdline --root /srv/%h >/tmp/out; code=$?; dshbak -c </tmp/out; exit $code")
	if head := "----------------\nn[1-2,4]\n----------------\n" + alone; !strings.Contains(res.Out, head) || strings.Count(res.Out, "\nhost     Linux") != 2 {
		t.Errorf("dshbak does not fold:\n%s", res.Out)
	}
	exits(t, ctx, r, "pdsh, hosts that are well", 0, "pdsh -S -R exec -w n[1-2,4] hostcheck -q --only link --root /srv/%h")
}
