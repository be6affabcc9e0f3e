// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"errors"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// kernelLacks reports whether err says that the kernel has no such file: it is
// absent below /sys or /proc, in a tree in which that is the kernel's own
// word. Elsewhere, below /boot or /lib, a missing file proves nothing.
func kernelLacks(h *host.Host, err error) bool {
	top := kernelTop(err)
	return top != "" && h.Whole(top)
}

// whyNot is the reason why a source is not known. Of a kernel file that is
// absent from a tree that was not captured whole it says that this proves
// nothing.
func whyNot(h *host.Host, err error) string {
	if top := kernelTop(err); top != "" && !h.Whole(top) {
		return host.Reason(err) + " in this tree, which may not have captured it"
	}
	return host.Reason(err)
}

// kernelTop is the top of the kernel file that err says is absent, or "".
func kernelTop(err error) string {
	var e *host.Error
	if !host.Absent(err) || !errors.As(err, &e) {
		return ""
	}
	for _, top := range []string{"/sys", "/proc"} {
		if strings.HasPrefix(e.Path, top+"/") {
			return top
		}
	}
	return ""
}
