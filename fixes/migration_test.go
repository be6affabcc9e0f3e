// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

// controlFiles are the control directories of all postings, off and as they are
// after the module was loaded.
var controlFiles = map[string]map[string]string{
	"":     {},
	"v1":   {"/sys/kernel/dcbm/offloading": "0\n"},
	"v3":   {"/sys/kernel/dcbm/offloading": "0\n", "/sys/kernel/dcbm/nr_dma_chan": "1\n", cpuMT + "offloading": "0\n", cpuMT + "threads": "4\n", cpuMT + "cpuselect": "0\n"},
	"v4":   counting("/sys/kernel/dcbm"),
	"v5":   counting("/sys/module/dcbm"),
	"v6":   with(counting(v6Dir), map[string]string{v6Dir + "/reason_mask": strings.Join(facts.Reasons, ",") + "\n"}),
	"fork": with(counting(v6Dir), map[string]string{v6Dir + "/nr_dma_chan": "16\n", v6Dir + "/sg_elems": "32\n", v6Dir + "/batches_refused": "0\n"}),
}

const (
	v6Dir = "/sys/module/dcbm/parameters"
	cpuMT = "/sys/kernel/cpu_mt/"
)

func counting(dir string) map[string]string {
	return map[string]string{dir + "/offloading": "0\n", dir + "/nr_dma_chan": "1\n", dir + "/folios_migrated": "0\n", dir + "/folios_failures": "0\n"}
}

// migrationHost has two nodes, and engines of a driver with one channel each.
func migrationHost(revision, driver string, engines int) map[string]string {
	files := with(controlFiles[revision], map[string]string{
		"/.hostcheck/capture.json":                    `{"schema":"hostcheck.capture/v1","whole":["/sys","/proc"]}`,
		"/sys/devices/system/node/has_normal_memory":  "0-1\n",
		"/sys/devices/system/node/has_cpu":            "0-1\n",
		"/sys/devices/system/node/node0/distance":     "10 32\n",
		"/sys/devices/system/node/node1/distance":     "32 10\n",
		"/proc/sys/kernel/random/boot_id":             "boot-1\n",
		"/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
		"/sys/kernel/mm/transparent_hugepage/":        "",
		"/sys/class/dma/":                             "",
	})
	for i := range engines {
		addEngine(files, i, driver, "0")
	}
	return files
}

func addEngine(files map[string]string, i int, driver, used string) {
	dev := fmt.Sprintf("/sys/devices/pci0000:20/0000:%02x:00.1", 0x20+i)
	files[fmt.Sprintf("/sys/class/dma/dma%dchan0", i)] = fmt.Sprintf("-> ../..%s/dma/dma%dchan0", strings.TrimPrefix(dev, "/sys"), i)
	files[fmt.Sprintf("%s/dma/dma%dchan0/in_use", dev, i)] = used + "\n"
	files[fmt.Sprintf("%s/dma/dma%dchan0/device", dev, i)] = fmt.Sprintf("-> ../../../0000:%02x:00.1", 0x20+i)
	files[dev+"/driver"] = "-> ../../../bus/pci/drivers/" + driver
	files[dev+"/numa_node"] = "0\n"
}

// controls plays the kernel's side of the files. What engines copied is forgotten
// when they are switched off, so that a tree can be the one that it was.
type controls struct {
	root    string
	busy    bool   // another migrator is registered
	stuck   string // a file that takes every value and keeps the one it has
	idle    bool   // no channel can be taken: the CPU copies
	corrupt bool
}

func (k controls) at(p string) string { return filepath.Join(k.root, p) }

func (k controls) text(p string) string {
	b, _ := os.ReadFile(k.at(p))
	return strings.TrimSpace(string(b))
}

func (k controls) knob(p, s string) error {
	write := plantest.Knob(k.root)
	dir, name := filepath.Split(p)
	if name == k.stuck {
		return nil
	}
	on := k.text(dir+"offloading") == "1"
	switch name {
	case "offloading":
		if s != "0" && s != "1" {
			return syscall.EINVAL
		}
		if s == "1" && k.busy {
			return syscall.EBUSY
		}
		if migrated := dir + "folios_migrated"; s == "0" && k.text(migrated) != "" {
			if err := write(migrated, "0"); err != nil {
				return err
			}
		}
	case "nr_dma_chan":
		if on && k.text(dir+"sg_elems") != "" { // of the fork
			return syscall.EBUSY
		}
		if s == "16" && k.text(dir+"max_channels") != "" {
			return syscall.EINVAL
		}
	case "reason_mask":
		names, err := facts.ParseReasons(s)
		if err != nil {
			return syscall.EINVAL
		}
		if s = strings.Join(names, ","); s == "" {
			s = "none"
		}
	}
	return write(p, s)
}

