// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// DCBRequest asks a driver to change one part of an interface's data center
// bridging; exactly one field is set. This package gives it as bytes and reads
// the kernel's answer; it sends nothing.
type DCBRequest struct {
	DCBX *uint8   // the mode, DCBX* bits (DCB_CMD_SDCBX)
	PFC  *DCBPFC  // as a whole: what is to stay is what was read (DCB_CMD_IEEE_SET)
	Add  []DCBApp // entries of the application table (DCB_CMD_IEEE_SET)
	Del  []DCBApp // (DCB_CMD_IEEE_DEL)
}

// Numbers of include/uapi/linux/dcbnl.h.
const (
	rtmSetDCB     = 79
	dcbCmdSetDCBX = 23
	dcbCmdIEEESet = 20
	dcbCmdIEEEDel = 27
	sizeofPFCFull = 8 + 2*8*8 // with the counters, which the kernel wants and no driver reads
)

// Encode gives the RTM_SETDCB message: nlmsghdr, dcbmsg, the name, the change.
func (r DCBRequest) Encode(ifname string, seq uint32) ([]byte, error) {
	cmd, change := byte(0), []byte(nil)
	switch {
	case r.DCBX != nil:
		cmd, change = dcbCmdSetDCBX, NetlinkAttr(dcbAttrDCBX, *r.DCBX)
	case r.PFC != nil:
		pfc := make([]byte, sizeofPFCFull)
		pfc[0], pfc[1], pfc[2] = r.PFC.Cap, r.PFC.Enable, r.PFC.MBC
		binary.NativeEndian.PutUint16(pfc[4:], r.PFC.Delay)
		cmd, change = dcbCmdIEEESet, NetlinkAttr(dcbAttrIEEE|unix.NLA_F_NESTED, NetlinkAttr(ieeeAttrPFC, pfc...)...)
	case len(r.Add) > 0:
		cmd, change = dcbCmdIEEESet, encodeApps(r.Add)
	case len(r.Del) > 0:
		cmd, change = dcbCmdIEEEDel, encodeApps(r.Del)
	default:
		return nil, errors.New("the request changes nothing")
	}
	if ifname == "" || len(ifname) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("%.40q is not the name of an interface", ifname)
	}
	ne := binary.NativeEndian
	b := make([]byte, unix.SizeofNlMsghdr, 256)
	b = append(b, unix.AF_UNSPEC, cmd, 0, 0)
	b = append(b, NetlinkAttr(dcbAttrIfname, append([]byte(ifname), 0)...)...)
	b = append(b, change...)
	ne.PutUint32(b[0:], uint32(len(b)))
	ne.PutUint16(b[4:], rtmSetDCB)
	ne.PutUint16(b[6:], unix.NLM_F_REQUEST)
	ne.PutUint32(b[8:], seq)
	return b, nil
}

func encodeApps(apps []DCBApp) []byte {
	var table []byte
	for _, a := range apps {
		table = append(table, NetlinkAttr(ieeeAttrApp, binary.NativeEndian.AppendUint16([]byte{a.Selector, a.Priority}, a.Protocol)...)...)
	}
	return NetlinkAttr(dcbAttrIEEE|unix.NLA_F_NESTED, NetlinkAttr(ieeeAttrApps|unix.NLA_F_NESTED, table...)...)
}

// DCBAnswer decodes the kernel's answer to a request: nil, an errno, or that
// the driver turned it down without one. What the driver said is a single byte
// of the answer: an errno below zero, cut to eight bits (dcbnl_ieee_set).
func DCBAnswer(b []byte, seq uint32) error {
	ne := binary.NativeEndian
	if len(b) < unix.SizeofNlMsghdr {
		return errors.New("the netlink reply is too short")
	}
	size, kind, body := int(ne.Uint32(b)), ne.Uint16(b[4:]), b[unix.SizeofNlMsghdr:]
	if size < unix.SizeofNlMsghdr || size > len(b) || ne.Uint32(b[8:]) != seq {
		return errors.New("the netlink reply is not the one asked for")
	}
	body = body[:size-unix.SizeofNlMsghdr]
	switch {
	case kind == unix.NLMSG_ERROR && len(body) >= 4:
		if errno := -int32(ne.Uint32(body)); errno > 0 {
			return unix.Errno(errno)
		}
		return nil
	case kind != rtmSetDCB || len(body) < sizeofDCBMsg:
		return fmt.Errorf("the netlink reply has the unexpected type %d", kind)
	}
	said, told := int8(0), false
	err := eachAttr(body[sizeofDCBMsg:], func(kind uint16, v []byte) error {
		if (kind == dcbAttrIEEE || kind == dcbAttrDCBX) && len(v) >= 1 {
			said, told = int8(v[0]), true
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case !told:
		return errors.New("the netlink reply does not say what the driver did")
	case said < 0:
		return unix.Errno(-int(said))
	case said > 0:
		return fmt.Errorf("the driver turned it down (it answers %d)", said)
	}
	return nil
}
