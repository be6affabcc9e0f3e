// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// answers are recorded queries by key: the state of the fake kernel's NICs.
type answers map[string]any

func (a answers) String() string {
	q := map[string]any{}
	for k, v := range a {
		if e, ok := v.(syscall.Errno); ok {
			q[k] = map[string]any{"errno": host.Errno(e)}
			continue
		}
		q[k] = map[string]any{"answer": v}
	}
	b, err := json.Marshal(map[string]any{"schema": host.CaptureSchema, "whole": []string{"/sys", "/proc"}, "queries": q})
	if err != nil {
		panic(err)
	}
	return string(b)
}

const nic = "0000:18:00.0 ens1np0"

// nicAnswers are those of one interface.
func nicAnswers(ifname string) answers {
	key := func(topic string) string { return "ethtool " + ifname + " " + topic }
	return answers{
		key("rings"):     host.Rings{RX: 1024, TX: 1024, RXMax: 8192, TXMax: 8192},
		key("channels"):  host.Channels{Combined: 8, CombinedMax: 63},
		key("features"):  map[string]bool{"rx-gro": false, "rx-gro-hw": true, "tx-tcp-segmentation": true, "rx-lro": false},
		key("fixed"):     map[string]bool{"rx-lro": true},
		key("privflags"): map[string]bool{"rx_striding_rq": true, "rx_cqe_compress": false},
		key("coalesce"):  host.Coalesce{RXUsecs: 8, RXFrames: 128, TXUsecs: 8, TXFrames: 128, AdaptiveRX: true, AdaptiveTX: true},
		key("pause"):     host.Pause{Autoneg: false, RX: true, TX: true},
	}
}

// nicHost has one NIC with a driver, one port for management, and a veth.
func nicHost(driver string, mtu int) map[string]string {
	a := nicAnswers("ens1np0")
	for k, v := range nicAnswers("veth0") {
		a[k] = v
	}
	for k, v := range nicAnswers("eno1") {
		a[k] = v
	}
	return map[string]string{
		"/.hostcheck/capture.json":                       a.String(),
		"/sys/class/net/ens1np0/mtu":                     strconv.Itoa(mtu) + "\n",
		"/sys/class/net/ens1np0/device/driver":           "-> ../../../../bus/pci/drivers/" + driver,
		"/sys/bus/pci/devices/0000:18:00.0/net/ens1np0/": "",
		"/sys/class/net/eno1/mtu":                        "1500\n",
		"/sys/class/net/eno1/master":                     "-> ../bond0",
		"/sys/class/net/bond0/lower_eno1/":               "",
		"/sys/class/net/bond0/mtu":                       "1500\n",
		"/sys/class/net/veth0/mtu":                       "1500\n",
		"/proc/net/route":                                "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\nbond0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\nens1np0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n",
		"/proc/net/ipv6_route":                           "00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n",
		"/proc/net/tcp":                                  "  sl  local_address rem_address   st\n",
		"/proc/meminfo":                                  "MemTotal: 268435456 kB\nMemAvailable: 16777216 kB\n",
		"/proc/self/auxv/":                               "",
		"/boot/config-6.12.107":                          "CONFIG_X86_64=y\n",
		"/proc/sys/kernel/osrelease":                     "6.12.107\n",
		"/proc/sys/kernel/arch":                          "x86_64\n",
	}
}

// links makes the files whose text is "-> TARGET" symbolic links.
func links(files map[string]string) func(testing.TB, string) {
	return func(tb testing.TB, root string) {
		tb.Helper()
		plain := map[string]string{}
		for p, text := range files {
			if !strings.HasPrefix(text, "-> ") {
				plain[p] = text
			}
		}
		plantest.Files(tb, root, plain)
		for p, text := range files {
			if to, ok := strings.CutPrefix(text, "-> "); ok {
				full := filepath.Join(root, p)
				if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
					tb.Fatal(err)
				}
				if err := os.Symlink(to, full); err != nil {
					tb.Fatal(err)
				}
			}
		}
	}
}

