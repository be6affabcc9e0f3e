// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/host"
)

// RXSchema names the format of [RX].
const RXSchema = "hostcheck.bench.rx/v1"

// RXNIC is an interface to look at, with what its driver's rule says.
type RXNIC struct {
	Name        string
	Driver      string
	Slots       int   // entries of all receive rings together
	PacketBytes int64 // predicted memory of a packet; 0 where it is not known
}

// RXOptions say what to measure.
type RXOptions struct {
	Duration time.Duration // of each run
	NIC      *RXNIC        // nil: two namespaces with a veth between them
	Before   *RX           // an earlier result of the same interface, to set beside
	Progress func(format string, args ...any)
}

// RX is how many packets a host receives, and how much memory each takes.
type RX struct {
	Schema    string `json:"schema"`
	Interface string `json:"interface"` // "" for a veth between two network namespaces
	Driver    string `json:"driver"`
	PageSize  int    `json:"page_size"` // bytes
	CPUs      int    `json:"cpus"`      // online
	// Background is how busy the CPUs were before the runs between namespaces,
	// percent: what other programs take is missing in their figures.
	Background float64  `json:"background_busy"`
	Runs       []RXRun  `json:"runs"`    // before and after, or one
	Summary    []string `json:"summary"` // what the runs tell, for people
}

// RXRun is one measurement.
type RXRun struct {
	Name          string   `json:"name"`  // "before", "after", "now"; "a page each", "shared pages" between namespaces
	Frame         int      `json:"frame"` // bytes of each packet with its Ethernet header; the mean on an interface
	Seconds       float64  `json:"seconds"`
	Packets       uint64   `json:"packets"`
	PacketsPerSec float64  `json:"packets_per_second"`
	Gbps          float64  `json:"gbps"`
	PacketBytes   *float64 `json:"packet_bytes"`    // memory of each packet; null where nothing tells
	How           string   `json:"how"`             // what told: see the constants
	Predicted     int64    `json:"predicted_bytes"` // by the driver's rule; 0 where it is not known
	Inflight      uint64   `json:"inflight_bytes"`  // out of the page pools at the end; 0 where the kernel lists none
	CPUPerPacket  float64  `json:"cpu_ns_per_packet"`
}

// What told the memory of a packet.
const (
	HowGiven    = "pages given out"       // by the page pools, for each packet
	HowInflight = "pages in flight"       // for each entry of the rings
	HowHeld     = "pages held"            // by packets that nobody read
	HowCharged  = "charged to the socket" // by the kernel, for packets that nobody read; struct sk_buff included
	HowNot      = "not known"
)

func (o *RXOptions) check() error {
	switch {
	case o.Duration < MinDuration:
		return fmt.Errorf("a run takes %v at least, not %v", MinDuration, o.Duration)
	case o.Before != nil && o.NIC == nil:
		return errors.New("an earlier result is set beside an interface; between namespaces both runs are made anew")
	case o.Before != nil && o.Before.Interface != o.NIC.Name:
		return fmt.Errorf("the earlier result is of %s, not of %s", o.Before.subject(), o.NIC.Name)
	case o.Before != nil && len(o.Before.Runs) == 0:
		return errors.New("the earlier result has no run")
	}
	return nil
}

func (r *RX) subject() string {
	if r.Interface == "" {
		return "two network namespaces"
	}
	return "interface " + strconv.Quote(r.Interface)
}

// MeasureRX measures. Of an interface it reads what passes anyhow: it sends
// nothing and changes nothing. Between namespaces it needs root. When ctx ends it
// stops, and gives the runs that are complete beside the error.
func MeasureRX(ctx context.Context, o RXOptions) (*RX, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	r := &RX{Schema: RXSchema, PageSize: os.Getpagesize(), CPUs: runtime.NumCPU(), Runs: []RXRun{}, Summary: []string{}}
	if o.NIC == nil {
		r.Driver = "veth"
		err := r.between(ctx, &o)
		r.summarise()
		return r, err
	}
	r.Interface, r.Driver = o.NIC.Name, o.NIC.Driver
	name := "now"
	if o.Before != nil {
		before := o.Before.Runs[len(o.Before.Runs)-1]
		before.Name, name = "before", "after"
		r.Runs = append(r.Runs, before)
	}
	o.say("%s for %v", o.NIC.Name, o.Duration)
	run, err := watchInterface(ctx, &o)
	if err != nil {
		return r, fmt.Errorf("cannot measure %s: %w", o.NIC.Name, err)
	}
	run.Name = name
	r.Runs = append(r.Runs, run)
	r.summarise()
	return r, nil
}

