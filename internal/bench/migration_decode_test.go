// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"strings"
	"testing"
)

const migrationText = `{"schema":"hostcheck.bench.migration/v1","host":{"kernel":"7.1","arch":"amd64","cpu":"x","page_kb":4,"nodes":[0,1],"driver":"ptdma","revision":"v5","batch_pages":512},
"conditions":{"bytes":1073741824,"runs":10,"numa_balancing":"0","governor":"performance"},
"rows":[{"from":0,"to":1,"folio_kb":2048,"channels":16,"workers":1,"call_folio":0,"batch_pages":0,"runs":10,"gbps":65.2,"sd":1.7,"first_us":470,"first_by":"tracepoints"}],"discarded":[],"summary":[]}`

func TestParseMigration(t *testing.T) {
	m, err := ParseMigration([]byte(migrationText))
	if err != nil || len(m.Rows) != 1 || m.Rows[0].GBps != 65.2 || *m.Rows[0].FirstUS != 470 || m.Host.Driver != "ptdma" {
		t.Fatalf("%v %+v", err, m)
	}
	for name, c := range map[string]struct{ old, with, says string }{
		"another format":   {"hostcheck.bench.migration/v1", "hostcheck.bench.vxlan/v1", "its schema is"},
		"another field":    {`"rows"`, `"more":1,"rows"`, `unknown field "more"`},
		"no such page":     {`"page_kb":4`, `"page_kb":8`, "page_kb is 8"},
		"nowhere":          {`"to":1`, `"to":0`, "from node 0 to node 0"},
		"odd folio":        {`"folio_kb":2048`, `"folio_kb":2000`, "folio_kb is 2000"},
		"less than a page": {`"folio_kb":2048`, `"folio_kb":2`, "folio_kb is 2"},
		"standstill":       {`"gbps":65.2`, `"gbps":0`, "gbps is 0"},
		"negative noise":   {`"sd":1.7`, `"sd":-1`, "sd is -1"},
		"no channels":      {`"channels":16`, `"channels":-1`, "below 0"},
		"no time at all":   {`"first_us":470`, `"first_us":0`, "first_us is 0"},
		"trailing":         {`"summary":[]}`, `"summary":[]} {}`, "something follows"},
		"not JSON":         {`{"schema"`, `schema`, "not a result of"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseMigration([]byte(strings.Replace(migrationText, c.old, c.with, 1)))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

func FuzzParseMigration(f *testing.F) {
	f.Add([]byte(migrationText))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseMigration(text)
		if err != nil {
			return
		}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseMigration(b); err != nil {
			t.Errorf("what was taken is not taken again: %v", err)
		}
	})
}
