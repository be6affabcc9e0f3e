// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

const (
	// apart is how far apart samples of two boots of a host are at least: no
	// virtual machine shuts down, boots and is judged again in less.
	apart = 10 * time.Second
	// maxBoots of one name are told apart.
	maxBoots = 16
	// again is what add says of a report that was read before.
	again = "it is the same report again"
)

// namesakes are the reports that bear one name, of which one counts. Which one,
// and whether there is a doubt about it, does not depend on their order: the
// newest, and the worst of those of which none is known to be newer.
type namesakes[H any] struct {
	source   string // of the report that was read last
	line     int
	boots    []boot[H]
	timeless *sample[H] // the worst of those without a time
	differs  bool       // others without a time say something else
	worst    *H         // of all that have a time
	more     bool       // there are more boots than are kept
	masked   bool       // one of several is of a redacted bundle
}

// boot is the reports of one boot that have a time.
type boot[H any] struct {
	first   time.Time
	newest  sample[H]
	differs bool // another one of the newest time says something else
}

// sample is a report.
type sample[H any] struct {
	host H
	boot string    // ID; "" is not known
	at   time.Time // zero is not known
}

// masked reports whether the host is one of a redacted bundle: its name and its
// boot_id are pseudonyms then, and in the bundles of all hosts the same.
func (s *sample[H]) masked() bool { return strings.HasPrefix(s.boot, "00000000-0000-4000-8000-") }

// compare orders what reports say, the worst last; 0 only where two say the same.
type compare[H any] func(a, b *H) int

// namesakesOf gives the reports of a name of which there is one so far.
func namesakesOf[H any](first sample[H], worse compare[H]) *namesakes[H] {
	n := &namesakes[H]{}
	_ = n.add(first, worse)
	return n
}

// add takes a report, and says what it is to those before; "" where that is for
// settle to say.
func (n *namesakes[H]) add(s sample[H], worse compare[H]) string {
	if s.at.IsZero() {
		return n.addTimeless(s, worse)
	}
	note := n.note(&s, worse)
	if len(n.boots) > 0 && note != again && (s.masked() || slices.ContainsFunc(n.boots, func(b boot[H]) bool { return b.newest.masked() })) {
		n.masked, note = true, ""
	}
	n.rate(s.host, worse)
	i := slices.IndexFunc(n.boots, func(b boot[H]) bool { return b.newest.boot == s.boot })
	switch {
	case i >= 0:
		n.boots[i].add(s, worse)
	case len(n.boots) < maxBoots:
		n.boots = append(n.boots, boot[H]{first: s.at, newest: s})
	default:
		n.more = true
	}
	return note
}

// drop takes a report of which only its verdict is kept.
func (n *namesakes[H]) drop(h H, worse compare[H]) {
	n.more = true
	n.rate(h, worse)
}

func (n *namesakes[H]) rate(h H, worse compare[H]) {
	if n.worst == nil || worse(&h, n.worst) > 0 {
		n.worst = &h
	}
}

func (n *namesakes[H]) addTimeless(s sample[H], worse compare[H]) string {
	if n.timeless == nil {
		n.timeless = &s
		return ""
	}
	c := worse(&s.host, &n.timeless.host)
	if c == 0 && s.boot == n.timeless.boot {
		return again
	}
	n.differs = true
	if cmp.Or(c, cmp.Compare(s.boot, n.timeless.boot)) > 0 {
		n.timeless = &s
	}
	return ""
}

func (b *boot[H]) add(s sample[H], worse compare[H]) {
	if s.at.Before(b.first) {
		b.first = s.at
	}
	switch c := worse(&s.host, &b.newest.host); {
	case s.at.After(b.newest.at):
		b.newest, b.differs = s, false
	case s.at.Equal(b.newest.at) && c != 0:
		b.differs = true
		if c > 0 {
			b.newest = s
		}
	}
}

