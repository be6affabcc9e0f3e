// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
)

// Limits of a measurement that is believed.
const (
	MaxMigrationText = 4 << 20 // bytes
	maxMigrationRows = 20000
)

// ParseMigration reads a measurement that "hostcheck bench migration -f json"
// wrote, or that somebody wrote by hand from published tables. Every figure is
// within bounds then.
func ParseMigration(text []byte) (*Migration, error) {
	if len(text) > MaxMigrationText {
		return nil, fmt.Errorf("it is larger than %d bytes", MaxMigrationText)
	}
	m := new(Migration)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("it is not a result of \"hostcheck bench migration -f json\": %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the result")
	}
	switch {
	case m.Schema != MigrationSchema:
		return nil, fmt.Errorf("its schema is %.40q; this hostcheck knows %s", m.Schema, MigrationSchema)
	case m.Host.PageKB != 4 && m.Host.PageKB != 16 && m.Host.PageKB != 64:
		return nil, fmt.Errorf("host.page_kb is %d; a kernel has pages of 4, 16 or 64 KiB", m.Host.PageKB)
	case m.Host.BatchPages < 0 || m.Host.BatchPages > 1<<30:
		return nil, fmt.Errorf("host.batch_pages %d makes no sense", m.Host.BatchPages)
	case len(m.Rows) > maxMigrationRows:
		return nil, fmt.Errorf("it has %d rows; at most %d are taken", len(m.Rows), maxMigrationRows)
	}
	for i := range m.Rows {
		if err := m.Rows[i].check(m.Host.PageKB); err != nil {
			return nil, fmt.Errorf("row %d: %w", i+1, err)
		}
	}
	return m, nil
}

func (r *MigrationRow) check(pageKB int) error {
	in := func(v, lo, hi int) bool { return v >= lo && v <= hi }
	real := func(v float64) bool { return !math.IsNaN(v) && v >= 0 && v <= 1e6 }
	switch {
	case !in(r.From, 0, 1023) || !in(r.To, 0, 1023) || r.From == r.To:
		return fmt.Errorf("from node %d to node %d", r.From, r.To)
	case r.FolioKB < pageKB || r.FolioKB > 1<<20 || r.FolioKB&(r.FolioKB-1) != 0:
		return fmt.Errorf("folio_kb is %d", r.FolioKB)
	case !in(r.Channels, 0, 1024) || !in(r.Workers, 0, 8192) || !in(r.CallFolio, 0, 1<<30) || !in(r.BatchPages, 0, 1<<30) || !in(r.Runs, 0, 1<<20):
		return errors.New("a count is below 0 or beyond all hardware")
	case !real(r.GBps) || r.GBps == 0:
		return fmt.Errorf("gbps is %v", r.GBps)
	case !real(r.SD):
		return fmt.Errorf("sd is %v", r.SD)
	case r.FirstUS != nil && (math.IsNaN(*r.FirstUS) || *r.FirstUS <= 0 || *r.FirstUS > 1e12):
		return fmt.Errorf("first_us is %v", *r.FirstUS)
	}
	return nil
}
