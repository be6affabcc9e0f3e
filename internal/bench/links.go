// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Each namespace has the same interfaces, by number: 1 is lo.
const (
	vethIndex  = 2
	vxlanIndex = 3
	vethName   = "hcveth"
	vxlanName  = "hcvxlan"
)

// Numbers of include/uapi/linux/if_link.h and veth.h.
const (
	vethPeer      = 1 // VETH_INFO_PEER
	vxlanAttrVNI  = 1
	vxlanAttrPeer = 2
	vxlanAttrDev  = 3
	vxlanAttrSelf = 4
	vxlanAttrPort = 15
)

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func joined(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// change sends one request of rtnetlink in the namespace of the calling thread.
func change(kind, flags uint16, body ...[]byte) error {
	return host.NetlinkAsk(unix.NETLINK_ROUTE, host.NetlinkMessage(kind, unix.NLM_F_ACK|flags, joined(body...)...), func(uint16, []byte) error { return nil })
}

// ifinfo is struct ifinfomsg.
func ifinfo(index int, flags uint32) []byte {
	return joined([]byte{unix.AF_UNSPEC, 0, 0, 0}, native32(uint32(index)), native32(flags), native32(flags))
}

func nestedAttr(kind uint16, parts ...[]byte) []byte {
	return host.NetlinkAttr(kind|unix.NLA_F_NESTED, joined(parts...)...)
}

func name(s string) []byte {
	return host.NetlinkAttr(unix.IFLA_IFNAME, append([]byte(s), 0)...)
}

// newLink makes an interface with a number.
func newLink(index int, ifname, kind string, mtu int, data ...[]byte) error {
	err := change(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(index, 0), name(ifname), mtuAttr(mtu),
		nestedAttr(unix.IFLA_LINKINFO, host.NetlinkAttr(unix.IFLA_INFO_KIND, []byte(kind)...), nestedAttr(unix.IFLA_INFO_DATA, data...)))
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("cannot make a %s interface: this kernel has no module %s (%w)", kind, kind, err)
	case err != nil:
		return fmt.Errorf("cannot make a %s interface: %w", kind, err)
	}
	return nil
}

// mtuAttr is no attribute for 0: the kernel then chooses.
func mtuAttr(mtu int) []byte {
	if mtu == 0 {
		return nil
	}
	return host.NetlinkAttr(unix.IFLA_MTU, native32(uint32(mtu))...)
}

// newVeth makes a pair, one end here, the other in the namespace of fd.
func newVeth(peer, mtu int) error {
	return newLink(vethIndex, vethName, "veth", mtu, nestedAttr(vethPeer,
		ifinfo(vethIndex, 0), name(vethName), mtuAttr(mtu), host.NetlinkAttr(unix.IFLA_NET_NS_FD, native32(uint32(peer))...)))
}

// newVXLAN makes a tunnel to one endpoint over the veth.
func newVXLAN(self, peer netip.Addr) error {
	return newLink(vxlanIndex, vxlanName, "vxlan", 0,
		host.NetlinkAttr(vxlanAttrVNI, native32(42)...), host.NetlinkAttr(vxlanAttrDev, native32(vethIndex)...),
		host.NetlinkAttr(vxlanAttrSelf, self.AsSlice()...), host.NetlinkAttr(vxlanAttrPeer, peer.AsSlice()...),
		host.NetlinkAttr(vxlanAttrPort, binary.BigEndian.AppendUint16(nil, 4789)...))
}

// up brings an interface up with an address of IPv4.
func up(index int, address netip.Addr) error {
	ifaddr := joined([]byte{unix.AF_INET, 24, 0, unix.RT_SCOPE_UNIVERSE}, native32(uint32(index)))
	if err := change(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifaddr,
		host.NetlinkAttr(unix.IFA_LOCAL, address.AsSlice()...), host.NetlinkAttr(unix.IFA_ADDRESS, address.AsSlice()...)); err != nil {
		return fmt.Errorf("cannot give an interface the address %s: %w", address, err)
	}
	if err := change(unix.RTM_NEWLINK, 0, ifinfo(index, unix.IFF_UP)); err != nil {
		return fmt.Errorf("cannot bring an interface up: %w", err)
	}
	return nil
}

// offloads switches features of the veth here.
func offloads(on map[string]bool) error {
	_, err := host.Ethtool(func(e *ethtool.Ethtool) (struct{}, error) { return struct{}{}, e.Change(vethName, on) })
	if err != nil {
		return fmt.Errorf("cannot switch offloads of a veth: %w", err)
	}
	return nil
}
