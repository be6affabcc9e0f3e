// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
)

// Bounds of a merge that is read back.
const (
	MaxMerge   = 128 << 20          // bytes; one of 100,000 hosts has a third of it
	maxKept    = 96 << 20           // bytes of memory that it takes, roughly
	maxMarks   = 1 << 14            // commas in one entry of a list, such as a check with its cases
	maxChanges = 1 << 16            // entries in changed
	maxListed  = 3*maxProblems + 10 // entries in problems
)

// Merged reports whether what begins with b is a merge rather than reports.
func Merged(b []byte) bool {
	_, rest, ok := bytes.Cut(b, []byte(`"schema"`))
	if !ok || len(bytes.TrimSpace(b)) == 0 || bytes.TrimSpace(b)[0] != '{' {
		return false
	}
	rest = bytes.TrimLeft(rest, " \t\r\n:")
	return bytes.HasPrefix(rest, []byte(`"`+Schema+`"`))
}

// Peek tells a merge from reports, packed or not, and gives a reader of all
// that r has.
func Peek(r io.Reader) (merge bool, all io.Reader, err error) {
	br, err := plain(r)
	if err != nil {
		return false, nil, err
	}
	b, err := br.Peek(200)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, nil, err
	}
	return Merged(b), br, nil
}

// Decode reads a merge that was written before. It may come from anybody: what
// Decode gives does not contradict itself, and takes a bounded amount of memory.
func Decode(r io.Reader) (*Fleet, error) {
	return decode(r, &decoder{room: maxKept})
}

// Earlier reads a merge to compare another with, and keeps of it what that needs.
func Earlier(r io.Reader) (*Fleet, error) {
	return decode(r, &decoder{room: maxKept / 2, slim: true})
}

func decode(r io.Reader, d *decoder) (*Fleet, error) {
	d.in = meter{r: r, left: MaxMerge}
	d.json = json.NewDecoder(&d.in)
	d.words, d.labels = map[string]*string{}, map[string]map[string]string{}
	f := &Fleet{}
	if err := d.fleet(f); err != nil {
		return nil, err
	}
	if err := d.whole(f); err != nil {
		return nil, fmt.Errorf("no whole merge: %w", err)
	}
	f.lists()
	// an exit code that is better than the counts is none of ours
	f.Summary.Exit = f.Summary.exit()
	return f, nil
}

// decoder reads a merge entry by entry: what a list takes in memory is known
// before the next entry is.
type decoder struct {
	in     meter
	json   *json.Decoder
	raw    json.RawMessage
	room   int  // bytes that are still to be kept, roughly
	slim   bool // only what a later merge is compared with is kept
	words  map[string]*string
	labels map[string]map[string]string
}

// meter bounds what is read: in all, and of one entry, which the decoder has to
// hold whole.
type meter struct {
	r           io.Reader
	left, entry int
}

func (m *meter) Read(p []byte) (int, error) {
	switch {
	case m.left <= 0:
		return 0, fmt.Errorf("larger than %d MiB", MaxMerge>>20)
	case m.entry <= 0:
		return 0, fmt.Errorf("an entry of it is larger than %d MiB", MaxReport>>20)
	}
	n, err := m.r.Read(p[:min(len(p), m.left, m.entry)])
	m.left -= n
	m.entry -= n
	return n, err
}

// value reads the next value as it is.
func (d *decoder) value() error {
	d.in.entry = MaxReport
	d.raw = d.raw[:0]
	return d.json.Decode(&d.raw)
}

func (d *decoder) token() (json.Token, error) {
	d.in.entry = MaxReport
	return d.json.Token()
}

// keep takes note of n bytes that are kept.
func (d *decoder) keep(n int) error {
	if d.room -= n; d.room < 0 {
		return errors.New("it takes more memory than a merge may: merge parts of the fleet by themselves")
	}
	return nil
}

// sizeOf gives the bytes of one T in a list, without what it points to.
func sizeOf[T any]() int {
	return int(reflect.TypeFor[T]().Size())
}

