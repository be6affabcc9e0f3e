// SPDX-License-Identifier: Apache-2.0

//go:build root

package facts_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
)

const ordersChild = "HOSTCHECK_ORDERS_CHILD"

// Random files, read by the real programs in a network namespace of their own,
// give what BySystemd and ByProcps say.
func TestRootSysctlOrders(t *testing.T) {
	if os.Getenv(ordersChild) != "" {
		orders(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRootSysctlOrders$", "-test.v")
	cmd.Env = append(os.Environ(), ordersChild+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "asked") || strings.Contains(line, "not here") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

var orderKeys = []string{
	"net.core.somaxconn", "net.ipv4.neigh.lo.gc_stale_time", "net.ipv4.neigh.lc.gc_stale_time", "net.ipv4.tcp_keepalive_time",
	"net.ipv4.neigh.a/b.gc_stale_time",
}

func orders(t *testing.T) {
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	if out, err := exec.Command("ip", "link", "add", "a.b", "type", "veth", "peer", "name", "lc").CombinedOutput(); err != nil {
		t.Logf("no interface with a dot in its name: %s", out)
	}
	dirs := []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"}
	must(unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
	must(unix.Mount("tmpfs", "/usr/local/lib", "tmpfs", 0, ""))
	must(os.Mkdir("/run/sysctl.d", 0o755))
	must(os.Mkdir("/usr/local/lib/sysctl.d", 0o755))
	must(unix.Mount("tmpfs", "/etc/sysctl.d", "tmpfs", 0, ""))
	must(unix.Mount("tmpfs", "/usr/lib/sysctl.d", "tmpfs", 0, ""))
	main := filepath.Join(t.TempDir(), "sysctl.conf")
	must(os.WriteFile(main, nil, 0o644))
	if _, err := os.Stat(facts.SysctlMain); err != nil {
		t.Skip("there is no /etc/sysctl.conf to put another in the place of")
	}
	must(unix.Mount(main, facts.SysctlMain, "", unix.MS_BIND, ""))

	programs := map[string][]string{}
	for _, p := range []string{"/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl"} {
		if _, err := os.Stat(p); err == nil {
			programs["systemd"] = []string{p}
		}
	}
	if p, err := exec.LookPath("sysctl"); err == nil {
		programs["procps"] = []string{p, "--system"}
	}
	const untouched = "77777"
	random := rand.New(rand.NewPCG(1, 2))
	asked := 0
	for round := range 400 {
		for _, d := range dirs {
			names, _ := filepath.Glob(d + "/*")
			hidden, _ := filepath.Glob(d + "/.*.conf")
			for _, n := range append(names, hidden...) {
				must(os.RemoveAll(n))
			}
		}
		var all strings.Builder
		put := func(p string) {
			text := ""
			for range random.IntN(4) {
				text += orderLine(random)
			}
			must(os.WriteFile(p, []byte(text), 0o644))
			fmt.Fprintf(&all, "%s:\n%s", p, text)
		}
		for range 1 + random.IntN(6) {
			p := filepath.Join(dirs[random.IntN(len(dirs))], []string{"10-a.conf", "50-b.conf", "99-c.conf", "99-c_d.conf", ".90-h.conf", "20-no.txt"}[random.IntN(6)])
			if _, err := os.Lstat(p); err == nil {
				continue
			}
			if random.IntN(8) == 0 {
				must(os.Symlink("/dev/null", p))
				fmt.Fprintf(&all, "%s: masked\n", p)
				continue
			}
			put(p)
		}
		put(main)
		for name, argv := range programs {
			for _, k := range orderKeys {
				_ = os.WriteFile("/proc/sys/"+facts.SysctlPath(k), []byte(untouched), 0)
			}
			out, _ := exec.Command(argv[0], argv[1:]...).CombinedOutput()
			h, err := host.Open("/", host.Options{})
			must(err)
			s := facts.New(h).Sysctl()
			for _, key := range orderKeys {
				k := s.Key(key)
				if k.Absent {
					continue
				}
				a, want := k.Systemd, untouched
				if name == "procps" {
					a = k.Procps
				}
				if a != nil {
					want = a.Value
				}
				asked++
				if k.Running == nil || *k.Running != want {
					t.Fatalf("round %d: %s makes %s %v, and the files give %s\n%s\n%s", round, name, key, *k.Running, want, all.String(), out)
				}
			}
			h.Close()
		}
	}
	if len(programs) < 2 {
		t.Logf("not here: one of the programs (%v)", programs)
	}
	t.Logf("asked %d times", asked)
}

// orderLine is one line of a file.
func orderLine(random *rand.Rand) string {
	key := orderKeys[random.IntN(len(orderKeys))]
	if random.IntN(3) == 0 {
		key = []string{"net.ipv4.neigh.*.gc_stale_time", "net/ipv4/neigh/l?/gc_stale_time", "net.ipv4.neigh.[!l]*.gc_stale_time", "net.*.somaxconn"}[random.IntN(4)]
	} else if random.IntN(3) == 0 {
		key = facts.SysctlPath(key)
	}
	value := fmt.Sprint(100 + random.IntN(5))
	return slices.Collect(func(yield func(string) bool) {
		yield([]string{
			key + " = " + value, key + "=" + value, "  " + key + "\t=  " + value + "  ", "-" + key + " = " + value, "-" + key,
			"# " + key + " = " + value, "; x", "", key, key + " = " + value + "\r",
		}[random.IntN(10)])
	})[0] + "\n"
}