func (o *RXOptions) say(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(format, args...)
	}
}

// interfaceSample is what an interface has received, and its page pools.
type interfaceSample struct {
	packets, bytes uint64
	pages          uint64 // given out
	counted        bool   // the kernel counts those
	inflight       uint64 // bytes
	listed         bool
}

// watchInterface looks at an interface for a while.
func watchInterface(ctx context.Context, o *RXOptions) (run RXRun, err error) {
	index, err := classNumber(o.NIC.Name, "ifindex")
	if err != nil {
		return run, err
	}
	a, err := sampleInterface(o.NIC.Name, int(index))
	if err != nil {
		return run, err
	}
	cpuA, err := cpuTimes()
	if err != nil {
		return run, err
	}
	start := time.Now()
	if err := wait(ctx, o.Duration); err != nil {
		return run, err
	}
	seconds := time.Since(start).Seconds()
	b, err := sampleInterface(o.NIC.Name, int(index))
	if err != nil {
		return run, err
	}
	cpuB, err := cpuTimes()
	if err != nil {
		return run, err
	}
	if b.packets < a.packets || b.bytes < a.bytes {
		return run, errors.New("its counters were set back meanwhile")
	}
	run = RXRun{Seconds: seconds, Packets: b.packets - a.packets, How: HowNot, Predicted: o.NIC.PacketBytes, Inflight: b.inflight}
	run.PacketsPerSec = float64(run.Packets) / seconds
	run.Gbps = float64(b.bytes-a.bytes) * 8 / 1e9 / seconds
	if run.Packets > 0 {
		run.Frame = int((b.bytes - a.bytes) / run.Packets)
		run.CPUPerPacket = busyNanoseconds(cores(cpuA, cpuB), seconds) / float64(run.Packets)
	}
	page := uint64(os.Getpagesize())
	switch {
	case b.counted && b.pages >= a.pages && run.Packets >= enoughPackets:
		each := float64(max(page, uint64(o.NIC.PacketBytes)/page*page)) // a piece may be of several pages
		v := float64(b.pages-a.pages) / float64(run.Packets) * each
		run.PacketBytes, run.How = &v, HowGiven
	case b.listed && o.NIC.Slots > 0:
		v := float64(b.inflight) / float64(o.NIC.Slots)
		run.PacketBytes, run.How = &v, HowInflight
	}
	return run, nil
}

// enoughPackets is how many make a ratio.
const enoughPackets = 1000

func sampleInterface(name string, index int) (s interfaceSample, err error) {
	if s.packets, err = classNumber(name, "statistics/rx_packets"); err != nil {
		return s, err
	}
	if s.bytes, err = classNumber(name, "statistics/rx_bytes"); err != nil {
		return s, err
	}
	switch stats, err := host.AskPoolStats(index); {
	case err == nil:
		for _, n := range stats {
			s.pages += n
		}
		s.counted = len(stats) > 0
	case !host.NotOffered(err) && !errors.Is(err, unix.ENOENT):
		return s, fmt.Errorf("cannot read its page pools: %w", err)
	}
	pools, err := host.AskPagePools()
	if err != nil && !host.NotOffered(err) && !errors.Is(err, unix.ENOENT) {
		return s, fmt.Errorf("cannot read its page pools: %w", err)
	}
	for _, p := range pools {
		if p.IfIndex == index && p.Detached == 0 {
			s.inflight, s.listed = s.inflight+p.Bytes, true
		}
	}
	return s, nil
}

// classNumber reads a number of an interface.
func classNumber(name, attr string) (uint64, error) {
	b, err := os.ReadFile("/sys/class/net/" + name + "/" + attr)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 63)
}

// Packets of the two runs between namespaces, by their payload. The kernel puts
// 14 + 20 + 8 bytes of headers before them, and needs 256 + 320 around (XDP
// headroom, skb_shared_info): beyond half a page each has one for itself.
const (
	headers = 14 + 20 + 8
	around  = 256 + 320
)

// payloads are of packets that have a page each, and of some that share one.
func payloads(page int) (alone, shared int) {
	if page <= 4096 {
		return 1472, 1400 // 1514 bytes with headers, and 1442: the largest two of which share 4K have 1450
	}
	return page*5/8 - 28, 1472
}