func (d *decoder) fleet(f *Fleet) error {
	if t, err := d.token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("no merge: it is no JSON object%s", because(err))
	}
	seen := map[string]bool{}
	for d.json.More() {
		t, err := d.token()
		if err != nil {
			return fmt.Errorf("no merge: %w", err)
		}
		key, _ := t.(string)
		if seen[key] {
			return fmt.Errorf("no merge: it has %q twice", clip([]byte(key), 40))
		}
		if len(seen) < 100 {
			seen[key] = true
		}
		if err := d.key(f, key); err != nil {
			return fmt.Errorf("no merge: its %q: %w", clip([]byte(key), 40), err)
		}
	}
	if _, err := d.token(); err != nil {
		return fmt.Errorf("no merge: %w", err)
	}
	if f.Schema != Schema {
		return fmt.Errorf("no merge: its format is %q, not %s", clip([]byte(f.Schema), 60), Schema)
	}
	if _, err := d.token(); !errors.Is(err, io.EOF) {
		return errors.New("no merge: more follows after its end")
	}
	return nil
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// key reads what belongs to a key of a merge.
func (d *decoder) key(f *Fleet, key string) error {
	switch key {
	case "checks":
		return entries(d, &f.Checks, 2*maxChecks, d.check)
	case "clusters":
		return entries(d, &f.Clusters, MaxHosts, d.cluster)
	case "hosts":
		return entries(d, &f.Hosts, MaxHosts, d.host)
	case "outliers":
		return entries(d, &f.Outliers, maxOutliers, texts[Outlier](d))
	case "problems":
		return entries(d, &f.Problems, maxListed, texts[Problem](d))
	case "changed":
		return entries(d, &f.Changed, maxChanges, d.changed)
	}
	if err := d.value(); err != nil {
		return err
	}
	var into any
	switch key {
	case "schema":
		into = &f.Schema
	case "tool":
		into = &f.Tool
	case "fail_on":
		into = &f.FailOn
	case "summary":
		into = &f.Summary
	case "more_hosts":
		into = &f.MoreHosts
	case "more_outliers":
		into = &f.MoreOutliers
	case "scattered":
		into = &f.Scattered
	case "more_problems":
		into = &f.MoreProblems
	case "since":
		into = &f.Since
	case "expected":
		into = &f.Expected
	default:
		return nil // later versions may have more
	}
	if err := d.keep(len(d.raw)); err != nil {
		return err
	}
	return json.Unmarshal(d.raw, into)
}

// entries reads the entries of a list, at most most of them. own takes note of what
// one takes beside itself and the bytes that are shared.
func entries[T any](d *decoder, into *[]T, most int, own func(*T) error) error {
	switch t, err := d.token(); {
	case err != nil:
		return err
	case t == nil:
		return nil
	case t != json.Delim('['):
		return errors.New("it is no list")
	}
	for n := 0; d.json.More(); n++ {
		if n >= most {
			return fmt.Errorf("it has more than %d entries", most)
		}
		if err := d.value(); err != nil {
			return err
		}
		if marks(d.raw) > maxMarks {
			return fmt.Errorf("its entry %d has too many parts", n+1)
		}
		var v T
		if err := json.Unmarshal(d.raw, &v); err != nil {
			return fmt.Errorf("its entry %d: %w", n+1, err)
		}
		// twice, for a list that grows is copied
		if err := d.keep(2 * sizeOf[T]()); err != nil {
			return err
		}
		if err := own(&v); err != nil {
			return err
		}
		*into = append(*into, v)
	}
	_, err := d.token()
	return err
}

// marks counts the commas of a valid JSON value that separate something.
func marks(b []byte) (n int) {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			end, err := stringEnd(b, i)
			if err != nil {
				return n
			}
			i = end - 1
		case ',':
			n++
		}
	}
	return n
}

// word gives the one copy of a text that many have.
func (d *decoder) word(s *string) error {
	if known := d.words[*s]; known != nil {
		*s = *known
		return nil
	}
	own := strings.Clone(*s)
	d.words[own] = &own
	*s = own
	return d.keep(len(own) + 100)
}

// wordAt is word for a text that may not be known.
func (d *decoder) wordAt(s **string) error {
	if *s == nil {
		return nil
	}
	if err := d.word(*s); err != nil {
		return err
	}
	*s = d.words[**s]
	return nil
}

