// SPDX-License-Identifier: Apache-2.0

package fixes_test

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
)

const (
	pfDir       = "/sys/bus/pci/devices/0000:18:00.0/"
	vfLinkFile  = "/etc/systemd/network/10-hostcheck-vfs-0000-18-00-0.link"
	defaultLink = "/usr/lib/systemd/network/99-default.link"
)

// sriovHost is nicHost with a physical function, udev's word on its interface,
// and systemd.
func sriovHost(systemd int) map[string]string {
	return with(nicHost("mlx5_core", 1500), map[string]string{
		pfDir + "class": "0x020000\n", pfDir + "driver": "-> ../../../../bus/pci/drivers/mlx5_core",
		pfDir + "sriov_totalvfs": "16\n", pfDir + "sriov_numvfs": "0\n", pfDir + "sriov_drivers_autoprobe": "1\n",
		"/sys/class/net/ens1np0/ifindex": "4\n",
		"/run/udev/data/n4":              "I:123\nE:ID_PATH=pci-0000:18:00.0\nE:ID_NET_LINK_FILE=" + defaultLink + "\n",
		defaultLink: "#  SPDX-License-Identifier: LGPL-2.1-or-later\n\n[Match]\nOriginalName=*\n\n" +
			"[Link]\nNamePolicy=keep kernel database onboard slot path\n# why\nAlternativeNamesPolicy=database onboard slot path mac\nMACAddressPolicy=persistent\n",
		fmt.Sprintf("/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-%d.so", systemd): "",
		"/etc/systemd/network/":                       "",
		"/proc/net/route":                             "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\nbond0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\n",
		"/sys/bus/pci/devices/0000:01:00.0/net/eno1/": "",
	})
}

func vfName(i int) string { return vfNameOf("0000:18:00.0", i) }

func vfNameOf(pf string, i int) string {
	return fmt.Sprintf("%s.%d", strings.TrimSuffix(pf, ".0"), 2+i)
}

// vfsHost has that many virtual functions, which the host's driver has.
func vfsHost(n int) map[string]string {
	files := with(sriovHost(257), map[string]string{pfDir + "sriov_numvfs": strconv.Itoa(n) + "\n"})
	for i := range n {
		files[fmt.Sprintf("%svirtfn%d", pfDir, i)] = "-> ../" + vfName(i)
		dir := "/sys/bus/pci/devices/" + vfName(i)
		files[dir+"/driver"] = "-> ../../../../bus/pci/drivers/mlx5_core"
		files[fmt.Sprintf("%s/net/ens1v%d/", dir, i)] = ""
	}
	return files
}

// vfKernel plays sriov_numvfs (drivers/pci/iov.c) and a driver over files.
func vfKernel(root string) func(p, s string) error {
	write := plantest.Knob(root)
	return func(p, s string) error {
		if path.Base(p) != "sriov_numvfs" {
			return write(p, s)
		}
		pf := path.Dir(p)
		b, err := os.ReadFile(filepath.Join(root, p))
		if err != nil {
			return err
		}
		now, err1 := strconv.Atoi(strings.TrimSpace(string(b)))
		n, err2 := strconv.Atoi(s)
		switch {
		case err1 != nil || err2 != nil:
			return syscall.EINVAL
		case n > 16:
			return syscall.ERANGE
		case n == now:
			return nil
		case n > 0 && now > 0:
			return syscall.EBUSY
		}
		probe, err := os.ReadFile(filepath.Join(root, pf, "sriov_drivers_autoprobe"))
		if err != nil {
			return err
		}
		for i := range max(n, now) {
			name := vfNameOf(path.Base(pf), i)
			link := filepath.Join(root, pf, fmt.Sprintf("virtfn%d", i))
			dir := filepath.Join(root, "/sys/bus/pci/devices", name)
			if n == 0 {
				err = errors.Join(os.Remove(link), os.RemoveAll(dir))
			} else {
				err = errors.Join(os.Symlink("../"+name, link), os.Mkdir(dir, 0o755))
				if string(probe) == "1\n" {
					err = errors.Join(err, os.MkdirAll(filepath.Join(dir, "net", fmt.Sprintf("ens1v%d", i)), 0o755), os.Symlink("../../../../bus/pci/drivers/mlx5_core", filepath.Join(dir, "driver")))
				}
			}
			if err != nil {
				return err
			}
		}
		return write(p, s)
	}
}

func sriovEngine(root string) *plan.Engine {
	return &plan.Engine{Root: root, Tool: "test", Verbs: []plan.Verb{fixes.SRIOV{}}, Machine: &plan.Machine{Knob: vfKernel(root)}}
}

