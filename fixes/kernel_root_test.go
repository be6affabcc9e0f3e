// SPDX-License-Identifier: Apache-2.0

//go:build root

package fixes_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

const inOwnSpace = "HOSTCHECK_TEST_IN_OWN_SPACE"

// ownSpace runs the calling test again in a process with namespaces of its
// own, in which /sys shows its network and the journal is its own, and reports
// whether this is that process.
func ownSpace(t *testing.T, flags uintptr) bool {
	t.Helper()
	if os.Getenv(inOwnSpace) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
		cmd.Env = append(os.Environ(), inOwnSpace+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: flags | syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		switch {
		case strings.Contains(string(out), "--- SKIP"):
			t.Skipf("skipped:\n%s", out)
		case err != nil || !strings.Contains(string(out), "--- PASS"):
			t.Errorf("%v\n%s", err, out)
		default:
			t.Logf("in its own namespaces:\n%s", out)
		}
		return false
	}
	for _, m := range []struct {
		what, dir string
		flags     uintptr
	}{{"none", "/", unix.MS_REC | unix.MS_PRIVATE}, {"tmpfs", "/var/lib", 0}, {"sysfs", "/sys", 0}} {
		if m.what == "sysfs" && flags&syscall.CLONE_NEWNET == 0 {
			continue
		}
		if err := unix.Mount(m.what, m.dir, m.what, m.flags, ""); err != nil {
			t.Fatalf("cannot mount on %s: %v", m.dir, err)
		}
	}
	return true
}