func (d *decoder) check(c *Check) error {
	if len(c.Cases) > maxCases {
		return fmt.Errorf("%q has more than %d cases", clip([]byte(c.ID), 60), maxCases)
	}
	if d.slim {
		c.Cases = nil
	}
	n := len(c.ID) + len(c.Title) + len(c.Severity)
	for i := range c.Cases {
		k := &c.Cases[i]
		n += sizeOf[Case]() + len(k.Subject) + len(k.Want) + len(k.Got) + len(k.Why) + len(k.Next) + len(k.Hosts) + len(k.Status)
	}
	return d.keep(n)
}

func (d *decoder) cluster(c *Cluster) error {
	c.Hosts, c.Differs = "", nil // told anew from the hosts and the verdicts
	if err := d.word(&c.Verdict); err != nil {
		return err
	}
	return d.keep(len(c.Verdicts))
}

func (d *decoder) host(h *Host) error {
	if d.slim {
		*h = Host{Name: h.Name, Verdict: h.Verdict, Exit: h.Exit, Cluster: h.Cluster}
	}
	for _, s := range []*string{&h.Verdict, &h.Profile, &h.Version} {
		if err := d.word(s); err != nil {
			return err
		}
	}
	for _, s := range []**string{&h.Kernel, &h.Arch} {
		if err := d.wordAt(s); err != nil {
			return err
		}
	}
	n := len(h.Name) + 50 // and its place in a table of names
	for _, s := range []*string{h.BootID, h.CapturedAt} {
		if s != nil {
			n += len(*s) + 16
		}
	}
	if h.Labels != nil {
		var key strings.Builder
		for _, k := range slices.Sorted(maps.Keys(h.Labels)) {
			fmt.Fprintf(&key, "%q=%q ", k, h.Labels[k])
		}
		known, ok := d.labels[key.String()]
		if !ok {
			known = h.Labels
			d.labels[key.String()] = known
			n += 2*key.Len() + 500 + 100*len(known)
		}
		h.Labels = known
	}
	return d.keep(n)
}

func (d *decoder) changed(c *Changed) error {
	if Letter(c.Before) == 0 || Letter(c.After) == 0 {
		return errors.New("it has a verdict that is not known")
	}
	return d.keep(len(d.raw))
}

// texts takes note of entries that are little but texts.
func texts[T any](d *decoder) func(*T) error {
	return func(*T) error { return d.keep(len(d.raw)) }
}

// whole refuses a merge that contradicts itself: no count and no verdict of it
// may be better than what it says of its hosts. What follows from hosts and
// verdicts is told anew.
func (d *decoder) whole(f *Fleet) error {
	s := &f.Summary
	for _, n := range []int{f.MoreHosts, f.MoreOutliers, f.Scattered, f.MoreProblems, s.Warning, s.Missing, s.Repeated, s.Lines} {
		if n < 0 {
			return errLess
		}
	}
	if e := f.Expected; (s.Missing > 0) != (e != nil && e.Missing != "") {
		return errors.New("its summary does not count who is missing")
	}
	ids := map[string]bool{}
	for i := range f.Checks {
		if id := f.Checks[i].ID; ids[id] {
			return fmt.Errorf("it has the check %q twice", clip([]byte(id), 60))
		}
		ids[f.Checks[i].ID] = true
	}
	for i := range f.Clusters {
		c := &f.Clusters[i]
		if len(c.Verdicts) != len(f.Checks) {
			return fmt.Errorf("its cluster %d does not fit its checks", i)
		}
		for _, l := range []byte(c.Verdicts) {
			if Word(l) == "" {
				return fmt.Errorf("its cluster %d has a verdict %q", i, l)
			}
		}
	}
	members, err := f.members()
	if err != nil {
		return err
	}
	if s.Hosts != len(f.Hosts)+f.MoreHosts || !f.counted() {
		return errHosts
	}
	lost := 0
	for i := range f.Problems {
		if f.Problems[i].Lost {
			lost++
		}
	}
	if s.Problems < lost {
		return errors.New("its summary does not count its problems")
	}
	counts := make([]Counts, len(f.Checks))
	for i := range f.Clusters {
		c := &f.Clusters[i]
		worst := Compliant
		for _, h := range members[i] {
			worst = worstOf(worst, f.Hosts[h].Verdict)
		}
		if c.N != len(members[i]) || c.Verdict != worst || c.N == 0 {
			return fmt.Errorf("its cluster %d does not say what its hosts do", i)
		}
		for k := range counts {
			counts[k].add(c.Verdicts[k], c.N)
		}
		if d.slim {
			continue
		}
		names := make([]string, len(members[i]))
		for j, h := range members[i] {
			names[j] = f.Hosts[h].Name
		}
		c.Hosts, c.Differs = Fold(names), f.differs(c)
		if err := d.keep(len(c.Hosts) + len(c.Differs)*sizeOf[Differs]()); err != nil {
			return err
		}
	}
	for i := range f.Checks {
		if f.Checks[i].Counts != counts[i] {
			return fmt.Errorf("its check %q does not count its hosts", clip([]byte(f.Checks[i].ID), 60))
		}
	}
	if !d.slim {
		return f.fits()
	}
	return nil
}

