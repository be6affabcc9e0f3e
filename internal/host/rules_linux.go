// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// PolicyRule is one rule of IPv4 policy routing, as "ip rule" lists it. Empty
// and 0 stand for anything.
type PolicyRule struct {
	Priority uint32 `json:"priority"`
	Src      string `json:"src,omitempty"` // "10.0.0.5/32"
	IIF      string `json:"iif,omitempty"`
	OIF      string `json:"oif,omitempty"`
	Mark     bool   `json:"mark,omitempty"` // only packets with a mark
	VRF      bool   `json:"vrf,omitempty"`  // the table of the packet's VRF
	Table    uint32 `json:"table"`          // 253 default, 254 main, 255 local
}

// PolicyRules asks for the rules of IPv4 policy routing, recorded as
// "rules inet". It needs no privilege.
func (h *Host) PolicyRules() ([]PolicyRule, error) {
	return Ask(h, "rules inet", askPolicyRules)
}

const maxRuleMessages = 1 << 16

func askPolicyRules() ([]PolicyRule, error) {
	request := NetlinkMessage(unix.RTM_GETRULE, unix.NLM_F_DUMP, append([]byte{unix.AF_INET}, make([]byte, sizeofRuleHdr-1)...)...)
	rules, left := []PolicyRule{}, maxRuleMessages
	err := NetlinkTalk(unix.NETLINK_ROUTE, request, netlinkTimeout, func(b []byte) (bool, error) {
		if left--; left < 0 {
			return false, ErrTooLarge
		}
		more, done, err := parseRules(b, netlinkSeq)
		rules = append(rules, more...)
		return done, err
	})
	if err != nil {
		return nil, err
	}
	return rules, nil
}

const (
	sizeofRuleHdr = 12 // struct fib_rule_hdr
	frActToTable  = 1  // FR_ACT_TO_TBL
)

// parseRules decodes one datagram of the dump; done tells its end.
func parseRules(b []byte, seq uint32) (rules []PolicyRule, done bool, err error) {
	ne := binary.NativeEndian
	for len(b) >= unix.SizeofNlMsghdr {
		size, kind := int(ne.Uint32(b)), ne.Uint16(b[4:])
		if size < unix.SizeofNlMsghdr || size > len(b) || ne.Uint32(b[8:]) != seq {
			return nil, false, errors.New("the netlink reply is not the one asked for")
		}
		body := b[unix.SizeofNlMsghdr:size]
		switch {
		case kind == unix.NLMSG_DONE:
			return rules, true, nil
		case kind == unix.NLMSG_ERROR && len(body) >= 4:
			if errno := -int32(ne.Uint32(body)); errno > 0 {
				return nil, false, unix.Errno(errno)
			}
			return nil, false, errors.New("the kernel acknowledged the netlink request without an answer")
		case kind == unix.RTM_NEWRULE && len(body) >= sizeofRuleHdr:
			r, ok, err := parseRule(body)
			if err != nil {
				return nil, false, err
			}
			if ok {
				rules = append(rules, r)
			}
		default:
			return nil, false, fmt.Errorf("the netlink reply has the unexpected type %d", kind)
		}
		b = b[min(align4(size), len(b)):]
	}
	return rules, false, nil
}

// parseRule decodes struct fib_rule_hdr and its attributes; ok is false for a
// rule that names no table (blackhole, goto).
func parseRule(b []byte) (r PolicyRule, ok bool, err error) {
	ne := binary.NativeEndian
	srcLen, action := b[2], b[7]
	r.Table = uint32(b[4])
	err = eachAttr(b[sizeofRuleHdr:], func(kind uint16, v []byte) error {
		switch {
		case kind == unix.FRA_SRC && len(v) == 4:
			p, err := netip.AddrFrom4([4]byte(v)).Prefix(int(srcLen))
			if err != nil {
				return errors.New("the netlink reply is damaged: a rule has a wrong prefix length")
			}
			r.Src = p.String()
		case kind == unix.FRA_PRIORITY && len(v) >= 4:
			r.Priority = ne.Uint32(v)
		case kind == unix.FRA_TABLE && len(v) >= 4:
			r.Table = ne.Uint32(v)
		case kind == unix.FRA_IIFNAME:
			r.IIF = unix.ByteSliceToString(v)
		case kind == unix.FRA_OIFNAME:
			r.OIF = unix.ByteSliceToString(v)
		case kind == unix.FRA_FWMASK && len(v) >= 4:
			r.Mark = ne.Uint32(v) != 0
		case kind == unix.FRA_L3MDEV && len(v) >= 1:
			r.VRF = v[0] != 0
		}
		return nil
	})
	return r, action == frActToTable, err
}