func run(t *testing.T, command string) {
	t.Helper()
	f := strings.Fields(command)
	if out, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

func liveEngine() *plan.Engine {
	return &plan.Engine{Root: "/", Tool: "test", Verbs: []plan.Verb{fixes.Sysfs{}, fixes.Hugepages{}, fixes.Ethtool{}}}
}

// applied plans wishes on the running kernel, applies them, sees that nothing
// is left to do, and gives the function that takes them back.
func applied(t *testing.T, wishes []plan.Wish, changes int, holds func() error) (undo func()) {
	t.Helper()
	e := liveEngine()
	p := plantest.Make(t, e, wishes)
	if len(p.Refused) > 0 || len(p.Changes) != changes {
		t.Fatalf("%d changes, refused %+v", len(p.Changes), p.Refused)
	}
	for _, c := range p.Changes {
		t.Logf("%s: %s (%s)", c.Setting, c.Diff, c.Tier)
	}
	r, err := e.Apply(t.Context(), p, plan.Options{Allow: []plan.Tier{plan.Link}})
	if err != nil || r.Outcome != plan.Applied {
		t.Fatalf("apply: %v %+v", err, r)
	}
	if err := holds(); err != nil {
		t.Errorf("applied, but %v", err)
	}
	if again := plantest.Make(t, e, wishes); len(again.Changes) > 0 {
		t.Errorf("planned again: %+v", again.Changes)
	}
	return func() {
		t.Helper()
		if r, err := e.Undo(t.Context(), r.Txn, plan.Options{}); err != nil || r.Outcome != plan.Undone {
			t.Errorf("undo: %v %+v", err, r)
		}
	}
}

// state is all that the kernel says about an interface.
func state(t *testing.T, ifname string) string {
	t.Helper()
	h, err := host.Open("/", host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	s := map[string]any{}
	note := func(topic string, v any, err error) {
		if s[topic] = v; err != nil {
			s[topic] = err.Error()
		}
	}
	features, err := h.EthtoolFeatures(ifname)
	note("features", features, err)
	channels, err := h.EthtoolChannels(ifname)
	note("channels", channels, err)
	rings, err := h.EthtoolRings(ifname)
	note("rings", rings, err)
	coalesce, err := h.EthtoolCoalesce(ifname)
	note("coalesce", coalesce, err)
	pause, err := h.EthtoolPause(ifname)
	note("pause", pause, err)
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Offloads and queues of a real veth in a network namespace of the test's own.
func TestRootEthtool(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("skipped: ip (iproute2) is not installed")
	}
	if !ownSpace(t, syscall.CLONE_NEWNET) {
		return
	}
	run(t, "ip link add hcv0 numrxqueues 4 numtxqueues 4 type veth peer name hcv1 numrxqueues 4 numtxqueues 4")
	run(t, "ip link set hcv0 up")
	old := state(t, "hcv0")
	wishes := []plan.Wish{
		{Setting: fixes.EthtoolSetting("hcv0", "feature", "tx-tcp-segmentation"), Want: "off", Check: "test"},
		{Setting: fixes.EthtoolSetting("hcv0", "feature", "rx-gro"), Want: "on", Check: "test"},
		{Setting: fixes.EthtoolSetting("hcv0", "feature", "tx-generic-segmentation"), Want: "off", Check: "test"},
		{Setting: fixes.EthtoolSetting("hcv0", "channels", "rx"), Want: "2", Check: "test"},
	}
	changes := 0
	for _, w := range wishes { // what this kernel's veth starts with differs
		h, err := host.Open("/", host.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := (fixes.Ethtool{}).Read(t.Context(), h, w.Setting); err != nil || v.Text != w.Want {
			changes++
		}
		h.Close()
	}
	if changes < 2 {
		t.Fatalf("only %d of the wishes change anything", changes)
	}
	undo := applied(t, wishes, changes, func() error {
		out, err := exec.Command("ethtool", "-k", "hcv0").CombinedOutput()
		if err != nil {
			t.Logf("ethtool(8) does not tell: %v %s", err, out)
			return nil
		}
		for _, line := range []string{"tx-tcp-segmentation: off", "generic-receive-offload: on", "generic-segmentation-offload: off"} {
			if !strings.Contains(string(out), line) {
				return fmt.Errorf("ethtool(8) does not say %q: %s", line, out)
			}
		}
		return nil
	})
	if state(t, "hcv0") == old {
		t.Error("nothing changed")
	}
	undo()
	if now := state(t, "hcv0"); now != old {
		t.Errorf("undo does not give back the interface:\n%s\nwas\n%s", now, old)
	}

	// what the kernel's own driver refuses, or fixes, is refused before
	e := liveEngine()
	for name, c := range map[string]struct {
		wish plan.Wish
		says string
	}{
		"fixed":   {plan.Wish{Setting: fixes.EthtoolSetting("hcv0", "feature", "loopback"), Want: "on"}, "fixes loopback"},
		"beyond":  {plan.Wish{Setting: fixes.EthtoolSetting("hcv0", "channels", "rx"), Want: "64"}, "can have 4 rx queues at most, and 64 are wanted"},
		"no flag": {plan.Wish{Setting: fixes.EthtoolSetting("hcv0", "flag", "full-page-rx"), Want: "on"}, "flag"},
	} {
		if p := plantest.Make(t, e, []plan.Wish{c.wish}); len(p.Changes) != 0 || len(p.Refused) != 1 || !strings.Contains(p.Refused[0].Reason, c.says) {
			t.Errorf("%s: %+v", name, p)
		}
	}

	// a rename between plan and apply leaves nothing half done
	p := plantest.Make(t, e, wishes[:1])
	run(t, "ip link set hcv0 down")
	run(t, "ip link set hcv0 name hcv9")
	if _, err := e.Apply(t.Context(), p, plan.Options{}); err == nil || !strings.Contains(err.Error(), "hcv0") {
		t.Errorf("apply to an interface that is gone: %v", err)
	}
	if now := strings.ReplaceAll(state(t, "hcv9"), "hcv9", "hcv0"); now != old {
		t.Errorf("it was changed:\n%s", now)
	}
	run(t, "ip link set hcv9 name hcv0")
	run(t, "ip link set hcv0 up")

	// with the default route on it nothing is touched
	run(t, "ip link set hcv1 up")
	run(t, "ip addr add 192.0.2.1/24 dev hcv0")
	run(t, "ip route add default via 192.0.2.2")
	if p := plantest.Make(t, e, wishes[:1]); len(p.Changes) != 0 || !strings.Contains(p.Refused[0].Reason, "it has the default route") {
		t.Errorf("%+v", p)
	}
}

// A tap device takes a number of frames and cuts what is too large down to 64
// without a word: that is seen, and put back.
func TestRootCoalesce(t *testing.T) {
	if !ownSpace(t, syscall.CLONE_NEWNET) {
		return
	}
	if out, err := exec.Command("ip", "tuntap", "add", "hct0", "mode", "tap").CombinedOutput(); err != nil {
		t.Skipf("skipped: no tap device here: %v %s", err, out)
	}
	frames := func(want string) plan.Wish {
		return plan.Wish{Setting: fixes.EthtoolSetting("hct0", "coalesce", "rx-frames"), Want: want, Check: "test"}
	}
	old := state(t, "hct0")
	undo := applied(t, []plan.Wish{frames("16")}, 1, func() error {
		if now := state(t, "hct0"); !strings.Contains(now, `"rx_frames": 16`) {
			return fmt.Errorf("it holds %s", now)
		}
		return nil
	})
	undo()
	e := liveEngine()
	r, err := e.Apply(t.Context(), plantest.Make(t, e, []plan.Wish{frames("1000")}), plan.Options{})
	if err != nil || r.Outcome != plan.Restored || !strings.Contains(r.Cause.Error(), `was set to "1000" without an error, but reads "64"`) {
		t.Errorf("%v %+v", err, r)
	}
	if now := state(t, "hct0"); now != old {
		t.Errorf("it is not as it was:\n%s", now)
	}
}

// A few pages of 2M more on each node that has CPUs; the former counts come
// back, whatever happens.
func TestRootHugepages(t *testing.T) {
	if os.Getenv(inOwnSpace) == "" {
		h, err := host.Open("/", host.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		for i := range facts.New(h).Hugepages().Pools {
			n := &facts.New(h).Hugepages().Pools[i]
			if n.SizeKB != 2048 || n.Total == nil || n.Surplus == nil {
				continue
			}
			file, former := path.Join(n.Dir, "nr_hugepages"), strconv.FormatInt(*n.Total-*n.Surplus, 10)
			t.Cleanup(func() {
				if err := os.WriteFile(file, []byte(former), 0); err != nil {
					t.Error(err)
				}
			})
		}
	}
	if !ownSpace(t, 0) {
		return
	}
	h, err := host.Open("/", host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := facts.New(h)
	pools := func() string {
		h, err := host.Open("/", host.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		b, err := json.Marshal(facts.New(h).Hugepages().Pools)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	old := pools()
	var wishes []plan.Wish
	for _, node := range f.NUMA().Usable() {
		n := f.Hugepages().Pool(node, 2048)
		if n == nil || n.Total == nil || n.Surplus == nil {
			t.Skip("skipped: this machine has no pool of 2M")
		}
		w := plan.Wish{Setting: fixes.HugepagesSetting(node, 2048), Want: strconv.FormatInt(*n.Total-*n.Surplus+4, 10), Check: "test"}
		wishes = append(wishes, w)
	}
	if p := plantest.Make(t, liveEngine(), wishes); len(p.Refused) > 0 {
		t.Skipf("skipped: this machine has no room: %s", p.Refused[0].Reason)
	}
	const extra = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"
	if n, err := h.Int(extra); err == nil {
		wishes = append(wishes, plan.Wish{Setting: fixes.SysfsSetting(extra), Want: strconv.FormatInt(n+1, 10), Check: "test"})
	}
	undo := applied(t, wishes, len(wishes), func() error {
		if pools() == old {
			return fmt.Errorf("the pools are as before: %s", old)
		}
		return nil
	})
	undo()
	if now := pools(); now != old {
		t.Errorf("undo does not give back the pools: %s, were %s", now, old)
	}
	// the kernel has no room for this many, and says so by giving fewer: that
	// is refused before it is tried
	wish := wishes[0]
	wish.Want = "100000000"
	if p := plantest.Make(t, liveEngine(), []plan.Wish{wish}); len(p.Changes) != 0 || !strings.Contains(p.Refused[0].Reason, "pages fit") {
		t.Errorf("%+v", p)
	}
}
