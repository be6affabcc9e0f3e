// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

const statBefore = `cpu  300 0 100 1000 0 0 50 0 0 0
cpu0 100 10 50 500 5 1 20 0 0 0
cpu1 200 0 50 500 0 0 30 0 0 0
cpu9 1 1 1 1 1 1 1 1 0 0
intr 12345 0 1
ctxt 99
`

const statAfter = `cpu  400 0 200 1000 0 0 250 0 0 0
cpu0 110 10 60 500 5 1 100 0 0 0
cpu1 210 0 60 560 0 0 40 10 0 0
cpu2 5 5 5 5 5 5 5 5 0 0
cpu9 1 1 1 1 1 1 1 1 0 0
cpux 1 1 1 1 1 1 1 1
`

func TestCores(t *testing.T) {
	got := cores(parseStat([]byte(statBefore)), parseStat([]byte(statAfter)))
	want := []Core{{CPU: 0, Busy: 100, SoftIRQ: 80, System: 10, User: 10}, {CPU: 1, Busy: 40, SoftIRQ: 10, System: 10, User: 10, Steal: 10}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if ns := busyNanoseconds(got, 2); math.Abs(ns-2.8e9) > 1 {
		t.Errorf("busy for %v ns", ns)
	}
	if got := cores(parseStat([]byte(statAfter)), parseStat([]byte(statBefore))); len(got) != 0 {
		t.Errorf("time that runs backwards gives %+v", got)
	}
}

func FuzzStat(f *testing.F) {
	f.Add([]byte(statBefore))
	f.Add([]byte("cpu0 18446744073709551615 1 1 1 1 1 1 1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range cores(parseStat([]byte(statBefore)), parseStat(b)) {
			for _, share := range []float64{c.Busy, c.SoftIRQ, c.System, c.User, c.Steal} {
				if !(share >= 0 && share <= 100) {
					t.Errorf("%+v", c)
				}
			}
		}
	})
}

func TestBound(t *testing.T) {
	for _, tt := range []struct {
		list []Core
		want string
	}{
		{nil, "not known"},
		{[]Core{{CPU: 0, Busy: 20}, {CPU: 3, Busy: 97, SoftIRQ: 80, System: 17}}, "CPU 3 is full: 80% softirq, 17% system, 0% user"},
		{[]Core{{CPU: 0, Busy: 95}, {CPU: 1, Busy: 97, Steal: 30}}, "every CPU is full (the busiest, CPU 1: 0% softirq, 0% system, 0% user, 30% taken by the hypervisor)"},
		{[]Core{{CPU: 0, Busy: 95}, {CPU: 1, Busy: 97}, {CPU: 2}}, "2 CPUs are full"},
		{[]Core{{CPU: 0, Busy: 60}, {CPU: 1, Busy: 60}}, "no CPU is full (the busiest, CPU 0, is 60% busy"},
	} {
		if got := bound(tt.list); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%+v: %q, want %q", tt.list, got, tt.want)
		}
	}
}

// made is a result of a host with many CPUs.
func made() *VXLAN {
	v := &VXLAN{Schema: VXLANSchema, CPUs: 24, Seconds: 3, MTU: 1500, InnerMTU: 1450, Background: 40}
	for i, segmentation := range []string{Offload, Software} {
		for j, path := range []string{Bare, Tunnel} {
			for _, n := range []int{1, 8} {
				r := VXLANRun{Path: path, Segmentation: segmentation, Streams: n, Seconds: 3, Bytes: 1e9, Gbps: float64(40*n) / float64(1+i+j), CPUPerByte: float64(1 + i + j)}
				for cpu := range 24 {
					r.Cores = append(r.Cores, Core{CPU: cpu, Busy: float64(cpu * 4), SoftIRQ: float64(cpu * 3)})
				}
				r.Bound = bound(r.Cores)
				v.Runs = append(v.Runs, r)
			}
		}
	}
	v.summarise()
	return v
}

func TestText(t *testing.T) {
	text := made().Text()
	for _, want := range []string{
		"24 CPUs, 3 s each, MTU 1500 (1450 within the tunnel)", "vxlan  software      8", "other programs kept the CPUs 40% busy",
		"1 stream, segmentation by offload: the tunnel has 50% of the bare path (20.0 of 40.0 Gb/s) for 2.00 times the CPU time of a byte; CPU 23 is full: 69% softirq",
		"what tunnel offloads are worth to one stream here: 20.0 instead of 13.3 Gb/s",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "  7:21%") || !strings.Contains(text, "  8:24%") {
		t.Errorf("of 24 CPUs not the 16 with the most softirq are shown:\n%s", text)
	}
	short := made()
	short.Runs, short.Summary = short.Runs[:1], nil
	if short.summarise(); len(short.Summary) != 1 || strings.Contains(short.Text(), "tunnel has") {
		t.Errorf("one run says nothing about the tunnel: %q", short.Summary)
	}
}

func TestSVG(t *testing.T) {
	for _, v := range []*VXLAN{made(), {}} {
		d := xml.NewDecoder(strings.NewReader(v.SVG()))
		rects := 0
		for {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "rect" {
				rects++
				for _, a := range e.Attr {
					if strings.HasPrefix(a.Value, "-") || strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
						t.Errorf("a bar has %s=%s", a.Name.Local, a.Value)
					}
				}
			}
		}
		if rects != 1+3*len(v.Runs) {
			t.Errorf("%d bars for %d runs", rects, len(v.Runs))
		}
	}
}

func TestVXLANOptions(t *testing.T) {
	fine := VXLANOptions{Duration: time.Second, Streams: 4, MTU: 1500}
	if err := fine.check(); err != nil {
		t.Error(err)
	}
	for name, o := range map[string]VXLANOptions{
		"duration": {time.Millisecond, 4, 1500, nil}, "streams": {time.Second, 1, 1500, nil}, "many": {time.Second, 10000, 1500, nil}, "MTU": {time.Second, 4, 100, nil},
	} {
		if v, err := MeasureVXLAN(t.Context(), o); err == nil || v != nil {
			t.Errorf("%s: it is measured", name)
		}
	}
}