// setAnswer plays the driver: it changes the recorded answer.
func setAnswer(root string) func(ifname, group, word, value string) error {
	return func(ifname, group, word, value string) error {
		p := filepath.Join(root, host.CaptureFile)
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		var c map[string]any
		if err := json.Unmarshal(b, &c); err != nil {
			return err
		}
		topic := map[string]string{"feature": "features", "flag": "privflags"}[group]
		if topic == "" {
			topic = group
		}
		key := word
		if topic == "coalesce" {
			key = strings.ReplaceAll(word, "-", "_")
		}
		a := c["queries"].(map[string]any)["ethtool "+ifname+" "+topic].(map[string]any)["answer"].(map[string]any)
		if _, ok := a[key]; !ok {
			return fmt.Errorf("%s has no %s", topic, key)
		}
		if a[key] = value == "on"; value != "on" && value != "off" {
			if a[key], err = strconv.Atoi(value); err != nil {
				return err
			}
		}
		if b, err = json.Marshal(c); err != nil {
			return err
		}
		if err := os.WriteFile(p+".new", b, 0o644); err != nil {
			return err
		}
		return os.Rename(p+".new", p)
	}
}

func nicEngine(root string) *plan.Engine {
	return &plan.Engine{Root: root, Tool: "test", Verbs: []plan.Verb{fixes.Ethtool{Set: setAnswer(root)}}, Machine: &plan.Machine{}}
}

func set(subject, group, word, want string) plan.Wish {
	return plan.Wish{Setting: fixes.EthtoolSetting(subject, group, word), Want: want, Tier: plan.Link, Check: "dcqcn.pause"}
}

// normal writes the recorded answers as the fake driver does, so that a tree
// can be compared byte for byte.
func normal(tb testing.TB, root string) {
	tb.Helper()
	if err := setAnswer(root)("ens1np0", "pause", "autoneg", "off"); err != nil {
		tb.Fatal(err)
	}
}

func nicSetup(files map[string]string) func(testing.TB, string) {
	return func(tb testing.TB, root string) {
		tb.Helper()
		links(files)(tb, root)
		normal(tb, root)
	}
}

var nicWishes = []plan.Wish{
	set(nic, "rings", "rx", "8000"), set(nic, "channels", "combined", "16"), set(nic, "feature", "rx-gro", "on"),
	set(nic, "flag", "rx_cqe_compress", "on"), set(nic, "coalesce", "rx-usecs", "3"), set(nic, "coalesce", "adaptive-rx", "off"),
	set(nic, "pause", "rx", "off"), set(nic, "pause", "tx", "off"), set(nic, "pause", "autoneg", "off"), set("veth0", "feature", "tx-tcp-segmentation", "off"),
}

// nicHolds asks as a check does.
func nicHolds(root string) error {
	h, err := host.Open(root, host.Options{})
	if err != nil {
		return err
	}
	defer h.Close()
	r, _ := h.EthtoolRings("ens1np0")
	c, _ := h.EthtoolChannels("ens1np0")
	p, _ := h.EthtoolPause("ens1np0")
	f, _ := h.EthtoolFeatures("veth0")
	g, _ := h.EthtoolFeatures("ens1np0")
	m, _ := h.EthtoolCoalesce("ens1np0")
	flags, _ := h.EthtoolPrivFlags("ens1np0")
	if r.RX != 8192 || r.TX != 1024 || c.Combined != 16 || p.RX || p.TX || f["tx-tcp-segmentation"] || !g["rx-gro"] || m.RXUsecs != 3 || m.AdaptiveRX || !m.AdaptiveTX || !flags["rx_cqe_compress"] {
		return fmt.Errorf("%+v %+v %+v %v %v %+v %v", r, c, p, f, g, m, flags)
	}
	return nil
}

