// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"io"
	"slices"
	"strings"
)

// ReadHosts reads the names of hosts: the first words of lines, where each may be
// a folded list; "#" begins a comment. What else a line has, such as labels, is
// not read.
func ReadHosts(r io.Reader) (hosts []string, err error) {
	known := map[string]bool{}
	err = hostLines(r, func(_ int, names, _ []string) error {
		for _, h := range names {
			if !known[h] {
				known[h] = true
				hosts = append(hosts, h)
			}
		}
		return nil
	}, func() int { return len(hosts) })
	return hosts, err
}

// expect notes who should have reported and did not. A name with its domain and
// the same without are one host, in whatever case; see [sameHost].
func (m *Merger) expect(f *Fleet) {
	if m.opts.List == "" {
		return
	}
	f.Expected = &Expected{Source: m.opts.List, Hosts: len(m.opts.Expect)}
	full, short := map[string]bool{}, map[string]bool{} // short: of those with a domain
	for i := range m.hosts {
		name := strings.ToLower(m.hosts[i].name)
		full[name] = true
		if s, _, ok := strings.Cut(name, "."); ok {
			short[s] = true
		}
	}
	var missing []string
	for _, h := range m.opts.Expect {
		name := strings.ToLower(h)
		first, _, domain := strings.Cut(name, ".")
		if !full[name] && (domain || !short[name]) && (!domain || !full[first]) {
			missing = append(missing, h)
		}
	}
	if m.over > 0 && len(missing) > 0 {
		f.Summary.Problems++
		f.Problems = append(f.Problems, Problem{Source: m.opts.List, Why: "who of these hosts is missing is not known, for some hosts are only counted: merge parts of the fleet by themselves", Lost: true})
		return
	}
	slices.SortFunc(missing, compareNames)
	f.Summary.Missing, f.Expected.Missing = len(missing), Fold(missing)
}
