// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// SRIOV is the virtual functions of a NIC: kind "sriov", Target the physical
// function ("0000:18:00.0 ens1np0"), Name and value:
//
//	numvfs      how many there are
//	autoprobe   on | off: whether the host's driver takes new ones
//
// Tier link: any other number destroys all that there are. A number lasts when
// a .link file of systemd can say it; that file is part of the plan then.
type SRIOV struct {
	// AllowMgmt lets the interfaces be touched through which the host is managed.
	AllowMgmt bool
}

// Kind is "sriov".
func (SRIOV) Kind() string { return "sriov" }

// SRIOVSetting names the number of virtual functions of a function.
func SRIOVSetting(subject string) plan.Setting {
	return plan.Setting{Kind: "sriov", Target: subject, Name: numVFs}
}

// SRIOVAutoprobe names whether the host's driver takes its new virtual functions.
func SRIOVAutoprobe(subject string) plan.Setting {
	return plan.Setting{Kind: "sriov", Target: subject, Name: autoprobe}
}

const (
	numVFs    = "numvfs"
	autoprobe = "autoprobe"
)

// vfTime is how long the kernel may take: drivers set up each function in
// turn, and ask firmware that is sometimes busy.
const vfTime = 2 * time.Minute

// sriovFile is the file of a setting.
func sriovFile(s plan.Setting) (string, error) {
	bdf, _ := device(s.Target)
	file := map[string]string{numVFs: "sriov_numvfs", autoprobe: "sriov_drivers_autoprobe"}[s.Name]
	if bdf == "" || file == "" {
		return "", fmt.Errorf("%s is not a setting of the virtual functions of a PCI function", s)
	}
	return path.Join(facts.PCIDevices, bdf, file), nil
}

// Read gives the number, or on or off.
func (SRIOV) Read(_ context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	p, err := sriovFile(s)
	if err != nil {
		return plan.Absent, err
	}
	n, err := h.Int(p)
	switch {
	case host.Absent(err):
		return plan.Absent, gone(p + " is not there: the device is away, or has no SR-IOV")
	case err != nil:
		return plan.Absent, err
	case s.Name == autoprobe:
		return plan.Text(onOff(n != 0)), nil
	}
	return plan.Text(strconv.FormatInt(n, 10)), nil
}

// Apply makes each change. From one number to another the kernel goes only by
// way of none. What vfio or another network namespace holds is not destroyed,
// whoever asks: undo and the way back come here, too, and much later.
func (v SRIOV) Apply(ctx context.Context, tx *plan.Tx, changes []plan.Change) error {
	for _, c := range changes {
		if err := v.apply(ctx, tx.Patient(vfTime), c); err != nil {
			return err
		}
	}
	return nil
}

func (v SRIOV) apply(ctx context.Context, tx *plan.Tx, c plan.Change) error {
	p, err := sriovFile(c.Setting)
	if err != nil {
		return err
	}
	h, err := tx.Host()
	if err != nil {
		return err
	}
	defer h.Close()
	now, err := v.Read(ctx, h, c.Setting)
	switch {
	case err != nil:
		return fmt.Errorf("cannot set %s: %w", c.Setting, err)
	case now == c.After:
		return nil
	case c.Name == autoprobe:
		return tx.WriteKnob(p, map[string]string{"on": "1", "off": "0"}[c.After.Text])
	}
	if now.Text != "0" {
		held, err := v.heldFor(tx, c.Target)
		if err != nil {
			return err
		}
		if len(held) > 0 {
			return fmt.Errorf("cannot destroy the virtual functions of %s: %s", c.Target, sentence(held))
		}
		if err := tx.WriteKnob(p, "0"); err != nil {
			return vfRefused(err, driverOfPCI(h, c.Target))
		}
	}
	if c.After.Text == "0" {
		return nil
	}
	if err := tx.WriteKnob(p, c.After.Text); err != nil {
		return vfRefused(err, driverOfPCI(h, c.Target))
	}
	after, err := tx.Host()
	if err != nil {
		return err
	}
	defer after.Close()
	if got, err := v.Read(ctx, after, c.Setting); err == nil && got != c.After {
		return fmt.Errorf("the driver made %s of the %s virtual functions of %s; the kernel log may say why", got.Text, c.After.Text, c.Target)
	}
	return nil
}

