// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"sync"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"
)

// Recorded ethtool queries. Their keys read "ethtool IF TOPIC". All are GET
// ioctls, which need no privilege but for private flags and a few drivers; a
// driver without the operation answers EOPNOTSUPP. Link settings and the
// indirection table are left to other sources: that library code prints to
// standard output, or trusts the kernel with too small a table.

// EthtoolTopics are the topics that can be asked, for those who capture all.
var EthtoolTopics = []string{"drvinfo", "privflags", "rings", "channels", "features", "coalesce", "pause", "fec"}

// DriverInfo is the answer to "drvinfo" (ETHTOOL_GDRVINFO).
type DriverInfo struct {
	Driver   string `json:"driver"`
	Version  string `json:"version"`  // of an in-tree driver just the kernel release
	Firmware string `json:"firmware"` // "28.41.1000 (MT_0000000838)"
	Bus      string `json:"bus"`      // "0000:1a:00.0"; "" or a made-up name of a virtual device
}

// Rings is the answer to "rings" (ETHTOOL_GRINGPARAM); entries.
type Rings struct {
	RX    int `json:"rx"`
	TX    int `json:"tx"`
	RXMax int `json:"rx_max"`
	TXMax int `json:"tx_max"`
}

// Channels is the answer to "channels" (ETHTOOL_GCHANNELS).
type Channels struct {
	RX          int `json:"rx"`
	TX          int `json:"tx"`
	Combined    int `json:"combined"`
	Other       int `json:"other"`
	RXMax       int `json:"rx_max"`
	TXMax       int `json:"tx_max"`
	CombinedMax int `json:"combined_max"`
	OtherMax    int `json:"other_max"`
}

// Coalesce is the part of the answer to "coalesce" (ETHTOOL_GCOALESCE) that
// tuning looks at; microseconds and frames.
type Coalesce struct {
	RXUsecs    int  `json:"rx_usecs"`
	RXFrames   int  `json:"rx_frames"`
	TXUsecs    int  `json:"tx_usecs"`
	TXFrames   int  `json:"tx_frames"`
	AdaptiveRX bool `json:"adaptive_rx"`
	AdaptiveTX bool `json:"adaptive_tx"`
}

// Pause is the answer to "pause" (ETHTOOL_GPAUSEPARAM): global flow control.
type Pause struct {
	Autoneg bool `json:"autoneg"`
	RX      bool `json:"rx"`
	TX      bool `json:"tx"`
}

// EthtoolDriver asks which driver and firmware runs an interface.
func (h *Host) EthtoolDriver(ifname string) (DriverInfo, error) {
	return askEthtool(h, ifname, "drvinfo", func(e *ethtool.Ethtool) (DriverInfo, error) {
		d, err := e.DriverInfo(ifname)
		return DriverInfo{d.Driver, d.Version, d.FwVersion, d.BusInfo}, err
	})
}

// EthtoolPrivFlags asks for the driver's private flags, by name.
func (h *Host) EthtoolPrivFlags(ifname string) (map[string]bool, error) {
	return askEthtool(h, ifname, "privflags", func(e *ethtool.Ethtool) (map[string]bool, error) { return e.PrivFlags(ifname) })
}

// EthtoolRings asks for the ring sizes.
func (h *Host) EthtoolRings(ifname string) (Rings, error) {
	return askEthtool(h, ifname, "rings", func(e *ethtool.Ethtool) (Rings, error) {
		r, err := e.GetRing(ifname)
		return Rings{int(r.RxPending), int(r.TxPending), int(r.RxMaxPending), int(r.TxMaxPending)}, err
	})
}

// EthtoolChannels asks for the queue counts.
func (h *Host) EthtoolChannels(ifname string) (Channels, error) {
	return askEthtool(h, ifname, "channels", func(e *ethtool.Ethtool) (Channels, error) {
		c, err := e.GetChannels(ifname)
		return Channels{
			RX: int(c.RxCount), TX: int(c.TxCount), Combined: int(c.CombinedCount), Other: int(c.OtherCount),
			RXMax: int(c.MaxRx), TXMax: int(c.MaxTx), CombinedMax: int(c.MaxCombined), OtherMax: int(c.MaxOther),
		}, err
	})
}