func TestEthtoolLoop(t *testing.T) {
	p := plantest.ClosedLoop(t, plantest.Case{Setup: nicSetup(nicHost("mlx5_core", 9000)), Engine: nicEngine, Wishes: nicWishes}, nicHolds)
	tiers := map[string]plan.Tier{}
	for _, c := range p.Changes {
		tiers[c.Name] = c.Tier
		if c.Persist || c.Tier == plan.Link && c.Disturbs == "" {
			t.Errorf("%+v", c)
		}
		if c.Name == "rings rx" && c.Diff != "1024 -> 8192" { // mlx5 rounds up
			t.Errorf("%+v", c)
		}
	}
	for name, want := range map[string]plan.Tier{
		"rings rx": plan.Link, "channels combined": plan.Link, "flag rx_cqe_compress": plan.Link, "pause rx": plan.Link, "coalesce adaptive-rx": plan.Link,
		"feature rx-gro": plan.Safe, "coalesce rx-usecs": plan.Safe, "feature tx-tcp-segmentation": plan.Safe,
	} {
		if tiers[name] != want {
			t.Errorf("%s has tier %q, want %q", name, tiers[name], want)
		}
	}
	if _, ok := tiers["pause autoneg"]; ok {
		t.Error("what holds already is changed")
	}
}

func TestEthtoolCrash(t *testing.T) {
	n := plantest.CrashLaw(t, plantest.Case{Setup: nicSetup(nicHost("mlx5_core", 1500)), Engine: nicEngine, Wishes: []plan.Wish{nicWishes[0], nicWishes[2], nicWishes[6]}})
	if !crashChild() && n < 60 {
		t.Errorf("only %d points tried", n)
	}
}