func vfWish(want string) plan.Wish {
	return plan.Wish{Setting: fixes.SRIOVSetting(nic), Want: want, Tier: plan.Link, Check: "sriov.numvfs"}
}

func probeWish(want string) plan.Wish {
	return plan.Wish{Setting: fixes.SRIOVAutoprobe(nic), Want: want, Tier: plan.Link, Check: "sriov.autoprobe"}
}

func vfHolds(n int) func(root string) error {
	return func(root string) error {
		links, err := filepath.Glob(filepath.Join(root, pfDir, "virtfn*"))
		if err != nil {
			return err
		}
		if len(links) != n {
			return fmt.Errorf("%d functions, want %d", len(links), n)
		}
		return holdsFile(pfDir+"sriov_numvfs", strconv.Itoa(n))(root)
	}
}

func TestSRIOVLoop(t *testing.T) {
	for name, c := range map[string]struct {
		files  map[string]string
		wishes []plan.Wish
		n      int
		plan   string
		link   string // of the file in the plan
	}{
		"none to 8": {
			sriovHost(257), []plan.Wish{vfWish("8")}, 8, "numvfs 0 -> 8; file",
			"[Match]\nPath=pci-0000:18:00.0\n\n[Link]\nSR-IOVVirtualFunctions=8\nNamePolicy=keep kernel database onboard slot path\nAlternativeNamesPolicy=database onboard slot path mac\nMACAddressPolicy=persistent\n",
		},
		"4 to 8, for guests": {vfsHost(4), []plan.Wish{probeWish("off"), vfWish("8")}, 8, "numvfs 4 -> 0; autoprobe on -> off; numvfs 0 -> 8; file", "SR-IOVVirtualFunctions=8\n"},
		"4 to none":          {vfsHost(4), []plan.Wish{vfWish("0")}, 0, "numvfs 4 -> 0", ""},
		"ours says another":  {withOwnLink(vfsHost(2)), []plan.Wish{vfWish("3")}, 3, "numvfs 2 -> 0; numvfs 0 -> 3; file", "[Link]\nSR-IOVVirtualFunctions=3\nNamePolicy=path\n"},
		"ours goes":          {withOwnLink(vfsHost(2)), []plan.Wish{vfWish("0")}, 0, "numvfs 2 -> 0; file", ""},
		"an old systemd":     {sriovHost(249), []plan.Wish{vfWish("2")}, 2, "numvfs 0 -> 2", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := plantest.ClosedLoop(t, plantest.Case{Setup: links(c.files), Engine: sriovEngine, Wishes: c.wishes}, vfHolds(c.n))
			var got []string
			for _, x := range p.Changes {
				if x.Tier != plan.Link || !strings.Contains(x.Why, "sriov.") {
					t.Errorf("%+v", x)
				}
				if x.Kind == plan.KindFile {
					got = append(got, "file")
					if x.Target != vfLinkFile || !strings.Contains(x.After.Text, c.link) || (c.link == "") == x.After.Present {
						t.Errorf("%s:\n%s", x.Target, x.After.Text)
					}
					continue
				}
				got = append(got, x.Name+" "+x.Diff)
			}
			if s := strings.Join(got, "; "); s != c.plan || len(p.Refused) > 0 {
				t.Errorf("plan %s\nwant %s\n%+v", s, c.plan, p.Refused)
			}
		})
	}
}

// withOwnLink is a host on which hostcheck has written its file before.
func withOwnLink(files map[string]string) map[string]string {
	return with(files, map[string]string{
		vfLinkFile:          "[Match]\nPath=pci-0000:18:00.0\n\n[Link]\nSR-IOVVirtualFunctions=2\nNamePolicy=path\n",
		"/run/udev/data/n4": "E:ID_PATH=pci-0000:18:00.0\nE:ID_NET_LINK_FILE=" + vfLinkFile + "\n",
	})
}

func TestSRIOVCrash(t *testing.T) {
	n := plantest.CrashLaw(t, plantest.Case{Setup: links(vfsHost(2)), Engine: sriovEngine, Wishes: []plan.Wish{probeWish("off"), vfWish("3")}})
	if !crashChild() && n < 120 {
		t.Errorf("only %d points tried", n)
	}
}

// unversioned is a host whose systemd does not tell its version.
func unversioned() map[string]string {
	files := sriovHost(257)
	delete(files, "/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so")
	return files
}

