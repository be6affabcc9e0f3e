// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Numbers of include/uapi/linux/if_link.h and bpf.h.
const (
	xdpFD         = 1
	xdpFlags      = 3
	xdpDriverMode = 1 << 2
	xdpPass       = 2
)

// passAll attaches a program of XDP that lets every packet pass to the veth of
// the calling thread's namespace. With it the kernel copies each packet into a
// page pool of the veth, as a NIC's driver receives into one.
func passAll() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "hostcheck_pass", Type: ebpf.XDP, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()}})
	if err != nil {
		return fmt.Errorf("cannot load a program of XDP, without which a veth uses no page pool: %w", err)
	}
	defer func() { _ = p.Close() }() // the interface keeps it
	err = change(unix.RTM_SETLINK, 0, ifinfo(vethIndex, 0), nestedAttr(unix.IFLA_XDP,
		host.NetlinkAttr(xdpFD, native32(uint32(p.FD()))...), host.NetlinkAttr(xdpFlags, native32(xdpDriverMode)...)))
	if err != nil {
		return fmt.Errorf("cannot attach a program of XDP to a veth: %w", err)
	}
	return nil
}

// rxPair is two namespaces with a veth between them whose second end receives
// into a page pool.
type rxPair struct {
	ends     [2]*space
	send     *net.UDPConn
	receive  *net.UDPConn
	received []byte
}

func (p *rxPair) close() {
	for _, c := range []*net.UDPConn{p.send, p.receive} {
		if c != nil {
			_ = c.Close()
		}
	}
	for _, s := range p.ends {
		if s != nil {
			s.close()
		}
	}
}

// receiveBuffer holds all packets of a run that nobody reads.
const receiveBuffer = 512 << 20

func newRXPair(mtu int) (p *rxPair, err error) {
	p = &rxPair{received: make([]byte, 1<<16)}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	for i := range p.ends {
		if p.ends[i], err = newSpace(); err != nil {
			return nil, err
		}
	}
	if err = p.ends[0].do(func() error { return newVeth(p.ends[1].fd, mtu) }); err != nil {
		return nil, err
	}
	for i, s := range p.ends {
		if err = s.do(func() error { return up(vethIndex, under[i]) }); err != nil {
			return nil, err
		}
	}
	err = p.ends[1].do(func() error {
		if err := passAll(); err != nil {
			return err
		}
		p.receive, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(under[1], 0)))
		if err != nil {
			return fmt.Errorf("cannot listen: %w", err)
		}
		raw, err := p.receive.SyscallConn()
		if err != nil {
			return err
		}
		return errors.Join(raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
		}), err)
	})
	if err != nil {
		return nil, err
	}
	err = p.ends[0].do(func() error {
		p.send, err = net.DialUDP("udp4", nil, p.receive.LocalAddr().(*net.UDPAddr))
		if err != nil {
			return fmt.Errorf("cannot connect: %w", err)
		}
		return nil
	})
	return p, err
}

// memory is what the packets that nobody read hold: what is out of the page
// pools of the second end where the kernel lists them (listed), else what it
// charges the socket, which is the pieces of pages and struct sk_buff.
func (p *rxPair) memory() (bytes int64, listed bool, err error) {
	err = p.ends[1].do(func() error {
		if pools, err := host.AskPagePools(); err == nil && len(pools) > 0 {
			listed = true
			for _, pool := range pools {
				bytes += int64(pool.Bytes)
			}
			return nil
		}
		b, err := os.ReadFile("/proc/thread-self/net/udp")
		if err != nil {
			return fmt.Errorf("cannot tell what a socket holds: %w", err)
		}
		bytes, err = charged(b, p.receive.LocalAddr().(*net.UDPAddr).Port)
		return err
	})
	return bytes, listed, err
}

// charged reads the memory of the packets that wait in a UDP socket from
// /proc/net/udp: "sl local_address rem_address st tx_queue:rx_queue …",
// addresses as ADDRESS:PORT, all in hexadecimal.
func charged(b []byte, port int) (int64, error) {
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) < 5 {
			continue
		}
		_, at, ok := bytes.Cut(f[1], []byte(":"))
		n, err := strconv.ParseUint(string(at), 16, 16)
		if !ok || err != nil || int(n) != port {
			continue
		}
		_, waiting, _ := bytes.Cut(f[4], []byte(":"))
		v, err := strconv.ParseUint(string(waiting), 16, 40)
		if err != nil {
			return 0, errors.New("/proc/net/udp: the queue of a socket is no number")
		}
		return int64(v), nil
	}
	return 0, errors.New("/proc/net/udp: the socket is not there")
}

// at once are so few packets that the veth's ring (256) does not overflow.
const perBatch = 64

// hold sends packets that nobody reads and gives the memory of each.
func (p *rxPair) hold(ctx context.Context, size, count int) (each float64, listed bool, err error) {
	packet := make([]byte, size)
	burst := func(n int) error {
		for i := range n {
			if _, err := p.send.Write(packet); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return fmt.Errorf("cannot send: %w", err)
			}
			if i%perBatch == perBatch-1 {
				if err := wait(ctx, time.Millisecond); err != nil {
					return err
				}
			}
		}
		return wait(ctx, 20*time.Millisecond) // the last ones arrive
	}
	if err := burst(2 * perBatch); err != nil { // the pool fills its cache
		return 0, false, err
	}
	first, _, err := p.memory()
	if err != nil {
		return 0, false, err
	}
	if err := burst(count); err != nil {
		return 0, false, err
	}
	last, listed, err := p.memory()
	if err != nil {
		return 0, false, err
	}
	n, err := p.drain()
	if err != nil {
		return 0, false, err
	}
	if n -= 2 * perBatch; n < count/2 {
		return 0, false, fmt.Errorf("of %d packets %d arrived: the host is too busy", count, max(n, 0))
	}
	return float64(last-first) / float64(n), listed, nil
}

// drain reads what waits.
func (p *rxPair) drain() (n int, err error) {
	for {
		if err := p.receive.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			return n, err
		}
		switch _, err := p.receive.Read(p.received); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return n, nil
		case err != nil:
			return n, fmt.Errorf("cannot receive: %w", err)
		}
		n++
	}
}