// probe plays memory that is moved.
func (k controls) probe(from, to int) error {
	if from != 0 || to != 1 {
		return fmt.Errorf("moved from %d to %d", from, to)
	}
	if k.corrupt {
		return errors.New("memory changed while it was moved")
	}
	for _, dir := range facts.OffloadDirs() {
		mask := k.text(dir + "/reason_mask")
		if n := dir + "/folios_migrated"; !k.idle && (mask == "" || strings.Contains(mask, "syscall_or_cpuset")) && k.text(n) != "" && k.text(dir+"/offloading") == "1" {
			return plantest.Knob(k.root)(n, "8")
		}
	}
	return nil
}

func migrationEngine(k controls) func(root string) *plan.Engine {
	return func(root string) *plan.Engine {
		k.root = root
		return &plan.Engine{Root: root, Tool: "test", Verbs: []plan.Verb{fixes.Migration{Probe: k.probe}}, Machine: &plan.Machine{Knob: k.knob}}
	}
}

func move(engine, name, want string) plan.Wish {
	return plan.Wish{Setting: fixes.MigrationSetting(engine, name), Want: want, Tier: plan.Safe, Check: "migration.offload", Why: "measured"}
}

func TestMigrationLoop(t *testing.T) {
	on := func(files map[string]string, dir string) map[string]string {
		return with(files, map[string]string{dir + "/offloading": "1\n"})
	}
	for name, c := range map[string]struct {
		files  map[string]string
		wishes []plan.Wish
		holds  func(string) error
		plan   string
	}{
		"v1": {migrationHost("v1", "ptdma", 1), []plan.Wish{move("ptdma", "offloading", "on")}, holdsFile("/sys/kernel/dcbm/offloading", "1"), "offloading off -> on"},
		"v3": {
			migrationHost("v3", "ptdma", 4), []plan.Wish{move("ptdma", "offloading", "on"), move("ptdma", "nr_dma_chan", "4")},
			both(holdsFile("/sys/kernel/dcbm/offloading", "1"), holdsFile("/sys/kernel/dcbm/nr_dma_chan", "4")), "nr_dma_chan 1 -> 4; offloading off -> on",
		},
		"v4": {
			migrationHost("v4", "ptdma", 4), []plan.Wish{move("ptdma", "offloading", "on"), move("ptdma", "nr_dma_chan", "0x4")},
			both(holdsFile("/sys/kernel/dcbm/offloading", "1"), holdsFile("/sys/kernel/dcbm/nr_dma_chan", "4")), "nr_dma_chan 1 -> 4; offloading off -> on",
		},
		"v5, ae4dma": {
			migrationHost("v5", "ae4dma", 2), []plan.Wish{move("ae4dma", "offloading", "on"), move("ae4dma", "nr_dma_chan", "2")},
			both(holdsFile("/sys/module/dcbm/offloading", "1"), holdsFile("/sys/module/dcbm/nr_dma_chan", "2")), "nr_dma_chan 1 -> 2; offloading off -> on",
		},
		"v6": {
			migrationHost("v6", "ptdma", 16), []plan.Wish{move("ptdma", "reason_mask", "demotion, syscall_or_cpuset"), move("ptdma", "offloading", "on"), move("ptdma", "nr_dma_chan", "16")},
			both(both(holdsFile(v6Dir+"/offloading", "1"), holdsFile(v6Dir+"/nr_dma_chan", "16")), holdsFile(v6Dir+"/reason_mask", "syscall_or_cpuset,demotion")),
			"nr_dma_chan 1 -> 16; reason_mask all -> syscall_or_cpuset,demotion; offloading off -> on",
		},
		"few reasons": {
			migrationHost("v6", "ptdma", 1), []plan.Wish{move("ptdma", "reason_mask", "demotion"), move("ptdma", "offloading", "on")},
			both(holdsFile(v6Dir+"/offloading", "1"), holdsFile(v6Dir+"/reason_mask", "demotion")),
			"reason_mask all -> syscall_or_cpuset,demotion; offloading off -> on; reason_mask syscall_or_cpuset,demotion -> demotion",
		},
		"few reasons already": {
			with(migrationHost("v6", "ptdma", 1), map[string]string{v6Dir + "/reason_mask": "damon\n"}), []plan.Wish{move("ptdma", "offloading", "on")},
			both(holdsFile(v6Dir+"/offloading", "1"), holdsFile(v6Dir+"/reason_mask", "damon")),
			"reason_mask damon -> syscall_or_cpuset,damon; offloading off -> on; reason_mask syscall_or_cpuset,damon -> damon",
		},
		"no reasons": {
			with(migrationHost("v6", "ptdma", 1), map[string]string{v6Dir + "/reason_mask": "none\n"}), []plan.Wish{move("ptdma", "offloading", "on")},
			both(holdsFile(v6Dir+"/offloading", "1"), holdsFile(v6Dir+"/reason_mask", "none")),
			"reason_mask none -> syscall_or_cpuset; offloading off -> on; reason_mask syscall_or_cpuset -> none",
		},
		"while it is on": {
			on(migrationHost("v6", "ptdma", 16), v6Dir), []plan.Wish{move("ptdma", "nr_dma_chan", "12"), move("ptdma", "reason_mask", "0x3ff")},
			both(holdsFile(v6Dir+"/offloading", "1"), holdsFile(v6Dir+"/nr_dma_chan", "12")), "offloading on -> off; nr_dma_chan 1 -> 12; offloading off -> on",
		},
		"fork, idxd, on": {
			on(migrationHost("fork", "idxd", 8), v6Dir), []plan.Wish{move("idxd", "nr_dma_chan", "8"), move("idxd", "offloading", "on")},
			both(holdsFile(v6Dir+"/offloading", "1"), holdsFile(v6Dir+"/nr_dma_chan", "8")), "offloading on -> off; nr_dma_chan 16 -> 8; offloading off -> on",
		},
		"off, whatever engines": {on(migrationHost("v6", "idxd", 8), v6Dir), []plan.Wish{move("idxd", "offloading", "off")}, holdsFile(v6Dir+"/offloading", "0"), "offloading on -> off"},
		"threads": {
			migrationHost("v3", "ptdma", 0), []plan.Wish{move(fixes.CPUMT, "offloading", "on"), move(fixes.CPUMT, "threads", "8")},
			both(holdsFile(cpuMT+"offloading", "1"), holdsFile(cpuMT+"threads", "8")), "threads 4 -> 8; offloading off -> on",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := plantest.ClosedLoop(t, plantest.Case{Setup: links(c.files), Engine: migrationEngine(controls{}), Wishes: c.wishes}, c.holds)
			var got []string
			for _, x := range p.Changes {
				got = append(got, x.Name+" "+x.Diff)
				if x.Tier != plan.Safe || x.Persist {
					t.Errorf("%+v", x)
				}
			}
			if s := strings.Join(got, "; "); s != c.plan || len(p.Refused) > 0 {
				t.Errorf("plan %s\nwant %s\n%+v", s, c.plan, p.Refused)
			}
		})
	}
}

