// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// DCB is an interface's data center bridging (IEEE 802.1Qaz) as its driver
// tells it. A part that the driver does not tell is nil.
type DCB struct {
	DCBX *uint8   `json:"dcbx"` // DCBX* bits
	PFC  *DCBPFC  `json:"pfc"`
	ETS  *DCBETS  `json:"ets"`
	Apps []DCBApp `json:"app"`
}

// Bits of DCB.DCBX: who runs DCBX, and in which version.
const (
	DCBXHost   = 0x01 // an agent on the host; without it the firmware does
	DCBXLLD    = 0x02 // the device's own engine
	DCBXCEE    = 0x04
	DCBXIEEE   = 0x08
	DCBXStatic = 0x10 // the device's engine may be told what to use
)

// DCBPFC is struct ieee_pfc without its counters.
type DCBPFC struct {
	Cap    uint8  `json:"cap"`    // how many traffic classes may have PFC at a time
	Enable uint8  `json:"enable"` // bit n: priority n
	MBC    uint8  `json:"mbc"`    // MACsec bypass capability
	Delay  uint16 `json:"delay"`  // allowance for a round trip, in the driver's unit (mlx5: cable length in metres)
}

// DCBETS is the operational part of struct ieee_ets.
type DCBETS struct {
	Willing uint8    `json:"willing"` // takes the peer's configuration
	Cap     uint8    `json:"cap"`     // number of traffic classes
	BW      [8]uint8 `json:"bw"`      // per traffic class, percent
	TSA     [8]uint8 `json:"tsa"`     // per traffic class: 0 strict, 1 credit-based shaper, 2 ETS, 255 vendor
	PrioTC  [8]uint8 `json:"prio_tc"` // priority -> traffic class
}

// DCBApp is one entry of the application priority table.
type DCBApp struct {
	Selector uint8  `json:"selector"` // 1 ethertype, 2 TCP port, 3 UDP port, 4 either port, 5 DSCP
	Priority uint8  `json:"priority"`
	Protocol uint16 `json:"protocol"` // meaning depends on the selector
}

// The selectors that facts use.
const (
	DCBSelEthertype = 1 // protocol 0 gives the default priority
	DCBSelDSCP      = 5
)

// Numbers of include/uapi/linux/dcbnl.h; the header of the running system may
// be older than the kernel.
const (
	rtmGetDCB      = 78
	dcbCmdIEEEGet  = 21
	dcbAttrIfname  = 1
	dcbAttrIEEE    = 13
	dcbAttrDCBX    = 14
	ieeeAttrETS    = 1
	ieeeAttrPFC    = 2
	ieeeAttrApps   = 3
	ieeeAttrApp    = 1
	nlaTypeMask    = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	sizeofDCBMsg   = 4
	sizeofPFC      = 8 // the fields before the counters
	sizeofETS      = 3 + 4*8
	sizeofApp      = 4
	netlinkTimeout = Deadline
)

// DCB asks for an interface's data center bridging. The error is EOPNOTSUPP
// when the driver has none, ENODEV when there is no such interface. It needs
// no privilege.
func (h *Host) DCB(ifname string) (*DCB, error) {
	return Ask(h, DCBKey(ifname), func() (*DCB, error) { return askDCB(ifname) })
}

// DCBKey is the query key of [Host.DCB].
func DCBKey(ifname string) string { return "dcb " + ifname + " ieee" }

func askDCB(ifname string) (d *DCB, err error) {
	err = NetlinkTalk(unix.NETLINK_ROUTE, dcbRequest(ifname, netlinkSeq), netlinkTimeout, func(b []byte) (bool, error) {
		d, err = parseDCBReply(b, netlinkSeq)
		return true, err
	})
	return d, err
}

