// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"cmp"
	"encoding/json"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
)

// Change is one thing that differs between two bundles.
type Change struct {
	Group  string  `json:"group"`
	Path   string  `json:"path"`
	Before *string `json:"before"` // null: it is not in the first
	After  *string `json:"after"`
}

// Groups of changes, in their order.
var Groups = []string{"kernel parameters", "configuration", "boot", "devices", "kernel", "recorded answers", "not readable"}

// moving are sources that differ from one moment to the next.
var moving = pattern.Late(`^/proc/(?:meminfo|interrupts|softirqs|stat|uptime|loadavg|vmstat|buddyinfo|schedstat|\d+/|self$|thread-self$|self/|net/(?:tcp|udp|snmp|netstat|dev|arp|sockstat|softnet)|irq/\d+/effective_affinity|sys/kernel/(?:random/|ns_last_pid|pty/nr|sched_)|sys/fs/)` +
	`|/(?:statistics|counters|hw_counters|diag_counters)/|/aer_(?:dev|rootport)_|/(?:free|resv|surplus)_hugepages$|/power/|/(?:scaling_cur_freq|cpuinfo_cur_freq|temp\d*_input)$|/current_clocksource_`)

// Diff lists what differs between two hosts, or one host at two moments.
// Counters and what moves by itself are left out, and so are identifiers: two
// values that differ in nothing else are the same.
func Diff(a, b *host.Snapshot) []Change {
	var out []Change
	compare := func(group func(string) string, x, y map[string]string) {
		all := map[string]bool{}
		for k := range x {
			all[k] = true
		}
		for k := range y {
			all[k] = true
		}
		for k := range all {
			v, inX := x[k]
			w, inY := y[k]
			if inX && inY && v == w {
				continue
			}
			c := Change{Group: group(k), Path: k}
			if inX {
				c.Before = &v
			}
			if inY {
				c.After = &w
			}
			out = append(out, c)
		}
	}
	x, y := blanked(a), blanked(b)
	compare(groupOf, x.content, y.content)
	compare(func(string) string { return Groups[5] }, x.answers, y.answers)
	compare(func(string) string { return Groups[6] }, x.failed, y.failed)
	slices.SortFunc(out, func(a, b Change) int {
		return cmp.Or(cmp.Compare(slices.Index(Groups, a.Group), slices.Index(Groups, b.Group)), cmp.Compare(a.Path, b.Path))
	})
	return out
}

func groupOf(p string) string {
	switch {
	case strings.HasPrefix(p, "/proc/sys/"):
		return Groups[0]
	case strings.HasPrefix(p, "/boot/"), strings.HasPrefix(p, "/efi/"), strings.HasPrefix(p, "/sys/firmware/efi/"), p == "/proc/cmdline":
		return Groups[2]
	case strings.HasPrefix(p, "/sys/"):
		return Groups[3]
	case strings.HasPrefix(p, "/proc/"):
		return Groups[4]
	}
	return Groups[1]
}

// comparable is a snapshot as texts.
type comparable struct{ content, answers, failed map[string]string }

func blanked(s *host.Snapshot) comparable {
	r := NewRedactor(Standard)
	r.blank = true
	r.learnVocabulary(s)
	r.learnNames(s)
	r.nets.learn(s)
	c := comparable{map[string]string{}, map[string]string{}, map[string]string{}}
	for p, data := range s.Files {
		if moving().MatchString(p) {
			continue
		}
		c.content[p] = shownText(r, p, data)
	}
	for p, to := range s.Links {
		if !moving().MatchString(p) {
			c.content[p] = "-> " + string(r.replace([]byte(to), where{path: to}))
		}
	}
	for p, l := range s.Exact.Lists {
		for _, n := range l.Names { // what is only listed
			at := path.Join(string(p), string(n))
			_, isFile := s.Files[at]
			_, isLink := s.Links[at]
			if !isFile && !isLink && !moving().MatchString(at) {
				c.content[at] = "(there)"
			}
		}
	}
	for key, raw := range s.Queries {
		if strings.HasPrefix(key, "counters ") {
			continue
		}
		b, err := r.JSON(raw)
		if err != nil {
			b = raw
		}
		var rec host.Recorded
		if json.Unmarshal(b, &rec) == nil && rec.Answer != nil {
			b = rec.Answer
		}
		c.answers[key] = string(b)
	}
	for op, f := range s.Exact.Failed {
		what, p, _ := strings.Cut(string(op), " ")
		_, isFile := s.Files[p]
		_, isLink := s.Links[p]
		isDir := s.HasDir(p)
		if what == "link" || isFile || isLink || isDir || moving().MatchString(p) || f.Errno == host.Errno(2) || f.Errno == host.Errno(20) {
			continue // it is absent, or something else than was asked for
		}
		c.failed[p] = cmp.Or(f.Error, f.Errno.Error())
	}
	return c
}

func shownText(r *Redactor, p string, data []byte) string {
	text := readable(p, data)
	if bytes.IndexByte(text, 0) >= 0 && !strings.HasPrefix(p, "/proc/") {
		return hexDump(withoutSerial(data))
	}
	return strings.TrimRight(string(r.replace(text, where{path: p})), "\n")
}

// hexDump is bytes as lspci prints them, without the lines of zeros.
func hexDump(b []byte) string {
	var out strings.Builder
	const digits = "0123456789abcdef"
	for at := 0; at < len(b) && at < 4096; at += 16 {
		row := b[at:min(at+16, len(b))]
		if len(bytes.Trim(row, "\x00")) == 0 {
			continue
		}
		out.WriteString(string([]byte{digits[at>>8&15], digits[at>>4&15], digits[at&15], ':'}))
		for _, c := range row {
			out.WriteString(string([]byte{' ', digits[c>>4], digits[c&15]}))
		}
		out.WriteByte('\n')
	}
	return out.String()
}
