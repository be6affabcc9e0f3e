// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// MaxLabels is the largest file of labels, in bytes.
const MaxLabels = 64 << 20

// ReadLabels reads labels of hosts: lines "HOST KEY=VALUE ...", where HOST may
// be a folded list; "#" begins a comment. A host may have several lines.
func ReadLabels(r io.Reader) (map[string]map[string]string, error) {
	labels := map[string]map[string]string{}
	limited := &io.LimitedReader{R: r, N: MaxLabels + 1}
	s := bufio.NewScanner(limited)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		text, _, _ := strings.Cut(s.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		if len(words) == 1 {
			return nil, fmt.Errorf("line %d: %q has no label; a line is \"HOST KEY=VALUE ...\"", n, clip([]byte(words[0]), 60))
		}
		hosts := Unfold(words[0])
		if len(labels)+len(hosts) > MaxHosts {
			return nil, fmt.Errorf("line %d: more than %d hosts", n, MaxHosts)
		}
		for _, h := range hosts {
			if !hostName(h) {
				return nil, fmt.Errorf("line %d: %q is no name of a host", n, clip([]byte(h), 60))
			}
		}
		own := map[string]string{}
		for _, w := range words[1:] {
			k, v, ok := strings.Cut(w, "=")
			if !ok || !hostName(k) || v == "" {
				return nil, fmt.Errorf("line %d: %q is no label; a label is KEY=VALUE", n, clip([]byte(w), 60))
			}
			own[k] = clip([]byte(v), 100)
		}
		for _, h := range hosts {
			if labels[h] == nil {
				labels[h] = own // hosts of one line share it
				continue
			}
			both := make(map[string]string, len(labels[h])+len(own))
			for k, v := range labels[h] {
				both[k] = v
			}
			for k, v := range own {
				both[k] = v
			}
			labels[h] = both
		}
	}
	switch err := s.Err(); {
	case err != nil:
		return nil, err
	case limited.N == 0:
		return nil, fmt.Errorf("larger than %d MiB", MaxLabels>>20)
	}
	return labels, nil
}