// between measures packets that have a page each, then packets that share one.
func (r *RX) between(ctx context.Context, o *RXOptions) error {
	alone, shared := payloads(r.PageSize)
	p, err := newRXPair(alone + 28)
	if err != nil {
		return err
	}
	defer p.close()
	if r.Background, err = background(ctx, min(o.Duration, 500*time.Millisecond)); err != nil {
		return err
	}
	for i, run := range []struct {
		name    string
		payload int
	}{{"a page each", alone}, {"shared pages", shared}} {
		o.say("run %d of 2: packets of %d bytes, %s", i+1, run.payload+headers, run.name)
		got, err := p.measure(ctx, run.payload, o.Duration, r.PageSize)
		if err != nil {
			return fmt.Errorf("cannot measure %s: %w", run.name, err)
		}
		got.Name = run.name
		r.Runs = append(r.Runs, got)
	}
	return nil
}

// held is how many packets wait, and how much memory they may take.
const (
	heldPackets = 2000
	heldMemory  = 64 << 20
)

func (p *rxPair) measure(ctx context.Context, payload int, duration time.Duration, page int) (run RXRun, err error) {
	each, listed, err := p.hold(ctx, payload, max(256, min(heldPackets, heldMemory/page)))
	if err != nil {
		return run, err
	}
	run = RXRun{Frame: payload + headers, PacketBytes: &each, How: HowCharged, Predicted: predictedCopy(payload+headers, page)}
	if listed {
		run.How = HowHeld
	}
	return run, p.flood(ctx, payload, duration, &run)
}

// predictedCopy is what the kernel takes of its page pool for a packet that it
// copies for XDP (skb_pp_cow_data): pages are shared where two fit.
func predictedCopy(frame, page int) int64 {
	need := (frame+63)/64*64 + around
	if 2*need > page {
		return int64(page)
	}
	return int64(page / (page / need))
}

// flood sends as fast as one socket can and counts what is read.
func (p *rxPair) flood(ctx context.Context, payload int, duration time.Duration, run *RXRun) error {
	ctx, stop := context.WithTimeout(ctx, 20*time.Second+duration)
	defer stop()
	var received atomic.Uint64
	done, ended := make(chan struct{}), make(chan struct{}, 2)
	if err := p.receive.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	go func() {
		defer func() { ended <- struct{}{} }()
		b := make([]byte, payload)
		for {
			select {
			case <-done:
				return
			default:
				_, _ = p.send.Write(b) // what is dropped is not received
			}
		}
	}()
	go func() {
		defer func() { ended <- struct{}{} }()
		b := make([]byte, 1<<16)
		for {
			if _, err := p.receive.Read(b); err != nil {
				return
			}
			received.Add(1)
		}
	}()
	err := func() error {
		if err := wait(ctx, duration/5); err != nil {
			return err
		}
		before, err := cpuTimes()
		if err != nil {
			return err
		}
		n, start := received.Load(), time.Now()
		for got := false; !got; got = received.Load() > n {
			if err := wait(ctx, duration); err != nil {
				return err
			}
		}
		run.Seconds, run.Packets = time.Since(start).Seconds(), received.Load()-n
		after, err := cpuTimes()
		if err != nil {
			return err
		}
		run.PacketsPerSec = float64(run.Packets) / run.Seconds
		run.Gbps = run.PacketsPerSec * float64(run.Frame) * 8 / 1e9
		run.CPUPerPacket = busyNanoseconds(cores(before, after), run.Seconds) / float64(run.Packets)
		return nil
	}()
	close(done)
	_ = p.receive.SetReadDeadline(time.Now()) // ends the reader; the next run sets it anew
	<-ended
	<-ended
	if _, drained := p.drain(); err == nil {
		err = drained
	}
	return err
}

// ParseRX reads a stored result.
func ParseRX(b []byte) (*RX, error) {
	r := new(RX)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, errors.New("it is no result of hostcheck bench rx -f json")
	}
	if r.Schema != RXSchema {
		return nil, fmt.Errorf("its schema is %.40q; this hostcheck knows %s", r.Schema, RXSchema)
	}
	if len(r.Runs) == 0 || len(r.Runs) > 2 {
		return nil, fmt.Errorf("it has %d runs; one or two are possible", len(r.Runs))
	}
	for _, run := range r.Runs {
		ok := func(v float64) bool { return v >= 0 && v < 1e15 && !math.IsNaN(v) }
		if !ok(run.PacketsPerSec) || !ok(run.Gbps) || !ok(run.Seconds) || !ok(run.CPUPerPacket) || run.PacketBytes != nil && !ok(*run.PacketBytes) ||
			run.Frame < 0 || run.Frame > 1<<20 || run.Predicted < 0 || run.Predicted > 1<<40 || len(run.Name) > 40 || len(run.How) > 40 {
			return nil, errors.New("a figure in it is none that can be measured")
		}
	}
	return r, nil
}
