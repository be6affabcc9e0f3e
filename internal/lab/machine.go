// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os"
)

// Options are those of one guest.
type Options struct {
	Name     string // of the directory and in messages; "guest" if empty
	Watchdog bool   // a watchdog (i6300esb) that resets the guest: with it there is no snapshot
	Record   bool   // record every write to the disk, see [Guest.Recording]
	UEFI     bool   // the guest with systemd-boot: cold boot only
	Bare     bool   // without the PCI devices of [bus]
	Terminal bool   // the serial console is this process's terminal
}

// drive is a guest's disk.
type drive struct{ path, format string }

// CPUs, nodes and what hangs where: docs/lab.md has the picture.
const (
	cpus      = 2
	memoryMiB = 6656
)

// accel is TCG unless $HOSTCHECK_LAB_ACCEL says "kvm": nested KVM that starts
// and then fails is too common to be tried unasked.
func accel() string {
	if a := os.Getenv("HOSTCHECK_LAB_ACCEL"); a != "" {
		return a
	}
	return "tcg,thread=multi"
}

// machine is the part of QEMU's arguments that a snapshot depends on.
func machine(o Options) []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-nic", "none",
		"-machine", "q35,hpet=off", "-accel", accel(), "-cpu", "max,pdpe1gb=on,svm=off",
		"-smp", fmt.Sprintf("%d,sockets=%[1]d,cores=1,threads=1", cpus), "-m", fmt.Sprintf("%dM", memoryMiB),
		// three nodes: two with CPUs, each with room for a page of 1G, one with memory only, as that of a GPU or of CXL
		"-object", "memory-backend-ram,id=m0,size=4G", "-object", "memory-backend-ram,id=m1,size=2G", "-object", "memory-backend-ram,id=m2,size=512M",
		"-numa", "node,nodeid=0,cpus=0,memdev=m0", "-numa", "node,nodeid=1,cpus=1,memdev=m1", "-numa", "node,nodeid=2,memdev=m2",
		"-numa", "dist,src=0,dst=1,val=21", "-numa", "dist,src=0,dst=2,val=40", "-numa", "dist,src=1,dst=2,val=40",
		"-device", "virtio-serial-pci,bus=pcie.0,addr=0x4", "-device", "virtserialport,chardev=agent,name=hostcheck.lab",
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng,bus=pcie.0,addr=0x5",
	}
	if !o.Bare {
		args = append(args, bus()...)
	}
	if o.Watchdog {
		args = append(args, "-device", "i6300esb,bus=pcie.0,addr=0x6", "-action", "watchdog=reset")
	}
	return args
}

// bus is what the guest has of PCIe, with VT-d.
func bus() []string {
	return []string{
		"-device", "intel-iommu,intremap=on",
		// NICs with SR-IOV on root ports with ACS: node 0, and node 1 behind an expander bus
		"-device", "pcie-root-port,id=rp1,bus=pcie.0,chassis=1,slot=1,addr=0x8", "-device", "igb,bus=rp1,id=nic0,mac=02:00:00:00:00:10",
		"-device", "pxb-pcie,id=pxb1,bus=pcie.0,bus_nr=64,numa_node=1,addr=0x9",
		"-device", "pcie-root-port,id=rp2,bus=pxb1,chassis=2,slot=2", "-device", "igb,bus=rp2,id=nic1,mac=02:00:00:00:00:20",
		// a root port without ACS
		"-device", "pcie-root-port,id=rp3,bus=pcie.0,chassis=3,slot=3,addr=0xa,disable-acs=on", "-device", "igb,bus=rp3,id=nic2,mac=02:00:00:00:00:40",
		// a switch, whose ports have no ACS, with two endpoints
		"-device", "pcie-root-port,id=rp4,bus=pcie.0,chassis=4,slot=4,addr=0xb", "-device", "x3130-upstream,id=up,bus=rp4",
		"-device", "xio3130-downstream,id=dn0,bus=up,chassis=5,slot=5", "-device", "xio3130-downstream,id=dn1,bus=up,chassis=6,slot=6",
		"-device", "e1000e,bus=dn0,mac=02:00:00:00:00:30", "-device", "e1000e,bus=dn1,mac=02:00:00:00:00:31",
		// a bridge: all behind it share one IOMMU group
		"-device", "pcie-pci-bridge,id=pb,bus=pcie.0,addr=0xc", "-device", "edu,bus=pb,addr=1", "-device", "pci-testdev,bus=pb,addr=2",
	}
}

// storage is the part of the arguments that says where the disk is.
func storage(o Options, d drive, log string) []string {
	disk := fmt.Sprintf("driver=%s,node-name=hd,discard=unmap,file.driver=file,file.filename=%s", d.format, d.path)
	if !o.Record {
		return []string{"-blockdev", disk, "-device", "virtio-blk-pci,drive=hd,bus=pcie.0,addr=0x3"}
	}
	return []string{
		"-blockdev", fmt.Sprintf("driver=%s,node-name=below,discard=unmap,file.driver=file,file.filename=%s", d.format, d.path),
		"-blockdev", fmt.Sprintf("driver=blklogwrites,node-name=hd,file=below,log.driver=file,log.filename=%s,log-sector-size=%d", log, sectorSize),
		"-device", "virtio-blk-pci,drive=hd,bus=pcie.0,addr=0x3",
	}
}
