// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Manual is what only a person changes: kind "manual", Target the device or
// nothing, Name one of the names below, the value what it should be. Tier
// firmware, whatever it is: shown, never done.
type Manual struct{ byHand }

// Kind is "manual".
func (Manual) Kind() string { return "manual" }

// ManualSetting names something for a person to change.
func ManualSetting(target, name string) plan.Setting {
	return plan.Setting{Kind: "manual", Target: target, Name: name}
}

// The names that manual knows, each with steps of its own.
const (
	ManualFirmware = "firmware version" // of a NIC; the value is the least version
	ManualLinkType = "LINK_TYPE_P"      // and the port's number, of a ConnectX: "Ethernet" or "InfiniBand"
	ManualIOMMU    = "IOMMU"            // in the firmware setup: "on" or "off"
	ManualMRRS     = "MaxReadReq"       // bytes
	ManualRelaxed  = "relaxed ordering" // "on"
	ManualMTU      = "mtu"              // bytes
	ManualVFs      = "NUM_OF_VFS"       // how many virtual functions the device offers at least
	manualUnknown  = "hostcheck does not do this; set %s of %s to %s"
	manualReason   = "tier firmware: a person has to do this; it is shown, never done"
)

// Expand refuses all wishes with their steps.
func (Manual) Expand(_ context.Context, h *host.Host, wishes []plan.Wish) (_ []plan.Change, refused []plan.Refusal, _ error) {
	for _, w := range wishes {
		refused = append(refused, refuse(w, manualReason, manualSteps(h, w)...))
	}
	return nil, refused, nil
}

func manualSteps(h *host.Host, w plan.Wish) []string {
	bdf, ifname := device(w.Target)
	name, port := w.Name, ""
	if p, ok := strings.CutPrefix(w.Name, ManualLinkType); ok {
		name, port = ManualLinkType, p
	}
	switch name {
	case ManualFirmware:
		return []string{
			"mlxfwmanager -d " + bdf + " --query (or devlink dev info pci/" + bdf + ") shows board and version",
			"take the image for this board's PSID, " + w.Want + " or later, from its vendor",
			"mlxfwmanager -d " + bdf + " -u -i IMAGE, or devlink dev flash pci/" + bdf + " file IMAGE",
			"drain the host, then mlxfwreset -d " + bdf + " reset, or reboot",
		}
	case ManualLinkType:
		value := map[string]string{"InfiniBand": "1", "Ethernet": "2"}[w.Want]
		if len(port) != 1 || port < "1" || port > "9" || value == "" {
			break
		}
		return []string{
			"mlxconfig -d " + bdf + " query LINK_TYPE_P1 LINK_TYPE_P2 (a card without them has one type only)",
			fmt.Sprintf("mlxconfig -d %s set LINK_TYPE_P%s=%s", bdf, port, value),
			"drain the host, then mlxfwreset -d " + bdf + " reset, or reboot",
		}
	case ManualVFs:
		return []string{
			"mstconfig -d " + bdf + " query SRIOV_EN NUM_OF_VFS",
			fmt.Sprintf("mstconfig -d %s set SRIOV_EN=1 NUM_OF_VFS=%s (ConnectX; other NICs: their vendor's tool)", bdf, w.Want),
			"in the firmware setup of the mainboard: SR-IOV on, and a 64-bit MMIO window",
			"drain the host, then mlxfwreset -d " + bdf + " reset, or reboot",
		}
	case ManualIOMMU:
		return []string{
			"in the firmware setup: VT-d (Intel), IOMMU (AMD, often under NBIO) or SMMU (Arm): " + w.Want,
			"boot, then ls /sys/class/iommu and /sys/firmware/acpi/tables (DMAR, IVRS, IORT)",
		}
	case ManualMRRS:
		n, err := strconv.Atoi(w.Want)
		if err != nil || n < 128 || n > 4096 {
			break
		}
		return []string{
			fmt.Sprintf("setpci -s %s CAP_EXP+08.w=%x000:f000 (the mask matters: bit 15 resets the function)", bdf, bits.Len(uint(n-1))-7),
			"it is lost at a reboot and a reset; the firmware setup may have a setting that stays (PCIe MaxReadRequest)",
		}
	case ManualRelaxed:
		return []string{
			"in the firmware setup: PCIe relaxed ordering on; of a ConnectX: mlxconfig -d " + bdf + " set PCI_WR_ORDERING=1",
			"until the next reboot: setpci -s " + bdf + " CAP_EXP+08.w=0010:0010",
		}
	case ManualMTU:
		return append([]string{
			"first on every switch port of the fabric: a packet too long is dropped without a word",
			fmt.Sprintf("ip link set dev %s mtu %s", ifname, w.Want),
		}, mtuForGood(h, ifname, w.Want))
	}
	return []string{fmt.Sprintf(manualUnknown, w.Name, orText(w.Target, "the host"), w.Want)}
}

// mtuForGood names what configures interfaces on this host.
func mtuForGood(h *host.Host, ifname, mtu string) string {
	conf := func(dir, suffix string) bool {
		names, _ := h.List(dir)
		for _, n := range names {
			if strings.HasSuffix(n, suffix) {
				return true
			}
		}
		return false
	}
	switch {
	case conf("/etc/netplan", ".yaml"):
		return fmt.Sprintf("for good: mtu: %s under %s in /etc/netplan, then netplan try", mtu, ifname)
	case conf("/etc/NetworkManager/system-connections", ".nmconnection"):
		return fmt.Sprintf("for good: nmcli connection modify CONNECTION 802-3-ethernet.mtu %s", mtu)
	case conf("/etc/systemd/network", ".network"), conf("/etc/systemd/network", ".link"):
		return fmt.Sprintf("for good: MTUBytes=%s in the [Link] section of the file in /etc/systemd/network that matches %s", mtu, ifname)
	case conf("/etc/network", "interfaces"):
		return fmt.Sprintf("for good: mtu %s under iface %s in /etc/network/interfaces", mtu, ifname)
	}
	return "for good: in the network configuration of the host"
}
