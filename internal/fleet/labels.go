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
	err := hostLines(r, func(n int, hosts, words []string) error {
		if len(words) == 0 {
			return fmt.Errorf("line %d: %q has no label; a line is \"HOST KEY=VALUE ...\"", n, clip([]byte(Fold(hosts)), 60))
		}
		own := map[string]string{}
		for _, w := range words {
			k, v, ok := strings.Cut(w, "=")
			if !ok || !hostName(k) || v == "" {
				return fmt.Errorf("line %d: %q is no label; a label is KEY=VALUE", n, clip([]byte(w), 60))
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
		return nil
	}, func() int { return len(labels) })
	if err != nil {
		return nil, err
	}
	return labels, nil
}

// hostLines calls take for each line with its number, its hosts and its other
// words; known says how many hosts have been taken.
func hostLines(r io.Reader, take func(n int, hosts, words []string) error, known func() int) error {
	limited := &io.LimitedReader{R: r, N: MaxLabels + 1}
	s := bufio.NewScanner(limited)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		text, _, _ := strings.Cut(s.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		hosts := Unfold(words[0])
		if known()+len(hosts) > MaxHosts {
			return fmt.Errorf("line %d: more than %d hosts", n, MaxHosts)
		}
		for _, h := range hosts {
			if !hostName(h) {
				return fmt.Errorf("line %d: %q is no name of a host", n, clip([]byte(h), 60))
			}
		}
		if err := take(n, hosts, words[1:]); err != nil {
			return err
		}
	}
	switch err := s.Err(); {
	case err != nil:
		return err
	case limited.N == 0:
		return fmt.Errorf("larger than %d MiB", MaxLabels>>20)
	}
	return nil
}