// EthtoolFeatures asks which offloads are active, by name.
func (h *Host) EthtoolFeatures(ifname string) (map[string]bool, error) {
	return askEthtool(h, ifname, "features", func(e *ethtool.Ethtool) (map[string]bool, error) { return e.Features(ifname) })
}

// EthtoolFixed asks which offloads the driver lets nobody change, by name. Only
// those who want to change one ask.
func (h *Host) EthtoolFixed(ifname string) (map[string]bool, error) {
	return askEthtool(h, ifname, "fixed", func(e *ethtool.Ethtool) (map[string]bool, error) {
		states, err := e.FeaturesWithState(ifname)
		fixed := make(map[string]bool, len(states))
		for name, s := range states {
			fixed[name] = s.NeverChanged || !s.Available // as ethtool(8) marks [fixed]
		}
		return fixed, err
	})
}

// EthtoolCoalesce asks for the interrupt moderation.
func (h *Host) EthtoolCoalesce(ifname string) (Coalesce, error) {
	return askEthtool(h, ifname, "coalesce", func(e *ethtool.Ethtool) (Coalesce, error) {
		c, err := e.GetCoalesce(ifname)
		return Coalesce{
			int(c.RxCoalesceUsecs), int(c.RxMaxCoalescedFrames), int(c.TxCoalesceUsecs), int(c.TxMaxCoalescedFrames),
			c.UseAdaptiveRxCoalesce != 0, c.UseAdaptiveTxCoalesce != 0,
		}, err
	})
}

// EthtoolPause asks for global flow control, which must be off where priority
// flow control is on.
func (h *Host) EthtoolPause(ifname string) (Pause, error) {
	return askEthtool(h, ifname, "pause", func(e *ethtool.Ethtool) (Pause, error) {
		p, err := e.GetPause(ifname)
		return Pause{p.Autoneg != 0, p.RxPause != 0, p.TxPause != 0}, err
	})
}

// askEthtool asks one question.
func askEthtool[T any](h *Host, ifname, topic string, ask func(*ethtool.Ethtool) (T, error)) (T, error) {
	return Ask(h, "ethtool "+ifname+" "+topic, func() (T, error) { return Ethtool(ask) })
}

// Ethtool calls the library, with a socket of its own: a driver that never
// answers must not hold up the others' descriptor.
//
// The library hands the kernel addresses of its structures as plain numbers, so
// the stack that they lie on must not move. A new goroutine gets one that is
// large enough, and more than a quarter of it stays in use: the runtime halves
// a stack only when less is.
func Ethtool[T any](do func(*ethtool.Ethtool) (T, error)) (T, error) {
	e, err := ethtool.NewEthtool()
	if err != nil {
		var zero T
		return zero, err
	}
	defer e.Close()
	type answer struct {
		value T
		err   error
	}
	c := make(chan answer)
	go stillStack(0, func() {
		v, err := do(e)
		c <- answer{v, err}
	})
	a := <-c
	return a.value, a.err
}

// stillStack calls do on a stack that does not move: it grows here, before, and
// what this frame holds keeps it from being halved.
//
//go:noinline
func stillStack(i int, do func()) byte {
	var held [96 << 10]byte
	held[i] = growStack(i)
	do()
	return held[i]
}

//go:noinline
func growStack(i int) byte {
	var room [64 << 10]byte
	return room[i]
}

// NotOffered reports whether a driver said that it has no such operation,
// which is an answer: the setting does not apply to it.
func NotOffered(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

// Together runs the questions a few at a time and returns when all have
// answered or run into their deadline.
func Together(questions []func()) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, Workers())
	for _, q := range questions {
		slots <- struct{}{}
		wg.Go(func() { q(); <-slots })
	}
	wg.Wait()
}
