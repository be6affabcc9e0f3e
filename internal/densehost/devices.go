// SPDX-License-Identifier: Apache-2.0

package densehost

import (
	"fmt"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// function is one PCI function to write. path is its directory below
// sys/devices, from the root bus down.
type function struct {
	path           string
	vendor, device int
	class          int
	driver         string
	node           int
	config         []byte
	speed          string // current; "" for a function without a link
	width          int
}

const gen5 = "32.0 GT/s PCIe"

func (f function) bdf() string { return f.path[strings.LastIndexByte(f.path, '/')+1:] }

// up leads from a directory in f to sys.
func (f function) up() string { return strings.Repeat("../", strings.Count(f.path, "/")+2) }

// pci writes a function into a group of its own and gives its directory.
func (w *writer) pci(f function) string {
	bdf, d := f.bdf(), "sys/devices/"+f.path
	cpus := cpus0
	if f.node == 1 {
		cpus = cpus1
	}
	w.files(d, "vendor", fmt.Sprintf("0x%04x", f.vendor), "device", fmt.Sprintf("0x%04x", f.device), "class", fmt.Sprintf("0x%06x", f.class),
		"subsystem_vendor", fmt.Sprintf("0x%04x", f.vendor), "subsystem_device", "0x0001", "revision", "0x00",
		"modalias", fmt.Sprintf("pci:v%08Xd%08Xsv%08Xsd00000001bc%02Xsc%02Xi%02X", f.vendor, f.device, f.vendor, f.class>>16, f.class>>8&0xff, f.class&0xff),
		"numa_node", fmt.Sprint(f.node), "local_cpulist", cpus, "enable", "1", "irq", "0")
	if f.speed != "" {
		w.files(d, "current_link_speed", f.speed, "current_link_width", fmt.Sprint(f.width), "max_link_speed", gen5, "max_link_width", "16")
	}
	w.bytes(d+"/config", f.config)
	if f.driver != "" {
		w.link(d+"/driver", f.up()+"bus/pci/drivers/"+f.driver)
		w.link("sys/bus/pci/drivers/"+f.driver+"/"+bdf, "../../../../devices/"+f.path)
	}
	w.link("sys/bus/pci/devices/"+bdf, "../../../devices/"+f.path)
	g := fmt.Sprintf("kernel/iommu_groups/%d", w.group)
	w.group++
	w.link(d+"/iommu_group", f.up()+g)
	w.link("sys/"+g+"/devices/"+bdf, "../../../../devices/"+f.path)
	w.files("sys/"+g, "type", "identity", "reserved_regions", "0x00000000fee00000 0x00000000feefffff msi")
	return d
}

// domain writes one PCI domain: a management port, the switches with what is
// behind them, and processor devices until the IOMMU groups are as many as asked.
func (w *writer) domain(s Shape, dom int) {
	first := w.group
	rootPort := func(bus, last, node int) function {
		return function{fmt.Sprintf("pci%04x:%02x/%04x:%02x:01.0", dom, bus, dom, bus), 0x8086, 0x352a, 0x060400, "pcieport", node,
			bridge(0x8086, 0x352a, portRoot, bus, bus+1, last, acsIsolating), gen5, 16}
	}
	rp := rootPort(0, 1, 0)
	w.pci(rp)
	mgmt := function{fmt.Sprintf("%s/%04x:01:00.0", rp.path, dom), 0x8086, 0x1521, 0x020000, "igb", 0, endpoint(0x8086, 0x1521, 0x020000, 0, 0), gen5, 16}
	w.pci(mgmt)
	name := "eno1"
	if dom > 0 {
		name = fmt.Sprintf("eno1d%d", dom)
	}
	w.netdev(mgmt, name, 1000, 1500, true)
	w.ethtool(name, "igb", mgmt.bdf(), 256, 8)
	for k := range s.Switches {
		w.pcieSwitch(s, dom, 0x10+0x30*k, k*2/s.Switches, rootPort)
	}
	for i := 0; w.group-first < s.Groups; i++ {
		bus := 0xfe + i/256
		w.pci(function{fmt.Sprintf("pci%04x:%02x/%04x:%02x:%02x.%d", dom, bus, dom, bus, i/8%32, i%8), 0x8086, 0x3240, 0x088000, "", i / 256,
			endpoint(0x8086, 0x3240, 0x088000, 0, 0), "", 0})
	}
}

func (w *writer) pcieSwitch(s Shape, dom, bus, node int, rootPort func(bus, last, node int) function) {
	slots := s.NICsPerSwitch + s.GPUsPerSwitch
	last := bus + 2 + slots
	rp := rootPort(bus, last, node)
	w.pci(rp)
	up := function{fmt.Sprintf("%s/%04x:%02x:00.0", rp.path, dom, bus+1), 0x1000, 0xc030, 0x060400, "pcieport", node,
		bridge(0x1000, 0xc030, portUpstream, bus+1, bus+2, last, 0), gen5, 16}
	w.pci(up)
	for i := range slots {
		below := bus + 3 + i
		down := function{fmt.Sprintf("%s/%04x:%02x:%02x.0", up.path, dom, bus+2, i), 0x1000, 0xc030, 0x060400, "pcieport", node,
			bridge(0x1000, 0xc030, portDownstream, bus+2, below, below, acsIsolating), gen5, 16}
		w.pci(down)
		at := fmt.Sprintf("%s/%04x:%02x:", down.path, dom, below)
		if i < s.NICsPerSwitch {
			w.connectX(at, node, s)
			continue
		}
		w.pci(function{at + "00.0", 0x10de, 0x2330, 0x030200, "nvidia", node, endpoint(0x10de, 0x2330, 0x030200, 0, 0), gen5, 16})
	}
}

// connectX writes a NIC and its VFs, which are down, each with an interface
// and an RDMA device.
func (w *writer) connectX(at string, node int, s Shape) {
	vfs := s.VFs
	n := w.nic
	w.nic++
	pf := function{at + "00.0", 0x15b3, 0x1021, 0x020000, "mlx5_core", node, endpoint(0x15b3, 0x1021, 0x020000, vfs, 255), gen5, 16}
	d := w.pci(pf)
	w.files(d, "sriov_totalvfs", "255", "sriov_numvfs", fmt.Sprint(vfs), "sriov_drivers_autoprobe", "1", "sriov_offset", "1", "sriov_stride", "1")
	name := fmt.Sprintf("ens%dnp0", n+1)
	w.netdev(pf, name, 400000, 9000, true)
	w.ethtool(name, "mlx5_core", pf.bdf(), 8192, 63)
	w.dcb(name)
	w.file("proc/sys/net/ipv4/conf/"+name+"/rp_filter", "2")
	w.interrupts(pf, s.Queues)
	w.queries["counters rdma "+w.ibdev(pf, name, true)+"/1"] = host.Counters{
		Seconds: 1,
		First:   map[string]uint64{"port_xmit_data": 1000, "port_rcv_data": 1000, "np_cnp_sent": 5, "rp_cnp_handled": 5, "local_ack_timeout_err": 0, "out_of_sequence": 0},
		Last:    map[string]uint64{"port_xmit_data": 9000, "port_rcv_data": 9000, "np_cnp_sent": 6, "rp_cnp_handled": 6, "local_ack_timeout_err": 0, "out_of_sequence": 0},
	}
	for v := range vfs {
		devfn := v + 1
		vf := function{fmt.Sprintf("%s%02x.%d", at, devfn/8, devfn%8), 0x15b3, 0x101e, 0x020000, "mlx5_core", node, virtual(), "Unknown", 0}
		e := w.pci(vf)
		w.link(e+"/physfn", "../"+pf.bdf())
		w.link(fmt.Sprintf("%s/virtfn%d", d, v), "../"+vf.bdf())
		name := fmt.Sprintf("ens%dv%d", n+1, v)
		w.netdev(vf, name, 0, 1500, false)
		w.ibdev(vf, name, false)
	}
}

func (w *writer) loopback() {
	w.files("sys/devices/virtual/net/lo", "address", "00:00:00:00:00:00", "type", "772", "ifindex", "1", "iflink", "1", "mtu", "65536",
		"flags", "0x9", "operstate", "unknown", "carrier", "1", "dev_port", "0", "uevent", "INTERFACE=lo\nIFINDEX=1")
	w.link("sys/class/net/lo", "../../devices/virtual/net/lo")
	w.ifindex = 1
}

func (w *writer) netdev(f function, name string, speed, mtu int, up bool) {
	w.ifindex++
	d := "sys/devices/" + f.path + "/net/" + name
	i := fmt.Sprint(w.ifindex)
	w.files(d, "address", fmt.Sprintf("02:00:5e:%02x:%02x:%02x", w.ifindex>>16&0xff, w.ifindex>>8&0xff, w.ifindex&0xff), "type", "1", "ifindex", i, "iflink", i,
		"mtu", fmt.Sprint(mtu), "dev_port", "0", "dev_id", "0x0", "uevent", "INTERFACE="+name+"\nIFINDEX="+i)
	if up {
		w.files(d, "flags", "0x1003", "operstate", "up", "carrier", "1", "speed", fmt.Sprint(speed), "duplex", "full")
	} else {
		w.files(d, "flags", "0x1002", "operstate", "down", "carrier", "0", "speed", "-1", "duplex", "unknown")
	}
	w.link(d+"/device", "../../../"+f.bdf())
	w.link("sys/class/net/"+name, "../../devices/"+f.path+"/net/"+name)
}

// gidSlots is the length of the GID tables of a physical and of a virtual function.
const gidSlotsPF, gidSlotsVF = 256, 16

// ibdev gives the name of the device.
func (w *writer) ibdev(f function, netdev string, pf bool) string {
	name := fmt.Sprintf("mlx5_%d", w.rdma)
	d := "sys/devices/" + f.path + "/infiniband/" + name
	guid := fmt.Sprintf("0200:5eff:fe00:%04x", w.rdma)
	w.rdma++
	w.files(d, "node_type", "1: CA", "node_guid", guid, "sys_image_guid", guid, "fw_ver", "28.43.2026", "hca_type", "MT4129", "board_id", "MT_0000000838")
	state, phys, slots, used := "4: ACTIVE", "5: LinkUp", gidSlotsPF, 4
	if !pf {
		state, phys, slots, used = "1: DOWN", "3: Disabled", gidSlotsVF, 0
	}
	p := d + "/ports/1"
	w.files(p, "state", state, "phys_state", phys, "rate", "400 Gb/sec (4X NDR)", "link_layer", "Ethernet", "lid", "0x0")
	gids := []string{"fe80:0000:0000:0000:0000:5eff:fe00:" + guid[15:], "0000:0000:0000:0000:0000:ffff:0a64:" + guid[15:]}
	for i := range slots {
		gid := "0000:0000:0000:0000:0000:0000:0000:0000"
		if i < used {
			gid = gids[i/2]
			w.file(fmt.Sprintf("%s/gid_attrs/types/%d", p, i), []string{"IB/RoCE v1", "RoCE v2"}[i%2])
			w.file(fmt.Sprintf("%s/gid_attrs/ndevs/%d", p, i), netdev)
		}
		w.file(fmt.Sprintf("%s/gids/%d", p, i), gid)
	}
	w.link(d+"/device", "../../../"+f.bdf())
	w.link("sys/class/infiniband/"+name, "../../devices/"+f.path+"/infiniband/"+name)
	return name
}

// ethtool records what a driver answers.
func (w *writer) ethtool(name, driver, bdf string, rings, channels int) {
	q := func(topic string, v any) { w.queries["ethtool "+name+" "+topic] = v }
	q("drvinfo", host.DriverInfo{Driver: driver, Version: release, Firmware: "28.43.2026 (MT_0000000838)", Bus: bdf})
	q("privflags", map[string]bool{"rx_cqe_moder": true, "rx_striding_rq": true, "rx_cqe_compress": false})
	q("rings", host.Rings{RX: rings, TX: rings, RXMax: rings, TXMax: rings})
	q("channels", host.Channels{Combined: channels, CombinedMax: channels})
	q("features", map[string]bool{"rx-checksum": true, "rx-gro": true, "tx-tcp-segmentation": true, "tx-udp_tnl-segmentation": true, "rx-udp_tunnel-port-offload": true})
	q("coalesce", host.Coalesce{RXUsecs: 8, RXFrames: 128, TXUsecs: 8, TXFrames: 128, AdaptiveRX: true, AdaptiveTX: true})
	q("pause", host.Pause{})
}

// dcb records priority flow control on priority 3 and trust in DSCP.
func (w *writer) dcb(name string) {
	dcbx := uint8(host.DCBXHost | host.DCBXIEEE)
	w.queries[host.DCBKey(name)] = host.DCB{
		DCBX: &dcbx,
		PFC:  &host.DCBPFC{Cap: 8, Enable: 1 << 3, Delay: 7},
		ETS:  &host.DCBETS{Cap: 8, BW: [8]uint8{3: 100}, TSA: [8]uint8{3: 2}, PrioTC: [8]uint8{0, 1, 2, 3, 4, 5, 6, 7}},
		Apps: []host.DCBApp{{Selector: host.DCBSelDSCP, Priority: 3, Protocol: 26}, {Selector: host.DCBSelDSCP, Priority: 6, Protocol: 48}},
	}
}
