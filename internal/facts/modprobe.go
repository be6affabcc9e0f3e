// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"path"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// ModprobePlaces are where modprobe.d(5) looks, the first that has a name wins.
var ModprobePlaces = []string{"/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"}

// ModprobeLine is a line of modprobe.d(5) that is no comment.
type ModprobeLine struct {
	Words []string
	Line  int // where it begins, from 1
}

// ModprobeLines reads modprobe.d(5): a backslash at its end continues a line.
func ModprobeLines(text string) []ModprobeLine {
	var out []ModprobeLine
	n, start, held := 0, 0, ""
	for line := range strings.SplitSeq(text, "\n") {
		n++
		if held == "" {
			start = n
		}
		if head, more := strings.CutSuffix(strings.TrimRight(line, "\r"), `\`); more {
			held += head + " "
			continue
		}
		words := strings.Fields(held + line)
		held = ""
		if len(words) > 0 && words[0][0] != '#' {
			out = append(out, ModprobeLine{words, start})
		}
	}
	return out
}

// ConfFiles lists the ".conf" files of a configuration directory's places; of
// one name the first place counts.
func ConfFiles(h *host.Host, name string, places ...string) (paths []string, why string) {
	seen := map[string]bool{}
	for _, dir := range places {
		names, err := h.List(path.Join(dir, name))
		if err != nil && !host.Absent(err) {
			return nil, host.Reason(err)
		}
		for _, n := range names {
			if strings.HasSuffix(n, ".conf") && !seen[n] {
				seen[n] = true
				paths = append(paths, path.Join(dir, name, n))
			}
		}
	}
	return paths, ""
}