func TestMigrationCrash(t *testing.T) {
	files := with(migrationHost("v6", "ptdma", 4), map[string]string{v6Dir + "/offloading": "1\n"})
	n := plantest.CrashLaw(t, plantest.Case{
		Setup: links(files), Engine: migrationEngine(controls{}), Wishes: []plan.Wish{move("ptdma", "nr_dma_chan", "4"), move("ptdma", "offloading", "on")},
	})
	if !crashChild() && n < 50 {
		t.Errorf("only %d points tried", n)
	}
}

// Whatever the kernel does not do as it says, the host is as it was.
func TestMigrationUnwilling(t *testing.T) {
	all := []plan.Wish{move("ptdma", "nr_dma_chan", "4"), move("ptdma", "offloading", "on")}
	for name, c := range map[string]struct {
		files map[string]string
		k     controls
		says  string
	}{
		"another migrator": {migrationHost("v6", "ptdma", 4), controls{busy: true}, `cannot write "1" to ` + v6Dir + `/offloading: device or resource busy`},
		"lies":             {migrationHost("v5", "ptdma", 4), controls{stuck: "nr_dma_chan"}, `nr_dma_chan was set to "4" without an error, but still reads "1": the write was ignored`},
		"lies about on":    {migrationHost("v4", "ptdma", 4), controls{stuck: "offloading"}, "the write was ignored"},
		"nobody copies":    {migrationHost("v6", "ptdma", 4), controls{idle: true}, "engines copied nothing: memory was moved and is intact, but folios_migrated stayed at 0, so the CPU copied"},
		"memory changed":   {migrationHost("v3", "ptdma", 4), controls{corrupt: true}, "cannot move memory from node 0 to node 1 and back, to see who copies it: memory changed while it was moved"},
		"stuck on":         {with(migrationHost("v6", "ptdma", 4), map[string]string{v6Dir + "/offloading": "1\n"}), controls{stuck: "offloading"}, `offloading was set to "off" without an error, but still reads "on"`},
	} {
		t.Run(name, func(t *testing.T) {
			unwilling(t, plantest.Case{Setup: links(c.files), Engine: migrationEngine(c.k), Wishes: all}, c.says)
		})
	}
	t.Run("too many", func(t *testing.T) {
		files := with(migrationHost("v6", "ptdma", 16), map[string]string{v6Dir + "/max_channels": "1\n"})
		unwilling(t, plantest.Case{Setup: links(files), Engine: migrationEngine(controls{}), Wishes: []plan.Wish{move("ptdma", "nr_dma_chan", "16"), move("ptdma", "offloading", "on")}}, "invalid argument")
	})
}

