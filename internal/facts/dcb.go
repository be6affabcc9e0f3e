// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
)

// DCBNIC is the data center bridging and congestion control of one physical
// Ethernet interface: what RoCE needs of a network that must not drop.
type DCBNIC struct {
	NIC      string   `json:"nic"`
	BDF      string   `json:"bdf"`
	DCBNL    string   `json:"dcbnl"` // [Answered], [DCBAbsent] (the driver has no DCB) or [DCBUnknown]
	Trust    *string  `json:"trust"` // "dscp" or "pcp": the header field that gives a received packet its priority
	PFC      []int    `json:"pfc"`   // priorities with priority flow control; nil when not known
	PFCCap   *int     `json:"pfc_cap"`
	PFCDelay *int     `json:"pfc_delay"`
	ETS      *ETS     `json:"ets"`
	App      []DCBApp `json:"app"`
	DCBX     []string `json:"dcbx"`  // host, lld_managed, cee, ieee, static
	Pause    *Pause   `json:"pause"` // global flow control
	// TrafficClass is the byte that the out-of-tree driver forces on all RoCE
	// traffic (/sys/class/infiniband/D/tc/1/traffic_class); nil where it forces
	// none, with the reason.
	TrafficClass *int `json:"traffic_class"`
	// DefaultToS is the byte that rdma_cm gives to connections that ask for
	// none; known only where somebody made the configfs directory.
	DefaultToS *int    `json:"default_roce_tos"`
	DCQCN      DCQCN   `json:"dcqcn"`
	Unknown    Unknown `json:"unknown,omitempty"`

	// Sources name where a field was read, for evidence.
	Sources map[string]string `json:"-"`
	// Unforced is set when it is certain that no traffic class is forced.
	Unforced bool `json:"-"`
}

// The ways in which an interface's driver takes a dcbnl question.
const (
	DCBAnswered = "answered"
	DCBAbsent   = "absent"
	DCBUnknown  = "unknown"
)

// ETS is the enhanced transmission selection.
type ETS struct {
	Willing bool     `json:"willing"` // takes the switch's configuration
	TCs     int      `json:"tcs"`
	TSA     []string `json:"tsa"`     // per traffic class: strict, cbs, ets, vendor
	BW      []int    `json:"bw"`      // per traffic class, percent
	PrioTC  []int    `json:"prio_tc"` // priority -> traffic class
}

// DCBApp is one entry of the application priority table.
type DCBApp struct {
	Selector string `json:"selector"` // ethertype, tcp, udp, port, dscp
	Protocol int    `json:"protocol"`
	Priority int    `json:"priority"`
}

// Pause is global flow control, which stops all priorities.
type Pause struct {
	RX bool `json:"rx"`
	TX bool `json:"tx"`
}

// DCQCN is RoCE congestion control. NP is the notification point (answers ECN
// marks with CNPs), RP the reaction point (slows down on a CNP).
type DCQCN struct {
	Source  string         `json:"source"` // [FromOFED], [FromCCParams], [DCBAbsent] or [DCBUnknown]
	NP      []int          `json:"np"`     // priorities on which it is enabled; nil when not known
	RP      []int          `json:"rp"`
	Params  map[string]int `json:"params"` // by the names of mlx5 debugfs, whatever the source: np_cnp_dscp, rp_ai_rate
	Unknown Unknown        `json:"unknown,omitempty"`

	paths map[string]string // of Params
}

// Where DCQCN was read.
const (
	FromOFED     = "ofed"      // /sys/class/net/IF/ecn of the out-of-tree driver
	FromCCParams = "cc_params" // debugfs of the in-tree driver: parameters only
)

// ParamPath is the file that a parameter was read from.
func (d *DCQCN) ParamPath(name string) string { return d.paths[name] }

// DCB is the bridging of all physical Ethernet interfaces, by name. VFs whose
// physical function is on this host have none of their own and are left out.
type DCB struct {
	List []*DCBNIC
	Why  string // why List is nil
}

// MarshalJSON writes the list, null when the interfaces could not be read.
func (d *DCB) MarshalJSON() ([]byte, error) { return json.Marshal(d.List) }

// Of gives an interface's entry, or nil.
func (d *DCB) Of(nic string) *DCBNIC {
	for _, n := range d.List {
		if n.NIC == nic {
			return n
		}
	}
	return nil
}

// DCB gives the data center bridging of the host's interfaces.
func (f *Facts) DCB() *DCB { return f.dcb.get(f, decodeDCB) }

