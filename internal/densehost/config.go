// SPDX-License-Identifier: Apache-2.0

package densehost

import "encoding/binary"

// Port types of the PCI Express capability (PCI_EXP_FLAGS_TYPE).
const (
	portEndpoint   = 0
	portRoot       = 4
	portUpstream   = 5
	portDownstream = 6
)

// acsIsolating is SV, RR, CR and UF: what the kernel asks for before it puts
// what is below a port into groups of its own.
const acsIsolating = 0x1d

// space is 4096 bytes of configuration space (PCI Express Base Specification;
// offsets as in include/uapi/linux/pci_regs.h).
type space [4096]byte

func (c *space) w16(at int, v uint16) { binary.LittleEndian.PutUint16(c[at:], v) }
func (c *space) w32(at int, v uint32) { binary.LittleEndian.PutUint32(c[at:], v) }

func header(vendor, device, class int) *space {
	c := new(space)
	c.w16(0x00, uint16(vendor))
	c.w16(0x02, uint16(device))
	c.w16(0x04, 0x0406) // memory, bus master, INTx off
	c.w16(0x06, 0x0010) // has capabilities
	c.w32(0x08, uint32(class)<<8)
	return c
}

const expAt = 0x60

// express adds the PCI Express capability: 32 GT/s x16, MaxPayload 256 bytes,
// and for an endpoint MaxReadReq 4096 bytes.
func (c *space) express(port int) {
	c[0x34] = expAt
	c[expAt] = 0x10
	c.w16(expAt+0x02, uint16(2|port<<4))
	c.w32(expAt+0x04, 0x00008022)
	ctl := uint16(1 << 5)
	if port == portEndpoint {
		ctl |= 5<<12 | 1<<4
	}
	c.w16(expAt+0x08, ctl)
	c.w32(expAt+0x0c, 16<<4|5)
	c.w16(expAt+0x12, 16<<4|5)
	c.w32(expAt+0x2c, 0x1f<<1)
	c.w16(expAt+0x30, 5)
}

// extended chains the extended capabilities given as offset, id.
func (c *space) extended(offID ...int) {
	for i := 0; i < len(offID); i += 2 {
		next := 0
		if i+2 < len(offID) {
			next = offID[i+2]
		}
		c.w32(offID[i], uint32(offID[i+1]|1<<16|next<<20))
	}
}

// bridge is one port; with an ACS control of 0 it has no ACS capability.
func bridge(vendor, device, port, primary, secondary, subordinate int, acs uint16) []byte {
	c := header(vendor, device, 0x060400)
	c[0x0e] = 1
	c[0x18], c[0x19], c[0x1a] = byte(primary), byte(secondary), byte(subordinate)
	c.express(port)
	if acs == 0 {
		c.extended(0x100, 0x01)
		return c[:]
	}
	c.extended(0x100, 0x01, 0x148, 0x0d)
	c.w16(0x148+4, 0x5f)
	c.w16(0x148+6, acs)
	return c[:]
}

// endpoint is a function; total is how many VFs it can have, 0 for none.
func endpoint(vendor, device, class, vfs, total int) []byte {
	c := header(vendor, device, class)
	c.w16(0x2c, uint16(vendor))
	c.w16(0x2e, 1)
	c.express(portEndpoint)
	if total == 0 {
		c.extended(0x100, 0x01)
		return c[:]
	}
	c.extended(0x100, 0x01, 0x180, 0x10, 0x1d0, 0x0f)
	if vfs > 0 {
		c.w16(0x180+0x08, 0x19) // VFs enabled with their memory, ARI
	}
	c.w16(0x180+0x0c, uint16(total))
	c.w16(0x180+0x0e, uint16(total))
	c.w16(0x180+0x10, uint16(vfs))
	c.w16(0x180+0x14, 1)
	c.w16(0x180+0x16, 1)
	c.w16(0x180+0x1a, 0x101e)
	return c[:]
}

// virtual is a VF: its IDs read as ones, its link status as zeros.
func virtual() []byte {
	c := header(0xffff, 0xffff, 0x020000)
	c.express(portEndpoint)
	c.w16(expAt+0x08, 0)
	c.w16(expAt+0x12, 0)
	c.extended(0x100, 0x01, 0x150, 0x0e)
	return c[:]
}