func TestMigrationRefused(t *testing.T) {
	v6 := func(driver string, n int) map[string]string { return migrationHost("v6", driver, n) }
	mixed := v6("ptdma", 2)
	addEngine(mixed, 9, "idxd", "0")
	strange := v6("ptdma", 2)
	addEngine(strange, 9, "tomorrow", "0")
	used := v6("ptdma", 0)
	addEngine(used, 0, "ptdma", "1")
	without := func(files map[string]string, p string) map[string]string {
		files = with(files, nil)
		delete(files, p)
		return files
	}
	onNode := v6("ptdma", 1)
	onNode["/sys/devices/system/node/has_normal_memory"] = "0\n"
	for name, c := range map[string]struct {
		files map[string]string
		wish  plan.Wish
		says  []string
	}{
		"not there":          {migrationHost("", "ptdma", 1), move("ptdma", "offloading", "on"), []string{"no released kernel has it", "modprobe dcbm"}},
		"idxd out of order":  {v6("idxd", 4), move("idxd", "offloading", "on"), []string{"finish out of order", "RFC v6", "data would be lost"}},
		"idxd beside":        {mixed, move("ptdma", "offloading", "on"), []string{"may take those of 0000:29:00.1, driver idxd", "echo 0000:29:00.1 > /sys/bus/pci/drivers/idxd/unbind"}},
		"unknown beside":     {strange, move("ptdma", "offloading", "on"), []string{"whether those of 0000:29:00.1 can is not known", "drivers/tomorrow/unbind"}},
		"not the engine":     {v6("ae4dma", 2), move("ptdma", "offloading", "on"), []string{"may take those of 0000:20:00.1, driver ae4dma"}},
		"not on the list":    {v6("ioatdma", 2), move("ioatdma", "offloading", "on"), []string{"ioatdma is not among the engines that may copy"}},
		"no driver of these": {v6("ptdma", 2), move("nvme", "offloading", "on"), []string{`"nvme" is no driver of copy engines`}},
		"no engine":          {v6("ptdma", 0), move("ptdma", "offloading", "on"), []string{"there is no engine of ptdma", "modprobe ptdma"}},
		"in use":             {used, move("ptdma", "offloading", "on"), []string{"all 1 channels of ptdma are in use"}},
		"one node":           {onNode, move("ptdma", "offloading", "on"), []string{"one node has memory"}},
		"beyond":             {v6("ptdma", 2), move("ptdma", "nr_dma_chan", "17"), []string{"nr_dma_chan takes a number from 1 to 16", "17 is beyond"}},
		"none":               {v6("ptdma", 2), move("ptdma", "nr_dma_chan", "0"), []string{"0 is beyond"}},
		"maybe":              {v6("ptdma", 2), move("ptdma", "offloading", "1"), []string{"it is on or off"}},
		"no reasons":         {migrationHost("v5", "ptdma", 1), move("ptdma", "reason_mask", "all"), []string{"(RFC v5, 28 Apr 2026) has no reason_mask"}},
		"no such reason":     {v6("ptdma", 1), move("ptdma", "reason_mask", "Demotion"), []string{"not a mask of reasons"}},
		"one channel":        {migrationHost("v1", "ptdma", 1), move("ptdma", "nr_dma_chan", "2"), []string{"has no nr_dma_chan"}},
		"no such setting":    {v6("ptdma", 1), move("ptdma", "folios_migrated", "0"), []string{`no setting "folios_migrated"`}},
		"climbs out":         {v6("ptdma", 1), move("ptdma", "../../x", "0"), []string{"no setting"}},
		"no threads":         {v6("ptdma", 1), move(fixes.CPUMT, "offloading", "on"), []string{"this kernel has no /sys/kernel/cpu_mt"}},
		"threads are on":     {with(migrationHost("v3", "ptdma", 1), map[string]string{cpuMT + "offloading": "1\n"}), move("ptdma", "offloading", "on"), []string{"one migrator at a time"}},
		"engines are on":     {with(migrationHost("v3", "ptdma", 1), map[string]string{"/sys/kernel/dcbm/offloading": "1\n"}), move(fixes.CPUMT, "offloading", "on"), []string{"one migrator at a time"}},
		"too many threads":   {migrationHost("v3", "ptdma", 1), move(fixes.CPUMT, "threads", "64"), []string{"64 is beyond"}},
		"unreadable":         {with(v6("ptdma", 1), map[string]string{v6Dir + "/offloading": "maybe\n"}), move("ptdma", "offloading", "on"), []string{"whether it is on is not known"}},
		"tree without":       {without(migrationHost("", "ptdma", 1), "/.hostcheck/capture.json"), move("ptdma", "offloading", "on"), []string{"is not known"}},
	} {
		t.Run(name, func(t *testing.T) { refusals(t, c.files, migrationEngine(controls{}), c.wish, c.says...) })
	}
	root := plantest.TempDir(t)
	links(v6("ptdma", 2))(t, root)
	p := plantest.Make(t, migrationEngine(controls{})(root), []plan.Wish{move("ptdma", "nr_dma_chan", "4"), move("ptdma", "offloading", "on")})
	if len(p.Changes) != 0 || len(p.Refused) != 2 || p.Refused[0].Reason != "4 channels are wanted, and 2 of ptdma are free" {
		t.Errorf("%+v", p)
	}
	p = plantest.Make(t, migrationEngine(controls{})(root), []plan.Wish{move("ptdma", "offloading", "on"), move("ae4dma", "nr_dma_chan", "1")})
	if len(p.Refused) == 0 {
		t.Errorf("files on behalf of two engines: %+v", p)
	}
}

