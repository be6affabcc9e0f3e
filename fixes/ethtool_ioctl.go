// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/host"
)

// ethtoolTime is how long a driver may take: it restarts queues one by one,
// and some talk to firmware for each.
const ethtoolTime = time.Minute

// ethtoolSet makes one change.
func ethtoolSet(ifname, group, word, value string) error {
	_, err := host.Ethtool(func(e *ethtool.Ethtool) (struct{}, error) {
		return struct{}{}, ethtoolIoctl(e, ifname, group, word, value)
	})
	return err
}

func ethtoolIoctl(e *ethtool.Ethtool, ifname, group, word, value string) error {
	on := value == "on"
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil && value != "on" && value != "off" {
		return fmt.Errorf("%q is no value", value)
	}
	flag := uint32(0)
	if on {
		flag = 1
	}
	switch group {
	case "feature":
		return refusedBy(changeFeature(e, ifname, word, on))
	case "flag":
		return refusedBy(e.UpdatePrivFlags(ifname, map[string]bool{word: on}))
	case "rings":
		return change(e.GetRing, e.SetRing, ifname, func(r *ethtool.Ring) *uint32 {
			return map[string]*uint32{"rx": &r.RxPending, "tx": &r.TxPending}[word]
		}, uint32(n))
	case "channels":
		return change(e.GetChannels, e.SetChannels, ifname, func(c *ethtool.Channels) *uint32 {
			return map[string]*uint32{"rx": &c.RxCount, "tx": &c.TxCount, "combined": &c.CombinedCount}[word]
		}, uint32(n))
	case "pause":
		return change(e.GetPause, e.SetPause, ifname, func(p *ethtool.Pause) *uint32 {
			return map[string]*uint32{"rx": &p.RxPause, "tx": &p.TxPause, "autoneg": &p.Autoneg}[word]
		}, flag)
	case "coalesce":
		if value == "on" || value == "off" {
			n = uint64(flag)
		}
		return change(e.GetCoalesce, e.SetCoalesce, ifname, func(c *ethtool.Coalesce) *uint32 {
			return map[string]*uint32{
				"rx-usecs": &c.RxCoalesceUsecs, "rx-frames": &c.RxMaxCoalescedFrames, "tx-usecs": &c.TxCoalesceUsecs, "tx-frames": &c.TxMaxCoalescedFrames,
				"adaptive-rx": &c.UseAdaptiveRxCoalesce, "adaptive-tx": &c.UseAdaptiveTxCoalesce,
			}[word]
		}, uint32(n))
	}
	return fmt.Errorf("ethtool has no %s", group)
}

// featureSwitch is what changeFeature needs of the library.
type featureSwitch interface {
	Change(ifname string, config map[string]bool) error
	Features(ifname string) (map[string]bool, error)
}

// changeFeature switches one feature. What a driver refuses or ignores, the
// kernel keeps as a wish ("off [requested on]" of ethtool -k) and tries again
// whenever anything of the interface changes: the wish is taken back.
func changeFeature(e featureSwitch, ifname, word string, on bool) error {
	err := e.Change(ifname, map[string]bool{word: on})
	now, readErr := e.Features(ifname)
	if is, known := now[word]; readErr == nil && known && is != on {
		err = errors.Join(err, e.Change(ifname, map[string]bool{word: is}))
	}
	return err
}

// change reads a structure, changes one field of it and writes it back: the
// kernel sets all fields at once, so the others must be what they are.
func change[T any](get func(string) (T, error), set func(string, T) (T, error), ifname string, field func(*T) *uint32, to uint32) error {
	v, err := get(ifname)
	if err != nil {
		return err
	}
	f := field(&v)
	if f == nil {
		return errors.New("there is no such field")
	}
	*f = to
	_, err = set(ifname, v)
	return refusedBy(err)
}

// refusedBy names the error numbers with which drivers turn values down.
func refusedBy(err error) error {
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.EBUSY), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("the driver refuses this value (%w)", err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("the driver found no memory for it (%w)", err)
	}
	return err
}
