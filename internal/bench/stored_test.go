// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

const storedVXLAN = `{"schema":"hostcheck.bench.vxlan/v1","cpus":8,"seconds":3,"mtu":1500,"inner_mtu":1450,"background_busy":1,
"runs":[{"path":"veth","segmentation":"offload","streams":1,"seconds":3,"bytes":9000000000,"gbps":24,"cpu_ns_per_byte":0.3,
"cores":[{"cpu":3,"busy":97,"softirq":70,"system":20,"user":7,"steal":0}],"bound":"CPU 3 is full"},
{"path":"vxlan","segmentation":"software","streams":1,"seconds":3,"bytes":1200000000,"gbps":3.2,"cpu_ns_per_byte":2.1,"cores":[],"bound":""}],
"summary":["one stream in the tunnel is bound by one CPU"]}`

func TestReadStored(t *testing.T) {
	s, err := ReadStored([]byte(storedVXLAN))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.SVG, "24.00 Gb/s") || !strings.Contains(s.SVG, "CPU 3: 70% softirq") || len(s.Summary) != 1 {
		t.Errorf("the plot or the summary lacks what was measured: %+v", s)
	}
	for name, tt := range map[string]struct{ old, new, why string }{
		"another schema":   {"bench.vxlan/v1", "bench.vxlan/v9", "its schema is"},
		"no JSON":          {`{"schema"`, `<svg`, "not a result"},
		"a word of others": {`"path":"vxlan"`, `"path":"<script>"`, "run 2 is of"},
		"a foreign field":  {`"cpus":8`, `"cpu":8`, "not a result"},
		"a wild figure":    {`"gbps":24`, `"gbps":-24`, "beyond all hardware"},
		"a wild CPU":       {`"busy":97`, `"busy":970`, "busier than can be"},
		"something behind": {`by one CPU"]}`, `"]} {}`, "not a result"},
	} {
		if _, err := ReadStored([]byte(strings.Replace(storedVXLAN, tt.old, tt.new, 1))); err == nil || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%s: %v, not %q", name, err, tt.why)
		}
	}
}

// What is believed is drawn as a picture that a reader of XML takes.
const (
	storedRX = `{"schema":"hostcheck.bench.rx/v1","interface":"e<&\"1","driver":"mana","page_size":4096,"cpus":2,"runs":[
		{"name":"before","frame":1514,"seconds":1,"packets":10,"packets_per_second":10,"gbps":1,"packet_bytes":4352,"how":"pools","predicted_bytes":4096},
		{"name":"after","frame":1514,"seconds":1,"packets":10,"packets_per_second":10,"gbps":1,"packet_bytes":2304,"how":"pools","predicted_bytes":2048}],"summary":["it takes less"]}`
	storedMigration = `{"schema":"hostcheck.bench.migration/v1","host":{"page_kb":4,"nodes":[0,1],"driver":"ptdma"},"conditions":{"bytes":1073741824,"runs":10},"rows":[
		{"from":0,"to":1,"folio_kb":4,"channels":0,"workers":1,"runs":10,"gbps":3.3,"sd":0.2},{"from":0,"to":1,"folio_kb":2048,"channels":0,"workers":1,"runs":10,"gbps":11,"sd":0.2},
		{"from":0,"to":1,"folio_kb":2048,"channels":16,"workers":1,"runs":10,"gbps":65,"sd":1.7,"first_us":470,"first_by":"tracepoints"}],"summary":["engines copy faster"]}`
)

// TestReadStoredKinds: each kind of measurement can be shown.
func TestReadStoredKinds(t *testing.T) {
	for text, title := range map[string]string{storedVXLAN: "VXLAN", storedRX: "received packets", storedMigration: "migration"} {
		s, err := ReadStored([]byte(text))
		if err != nil || !strings.Contains(s.Title, title) || !strings.HasPrefix(s.SVG, "<svg") || len(s.Summary) == 0 {
			t.Errorf("%s: %+v, %v", title, s, err)
		}
	}
}

func FuzzReadStored(f *testing.F) {
	f.Add([]byte(storedVXLAN))
	f.Add([]byte(`{"schema":"hostcheck.bench.vxlan/v1","runs":[{}]}`))
	f.Add([]byte(storedRX))
	f.Add([]byte(storedMigration))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ReadStored(b)
		if err != nil {
			return
		}
		d := xml.NewDecoder(strings.NewReader(s.SVG))
		for {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatalf("%v in %s", err, s.SVG)
			}
		}
	})
}