// What a reboot loses is kept, and set again in the safe order by the unit.
func TestMigrationLasts(t *testing.T) {
	root := plantest.TempDir(t)
	links(with(migrationHost("v6", "ptdma", 4), map[string]string{
		"/root/hostcheck": "the program\n", "/usr/local/sbin/": "", "/run/systemd/system/": "", "/etc/systemd/system/": "", "/run/lab/": "", "/proc/cmdline": "quiet\n", "/var/lib/": "",
	}))(t, root)
	e := migrationEngine(controls{})(root)
	e.Self = "/root/hostcheck"
	e.Verbs = append(e.Verbs, fixes.Unit{}, fixes.Deadline{})
	e.Machine.Run = plantest.Systemctl(root, nil)
	p := completed(move("ptdma", "nr_dma_chan", "4"), move("ptdma", "offloading", "on"))(t, e)
	if r, err := e.Apply(t.Context(), p, plan.Options{}); err != nil || r.Outcome != plan.Applied {
		t.Fatalf("%v %+v", err, r)
	}
	saved := fixes.ReadSettings(openTree(t, root))
	if len(saved.All) != 2 || saved.Ignored != nil || saved.All[0].Value != "4" || saved.All[1].Value != "on" {
		t.Fatalf("%+v", saved)
	}
	// after a reboot
	plantest.Files(t, root, map[string]string{v6Dir + "/offloading": "0\n", v6Dir + "/nr_dma_chan": "1\n", v6Dir + "/folios_migrated": "0\n"})
	var again []plan.Wish
	for _, s := range saved.All {
		w, err := s.Wish(openTree(t, root))
		if err != nil {
			t.Fatal(err)
		}
		again = append(again, w)
	}
	p = plantest.Make(t, e, again)
	if r, err := e.Apply(t.Context(), p, plan.Options{Reapply: true}); err != nil || r.Outcome != plan.Applied || holdsFile(v6Dir+"/offloading", "1")(root) != nil || holdsFile(v6Dir+"/nr_dma_chan", "4")(root) != nil {
		t.Errorf("%v %+v %+v", err, r, p)
	}
	// the module is not there yet
	if err := os.RemoveAll(filepath.Join(root, "/sys/module/dcbm")); err != nil {
		t.Fatal(err)
	}
	if _, err := saved.All[1].Wish(openTree(t, root)); err == nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func openTree(t *testing.T, root string) *host.Host {
	t.Helper()
	h, err := host.Open(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}
