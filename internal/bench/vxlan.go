// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// VXLANSchema names the format of [VXLAN].
const VXLANSchema = "hostcheck.bench.vxlan/v1"

// VXLANOptions say what to measure.
type VXLANOptions struct {
	Duration time.Duration // of each run, without its start
	Streams  int           // TCP connections at a time of the runs with several
	MTU      int           // of the underlay
	Progress func(format string, args ...any)
}

// VXLAN is what TCP reaches between two network namespaces of this host, over
// a pair of veth interfaces and in a tunnel over the same pair.
type VXLAN struct {
	Schema   string  `json:"schema"`
	CPUs     int     `json:"cpus"` // online
	Seconds  float64 `json:"seconds"`
	MTU      int     `json:"mtu"`
	InnerMTU int     `json:"inner_mtu"`
	// Background is how busy the CPUs were before the runs, percent: what other
	// programs take is missing in all figures.
	Background float64    `json:"background_busy"`
	Runs       []VXLANRun `json:"runs"`
	Summary    []string   `json:"summary"` // what the runs tell, for people
}

// The paths and ways of segmentation of a run.
const (
	Bare     = "veth"
	Tunnel   = "vxlan"
	Offload  = "offload"  // large packets pass the veth whole, as a NIC with tunnel offloads takes them
	Software = "software" // the sender's CPU cuts them, and the receiver's GRO joins them, as without these offloads
)

// VXLANRun is one measurement.
type VXLANRun struct {
	Path         string  `json:"path"`         // veth or vxlan
	Segmentation string  `json:"segmentation"` // offload or software
	Streams      int     `json:"streams"`
	Seconds      float64 `json:"seconds"`
	Bytes        int64   `json:"bytes"` // that the receivers read
	Gbps         float64 `json:"gbps"`
	CPUPerByte   float64 `json:"cpu_ns_per_byte"` // time of all CPUs, whatever else runs on the host included
	Cores        []Core  `json:"cores"`
	Bound        string  `json:"bound"` // what bounds it
}

// overhead of VXLAN over IPv4: IP, UDP, VXLAN and the inner Ethernet header.
const vxlanOverhead = 20 + 8 + 8 + 14

// The least of what a run takes.
const (
	MinDuration = 100 * time.Millisecond
	MaxStreams  = 256
	MinMTU      = 576 + vxlanOverhead
	MaxMTU      = 65535
)

func (o *VXLANOptions) check() error {
	switch {
	case o.Duration < MinDuration:
		return fmt.Errorf("a run takes %v at least, not %v", MinDuration, o.Duration)
	case o.Streams < 2 || o.Streams > MaxStreams:
		return fmt.Errorf("the runs with several streams take 2 to %d, not %d", MaxStreams, o.Streams)
	case o.MTU < MinMTU || o.MTU > MaxMTU:
		return fmt.Errorf("the MTU is %d to %d, not %d", MinMTU, MaxMTU, o.MTU)
	}
	return nil
}

// Addresses of the two ends; each namespace has nothing else.
var (
	under = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	over  = [2]netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")}
)

// MeasureVXLAN makes two network namespaces with a tunnel between them and
// measures. It needs root, and touches no interface of the host. When ctx ends
// it stops, and gives the runs that are complete beside the error.
func MeasureVXLAN(ctx context.Context, o VXLANOptions) (*VXLAN, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	ends, err := makeTunnel(o.MTU)
	if err != nil {
		return nil, err
	}
	defer ends[0].close()
	defer ends[1].close()
	v := &VXLAN{Schema: VXLANSchema, CPUs: runtime.NumCPU(), Seconds: o.Duration.Seconds(), MTU: o.MTU, InnerMTU: o.MTU - vxlanOverhead, Runs: []VXLANRun{}, Summary: []string{}}
	if v.Background, err = background(ctx, min(o.Duration, 500*time.Millisecond)); err != nil {
		return v, err
	}
	for _, segmentation := range []string{Offload, Software} {
		if err := segment(ends, segmentation == Software); err != nil {
			return nil, err
		}
		for _, path := range []string{Bare, Tunnel} {
			for _, streams := range []int{1, o.Streams} {
				if o.Progress != nil {
					o.Progress("run %d of 8: %s, segmentation by %s, %s", len(v.Runs)+1, path, segmentation, streamCount(streams))
				}
				r, err := measure(ctx, ends, path, streams, o.Duration)
				if err != nil {
					v.summarise()
					return v, fmt.Errorf("cannot measure %s with %s: %w", path, streamCount(streams), err)
				}
				r.Segmentation = segmentation
				v.Runs = append(v.Runs, r)
			}
		}
	}
	v.summarise()
	return v, nil
}

