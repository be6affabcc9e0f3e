// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// MaxMerge is the largest merge that is read back, in bytes; one of 100,000
// hosts has a third of it.
const MaxMerge = 128 << 20

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
	br := bufio.NewReaderSize(r, 64<<10)
	if magic, err := br.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(br)
		if err != nil {
			return false, nil, fmt.Errorf("cannot be unpacked: %w", err)
		}
		br = bufio.NewReaderSize(z, 64<<10)
	}
	b, err := br.Peek(200)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, nil, err
	}
	return Merged(b), br, nil
}

// Decode reads a merge that was written before. What it gives is consistent:
// every cluster has a letter for each check, every host a cluster.
func Decode(r io.Reader) (*Fleet, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxMerge+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxMerge {
		return nil, fmt.Errorf("larger than %d MiB", MaxMerge>>20)
	}
	f := &Fleet{}
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("no merge: %w", err)
	}
	if f.Schema != Schema {
		return nil, fmt.Errorf("no merge: its format is %q, not %s", clip([]byte(f.Schema), 60), Schema)
	}
	for i := range f.Clusters {
		c := &f.Clusters[i]
		if len(c.Verdicts) != len(f.Checks) || !slices.Contains(byWorst, c.Verdict) {
			return nil, fmt.Errorf("no whole merge: its cluster %d does not fit its checks", i)
		}
		for _, l := range []byte(c.Verdicts) {
			if Word(l) == "" {
				return nil, fmt.Errorf("no whole merge: its cluster %d has a verdict %q", i, l)
			}
		}
	}
	for i := range f.Hosts {
		h := &f.Hosts[i]
		if h.Cluster < 0 || h.Cluster >= len(f.Clusters) || !slices.Contains(byWorst, h.Verdict) || !hostName(h.Name) {
			return nil, fmt.Errorf("no whole merge: its host %d is of no cluster that it has, or has no name or verdict", i)
		}
	}
	if f.Summary.Hosts != len(f.Hosts)+f.MoreHosts || f.MoreHosts < 0 || !f.counted() {
		return nil, errors.New("no whole merge: its summary does not count its hosts")
	}
	f.lists()
	// an exit code that is better than the counts is none of ours
	f.Summary.Exit = f.Summary.exit()
	return f, nil
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
