// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// SRIOV is the number of virtual functions: kind "sriov", Target the physical
// function ("0000:18:00.0 ens1np0"), Name "numvfs". Tier link, since a change
// destroys every VF there is: shown and not done.
type SRIOV struct {
	byHand
	AllowMgmt bool
}

// Kind is "sriov".
func (SRIOV) Kind() string { return "sriov" }

// SRIOVSetting names the number of virtual functions of a function.
func SRIOVSetting(subject string) plan.Setting {
	return plan.Setting{Kind: "sriov", Target: subject, Name: "numvfs"}
}

// Expand refuses all wishes: those beyond the device with the numbers, the
// others with what to type.
func (SRIOV) Expand(_ context.Context, h *host.Host, wishes []plan.Wish) (_ []plan.Change, refused []plan.Refusal, _ error) {
	mgmt, _ := managed(h)
	f := facts.New(h)
	for _, w := range wishes {
		if owned := ownedBy(f, w); owned != nil {
			refused = append(refused, *owned)
			continue
		}
		refused = append(refused, vfs(h, w, mgmt))
	}
	return nil, refused, nil
}

func vfs(h *host.Host, w plan.Wish, mgmt map[string]string) plan.Refusal {
	bdf, ifname := device(w.Target)
	want, err := strconv.Atoi(w.Want)
	if bdf == "" || w.Name != "numvfs" || err != nil || want < 0 {
		return refuse(w, fmt.Sprintf("%s is no number of virtual functions of a PCI function", w.Want))
	}
	dir := path.Join(facts.PCIDevices, bdf)
	total, err := h.Int(path.Join(dir, "sriov_totalvfs"))
	switch {
	case err != nil:
		return refuse(w, "how many virtual functions it can have is not known: "+host.Reason(err))
	case total == 0:
		return refuse(w, "its firmware gives no virtual functions", "switch SR-IOV on in the firmware: mlxconfig -d "+bdf+" set SRIOV_EN=1 NUM_OF_VFS="+w.Want+", then mlxfwreset or a reboot")
	case int64(want) > total:
		return refuse(w, fmt.Sprintf("it can have %d virtual functions, and %d are wanted", total, want), fmt.Sprintf("ask for %d or fewer, or raise NUM_OF_VFS in the firmware", total))
	case mgmt[ifname] != "":
		return refuse(w, fmt.Sprintf("tier link, and %s is how this host is managed: %s", ifname, mgmt[ifname]))
	}
	now, _ := h.Int(path.Join(dir, "sriov_numvfs"))
	var held []string
	for i := range int(now) {
		vf, err := h.LinkBase(fmt.Sprintf("%s/virtfn%d", dir, i))
		if err != nil {
			continue
		}
		if driver, err := h.LinkBase(path.Join(facts.PCIDevices, vf, "driver")); err == nil && strings.Contains(driver, "vfio") {
			held = append(held, vf)
		}
	}
	var steps []string
	if len(held) > 0 {
		steps = append(steps, fmt.Sprintf("stop the guests or pods that hold %s", strings.Join(held, ", ")))
	}
	if now > 0 {
		steps = append(steps, "echo 0 > "+dir+"/sriov_numvfs")
	}
	if want > 0 {
		steps = append(steps, fmt.Sprintf("for virtual functions that go to guests: echo 0 > %s/sriov_drivers_autoprobe", dir), fmt.Sprintf("echo %d > %s/sriov_numvfs", want, dir))
	}
	steps = append(steps, fmt.Sprintf("for good (systemd 251 or later): /etc/systemd/network/10-vfs-%s.link with [Match] Path=pci-%s and [Link] SR-IOVVirtualFunctions=%d",
		strings.NewReplacer(":", "-", ".", "-").Replace(bdf), bdf, want))
	reason := "tier link: hostcheck does not change the number of virtual functions; by hand:"
	if now > 0 {
		reason = fmt.Sprintf("tier link: a change destroys the %d virtual functions there are, of which vfio holds %d; by hand:", now, len(held))
	}
	return refuse(w, reason, steps...)
}
