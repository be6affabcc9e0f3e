// SPDX-License-Identifier: Apache-2.0

package host

import (
	"strings"

	"github.com/hostcheck/hostcheck/internal/pattern"
	"golang.org/x/sys/unix"
)

// klogWanted are the boot messages that facts use as evidence. The query keeps
// nothing else: a kernel log holds addresses and names that no capture needs.
var klogWanted = []string{
	"Unknown kernel command line parameters",
	"HugeTLB: ",
	"hugepages: ",
	"Default domain type:",
	"DMAR: IOMMU enabled",
	"DMAR: Intel(R) Virtualization Technology for Directed I/O",
	"AMD-Vi: Unknown option",
	"AMD-Vi: Interrupt remapping enabled",
	"not enough MMIO resources for SR-IOV",
	"Housekeeping: ",
	"isolcpus",
	"NO_HZ: ",
	"as unstable because the skew",
	"Marking TSC unstable",
	"Memory Encryption Features active",
	"swiotlb buffer is full",
}

const (
	klogReadAll = 3       // SYSLOG_ACTION_READ_ALL, syslog(2)
	klogBytes   = 1 << 20 // the newest part of the ring that is looked at
	klogLines   = 200     // that are kept
)

// KernelLog gives the lines of the kernel log that facts may use, oldest
// first, without time stamps. Without CAP_SYSLOG on a host that restricts it
// (kernel.dmesg_restrict) the error is EPERM. An old boot message may have
// left the ring: its absence proves nothing.
func (h *Host) KernelLog() ([]string, error) {
	return Ask(h, "klog", func() ([]string, error) {
		buf := make([]byte, klogBytes)
		n, err := unix.Klogctl(klogReadAll, buf)
		if err != nil {
			return nil, err
		}
		return filterLog(string(buf[:max(0, n)])), nil
	})
}

// logPrefix is what syslog(2) puts before the message: "<6>[    0.000000] ".
var logPrefix = pattern.Late(`^(<\d+>)?(\[ *\d+\.\d+\] )?`)

func filterLog(text string) []string {
	kept := []string{}
	for line := range strings.SplitSeq(text, "\n") {
		for _, w := range klogWanted {
			if strings.Contains(line, w) {
				kept = append(kept, strings.ToValidUTF8(strings.TrimPrefix(line, logPrefix().FindString(line)), "�"))
				break
			}
		}
		if len(kept) == klogLines {
			break
		}
	}
	return kept
}
