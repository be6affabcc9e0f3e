// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"fmt"
	"path"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Installed is where the copy of hostcheck is that units run, where the one
// that makes the plan may not be run by them.
const Installed = "/usr/local/sbin/hostcheck"

// systemPlaces hold programs that stay where they are. A program in somebody's
// home may be trusted and still be gone at the next boot.
var systemPlaces = []string{"/usr/", "/opt/", "/bin/", "/sbin/"}

// program gives the hostcheck that a unit may run later, as root and with
// nobody there to look: self, the running one, where it lies in a place of the
// system and nobody but root can change it; else a copy, with the change that
// makes it. The error is why there can be none.
func program(h *host.Host, self string) (run string, install *plan.Change, err error) {
	inSystem := false
	for _, dir := range systemPlaces {
		inSystem = inSystem || strings.HasPrefix(self, dir)
	}
	if inSystem && unitWord(self) && h.Trusted(self) == nil {
		return self, nil, nil
	}
	if err := h.Trusted(path.Dir(Installed)); err != nil {
		return "", nil, fmt.Errorf("a unit runs hostcheck as root, and nothing in %s can be relied on: %w", path.Dir(Installed), err)
	}
	want, err := plan.Sum(h, self)
	if err == nil && !want.Present {
		err = fmt.Errorf("%s is gone", self)
	}
	if err != nil {
		return "", nil, fmt.Errorf("cannot install a copy of the running hostcheck: %w", err)
	}
	now, err := plan.Sum(h, Installed)
	if to, linkErr := h.Link(Installed); linkErr == nil {
		err = fmt.Errorf("it is a symbolic link to %s", to)
	} else if err == nil && now == want {
		err = h.Trusted(Installed)
	}
	if err != nil {
		return "", nil, fmt.Errorf("a unit runs hostcheck as root, and %s cannot be relied on: %w", Installed, err)
	}
	return Installed, &plan.Change{Setting: plan.Setting{Kind: plan.KindCopy, Target: Installed}, After: want, Persist: true}, nil
}

// unitWord reports whether a path means itself in a unit's command line.
func unitWord(p string) bool {
	return strings.Trim(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+") == ""
}

// Systemd reports whether the host is run by systemd (sd_booted(3)).
func Systemd(h *host.Host) bool {
	_, err := h.List("/run/systemd/system")
	return err == nil
}
