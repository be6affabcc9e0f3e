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
func FuzzReadStored(f *testing.F) {
	f.Add([]byte(storedVXLAN))
	f.Add([]byte(`{"schema":"hostcheck.bench.vxlan/v1","runs":[{}]}`))
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