// note says what a report that has a time is to the newest of those before.
func (n *namesakes[H]) note(s *sample[H], worse compare[H]) string {
	if len(n.boots) == 0 {
		return ""
	}
	b := slices.MaxFunc(n.boots, func(a, b boot[H]) int { return a.newest.at.Compare(b.newest.at) })
	old := &b.newest
	reboot := old.boot != "" && s.boot != "" && old.boot != s.boot
	note := ""
	switch when := old.at.UTC().Format(time.RFC3339); {
	case s.at.After(old.at):
		note = "it replaces an older report of this host, sampled " + when
	case s.at.Before(old.at):
		note = "a newer report of this host counts, sampled " + when
	case !reboot && worse(&s.host, &old.host) == 0:
		return again
	default:
		return ""
	}
	if reboot {
		note += "; its boot_id differs: it was booted between, or two hosts have this name"
	}
	return note
}

// settle gives the report that counts, and says why it is in doubt; "" where it
// is not.
func (n *namesakes[H]) settle(worse compare[H]) (counts sample[H], doubt string) {
	if len(n.boots) == 0 { // then there is one without
		counts = *n.timeless
		if n.differs {
			doubt = "several reports of this host do not say when they were sampled, and differ; the worst one counts"
		}
		return n.many(counts, doubt, worse)
	}
	slices.SortFunc(n.boots, func(a, b boot[H]) int {
		return cmp.Or(a.newest.at.Compare(b.newest.at), worse(&a.newest.host, &b.newest.host), cmp.Compare(a.newest.boot, b.newest.boot))
	})
	last := &n.boots[len(n.boots)-1]
	counts = last.newest
	differs := last.differs
	for i := range n.boots[:len(n.boots)-1] {
		b := &n.boots[i]
		if b.newest.at.Equal(last.newest.at) && (b.differs || worse(&b.newest.host, &last.newest.host) != 0) {
			differs = true
		}
	}
	if differs {
		doubt = "another report of this host, sampled at the same time, says something else; the worse one counts"
	}
	if n.twins() {
		for i := range n.boots {
			if worse(&n.boots[i].newest.host, &counts.host) > 0 {
				counts = n.boots[i].newest
			}
		}
		doubt = "two hosts have this name: there are reports of two boots, sampled less than 10 seconds apart; the worst one counts"
	}
	if t := n.timeless; t != nil {
		known := func(b boot[H]) bool { return t.boot == "" || b.newest.boot == t.boot }
		c := worse(&t.host, &counts.host)
		if c > 0 {
			counts = *t
		}
		if c != 0 || n.differs || !slices.ContainsFunc(n.boots, known) {
			doubt = "of several reports of this host, one has no time that can be believed, so that nobody knows which is newer; the worst one counts"
		}
	}
	return n.many(counts, doubt, worse)
}

// many gives the worst of all where there are more reports than are told apart,
// or they cannot be.
func (n *namesakes[H]) many(counts sample[H], doubt string, worse compare[H]) (sample[H], string) {
	switch {
	case n.more:
		doubt = "there are more reports of this host than are kept, such as of many boots: several hosts may have this name; the worst one counts"
	case n.masked:
		doubt = "several reports are of redacted bundles, whose hosts all have this name: which host each is of is not known; the worst one counts; " +
			"for a fleet, create bundles with --redact none, or collect reports"
	default:
		return counts, doubt
	}
	if worse(n.worst, &counts.host) > 0 {
		counts.host = *n.worst
	}
	return counts, doubt
}

// twins reports whether two boots were up at about one time.
func (n *namesakes[H]) twins() bool {
	known := slices.DeleteFunc(slices.Clone(n.boots), func(b boot[H]) bool { return b.newest.boot == "" })
	slices.SortFunc(known, func(a, b boot[H]) int { return a.first.Compare(b.first) })
	var up time.Time
	for i := range known {
		if i > 0 && known[i].first.Sub(up) < apart {
			return true
		}
		if at := known[i].newest.at; at.After(up) {
			up = at
		}
	}
	return false
}
