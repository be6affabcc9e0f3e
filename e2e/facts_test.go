// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// The guest's igb NICs: behind a root port with ACS, behind one without, and
// behind one of node 1; and the two e1000e behind the switch.
const (
	nicVFs    = "enp1s0"
	nicNoACS  = "enp2s0"
	nicNode1  = "enp65s0"
	nicBonded = "enp5s0"
	nicSwitch = "enp6s0"
)

// something gives the guest what a plain one lacks: VFs, soft RDMA with
// addresses of all kinds, a VLAN, a bond, a bridge, settings that are no
// defaults, pools that differ between the nodes.
const something = `set -e
echo 64 > /proc/sys/kernel/tainted
echo 7 > /sys/class/net/` + nicVFs + `/device/sriov_numvfs
ip link add bond0 type bond mode active-backup
ip link set ` + nicBonded + ` master bond0
ip link add link ` + nicNode1 + ` name ` + nicNode1 + `.7 type vlan id 7
ip link add br0 type bridge
ip link add veth0 type veth peer name veth1
ip link set veth0 master br0
ip link set ` + nicSwitch + ` mtu 9000
for i in ` + nicVFs + ` ` + nicNoACS + ` ` + nicNode1 + ` ` + nicNode1 + `.7 ` + nicSwitch + ` bond0 veth0; do ip link set $i up; done
udevadm settle
modprobe rdma_rxe
rdma link add rxe0 type rxe netdev ` + nicNode1 + `
rdma link add rxe1 type rxe netdev ` + nicNoACS + `
ip addr add 10.20.0.1/24 dev ` + nicNode1 + `
ip addr add 10.20.7.1/24 dev ` + nicNode1 + `.7
ip addr add 2001:db8::1/64 dev ` + nicNode1 + ` nodad
ethtool -G ` + nicNode1 + ` rx 512 tx 1024
ethtool -L ` + nicNode1 + ` combined 1
ethtool -K ` + nicNode1 + ` gro off tso off
ethtool --set-priv-flags ` + nicNode1 + ` legacy-rx on
ethtool -A ` + nicSwitch + ` autoneg off rx on tx off
cd /sys/devices/system/node
echo 6 > node0/hugepages/hugepages-2048kB/nr_hugepages
echo 11 > node1/hugepages/hugepages-2048kB/nr_hugepages
echo 3 > node2/hugepages/hugepages-2048kB/nr_hugepages
echo 5 > /proc/sys/vm/nr_overcommit_hugepages
mkdir -p "/mnt/huge pages" /mnt/huge1g
mount -t hugetlbfs -o pagesize=2M,size=8M,min_size=4M none "/mnt/huge pages"
mount -t hugetlbfs -o pagesize=1G none /mnt/huge1g
# links come up, addresses leave their probation
for i in ` + nicVFs + ` ` + nicNode1 + ` ` + nicBonded + ` ` + nicSwitch + `; do until [ "$(cat /sys/class/net/$i/operstate)" = up ]; do sleep 0.2; done; done
while ip -6 addr | grep -q tentative; do sleep 0.2; done
ip link set ` + nicNoACS + ` down` + steered + functionsAtBoot + `
# modules that others have asked for are loaded, or not, by now
udevadm settle
modules=
until [ "$modules" = "$(lsmod | sort)" ]; do modules=$(lsmod | sort); sleep 2; done`

