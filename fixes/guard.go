// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"slices"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
)

// Managed gives the interfaces through which the host is managed, and why each
// is one. What cannot be read has none.
func Managed(h *host.Host) map[string]string {
	m, _ := managed(h)
	return m
}

// DefaultRoutes lists the interfaces that have a default route, IPv4's first.
func DefaultRoutes(h *host.Host) []string {
	routes, _ := facts.MainRoutes(h)
	var out []string
	for _, r := range routes {
		if r.Net.Bits() == 0 && !slices.Contains(out, r.IfName) {
			out = append(out, r.IfName)
		}
	}
	return out
}