// dcbRequest is the RTM_GETDCB message: nlmsghdr, dcbmsg, the name.
func dcbRequest(ifname string, seq uint32) []byte {
	le := binary.NativeEndian
	name := append([]byte(ifname), 0)
	attr := unix.SizeofNlAttr + len(name)
	b := make([]byte, unix.SizeofNlMsghdr+sizeofDCBMsg+align4(attr))
	le.PutUint32(b[0:], uint32(len(b)))
	le.PutUint16(b[4:], rtmGetDCB)
	le.PutUint16(b[6:], unix.NLM_F_REQUEST)
	le.PutUint32(b[8:], seq)
	b[unix.SizeofNlMsghdr] = unix.AF_UNSPEC
	b[unix.SizeofNlMsghdr+1] = dcbCmdIEEEGet
	a := b[unix.SizeofNlMsghdr+sizeofDCBMsg:]
	le.PutUint16(a[0:], uint16(attr))
	le.PutUint16(a[2:], dcbAttrIfname)
	copy(a[unix.SizeofNlAttr:], name)
	return b
}

func align4(n int) int { return (n + 3) &^ 3 }

// parseDCBReply decodes one datagram: the reply, or the kernel's errno.
func parseDCBReply(b []byte, seq uint32) (*DCB, error) {
	ne := binary.NativeEndian
	if len(b) < unix.SizeofNlMsghdr {
		return nil, errors.New("the netlink reply is too short")
	}
	size, kind, body := int(ne.Uint32(b)), ne.Uint16(b[4:]), b[unix.SizeofNlMsghdr:]
	if size < unix.SizeofNlMsghdr || size > len(b) || ne.Uint32(b[8:]) != seq {
		return nil, errors.New("the netlink reply is not the one asked for")
	}
	body = body[:size-unix.SizeofNlMsghdr]
	switch {
	case kind == unix.NLMSG_ERROR && len(body) >= 4:
		if errno := -int32(ne.Uint32(body)); errno > 0 {
			return nil, unix.Errno(errno)
		}
		return nil, errors.New("the kernel acknowledged the netlink request without an answer")
	case kind != rtmGetDCB || len(body) < sizeofDCBMsg:
		return nil, fmt.Errorf("the netlink reply has the unexpected type %d", kind)
	}
	d := new(DCB)
	err := eachAttr(body[sizeofDCBMsg:], func(kind uint16, v []byte) error {
		switch {
		case kind == dcbAttrDCBX && len(v) >= 1:
			flags := v[0]
			d.DCBX = &flags
		case kind == dcbAttrIEEE:
			return d.parseIEEE(v)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (d *DCB) parseIEEE(b []byte) error {
	return eachAttr(b, func(kind uint16, v []byte) error {
		switch {
		case kind == ieeeAttrPFC && len(v) >= sizeofPFC:
			d.PFC = &DCBPFC{Cap: v[0], Enable: v[1], MBC: v[2], Delay: binary.NativeEndian.Uint16(v[4:])}
		case kind == ieeeAttrETS && len(v) >= sizeofETS:
			e := &DCBETS{Willing: v[0], Cap: v[1]}
			copy(e.BW[:], v[3:11]) // tc_tx_bw; tc_rx_bw follows
			copy(e.TSA[:], v[19:27])
			copy(e.PrioTC[:], v[27:35])
			d.ETS = e
		case kind == ieeeAttrApps:
			d.Apps = []DCBApp{}
			return eachAttr(v, func(kind uint16, v []byte) error {
				if kind == ieeeAttrApp && len(v) >= sizeofApp {
					d.Apps = append(d.Apps, DCBApp{Selector: v[0], Priority: v[1], Protocol: binary.NativeEndian.Uint16(v[2:])})
				}
				return nil
			})
		}
		return nil
	})
}

// eachAttr walks netlink attributes; a length that does not fit is an error.
func eachAttr(b []byte, f func(kind uint16, v []byte) error) error {
	for len(b) >= unix.SizeofNlAttr {
		n := int(binary.NativeEndian.Uint16(b))
		kind := binary.NativeEndian.Uint16(b[2:]) & nlaTypeMask
		if n < unix.SizeofNlAttr || n > len(b) {
			return errors.New("the netlink reply is damaged: an attribute has a wrong length")
		}
		if err := f(kind, b[unix.SizeofNlAttr:n]); err != nil {
			return err
		}
		b = b[min(align4(n), len(b)):]
	}
	return nil
}