func decodeDCB(f *Facts) *DCB {
	h := f.host
	nics := f.NICs()
	if nics.List == nil {
		return &DCB{Why: nics.Why}
	}
	d := &DCB{List: []*DCBNIC{}}
	var drivers []string
	for _, nic := range nics.List {
		if !nic.Physical() || nic.VF || nic.Type != nil && *nic.Type != TypeEthernet {
			continue
		}
		driver := ""
		if nic.Driver != nil {
			driver = *nic.Driver
		}
		d.List = append(d.List, &DCBNIC{NIC: nic.Name, BDF: *nic.BDF, Sources: map[string]string{}})
		drivers = append(drivers, driver)
	}
	var questions []func()
	for _, n := range d.List {
		questions = append(questions, func() { _, _ = h.DCB(n.NIC) }, func() { _, _ = h.EthtoolPause(n.NIC) })
	}
	host.Together(questions)
	prefetchDCQCN(f, d.List, drivers)
	for i, n := range d.List {
		n.readDCB(h)
		n.readPause(h)
		n.DCQCN.Unknown = Unknown{}
		switch drivers[i] {
		case "mlx5_core":
			n.readTrustFile(h)
			n.readDCQCN(f)
		case "":
			n.DCQCN.none(DCBUnknown, "the driver is not known")
		default:
			n.DCQCN.none(DCBAbsent, drivers[i]+" does not show DCQCN; its settings are in the vendor's tool")
		}
		n.readToS(f, drivers[i])
		if len(n.DCQCN.Unknown) == 0 {
			n.DCQCN.Unknown = nil
		}
	}
	return d
}

func (n *DCBNIC) readDCB(h *host.Host) {
	key := host.DCBKey(n.NIC)
	a, err := h.DCB(n.NIC)
	if err != nil {
		why := host.Reason(err)
		n.DCBNL = DCBUnknown
		if errors.Is(err, syscall.EOPNOTSUPP) {
			n.DCBNL, why = DCBAbsent, key+": the driver has no data center bridging"
		}
		for _, field := range []string{"trust", "pfc", "pfc_cap", "pfc_delay", "ets", "app", "dcbx"} {
			n.Unknown.say(field, why)
		}
		return
	}
	n.DCBNL = DCBAnswered
	untold := key + ": the driver does not tell it"
	if a.PFC == nil {
		n.Unknown.say("pfc", untold)
		n.Unknown.say("pfc_cap", untold)
		n.Unknown.say("pfc_delay", untold)
	} else {
		limit, delay := int(a.PFC.Cap), int(a.PFC.Delay)
		n.PFC, n.PFCCap, n.PFCDelay = priorities(a.PFC.Enable), &limit, &delay
	}
	if a.ETS == nil {
		n.Unknown.say("ets", untold)
	} else {
		n.ETS = decodeETS(a.ETS)
	}
	if a.DCBX == nil {
		n.Unknown.say("dcbx", untold)
	} else {
		n.DCBX = dcbxWords(*a.DCBX)
	}
	if a.Apps == nil {
		n.Unknown.say("app", untold)
		n.Unknown.say("trust", untold)
		return
	}
	n.App = []DCBApp{}
	trust := "pcp"
	for _, e := range a.Apps {
		if e.Selector == host.DCBSelDSCP {
			trust = "dscp"
		}
		n.App = append(n.App, DCBApp{Selector: selectorWord(e.Selector), Protocol: int(e.Protocol), Priority: int(e.Priority)})
	}
	n.Trust, n.Sources["trust"] = &trust, key
}

// priorities lists the set bits.
func priorities(bits uint8) []int {
	p := []int{}
	for i := range 8 {
		if bits&(1<<i) != 0 {
			p = append(p, i)
		}
	}
	return p
}

func decodeETS(a *host.DCBETS) *ETS {
	e := &ETS{Willing: a.Willing != 0, TCs: int(a.Cap), TSA: []string{}, BW: []int{}, PrioTC: []int{}}
	for i := range 8 {
		e.TSA = append(e.TSA, tsaWord(a.TSA[i]))
		e.BW = append(e.BW, int(a.BW[i]))
		e.PrioTC = append(e.PrioTC, int(a.PrioTC[i]))
	}
	return e
}

func tsaWord(v uint8) string {
	switch v {
	case 0:
		return "strict"
	case 1:
		return "cbs"
	case 2:
		return "ets"
	case 255:
		return "vendor"
	}
	return strconv.Itoa(int(v))
}

