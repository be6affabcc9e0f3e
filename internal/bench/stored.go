// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// MaxStored is how large a stored measurement may be, bytes.
const MaxStored = 4 << 20

// Stored is a measurement that was written as JSON earlier, to be shown.
type Stored struct {
	Title   string
	SVG     string   // its plot, a document of its own
	Summary []string // what it tells, for people
}

// ReadStored reads what "hostcheck bench ... -f json" wrote. The file may come
// from anywhere: each word that is drawn is one of ours, each figure is within
// bounds.
func ReadStored(text []byte) (*Stored, error) {
	if len(text) > MaxStored {
		return nil, fmt.Errorf("it is larger than %d bytes", MaxStored)
	}
	var head struct {
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, fmt.Errorf("it is not a result of \"hostcheck bench\": %w", err)
	}
	switch head.Schema {
	case VXLANSchema:
		v, err := parseVXLAN(text)
		if err != nil {
			return nil, err
		}
		return &Stored{"TCP in a VXLAN tunnel", v.SVG(), v.Summary}, nil
	case MigrationSchema:
		m, err := ParseMigration(text)
		if err != nil {
			return nil, err
		}
		return &Stored{"Page migration between memory nodes", m.SVG(), m.Summary}, nil
	case RXSchema:
		r, err := ParseRX(text)
		if err != nil {
			return nil, err
		}
		return &Stored{"Memory of received packets", r.SVG(), r.Summary}, nil
	}
	return nil, fmt.Errorf("its schema is %.40q; this hostcheck shows %s, %s and %s", head.Schema, VXLANSchema, MigrationSchema, RXSchema)
}

// Limits of a measurement of VXLAN that is believed.
const (
	maxStoredRuns  = 64
	maxStoredCores = 8192
	maxStoredLines = 64
)

func parseVXLAN(text []byte) (*VXLAN, error) {
	v := new(VXLAN)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return nil, fmt.Errorf("it is not a result of \"hostcheck bench vxlan -f json\": %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the result")
	}
	whole := func(n, most int) bool { return n >= 0 && n <= most }
	real := func(x, most float64) bool { return x >= 0 && x <= most }
	switch {
	case len(v.Runs) == 0 || len(v.Runs) > maxStoredRuns:
		return nil, fmt.Errorf("it has %d runs; 1 to %d are taken", len(v.Runs), maxStoredRuns)
	case len(v.Summary) > maxStoredLines:
		return nil, fmt.Errorf("its summary has %d lines; at most %d are taken", len(v.Summary), maxStoredLines)
	case !whole(v.CPUs, maxStoredCores) || !whole(v.MTU, MaxMTU) || !whole(v.InnerMTU, MaxMTU) || !real(v.Seconds, 1e6):
		return nil, errors.New("its conditions make no sense")
	}
	for i := range v.Runs {
		r := &v.Runs[i]
		switch {
		case !slices.Contains([]string{Bare, Tunnel}, r.Path) || !slices.Contains([]string{Offload, Software}, r.Segmentation):
			return nil, fmt.Errorf("run %d is of %.20q, %.20q", i+1, r.Path, r.Segmentation)
		case !whole(r.Streams, MaxStreams) || !real(r.Gbps, 1e6) || len(r.Cores) > maxStoredCores:
			return nil, fmt.Errorf("a figure of run %d is beyond all hardware", i+1)
		}
		for _, c := range r.Cores {
			if !whole(c.CPU, 1<<20) || !real(c.Busy, 100) || !real(c.SoftIRQ, 100) {
				return nil, fmt.Errorf("a CPU of run %d is busier than can be", i+1)
			}
		}
	}
	return v, nil
}