// background measures how busy the CPUs are without us.
func background(ctx context.Context, d time.Duration) (busy float64, err error) {
	before, err := cpuTimes()
	if err != nil {
		return 0, err
	}
	if err := wait(ctx, d); err != nil {
		return 0, err
	}
	after, err := cpuTimes()
	if err != nil {
		return 0, err
	}
	list := cores(before, after)
	for _, c := range list {
		busy += c.Busy / float64(len(list))
	}
	return busy, nil
}

// makeTunnel makes both namespaces with their interfaces.
func makeTunnel(mtu int) (ends [2]*space, err error) {
	defer func() {
		for _, s := range ends {
			if err != nil && s != nil {
				s.close()
			}
		}
	}()
	for i := range ends {
		if ends[i], err = newSpace(); err != nil {
			return ends, err
		}
	}
	if err = ends[0].do(func() error { return newVeth(ends[1].fd, mtu) }); err != nil {
		return ends, err
	}
	for i := range ends {
		err = ends[i].do(func() error {
			return errors.Join(up(vethIndex, under[i]), newVXLAN(under[i], under[1-i]), up(vxlanIndex, over[i]))
		})
		if err != nil {
			return ends, err
		}
	}
	return ends, nil
}

// segment chooses who cuts large packets: nobody, or the kernel above the veth.
// GRO is on in both: without, a veth does not join what was cut.
func segment(ends [2]*space, software bool) error {
	on := map[string]bool{"rx-gro": true}
	for _, name := range []string{"tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"} {
		on[name] = !software
	}
	for _, s := range ends {
		if err := s.do(func() error { return offloads(on) }); err != nil {
			return err
		}
	}
	return nil
}

const chunk = 256 << 10 // bytes of one write and one read

// measure runs TCP streams from the first end to the second.
func measure(ctx context.Context, ends [2]*space, path string, streams int, duration time.Duration) (r VXLANRun, err error) {
	address := under[1]
	if path == Tunnel {
		address = over[1]
	}
	// the start of TCP is no part of the measurement
	warm := duration / 5
	ctx, stop := context.WithTimeoutCause(ctx, 20*time.Second+warm+duration, errors.New("nothing arrived in time: the host is too busy, or something in this kernel drops the packets"))
	defer stop()
	conns, err := connect(ctx, ends, address, streams)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	if err != nil {
		return r, err
	}
	var received atomic.Int64
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() {
		for _, c := range conns {
			_ = c.Close() // ends both sides
		}
	}()
	for i, c := range conns {
		wg.Go(func() {
			b := make([]byte, chunk)
			for {
				var n int
				var err error
				if i%2 == 0 {
					_, err = c.Write(b)
				} else {
					n, err = c.Read(b)
					received.Add(int64(n))
				}
				if err != nil {
					return
				}
			}
		})
	}
	if err := wait(ctx, warm); err != nil {
		return r, err
	}
	before, err := cpuTimes()
	if err != nil {
		return r, err
	}
	bytes, start := received.Load(), time.Now()
	for got := false; !got; got = received.Load() > bytes { // a busy host may give us no CPU for as long as a short run takes
		if err := wait(ctx, duration); err != nil {
			return r, err
		}
	}
	seconds := time.Since(start).Seconds()
	r = VXLANRun{Path: path, Streams: streams, Seconds: seconds, Bytes: received.Load() - bytes}
	after, err := cpuTimes()
	if err != nil {
		return r, err
	}
	r.Gbps = float64(r.Bytes) * 8 / 1e9 / seconds
	r.Cores = cores(before, after)
	r.CPUPerByte = busyNanoseconds(r.Cores, seconds) / float64(r.Bytes)
	r.Bound = bound(r.Cores)
	return r, nil
}

// wait sleeps, and gives the reason when ctx ends before.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// connect makes streams: of each the end that sends, then the one that receives.
func connect(ctx context.Context, ends [2]*space, to netip.Addr, streams int) (conns []net.Conn, err error) {
	var l net.Listener
	if err := ends[1].do(func() (err error) {
		var c net.ListenConfig
		c.SetMultipathTCP(false) // else the listener is one, by default
		l, err = c.Listen(ctx, "tcp4", netip.AddrPortFrom(to, 0).String())
		return err
	}); err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	defer func() { _ = l.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // ends Accept
	defer stop()
	for range streams {
		var c net.Conn
		if err := ends[0].do(func() (err error) { // on this thread, as the socket belongs to its namespace
			c, err = (&net.Dialer{}).DialContext(ctx, "tcp4", l.Addr().String())
			return err
		}); err != nil {
			return conns, fmt.Errorf("cannot connect: %w", cause(ctx, err))
		}
		conns = append(conns, c)
		if c, err = l.Accept(); err != nil {
			return conns, fmt.Errorf("cannot accept: %w", cause(ctx, err))
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// cause is why ctx ended, where it did.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
