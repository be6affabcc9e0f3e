// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"io"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/densefleet"
	"github.com/hostcheck/hostcheck/internal/fleet"
)

// Of 10,000 hosts, 200 are odd in one of seven ways and a rack has something of
// its own. All of it is found, with the value that is odd, and nothing is
// invented of any other host: with the racks as labels and without.
func TestHunt(t *testing.T) {
	hosts := 10_000
	if testing.Short() {
		hosts = 1000
	}
	f := densefleet.Usual(hosts)
	m, err := densefleet.New(f)
	if err != nil {
		t.Fatal(err)
	}
	labels, err := fleet.ReadLabels(strings.NewReader(f.Labels()))
	if err != nil {
		t.Fatal(err)
	}
	mergers := map[string]*fleet.Merger{"with labels": fleet.New(fleet.Options{Labels: labels}), "without labels": fleet.New(fleet.Options{})}
	var readers []io.Reader
	var writers []io.Writer
	for range mergers {
		r, w := io.Pipe()
		readers, writers = append(readers, r), append(writers, w)
	}
	go func() {
		_, err := m.Write(io.MultiWriter(writers...))
		for _, w := range writers {
			_ = w.(*io.PipeWriter).CloseWithError(err)
		}
	}()
	done := make(chan bool)
	i := 0
	for _, g := range mergers {
		r := readers[i]
		i++
		go func() { g.Read("-", r); done <- true }()
	}
	for range mergers {
		<-done
	}
	odd, group := m.Truth()
	for name, g := range mergers {
		t.Run(name, func(t *testing.T) { judgeHunt(t, g.Fleet(), hosts, odd, group, name == "with labels") })
	}
}

func judgeHunt(t *testing.T, f *fleet.Fleet, hosts int, odd []densefleet.Oddity, group densefleet.Group, labelled bool) {
	if f.Summary.Hosts != hosts || len(odd) != hosts/50 || len(f.Problems) > 0 || f.MoreOutliers > 0 {
		t.Fatalf("%d hosts, %d odd ones, problems %v, %d more outliers", f.Summary.Hosts, len(odd), f.Problems, f.MoreOutliers)
	}
	planted := map[string]densefleet.Oddity{}
	found := map[string]bool{}
	for _, o := range odd {
		planted[o.Host] = o
	}
	profiles := map[string]string{}
	for _, h := range f.Hosts {
		profiles[h.Name] = h.Profile
	}
	grouped := 0
	invented := map[string][]string{}
	for _, o := range f.Outliers {
		if o.Check == group.Check && o.Value == group.Got {
			grouped++
			if o.N != group.Hosts || o.Norm != "rack="+group.Rack && labelled || o.Norm == "" {
				t.Errorf("the rack: %+v, want %+v", o, group)
			}
			continue
		}
		for _, name := range fleet.Unfold(o.Hosts) {
			if o.Norm != "" && profiles[name] == densefleet.Storage {
				continue // what all hosts of the rarer profile have is told once, as theirs
			}
			p, ok := planted[name]
			if !ok {
				what := strings.Join([]string{o.Check, o.Subject, o.What + ":", o.Value + ",", "usually", o.Usual}, " ")
				invented[what] = append(invented[what], name)
				continue
			}
			// the value stands alone, or behind the status that goes with it
			if o.Check == p.Check && (o.Subject == p.Subject || p.Check == "") && strings.HasSuffix(o.Value, p.Got) {
				found[name] = true
			}
		}
	}
	for what, names := range invented {
		t.Errorf("invented of %d hosts: %s (%s)", len(names), what, names[0])
	}
	for _, o := range odd {
		if !found[o.Host] {
			t.Errorf("not found: %+v", o)
		}
	}
	if grouped != 1 {
		t.Errorf("the rack's value is told %d times", grouped)
	}
	t.Logf("%d outliers tell of %d odd hosts; %d values too varied to compare", len(f.Outliers), len(found), f.Scattered)
}