// settleTime is how long a driver may take to give a new function its
// interface; before that it looks as if another network namespace had it.
const settleTime = 5 * time.Second

// heldFor says who has functions of the device, once that can be told.
func (SRIOV) heldFor(tx *plan.Tx, target string) ([]string, error) {
	for end := time.Now().Add(settleTime); ; time.Sleep(settleTime / 25) {
		h, err := tx.Host()
		if err != nil {
			return nil, err
		}
		list := vfsOf(h, target)
		h.Close()
		starting := func(v vf) bool { return v.given != "" && !passesOn(v.driver) }
		if !slices.ContainsFunc(list, starting) || time.Now().After(end) {
			return handedOut(list), nil
		}
	}
}

func driverOfPCI(h *host.Host, target string) string {
	bdf, _ := device(target)
	driver, _ := h.LinkBase(path.Join(facts.PCIDevices, bdf, "driver"))
	return driver
}

// vfRefused says what the error numbers of sriov_numvfs mean (drivers/pci/iov.c).
func vfRefused(err error, driver string) error {
	switch {
	case errors.Is(err, unix.ENOENT) && driver == "":
		return fmt.Errorf("%w: no driver is bound to the physical function", err)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: the driver %s makes no virtual functions by this way; some have a module parameter for it", err, driver)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("%w: where the kernel log says \"not enough MMIO resources for SR-IOV\", the host's firmware left too little address space: "+
			"switch Above 4G Decoding and SR-IOV support on there, or boot with pci=realloc", err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: other virtual functions are there, or the driver counts one as in use", err)
	case errors.Is(err, unix.EIO), errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("%w: the driver or its firmware is not ready; right after a boot, try again", err)
	}
	return err
}

// ByHand is the lines that set it.
func (SRIOV) ByHand(c plan.Change) string {
	p, err := sriovFile(c.Setting)
	switch {
	case err != nil:
		return "set it to " + c.After.Text
	case c.Name == autoprobe:
		return fmt.Sprintf("echo %s > %s", map[string]string{"on": "1", "off": "0"}[c.After.Text], p)
	case c.After.Text == "0":
		return "echo 0 > " + p
	}
	return fmt.Sprintf("echo 0 > %s; echo %s > %[1]s", p, c.After.Text)
}

// vf is one virtual function and who has it.
type vf struct {
	bdf    string
	driver string // "" for none
	ifname string // its interface, where there is one in this network namespace
	given  string // why it is somebody else's: bound to vfio, in another network namespace; "" when it is not
	used   string // what this host itself does with it; "" for nothing
}

// vfsOf lists the virtual functions of a physical one.
func vfsOf(h *host.Host, target string) (list []vf) {
	bdf, _ := device(target)
	dir := path.Join(facts.PCIDevices, bdf)
	n, _ := h.Int(path.Join(dir, "sriov_numvfs"))
	routes, _ := facts.MainRoutes(h)
	for i := range int(min(n, 1<<16)) {
		name, err := h.LinkBase(fmt.Sprintf("%s/virtfn%d", dir, i))
		if err != nil {
			continue
		}
		v := vf{bdf: name}
		v.driver, _ = h.LinkBase(path.Join(facts.PCIDevices, name, "driver"))
		names, err := h.List(path.Join(facts.PCIDevices, name, "net"))
		if len(names) > 0 {
			v.ifname = names[0]
		}
		switch {
		case v.driver == "":
		case passesOn(v.driver):
			v.given = "bound to " + v.driver
		case v.ifname == "" && (err == nil || errors.Is(err, fs.ErrNotExist)):
			v.given = fmt.Sprintf("bound to %s without an interface here: in another network namespace, or just starting", v.driver)
		default:
			v.used = usedAs(h, v.ifname, routes)
		}
		list = append(list, v)
	}
	return list
}