// The name of an interface may change; the PCI address tells which it is.
func TestEthtoolRenamed(t *testing.T) {
	root := plantest.TempDir(t)
	nicSetup(nicHost("mlx5_core", 1500))(t, root)
	e := nicEngine(root)
	if err := os.MkdirAll(filepath.Join(root, "/var/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := plantest.Make(t, e, []plan.Wish{set("0000:18:00.0 rail3", "feature", "rx-gro", "on")})
	if r, err := e.Apply(t.Context(), p, plan.Options{}); err != nil || r.Outcome != plan.Applied {
		t.Fatalf("%v %+v", err, r)
	}
	if b, err := os.ReadFile(filepath.Join(root, host.CaptureFile)); err != nil || !strings.Contains(string(b), `"rx-gro":true`) {
		t.Errorf("%v %s", err, b)
	}
}

// A device that is away after a reboot took its settings with it.
func TestEthtoolGoneAfterReboot(t *testing.T) {
	root := plantest.TempDir(t)
	nicSetup(with(nicHost("mlx5_core", 1500), map[string]string{"/proc/sys/kernel/random/boot_id": "1\n", "/var/lib/": ""}))(t, root)
	e := nicEngine(root)
	r, err := e.Apply(t.Context(), plantest.Make(t, e, []plan.Wish{nicWishes[2]}), plan.Options{})
	if err != nil || r.Outcome != plan.Applied {
		t.Fatalf("%v %+v", err, r)
	}
	if err := os.RemoveAll(filepath.Join(root, "/sys/bus/pci/devices/0000:18:00.0")); err != nil {
		t.Fatal(err)
	}
	var drift *plan.DriftError
	if _, err := e.Undo(t.Context(), r.Txn, plan.Options{}); !errors.As(err, &drift) || !strings.Contains(err.Error(), "0000:18:00.0 has no network interface") {
		t.Errorf("before the reboot: %v", err)
	}
	plantest.Files(t, root, map[string]string{"/proc/sys/kernel/random/boot_id": "2\n"})
	if u, err := e.Undo(t.Context(), r.Txn, plan.Options{}); err != nil || u.Outcome != plan.Undone {
		t.Errorf("after it: %v %+v", err, u)
	}
}

func TestEthtoolUnwilling(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(root string) func(_, _, _, _ string) error
		says string
	}{
		"EINVAL": {func(string) func(_, _, _, _ string) error {
			return func(_, _, _, _ string) error { return fmt.Errorf("the driver refuses this value (%w)", syscall.EINVAL) }
		}, "cannot set rings rx of ens1np0 to 2048: the driver refuses this value (invalid argument)"},
		"EBUSY": {func(string) func(_, _, _, _ string) error {
			return func(_, _, _, _ string) error { return syscall.EBUSY }
		}, "device or resource busy"},
		"ERANGE": {func(string) func(_, _, _, _ string) error {
			return func(_, _, _, _ string) error { return syscall.ERANGE }
		}, "out of range"},
		"ENOMEM": {func(string) func(_, _, _, _ string) error {
			return func(_, _, _, _ string) error { return syscall.ENOMEM }
		}, "cannot allocate memory"},
		"ignored": {func(string) func(_, _, _, _ string) error { return func(_, _, _, _ string) error { return nil } },
			`ethtool 0000:18:00.0 ens1np0 rings rx was set to "2048" without an error, but still reads "1024": the write was ignored`},
		"rounded": {func(root string) func(_, _, _, _ string) error {
			return func(i, g, w, v string) error { return setAnswer(root)(i, g, w, strings.Replace(v, "2048", "2040", 1)) }
		}, `was set to "2048" without an error, but reads "2040"`},
	} {
		t.Run(name, func(t *testing.T) {
			unwilling(t, plantest.Case{
				Setup: nicSetup(nicHost("ice", 1500)),
				Engine: func(root string) *plan.Engine {
					return &plan.Engine{Root: root, Tool: "test", Verbs: []plan.Verb{fixes.Ethtool{Set: c.set(root)}}, Machine: &plan.Machine{}}
				},
				Wishes: []plan.Wish{set(nic, "rings", "rx", "2048")},
			}, c.says)
		})
	}
}

func TestEthtoolRefused(t *testing.T) {
	mlx5 := nicHost("mlx5_core", 9000)
	eno := "0000:01:00.0 eno1"
	mgmt := with(mlx5, map[string]string{"/sys/bus/pci/devices/0000:01:00.0/net/eno1/": "", "/sys/class/net/eno1/device/driver": "-> ../../../../bus/pci/drivers/igb"})
	ssh := with(mlx5, map[string]string{"/proc/net/tcp": "  sl  local_address rem_address   st\n   0: 0200A8C0:0016 0900A8C0:C001 01 0:0\n"})
	// rules send what comes from the session's address another way than the main table would
	rules := with(mlx5, map[string]string{"/proc/net/tcp": "  sl  local_address rem_address   st\n   0: 0200A8C0:0016 097100CB:C001 01 0:0\n"})
	for name, c := range map[string]struct {
		files map[string]string
		wish  plan.Wish
		says  []string
	}{
		"ring beyond":       {mlx5, set(nic, "rings", "rx", "16384"), []string{"ens1np0 can have 8192 rx ring entries at most, and 16384 are wanted"}},
		"no ring":           {mlx5, set(nic, "rings", "rx", "0"), []string{"needs 1 rx ring entries at least"}},
		"queues beyond":     {mlx5, set(nic, "channels", "combined", "64"), []string{"ens1np0 can have 63 combined queues at most, and 64 are wanted"}},
		"no queue":          {mlx5, set(nic, "channels", "combined", "0"), []string{"needs 1 combined queues at least"}},
		"no separate":       {mlx5, set(nic, "channels", "tx", "4"), []string{"can have 0 tx queues at most"}},
		"memory":            {with(mlx5, map[string]string{"/proc/meminfo": "MemAvailable: 3145728 kB\n"}), set(nic, "rings", "rx", "8192"), []string{"8 queues × 8192 buffers × 16 KiB = 1 GiB", "25 % of the 3 GiB of available memory", "rings of 6144 entries or fewer"}},
		"memory not known":  {with(mlx5, map[string]string{"/proc/meminfo": "MemTotal: 3145728 kB\n"}), set(nic, "rings", "rx", "8192"), []string{"is not known"}},
		"fixed":             {mlx5, set(nic, "feature", "rx-lro", "on"), []string{"the driver of ens1np0 fixes rx-lro"}},
		"no such feature":   {mlx5, set(nic, "feature", "rx-magic", "on"), []string{"has no feature rx-magic; it has rx-gro, rx-gro-hw"}},
		"no such flag":      {mlx5, set(nic, "flag", "full-page-rx", "on"), []string{"has no flag full-page-rx; it has rx_cqe_compress, rx_striding_rq"}},
		"striding":          {mlx5, set(nic, "flag", "rx_striding_rq", "off"), []string{"keeps rx_striding_rq on while rx-gro-hw is on"}},
		"not a boolean":     {mlx5, set(nic, "pause", "rx", "1"), []string{`is on or off, not "1"`}},
		"not a number":      {mlx5, set(nic, "rings", "rx", "big"), []string{`"big" is not a number`}},
		"no such group":     {mlx5, set(nic, "magic", "x", "1"), []string{"is not a setting of ethtool"}},
		"no such device":    {mlx5, set("0000:77:00.0 ens7", "rings", "rx", "512"), []string{"0000:77:00.0 has no network interface"}},
		"no such interface": {mlx5, set("veth9", "rings", "rx", "512"), []string{"there is no interface veth9"}},
		"two ports":         {with(mlx5, map[string]string{"/sys/bus/pci/devices/0000:18:00.0/net/ens1np1/": ""}), set("0000:18:00.0 rail3", "rings", "rx", "512"), []string{"has the interfaces ens1np0, ens1np1, and none is"}},
		"under a bond":      {mgmt, set(eno, "feature", "rx-gro", "on"), []string{"eno1 is not touched without --allow-mgmt: bond0 stands on it, and it has the default route"}},
		"SSH":               {ssh, set(nic, "feature", "rx-gro", "on"), []string{"not touched without --allow-mgmt: an SSH session from 192.168.0.9 comes through it"}},
		"SSH by rules":      {rules, set(nic, "feature", "rx-gro", "on"), []string{"not touched without --allow-mgmt: an SSH session from 203.0.113.9 comes through it"}},
		"routes not known":  {with(mlx5, map[string]string{"/proc/net/route": "-> nowhere"}), set(nic, "feature", "rx-gro", "on"), []string{"which interface this host is managed through is not known"}},
		"not offered": {with(mlx5, map[string]string{"/.hostcheck/capture.json": answers{"ethtool ens1np0 rings": syscall.EOPNOTSUPP}.String()}), set(nic, "rings", "rx", "512"),
			[]string{"the driver of ens1np0 has no rings to set"}},
		"not captured": {with(mlx5, map[string]string{"/.hostcheck/capture.json": answers{}.String()}), set(nic, "rings", "rx", "512"), []string{"the rings of ens1np0 are not in this tree"}},
	} {
		t.Run(name, func(t *testing.T) {
			root := plantest.TempDir(t)
			links(c.files)(t, root)
			refusals(t, nil, func(string) *plan.Engine { return nicEngine(root) }, c.wish, c.says...)
		})
	}
}

// Who says so may touch the management port.
func TestEthtoolAllowMgmt(t *testing.T) {
	root := plantest.TempDir(t)
	nicSetup(with(nicHost("igb", 1500), map[string]string{"/proc/net/route": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\nens1np0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\n"}))(t, root)
	wish := set(nic, "feature", "rx-gro", "on")
	e := nicEngine(root)
	if p := plantest.Make(t, e, []plan.Wish{wish}); len(p.Changes) != 0 || !strings.Contains(p.Refused[0].Steps[0], "--allow-mgmt") {
		t.Errorf("%+v", p)
	}
	e.Verbs = []plan.Verb{fixes.Ethtool{Set: setAnswer(root), AllowMgmt: true}}
	if p := plantest.Make(t, e, []plan.Wish{wish}); len(p.Changes) != 1 || len(p.Refused) != 0 {
		t.Errorf("%+v", p)
	}
}

// Queues and rings that both grow are counted together.
func TestEthtoolRingsAndQueues(t *testing.T) {
	root := plantest.TempDir(t)
	nicSetup(nicHost("mana", 1500))(t, root)
	p := plantest.Make(t, nicEngine(root), []plan.Wish{set(nic, "rings", "rx", "8192"), set(nic, "channels", "combined", "63")})
	if len(p.Changes) != 2 {
		t.Fatalf("%+v", p) // 63 × 8192 × 4 KiB = 1.97 GiB of 16
	}
	plantest.Files(t, root, map[string]string{"/proc/meminfo": "MemAvailable: 4194304 kB\n"})
	p = plantest.Make(t, nicEngine(root), []plan.Wish{set(nic, "rings", "rx", "8192"), set(nic, "channels", "combined", "63")})
	if len(p.Changes) != 0 || len(p.Refused) != 2 || !strings.Contains(p.Refused[0].Reason, "63 queues × 8192 buffers × 4 KiB = 2 GiB") {
		t.Errorf("%+v", p)
	}
}