// Where the number cannot be made to last, the plan says so and why.
func TestSRIOVNotLasting(t *testing.T) {
	const udev = "/run/udev/data/n4"
	for name, c := range map[string]struct {
		other map[string]string
		says  string
	}{
		"udev does not say":   {map[string]string{udev: "E:ID_PATH=pci-0000:18:00.0\n"}, "udev does not say which .link file"},
		"no path":             {map[string]string{udev: "E:ID_NET_LINK_FILE=" + defaultLink + "\n"}, "udev knows no path"},
		"somebody's file":     {map[string]string{udev: "E:ID_PATH=pci-0000:18:00.0\nE:ID_NET_LINK_FILE=/etc/systemd/network/50-rail.link\n"}, "/etc/systemd/network/50-rail.link applies to the interface, which somebody else keeps: add SR-IOVVirtualFunctions=8"},
		"an earlier file":     {map[string]string{udev: "E:ID_PATH=pci-0000:18:00.0\nE:ID_NET_LINK_FILE=/usr/lib/systemd/network/05-x.link\n"}, "05-x.link applies to the interface: add SR-IOVVirtualFunctions=8"},
		"drop-ins":            {map[string]string{"/etc/systemd/network/99-default.link.d/x.conf": "[Link]\n"}, "has drop-ins"},
		"unreadable":          {map[string]string{udev: "E:ID_PATH=pci-0000:18:00.0\nE:ID_NET_LINK_FILE=/usr/lib/systemd/network/98-gone.link\n"}, "cannot be read"},
		"nothing to repeat":   {map[string]string{defaultLink: "[Match]\nOriginalName=*\n"}, "not as expected"},
		"a continued line":    {map[string]string{defaultLink: "[Link]\nNamePolicy=a \\\n b\n"}, "not as expected"},
		"systemd not known":   {nil, "the version of systemd is not known"},
		"several interfaces":  {map[string]string{pfDir + "net/ens1np1/": ""}, "several interfaces"},
		"ours, not there yet": {map[string]string{udev: "E:ID_PATH=pci-0000:18:00.0\nE:ID_NET_LINK_FILE=" + vfLinkFile + "\n"}, "is gone: run udevadm trigger"},
	} {
		t.Run(name, func(t *testing.T) {
			root := plantest.TempDir(t)
			files := sriovHost(257)
			if c.other == nil {
				files = unversioned()
			}
			links(with(files, c.other))(t, root)
			p := plantest.Make(t, sriovEngine(root), []plan.Wish{vfWish("8")})
			if len(p.Changes) != 1 || p.Changes[0].Persist || !strings.Contains(p.Changes[0].Disturbs, c.says) || !strings.Contains(p.Changes[0].Disturbs, "a reboot") {
				t.Errorf("%+v", p)
			}
		})
	}
}

