// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// FEC is the answer to "fec" (ETHTOOL_MSG_FEC_GET): forward error correction.
// The words are those of ethtool --show-fec: off, rs, baser, llrs.
type FEC struct {
	Auto       bool     `json:"auto"`       // the driver or the two ends choose
	Configured []string `json:"configured"` // that may be used; empty with auto alone, or where there is none to set
	Active     string   `json:"active"`     // in use; "" where the driver does not tell, as without a link
}

// EthtoolFEC asks for the forward error correction of an interface. The error is
// EOPNOTSUPP where the driver has none or the kernel is older than 5.13, ENOENT
// where it is older than 5.6. It needs no privilege.
func (h *Host) EthtoolFEC(ifname string) (FEC, error) {
	return Ask(h, FECKey(ifname), func() (FEC, error) {
		family, err := genericFamily("ethtool")
		if err != nil {
			return FEC{}, err
		}
		var answer *FEC
		err = NetlinkAsk(unix.NETLINK_GENERIC, fecRequest(family, ifname), func(kind uint16, body []byte) error {
			if kind != family {
				return errors.New("the netlink reply is not of the family that was asked")
			}
			f, err := parseFEC(body)
			answer = &f
			return err
		})
		if err == nil && answer == nil {
			err = errors.New("the kernel acknowledged the netlink request without an answer")
		}
		if err != nil {
			return FEC{}, err
		}
		return *answer, nil
	})
}

// FECKey is the query key of [Host.EthtoolFEC].
func FECKey(ifname string) string { return "ethtool " + ifname + " fec" }

// Numbers of include/uapi/linux/ethtool_netlink_generated.h: ETHTOOL_A_FEC_*.
const (
	fecHeader = 1
	fecModes  = 2
	fecAuto   = 3
	fecActive = 4
)

// fecBits are the link modes that stand for error correction
// (include/uapi/linux/ethtool.h, ETHTOOL_LINK_MODE_FEC_*_BIT).
var fecBits = []struct {
	bit  uint32
	word string
}{{49, "off"}, {50, "rs"}, {51, "baser"}, {74, "llrs"}}

func fecRequest(family uint16, ifname string) []byte {
	header := join(NetlinkAttr(headerName, append([]byte(ifname), 0)...), NetlinkAttr(headerFlags, native32(compactBitsets)...))
	return NetlinkMessage(family, 0, join([]byte{unix.ETHTOOL_MSG_FEC_GET, ethtoolVersion, 0, 0}, NetlinkAttr(fecHeader|unix.NLA_F_NESTED, header...))...)
}

// parseFEC decodes ETHTOOL_MSG_FEC_GET_REPLY.
func parseFEC(b []byte) (FEC, error) {
	ne := binary.NativeEndian
	f := FEC{Configured: []string{}}
	if len(b) < unix.GENL_HDRLEN {
		return f, errors.New("the netlink reply is damaged: it is too short")
	}
	err := eachAttr(b[unix.GENL_HDRLEN:], func(kind uint16, v []byte) error {
		switch {
		case kind == fecAuto && len(v) >= 1:
			f.Auto = v[0] != 0
		case kind == fecActive && len(v) >= 4:
			f.Active = "unknown"
			for _, m := range fecBits {
				if m.bit == ne.Uint32(v) {
					f.Active = m.word
				}
			}
		case kind == fecModes:
			return eachAttr(v, func(kind uint16, v []byte) error {
				if kind != bitsetValue {
					return nil
				}
				for _, m := range fecBits {
					if word := int(m.bit / 32 * 4); word+4 <= len(v) && ne.Uint32(v[word:])&(1<<(m.bit%32)) != 0 {
						f.Configured = append(f.Configured, m.word)
					}
				}
				return nil
			})
		}
		return nil
	})
	return f, err
}