// members gives the hosts of each cluster.
func (f *Fleet) members() ([][]int32, error) {
	members := make([][]int32, len(f.Clusters))
	names := make(map[string]bool, len(f.Hosts))
	for i := range f.Hosts {
		h := &f.Hosts[i]
		switch {
		case h.Cluster < 0 || h.Cluster >= len(f.Clusters) || !slices.Contains(byWorst, h.Verdict) || !hostName(h.Name):
			return nil, fmt.Errorf("its host %d is of no cluster that it has, or has no name or verdict", i)
		case names[h.Name]:
			return nil, fmt.Errorf("it has the host %s twice", h.Name)
		case h.Verdict != worstOf(h.Verdict, f.best(f.Clusters[h.Cluster].Verdicts, h.Exit)):
			return nil, fmt.Errorf("its host %s is %s, and its checks say otherwise", h.Name, h.Verdict)
		}
		names[h.Name] = true
		members[h.Cluster] = append(members[h.Cluster], int32(i)) //nolint:gosec // at most MaxHosts
	}
	return members, nil
}

// best is the best verdict that a host with these letters may have: behind the
// letter of a check, which is its worst, there may be others that pass.
func (f *Fleet) best(letters string, exit int) string {
	c := counts{Exit: &exit}
	for _, l := range []byte(letters) {
		switch l {
		case 'f':
			c.Fail++
		case 'w':
			c.Warn++
		case 'p':
			c.Pending++
		case 'v':
			c.Waived++
		case 'o', 'u', 'e':
			c.Pass++
		}
	}
	return c.verdict(check.Status(f.FailOn))
}

// worstOf is the worse of two verdicts of a host.
func worstOf(a, b string) string {
	if slices.Index(byWorst, b) < slices.Index(byWorst, a) {
		return b
	}
	return a
}

// counted reports whether the summary says what the hosts say. Of hosts that
// are counted in the summary only, it has the word.
func (f *Fleet) counted() bool {
	by := map[string]int{}
	for i := range f.Hosts {
		by[f.Hosts[i].Verdict]++
	}
	sum := 0
	for verdict, n := range map[string]int{Failing: f.Summary.Failing, Incomplete: f.Summary.Incomplete, Pending: f.Summary.Pending, Compliant: f.Summary.Compliant} {
		if n < by[verdict] {
			return false
		}
		sum += n
	}
	return sum == f.Summary.Hosts && f.Summary.Problems >= 0
}

// lists makes every list one that is written as such, even when empty.
func (f *Fleet) lists() {
	some(&f.Checks)
	for i := range f.Checks {
		some(&f.Checks[i].Cases)
	}
	some(&f.Clusters)
	for i := range f.Clusters {
		some(&f.Clusters[i].Differs)
	}
	some(&f.Hosts)
	some(&f.Outliers)
	some(&f.Problems)
	some(&f.Changed)
}

func some[T any](list *[]T) {
	if *list == nil {
		*list = []T{}
	}
}