// TestFacts compares every fact with what the distribution's own tools say of
// the same guest, field by field: a field that nothing is compared with fails,
// too. Then the check run itself, as root and as an ordinary user.
func TestFacts(t *testing.T) {
	ctx := limit(t, 20*time.Minute)
	g := settled(t, ctx, lab.Options{})
	areas := []struct {
		name  string
		least int // values that are compared at least
		want  func(*testing.T, context.Context, *lab.Guest) any
	}{
		{"kernel", 6000, wantKernel}, {"cpus", 15, wantCPUs}, {"numa", 16, wantNUMA}, {"hugepages", 55, wantHugepages},
		{"modules", 380, wantModules}, {"iommu", 80, wantIOMMU}, {"pci", 520, wantPCI}, {"acs", 48, wantACS},
		{"nics", 600, wantNICs}, {"rdma", 50, wantRDMA}, {"dcb", 90, wantDCB}, {"owners", 9, wantOwners},
		{"irq", 80, wantIRQ}, {"sriov", 25, wantSRIOV}, {"topology", 45, wantTopology}, {"system", 10, wantSystem}, {"memlock", 35, wantMemlock},
		{"aer", 18, wantAER},
	}
	compare := func(t *testing.T, area string, least int, want func(*testing.T, context.Context, *lab.Guest) any) {
		t.Helper()
		began := time.Now()
		w := want(t, ctx, g)
		judgeFacts(t, area, factsOf(t, ctx, g, "", area), w, least, began)
	}
	// before anything is changed: what the command line did, and nobody after it
	t.Run("cmdline", func(t *testing.T) { compare(t, "cmdline", 30, wantCmdline) })
	t.Run("boot", func(t *testing.T) { bootFacts(t, ctx, g) })
	must(t, ctx, g, "give the guest something to see", something)
	// those behind sysctl in scenarios that have the devices for them: TestPlacement, TestRXFrag and TestOffload
	compared := []string{"boot", "cmdline", "sysctl", "counters", "vxlan", "rxfrag", "migration"}
	for _, a := range areas {
		compared = append(compared, a.name)
		t.Run(a.name, func(t *testing.T) { compare(t, a.name, a.least, a.want) })
	}
	t.Run("topo", func(t *testing.T) { topoTree(t, ctx, g) })
	t.Run("irqbalance runs", func(t *testing.T) {
		must(t, ctx, g, "start it", "systemd-run --quiet --unit=irqbalance sleep 600")
		compare(t, "irq", 80, wantIRQ)
		must(t, ctx, g, "stop it", "systemctl stop irqbalance")
	})
	t.Run("a CPU off", func(t *testing.T) {
		must(t, ctx, g, "take CPU 1 off", "echo 0 > /sys/devices/system/cpu/cpu1/online")
		compare(t, "cpus", 15, wantCPUs)
		compare(t, "numa", 16, wantNUMA)
		must(t, ctx, g, "put CPU 1 on", "echo 1 > /sys/devices/system/cpu/cpu1/online")
	})
	t.Run("ACS set otherwise", func(t *testing.T) {
		for _, ctl := range []string{"0000", "0004", "0008", "0053", "005f"} {
			must(t, ctx, g, "write the control register", "setpci -s "+portOfSwitch+" ECAP_ACS+6.w="+ctl)
			compare(t, "acs", 48, wantACS)
			if testing.Short() {
				break
			}
		}
		must(t, ctx, g, "write the control register", "setpci -s "+portOfSwitch+" ECAP_ACS+6.w=001d")
	})
	t.Run("an ordinary user", func(t *testing.T) {
		began := time.Now()
		judgeFacts(t, "pci", factsOf(t, ctx, g, ordinary, "pci"), pciSeenBy(t, ctx, g, ordinary), 520, began)
	})
	t.Run("sysctl", func(t *testing.T) { sysctlFacts(t, ctx, g) })
	t.Run("all areas", func(t *testing.T) {
		var all map[string]json.RawMessage
		if err := json.Unmarshal([]byte(must(t, ctx, g, "all facts", "hostcheck facts -f json")), &all); err != nil {
			t.Fatalf("step %q: %v", "all facts", err)
		}
		known := slices.Sorted(slices.Values(slices.Concat(compared, slices.Collect(maps.Keys(notCompared)))))
		if got := slices.Sorted(maps.Keys(all)); !slices.Equal(got, known) {
			t.Errorf("hostcheck has the facts %q, and %q are compared here or have a reason", got, known)
		}
	})
	t.Run("check", func(t *testing.T) { checkRuns(t, ctx, g) })
	t.Run("errors", func(t *testing.T) { errorsJudged(t, ctx, g) })
}

// notCompared are the areas that no tool of the guest is asked about, and what
// they rest on.
var notCompared = map[string]string{
	"kubelet": "no kubelet in the guest; host trees",
}

// ordinary runs what follows it as a user without any privilege.
const ordinary = "setpriv --reuid=65534 --regid=65534 --clear-groups "

// factsOf gives an area as hostcheck tells it.
func factsOf(t *testing.T, ctx context.Context, g *lab.Guest, as, area string) any {
	t.Helper()
	step := as + "hostcheck facts " + area
	d := json.NewDecoder(strings.NewReader(must(t, ctx, g, step, step+" -f json")))
	d.UseNumber()
	var doc map[string]any
	if err := d.Decode(&doc); err != nil {
		t.Fatalf("step %q: %v", step, err)
	}
	return doc[area]
}

type (
	jsonObject = map[string]any
	jsonList   = []any
)

// reasoned is wanted of a field that must be null with its reason in "unknown".
type reasoned struct{}

// near is wanted of a figure that moves: that one, give or take a tenth and 8192.
type near float64

// factsDiffer compares what hostcheck has with what is wanted.
type factsDiffer struct {
	tried int
	wrong []string
}

func judgeFacts(t *testing.T, area string, got, want any, least int, began time.Time) {
	t.Helper()
	var d factsDiffer
	for _, field := range d.compare(area, got, want) {
		d.fault(area, "%s is null, and nothing says why", field)
	}
	if d.tried < least {
		t.Errorf("%s: %d values were compared, and %d at least must be", area, d.tried, least)
	}
	for i, w := range d.wrong {
		if i == 40 {
			t.Errorf("and %d more", len(d.wrong)-i)
			break
		}
		t.Error(w)
	}
	count("facts", area, d.tried, d.tried-len(d.wrong), time.Since(began))
}