func TestSRIOVRefused(t *testing.T) {
	four := vfsHost(4)
	dev := func(i int) string { return "/sys/bus/pci/devices/" + vfName(i) }
	without := func(files map[string]string, keys ...string) map[string]string {
		files = with(files, nil)
		for _, k := range keys {
			delete(files, k)
		}
		return files
	}
	for name, c := range map[string]struct {
		files map[string]string
		wish  plan.Wish
		says  []string
	}{
		"more than it has":     {four, vfWish("17"), []string{"it can have 16 virtual functions, and 17 are wanted", "ask for 16 or fewer"}},
		"not a number":         {four, vfWish("many"), []string{"many is no number of virtual functions"}},
		"negative":             {four, vfWish("-1"), []string{"no number"}},
		"firmware gives none":  {with(four, map[string]string{pfDir + "sriov_totalvfs": "0\n"}), vfWish("4"), []string{"its firmware gives no virtual functions", "mlxconfig -d 0000:18:00.0 set SRIOV_EN=1 NUM_OF_VFS=4"}},
		"no SR-IOV":            {nicHost("mlx5_core", 1500), vfWish("4"), []string{"no driver is bound"}},
		"not a NIC":            {with(four, map[string]string{pfDir + "class": "0x010802\n"}), vfWish("8"), []string{"network devices only"}},
		"no driver":            {without(four, pfDir+"driver"), vfWish("8"), []string{"no driver is bound to 0000:18:00.0", "drivers_probe"}},
		"PF in a guest":        {with(four, map[string]string{pfDir + "driver": "-> ../drivers/vfio-pci"}), vfWish("8"), []string{"itself is bound to vfio-pci"}},
		"PF elsewhere":         {without(four, "/sys/bus/pci/devices/0000:18:00.0/net/ens1np0/"), vfWish("8"), []string{"another network namespace"}},
		"vfio":                 {with(four, map[string]string{dev(1) + "/driver": "-> ../drivers/vfio-pci"}), vfWish("8"), []string{"the 4 virtual functions there are would be destroyed, and 0000:18:00.3 is bound to vfio-pci", "stop the guests"}},
		"vfio, down to none":   {with(four, map[string]string{dev(3) + "/driver": "-> ../drivers/mlx5_vfio_pci"}), vfWish("0"), []string{"0000:18:00.5 is bound to mlx5_vfio_pci"}},
		"in a container":       {without(four, dev(0)+"/net/ens1v0/"), vfWish("8"), []string{"0000:18:00.2 is bound to mlx5_core without an interface here: in another network namespace"}},
		"with a route":         {with(four, map[string]string{"/proc/net/route": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\nens1v2\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"}), vfWish("8"), []string{"ens1v2 is up and has an address or a route (192.168.0.0/24)"}},
		"in a bond":            {with(four, map[string]string{"/sys/class/net/ens1v0/master": "-> ../bond7"}), vfWish("8"), []string{"ens1v0 is a port of bond7"}},
		"under a VLAN":         {with(four, map[string]string{"/sys/class/net/ens1v0/upper_vlan9/": ""}), vfWish("8"), []string{"vlan9 stands on ens1v0"}},
		"not all to be seen":   {with(four, map[string]string{pfDir + "sriov_numvfs": "6\n"}), vfWish("8"), []string{"not all of them can be seen"}},
		"switchdev":            {with(four, map[string]string{"/sys/class/net/ens1np0/phys_switch_id": "c4c4c4\n"}), vfWish("8"), []string{"switchdev mode"}},
		"management":           {with(four, map[string]string{"/proc/net/route": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\nens1np0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\n"}), vfWish("8"), []string{"ens1np0 is not touched without --allow-mgmt: it has the default route", "echo 8 > " + pfDir + "sriov_numvfs"}},
		"management not known": {without(four, "/proc/net/route"), vfWish("8"), []string{"which interface this host is managed through is not known"}},
		"operator, its file":   {with(four, map[string]string{"/etc/sriov-operator/pci/0000:18:00.0": "{}"}), vfWish("8"), []string{"SR-IOV Network Operator holds this setting", "SriovNetworkNodePolicy"}},
		"operator, its unit":   {with(four, map[string]string{"/etc/systemd/system/sriov-config.service": "[Unit]\n"}), vfWish("8"), []string{"SR-IOV Network Operator is at work here (/etc/systemd/system/sriov-config.service)", "SriovNetworkNodePolicy"}},
		"netplan":              {with(four, map[string]string{"/etc/netplan/1.yaml": "network:\n  ethernets:\n    ens1np0:\n      virtual-function-count: 4\n"}), vfWish("8"), []string{`netplan holds this setting: /etc/netplan/1.yaml:4 says "4"`, "netplan try"}},
		"NetworkManager":       {with(four, map[string]string{"/run/NetworkManager/devices/4": "[device]\nmanaged=true\n", "/etc/NetworkManager/system-connections/a.nmconnection": "[connection]\ninterface-name=ens1np0\n[sriov]\ntotal-vfs=4\n"}), vfWish("8"), []string{"NetworkManager holds this setting", "nmcli connection modify"}},
		"a .link file":         {with(four, map[string]string{"/etc/systemd/network/20-rail.link": "[Match]\nPath=pci-0000:18:*\n[Link]\nSR-IOVVirtualFunctions=4\n"}), vfWish("8"), []string{"/etc/systemd/network/20-rail.link says SR-IOVVirtualFunctions=4", "in /etc/systemd/network/20-rail.link: SR-IOVVirtualFunctions=8"}},
		"a udev rule":          {with(four, map[string]string{"/etc/udev/rules.d/70-vfs.rules": "# sriov_numvfs\nACTION==\"add\", ATTR{device/sriov_numvfs}=\"4\"\n"}), vfWish("8"), []string{"/etc/udev/rules.d/70-vfs.rules:2"}},
		"autoprobe maybe":      {four, probeWish("maybe"), []string{"on or off"}},
		"no such name":         {four, plan.Wish{Setting: plan.Setting{Kind: "sriov", Target: nic, Name: "x"}, Want: "1"}, []string{"is not a setting of the virtual functions"}},
	} {
		t.Run(name, func(t *testing.T) { refusals(t, c.files, sriovEngine, c.wish, c.says...) })
	}
	// another device's .link file, and one that says nothing of functions, own nothing
	other := with(four, map[string]string{
		"/etc/systemd/network/20-rail.link": "[Match]\nPath=pci-0000:19:*\n[Link]\nSR-IOVVirtualFunctions=4\n",
		"/etc/systemd/network/21-mtu.link":  "[Match]\nOriginalName=*\n[Link]\nMTUBytes=9000\n",
	})
	root := plantest.TempDir(t)
	links(other)(t, root)
	if p := plantest.Make(t, sriovEngine(root), []plan.Wish{vfWish("8")}); len(p.Refused) != 0 || len(p.Changes) == 0 {
		t.Errorf("%+v", p)
	}
}

func TestSRIOVUnwilling(t *testing.T) {
	fail := func(e error) func(string) func(p, s string) error {
		return func(root string) func(p, s string) error {
			return func(p, s string) error {
				if s == "8" {
					return e
				}
				return vfKernel(root)(p, s)
			}
		}
	}
	for name, c := range map[string]struct {
		knob func(root string) func(p, s string) error
		says string
	}{
		"ENOENT": {fail(syscall.ENOENT), "the driver mlx5_core makes no virtual functions by this way"},
		"ENOMEM": {fail(syscall.ENOMEM), "Above 4G Decoding"},
		"EBUSY":  {fail(syscall.EBUSY), "other virtual functions are there"},
		"EIO":    {fail(syscall.EIO), "right after a boot, try again"},
		"fewer": {func(root string) func(p, s string) error {
			return func(p, s string) error { return vfKernel(root)(p, strings.Replace(s, "8", "7", 1)) }
		}, "the driver made 7 of the 8 virtual functions"},
	} {
		t.Run(name, func(t *testing.T) {
			unwilling(t, plantest.Case{
				Setup: links(vfsHost(4)),
				Engine: func(root string) *plan.Engine {
					e := sriovEngine(root)
					e.Machine.Knob = c.knob(root)
					return e
				},
				Wishes: []plan.Wish{vfWish("8")},
			}, c.says)
		})
	}
}

// Undo comes much later: by then a guest may have a function. It stays, and
// the transaction stays open.
func TestSRIOVUndoInUse(t *testing.T) {
	root := plantest.TempDir(t)
	links(with(sriovHost(257), map[string]string{"/var/lib/": ""}))(t, root)
	e := sriovEngine(root)
	r, err := e.Apply(t.Context(), plantest.Make(t, e, []plan.Wish{vfWish("2")}), plan.Options{Allow: []plan.Tier{plan.Link}})
	if err != nil || r.Outcome != plan.Applied {
		t.Fatalf("%v %+v", err, r)
	}
	driver := filepath.Join(root, "/sys/bus/pci/devices", vfName(1), "driver")
	if err := errors.Join(os.Remove(driver), os.Symlink("../drivers/vfio-pci", driver)); err != nil {
		t.Fatal(err)
	}
	u, err := e.Undo(t.Context(), r.Txn, plan.Options{})
	if err != nil || u.Outcome != plan.Incomplete || len(u.Left) != 1 || !strings.Contains(u.Left[0].String(), "0000:18:00.3 is bound to vfio-pci") {
		t.Fatalf("%v %+v", err, u)
	}
	if err := vfHolds(2)(root); err != nil {
		t.Error(err)
	}
	if err := os.Remove(driver); err != nil {
		t.Fatal(err)
	}
	if u, err := e.Undo(t.Context(), r.Txn, plan.Options{}); err != nil || u.Outcome != plan.Undone {
		t.Errorf("%v %+v", err, u)
	}
}

// A write that the driver never ends is reported, and undone when it answers.
func TestSRIOVHangs(t *testing.T) {
	root := plantest.TempDir(t)
	links(with(sriovHost(257), map[string]string{"/var/lib/": ""}))(t, root)
	e := sriovEngine(root)
	e.Machine.Limit = 50 * time.Millisecond
	release := make(chan struct{})
	e.Machine.Knob = func(p, s string) error {
		<-release
		return vfKernel(root)(p, s)
	}
	r, err := e.Apply(t.Context(), plantest.Make(t, e, []plan.Wish{vfWish("2")}), plan.Options{Allow: []plan.Tier{plan.Link}})
	var hung *plan.HungError
	if err != nil || r.Outcome != plan.Incomplete || !errors.As(r.Cause, &hung) {
		t.Fatalf("%v %+v", err, r)
	}
	close(release)
	for vfHolds(2)(root) != nil { // the kernel gets there in the end
		time.Sleep(time.Millisecond)
	}
	if u, err := e.Undo(t.Context(), r.Txn, plan.Options{}); err != nil || u.Outcome != plan.Undone {
		t.Errorf("%v %+v", err, u)
	}
	if err := vfHolds(0)(root); err != nil {
		t.Error(err)
	}
}