func selectorWord(v uint8) string {
	if words := []string{"0", "ethertype", "tcp", "udp", "port", "dscp", "pcp"}; int(v) < len(words) {
		return words[v]
	}
	return strconv.Itoa(int(v))
}

func dcbxWords(v uint8) []string {
	w := []string{}
	for i, name := range []string{"host", "lld_managed", "cee", "ieee", "static"} {
		if v&(1<<i) != 0 {
			w = append(w, name)
		}
	}
	return w
}

// PriorityOf gives the priority that a received packet with this DSCP takes
// while DSCP is trusted: its APP entry (the highest of several), else the
// default of the mlx5 hardware, dscp>>3 (mlnx-tools, dcbnetlink.py).
func (n *DCBNIC) PriorityOf(dscp int) (priority int, listed bool) {
	priority = dscp >> 3
	for _, e := range n.App {
		if e.Selector == "dscp" && e.Protocol == dscp && (!listed || e.Priority > priority) {
			priority, listed = e.Priority, true
		}
	}
	return priority, listed
}

func (n *DCBNIC) readPause(h *host.Host) {
	p, err := h.EthtoolPause(n.NIC)
	if err != nil {
		n.Unknown.say("pause", host.Reason(err))
		return
	}
	n.Pause = &Pause{RX: p.RX, TX: p.TX}
}

// readTrustFile prefers the out-of-tree driver's own word.
func (n *DCBNIC) readTrustFile(h *host.Host) {
	p := n.trustPath()
	s, err := h.Text(p)
	switch {
	case err == nil && (s == "dscp" || s == "pcp"):
		n.Trust, n.Sources["trust"] = &s, p
		delete(n.Unknown, "trust")
	case err == nil:
		n.Trust = nil
		n.Unknown.say("trust", p+": neither dscp nor pcp")
	case !host.Absent(err):
		n.Trust = nil
		n.Unknown.say("trust", host.Reason(err))
	}
}

func (n *DCBNIC) trustPath() string { return NetClass + "/" + n.NIC + "/qos/trust" }

// readToS reads the two places that give RoCE traffic its ToS byte. Neither
// is there on most hosts: then the application decides.
func (n *DCBNIC) readToS(f *Facts, driver string) {
	h := f.host
	dev, port := rdmaOf(f, n)
	if dev == nil {
		n.Unknown.say("traffic_class", "no RDMA device stands on "+n.NIC)
		n.Unknown.say("default_roce_tos", "no RDMA device stands on "+n.NIC)
		return
	}
	p := tclassPath(dev)
	switch s, err := h.Text(p); {
	case driver != "" && driver != "mlx5_core":
		n.Unforced = true
		n.Unknown.say("traffic_class", driver+" has no such file")
	case kernelLacks(h, err):
		n.Unforced = true
		n.Unknown.say("traffic_class", host.Reason(err)+"; only the out-of-tree driver has this file")
	case err != nil:
		n.Unknown.say("traffic_class", whyNot(h, err))
	default:
		v, ok := parseTrafficClass(s)
		if n.Unforced = !ok; !ok {
			n.Unknown.say("traffic_class", p+": no global traffic class is set")
			break
		}
		n.TrafficClass, n.Sources["traffic_class"] = &v, p
	}
	p = fmt.Sprintf("/sys/kernel/config/rdma_cm/%s/ports/%d/default_roce_tos", dev.Device, port.Port)
	v, err := h.Int(p)
	if err != nil {
		n.Unknown.say("default_roce_tos", whyNot(h, err)+"; it is shown only after somebody made the directory")
		return
	}
	tos := int(v)
	n.DefaultToS, n.Sources["default_roce_tos"] = &tos, p
}

func rdmaOf(f *Facts, n *DCBNIC) (*RDMADevice, *RDMAPort) {
	return f.RDMA().On(f.NICs().Named(n.NIC))
}

func tclassPath(d *RDMADevice) string { return d.Attr("tc/1/traffic_class") }

var globalClass = pattern.Late(`(?m)^Global tclass=([0-9]{1,3})\s*$`)

// parseTrafficClass reads "Global tclass=106"; without that line, or with -1,
// none is set. Lines about single addresses follow it.
func parseTrafficClass(s string) (int, bool) {
	m := globalClass().FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	v, err := strconv.Atoi(m[1])
	return v, err == nil && v <= 255
}