func (d *factsDiffer) fault(at, format string, args ...any) {
	d.wrong = append(d.wrong, at+": "+fmt.Sprintf(format, args...))
}

// compare goes through both. It gives the fields, by their path from here,
// that are null and whose reason must stand further out.
func (d *factsDiffer) compare(at string, got, want any) (null []string) {
	switch w := want.(type) {
	case jsonObject:
		g, ok := got.(jsonObject)
		if !ok {
			d.tried++
			d.fault(at, "hostcheck has %.200v, wanted is an object", got)
			return nil
		}
		return d.objects(at, g, w)
	case jsonList:
		g, ok := got.(jsonList)
		if !ok || len(g) != len(w) {
			d.tried++
			d.fault(at, "hostcheck has %d entries, wanted are %d:\n%.2000v\n%.2000v", len(g), len(w), got, w)
			return nil
		}
		if len(w) == 0 { // else its entries count
			d.tried++
		}
		for i := range w {
			for _, field := range d.compare(fmt.Sprintf("%s[%d]%s", at, i, nameOf(w[i])), g[i], w[i]) {
				d.fault(at, "%s of entry %d is null, and nothing says why", field, i)
			}
		}
		return nil
	case reasoned:
		if d.tried++; got != nil {
			d.fault(at, "hostcheck has %v, and nobody else can tell it", got)
		}
		return []string{""}
	case near:
		if d.tried++; !w.holds(got) {
			d.fault(at, "%v to hostcheck, about %v to the guest's own tools", showJSON(got), float64(w))
		}
		return nil
	}
	if d.tried++; !sameJSON(got, want) {
		d.fault(at, "%v to hostcheck, %v to the guest's own tools", showJSON(got), showJSON(want))
	}
	return nil
}

func (n near) holds(got any) bool {
	text, err := json.Marshal(got)
	if err != nil {
		return false
	}
	v, err := strconv.ParseFloat(string(text), 64)
	return err == nil && math.Abs(v-float64(n)) <= 8192+math.Abs(float64(n))/10
}

func (d *factsDiffer) objects(at string, got, want jsonObject) (null []string) {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		g, has := got[key]
		if !has {
			d.tried++
			d.fault(at, "hostcheck has no %q, wanted is %v", key, showJSON(want[key]))
			continue
		}
		for _, field := range d.compare(at+"."+key, g, want[key]) {
			null = append(null, strings.TrimSuffix(key+"."+field, "."))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, compared := want[key]; !compared && key != "unknown" {
			d.tried++
			d.fault(at, "%q is %v to hostcheck, and nothing was compared with it", key, showJSON(got[key]))
		}
	}
	unknown, has := got["unknown"].(jsonObject)
	if !has {
		return null
	}
	for _, field := range null {
		if why, _ := unknown[field].(string); why == "" {
			d.fault(at, "%s is null, and nothing says why", field)
		}
	}
	for _, field := range slices.Sorted(maps.Keys(unknown)) {
		if !slices.Contains(null, field) {
			d.tried++
			d.fault(at, "%s is not known to hostcheck: %v", field, unknown[field])
		}
	}
	return nil
}

// nameOf gives what an entry of a list is called.
func nameOf(v any) string {
	o, _ := v.(jsonObject)
	for _, key := range []string{"bdf", "name", "nic", "device"} {
		if s, ok := o[key].(string); ok && s != "" {
			return "(" + s + ")"
		}
	}
	return ""
}

func showJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return fmt.Sprintf("%.300s", b)
}

func sameJSON(got, want any) bool {
	n, ok := got.(json.Number)
	if !ok {
		return got == want
	}
	switch w := want.(type) {
	case json.Number:
		return n == w
	case int:
		return string(n) == strconv.Itoa(w)
	case float64:
		f, err := n.Float64()
		return err == nil && f == w
	}
	return false
}

// wordList makes a list of strings.
func wordList(s []string) jsonList {
	l := jsonList{}
	for _, w := range s {
		l = append(l, w)
	}
	return l
}

func numberList(n []int) jsonList {
	l := jsonList{}
	for _, v := range n {
		l = append(l, v)
	}
	return l
}

// numberIn reads what a tool printed as one.
func numberIn(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		t.Fatalf("a tool's output was not understood: %v", err)
	}
	return n
}

// says is what a command prints, without the blanks around it.
func says(t *testing.T, ctx context.Context, g *lab.Guest, command string) string {
	t.Helper()
	return strings.TrimSpace(must(t, ctx, g, command, command))
}

// cutBetween cuts what stands between two texts out of s, "" where they do not.
func cutBetween(s, from, to string) string {
	_, s, ok := strings.Cut(s, from)
	if !ok {
		return ""
	}
	s, _, _ = strings.Cut(s, to)
	return strings.TrimSpace(s)
}
