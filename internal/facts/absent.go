// SPDX-License-Identifier: Apache-2.0

package facts

import "github.com/hostcheck/hostcheck/internal/host"

// kernelLacks reports whether err says that the kernel has no such file.
// Below /boot or /lib, a missing file proves nothing.
func kernelLacks(h *host.Host, err error) bool { return h.Lacks(err) }

// whyNot is the reason why a source is not known. Of a kernel file whose
// absence is not the kernel's own word it says that this proves nothing.
func whyNot(h *host.Host, err error) string {
	why := host.Reason(err)
	switch top := host.KernelTop(err); {
	case top == "" || h.Lacks(err):
		return why
	case h.Running():
		return why + " here, where not all of " + top + " is the kernel's own (a chroot, or a container's mask)"
	}
	return why + " in this tree, which may not have captured it"
}
