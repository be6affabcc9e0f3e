// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func madeRX() *RX {
	before, after := 65536.0, 1872.5
	r := &RX{Schema: RXSchema, Interface: "enP<1>", Driver: "mana", PageSize: 65536, CPUs: 16, Runs: []RXRun{
		{Name: "before", Frame: 1400, Seconds: 5, Packets: 5e6, PacketsPerSec: 1e6, Gbps: 11.2, PacketBytes: &before, How: HowGiven, Predicted: 65536},
		{Name: "after", Frame: 1400, Seconds: 5, Packets: 1e7, PacketsPerSec: 2e6, Gbps: 22.4, PacketBytes: &after, How: HowGiven, Predicted: 1872},
	}}
	r.summarise()
	return r
}

func TestRXText(t *testing.T) {
	r := madeRX()
	for _, want := range []string{"memory of a packet: 1872 bytes instead of 65536 (-97 %)", "packets: 2000000 instead of 1000000 each second (+100 %)", "pages given out"} {
		if !strings.Contains(r.Text(), want) {
			t.Errorf("the text does not say %q:\n%s", want, r.Text())
		}
	}
	r.Runs = r.Runs[:1]
	r.Runs[0].PacketBytes, r.Runs[0].How, r.Runs[0].Packets = nil, HowNot, 7
	r.summarise()
	if !strings.Contains(r.Text(), "memory of a packet is not known") {
		t.Errorf("the text does not say that the memory is not known:\n%s", r.Text())
	}
}

func TestRXPlot(t *testing.T) {
	for _, r := range []*RX{madeRX(), {Runs: []RXRun{{}}}, {}} {
		svg := r.SVG()
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %s", err, svg)
			}
		}
	}
	if svg := madeRX().SVG(); !strings.Contains(svg, "65536 bytes") || !strings.Contains(svg, "enP&lt;1&gt;") {
		t.Errorf("the plot lacks a figure or the interface:\n%s", svg)
	}
}

func TestRXOptions(t *testing.T) {
	nic := &RXNIC{Name: "eth1"}
	for want, o := range map[string]RXOptions{
		"at least":      {Duration: time.Millisecond},
		"made anew":     {Duration: time.Second, Before: madeRX()},
		"not of eth1":   {Duration: time.Second, Before: madeRX(), NIC: nic},
		"has no run":    {Duration: time.Second, Before: &RX{Interface: "eth1"}, NIC: nic},
		"two network n": {Duration: time.Second, Before: &RX{Runs: []RXRun{{}}}, NIC: nic},
	} {
		if _, err := MeasureRX(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestPredictedCopy(t *testing.T) {
	for _, page := range []int{4096, 16384, 65536} {
		alone, shared := payloads(page)
		if a, b := predictedCopy(alone+headers, page), predictedCopy(shared+headers, page); a != int64(page) || b > int64(page)/2 {
			t.Errorf("pages of %d: %d and %d bytes", page, a, b)
		}
	}
}

const procUDP = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  123: 020002C0:0035 00000000:0000 07 00000000:00000100 00:00000000 00000000     0        0 17 2 0000000000000000 0
  124: 020002C0:A1B2 00000000:0000 07 00000000:0084D000 00:00000000 00000000     0        0 18 2 0000000000000000 0
`

func TestCharged(t *testing.T) {
	if n, err := charged([]byte(procUDP), 0xa1b2); err != nil || n != 0x84d000 {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := charged([]byte(procUDP), 7); err == nil {
		t.Errorf("a socket that is not there holds %d", n)
	}
}

func FuzzRX(f *testing.F) {
	b, err := json.Marshal(madeRX())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schema": "hostcheck.bench.rx/v1", "runs": [{"packets_per_second": 1e300}]}`))
	f.Add([]byte(procUDP))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = charged(b, 0xa1b2)
		if r, err := ParseRX(b); err == nil {
			r.summarise()
			_, _ = r.Text(), r.SVG()
		}
	})
}
