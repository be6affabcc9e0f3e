// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// unitDirs is where systemd looks for units, the first one wins (systemd.unit(5)).
var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// unitFiles gives the file that defines a unit and its drop-ins, in the order
// in which systemd reads them; none for a unit that is not installed or masked.
func unitFiles(h *host.Host, unit string) (files []string, why string) {
	for _, dir := range unitDirs {
		p := dir + "/" + unit
		if to, err := h.Link(p); err == nil && path.Clean(to) == "/dev/null" {
			return nil, ""
		}
		if _, err := h.Read(p); err == nil {
			files = []string{p}
			break
		} else if !host.Absent(err) {
			return nil, whyNot(h, err)
		}
	}
	if files == nil {
		return nil, ""
	}
	drops, why := dropIns(h, unitDirs, unit+".d", "service.d")
	return append(files, drops...), why
}

// dropIns gives the *.conf files of directories of these names, sorted by file
// name across all; of one name the first counts: the name given first, and of
// that the first directory. A link to /dev/null only takes the name.
func dropIns(h *host.Host, dirs []string, names ...string) (files []string, why string) {
	seen := map[string]bool{}
	for _, name := range names {
		for _, dir := range dirs {
			list, err := h.List(dir + "/" + name)
			if err != nil && !host.Absent(err) {
				return nil, whyNot(h, err)
			}
			for _, n := range list {
				if !strings.HasSuffix(n, ".conf") || seen[n] {
					continue
				}
				seen[n] = true
				p := dir + "/" + name + "/" + n
				if to, err := h.Link(p); err == nil && path.Clean(to) == "/dev/null" {
					continue
				}
				files = append(files, p)
			}
		}
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(path.Base(a), path.Base(b)) })
	return files, ""
}
