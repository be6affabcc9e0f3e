// SPDX-License-Identifier: Apache-2.0

// Package densefleet makes the reports of a fleet of GPU servers, to measure
// hostcheck on and to hunt for what was planted. Hosts differ as real ones do: in
// names, addresses, times, counters and memory, in kernel, firmware and profile.
// The same fleet always gives the same bytes.
//
// This package is for tests and benchmarks and is not linked into hostcheck.
package densefleet

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/report"
)

// Fleet is what to make.
type Fleet struct {
	Hosts int
	Seed  uint64
	Odd   float64 // part of the hosts that get an oddity; [Usual] is 2 %
}

// Usual is the fleet that the goals are stated for.
func Usual(hosts int) Fleet { return Fleet{Hosts: hosts, Seed: 1, Odd: 0.02} }

// perRack hosts stand in one rack: those of one delivery, with one firmware.
const perRack = 40

// start is when the first host was judged; all are within quarter of an hour.
var start = time.Date(2026, 11, 2, 8, 0, 0, 0, time.UTC)

// server is one host before it is judged.
type server struct {
	name     string
	rack     string
	kernel   string
	firmware string // of the NICs of its rack
	storage  bool   // judged by the storage profile
	memKB    int
	uuid     string // of its root file system
	bootID   string
	captured time.Time
	octet    int // last of its addresses
	odd      Kind
	which    int    // of its two NICs, GPUs or nodes, where the oddity is of one
	version  string // of the odd NIC's firmware
	both     bool   // NICs have it
	cubic    bool
	rng      *rand.Rand
}

// Maker makes the reports of one fleet, each on its own.
type Maker struct {
	Fleet
	odd    map[int]Oddity // by host
	group  Group
	checks []entry
}

// entry is a check and what it says of a server.
type entry struct {
	check *check.Check
	judge func(*server) []check.Finding
}

// New prepares a fleet.
func New(f Fleet) (*Maker, error) {
	m := &Maker{Fleet: f}
	byID := map[string]*check.Check{}
	for _, c := range checks.All() {
		byID[c.ID] = c
	}
	for _, j := range judged {
		c := byID[j.id]
		if c == nil {
			return nil, fmt.Errorf("there is no check %s any more: choose another one", j.id)
		}
		m.checks = append(m.checks, entry{c, j.judge})
	}
	m.plant()
	return m, nil
}

// racks is how many racks there are.
func (f Fleet) racks() int { return (f.Hosts + perRack - 1) / perRack }

// Name is what host i calls itself.
func (f Fleet) Name(i int) string { return fmt.Sprintf("gpu-r%04d-n%02d", i/perRack+1, i%perRack+1) }

// Rack is the label of host i.
func (f Fleet) Rack(i int) string { return fmt.Sprintf("r%04d", i/perRack+1) }

// Labels is a line "HOST rack=NAME" for each host.
func (f Fleet) Labels() string {
	var b strings.Builder
	for i := range f.Hosts {
		fmt.Fprintf(&b, "%s rack=%s\n", f.Name(i), f.Rack(i))
	}
	return b.String()
}

// Kernels, most of the hosts first, and the one that a host was forgotten on.
const (
	kernelNew = "6.12.107+deb13-amd64"
	kernelOld = "6.12.96+deb13-amd64"
	kernelOdd = "6.1.0-37-amd64"
)

// Firmware of the NICs, by delivery, and one that none of them came with.
var firmwares = []string{"28.43.2026", "28.42.1230", "28.45.1200"}

const firmwareOdd = "28.39.3004"

// Profiles that hosts are judged by: an eighth of the racks is storage, with
// larger pools.
const (
	Compute = "842d8971673726005fe9ecae39f18fa0e7cbf7d53ce7b03f64ddf21de9f9d8b4"
	Storage = "0b7ce2d5af2c7a9e7f1b8d8b86e1f6b1b0b76d8b7c3f0d2b6d7b3f1a9c5e4d21"
)

func (m *Maker) server(i int) *server {
	rack := rand.New(rand.NewPCG(m.Seed, uint64(i/perRack)|1<<40)) //nolint:gosec // the same fleet each time
	own := rand.New(rand.NewPCG(m.Seed, uint64(i)|1<<41))          //nolint:gosec // the same host each time
	s := &server{
		name: m.Name(i), rack: m.Rack(i), kernel: kernelNew, firmware: firmwares[0], rng: own,
		memKB: 263921664 - 4*own.IntN(200)*1024/64, uuid: uuid(own), bootID: uuid(own),
		captured: start.Add(time.Duration(own.IntN(900)) * time.Second), octet: i%perRack + 10,
	}
	switch n := rack.IntN(10); { // half, a third, a fifth
	case n >= 8:
		s.firmware = firmwares[2]
	case n >= 5:
		s.firmware = firmwares[1]
	}
	s.storage = rack.IntN(8) == 0 // whole racks, as they are bought
	if own.IntN(3) == 0 {         // a third has not been booted since the update
		s.kernel = kernelOld
	}
	if o, ok := m.odd[i]; ok {
		s.odd, s.which, s.version, s.both = o.Kind, o.which, o.version, o.both
	}
	s.cubic = s.rack == m.group.Rack
	if s.odd == Kernel {
		s.kernel = kernelOdd
	}
	return s
}

func uuid(r *rand.Rand) string {
	a, b := r.Uint64(), r.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0x3fff|0x8000, b&0xffffffffffff)
}

// Report is the report of host i.
func (m *Maker) Report(i int) *report.Report { return m.report(m.server(i)) }

func (m *Maker) report(s *server) *report.Report {
	in := report.Input{
		Tool: report.Tool{Version: "1.4.0", Commit: "5f3a1c9e7b21"},
		Host: report.Host{
			Name: &s.name, Kernel: &s.kernel, Arch: new("amd64"), PageSize: new(4096), BootID: &s.bootID,
			CapturedAt: report.Stamp(s.captured), Source: "live",
		},
		Profile: report.Profile{
			Layers: []string{"base", "intel", "mlx5", "rdma-400g", "site"}, Intent: "baremetal-gpudirect", IntentSource: "stated",
			Hash: Compute,
		},
		FailOn: check.Fail,
	}
	if s.storage {
		in.Profile.Layers = []string{"base", "intel", "mlx5", "rdma-400g", "site", "storage"}
		in.Profile.Hash = Storage
	}
	for _, e := range m.checks {
		in.Results = append(in.Results, check.Result{Check: e.check, Findings: e.judge(s)})
	}
	return report.New(in)
}

// Write writes a line for each host and gives the number of bytes.
func (m *Maker) Write(w io.Writer) (n int64, err error) {
	b := bufio.NewWriterSize(w, 1<<20)
	for i := range m.Hosts {
		line, err := report.JSONLine(m.Report(i))
		if err != nil {
			return n, err
		}
		if _, err := b.Write(line); err != nil {
			return n, err
		}
		n += int64(len(line))
	}
	return n, b.Flush()
}
