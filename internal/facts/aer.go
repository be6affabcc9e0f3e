// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// AERCounts is what one function's Advanced Error Reporting counted since the
// device was found (Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats).
type AERCounts struct {
	BDF         string           `json:"bdf"`
	Fatal       map[string]int64 `json:"fatal"`       // kinds of error that occurred; {} is none at all
	NonFatal    map[string]int64 `json:"nonfatal"`    // likewise
	Correctable map[string]int64 `json:"correctable"` // likewise
	Unknown     Unknown          `json:"unknown,omitempty"`
}

// AERStats is the counts of all functions that have them, by address.
type AERStats struct {
	List []*AERCounts
	Why  string // why List is nil
}

// MarshalJSON writes the list, null when the bus could not be read.
func (a *AERStats) MarshalJSON() ([]byte, error) { return json.Marshal(a.List) }

// Of gives the counts of a function; nil when it has none: without the
// capability, or with a kernel that does not count.
func (a *AERStats) Of(bdf string) *AERCounts {
	for _, c := range a.List {
		if c.BDF == bdf {
			return c
		}
	}
	return nil
}

// AER gives the error counts of bridges, network controllers, GPUs and NVMe
// drives, without VFs.
func (f *Facts) AER() *AERStats { return f.aer.get(f, decodeAER) }

var aerFiles = []string{"aer_dev_fatal", "aer_dev_nonfatal", "aer_dev_correctable"}

func decodeAER(f *Facts) *AERStats {
	h, bus := f.host, f.PCI()
	if bus.Functions == nil {
		return &AERStats{Why: bus.Why}
	}
	a := &AERStats{List: []*AERCounts{}}
	var ops []host.Op
	var fns []*PCIFunction
	for _, fn := range bus.Functions {
		if fn.wanted(false) == nil || fn.VF() {
			continue
		}
		fns = append(fns, fn)
		for _, name := range aerFiles {
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: fn.Attr(name)})
		}
	}
	h.Prefetch(ops)
	for _, fn := range fns {
		if c := fn.readAER(h); c != nil {
			a.List = append(a.List, c)
		}
	}
	return a
}

func (fn *PCIFunction) readAER(h *host.Host) *AERCounts {
	c := &AERCounts{BDF: fn.BDF}
	into := []*map[string]int64{&c.Fatal, &c.NonFatal, &c.Correctable}
	there := false
	for i, name := range aerFiles {
		field := strings.TrimPrefix(name, "aer_dev_")
		text, err := h.Text(fn.Attr(name))
		if kernelLacks(h, err) {
			c.Unknown.say(field, fn.Attr(name)+": absent")
			continue
		}
		there = true
		if err != nil {
			c.Unknown.say(field, whyNot(h, err))
			continue
		}
		if *into[i], err = parseAER(text); err != nil {
			c.Unknown.say(field, fmt.Sprintf("%s: %v", fn.Attr(name), err))
		}
	}
	if !there {
		return nil
	}
	return c
}

// parseAER keeps the kinds that occurred.
func parseAER(text string) (map[string]int64, error) {
	all, err := aerCounters(text)
	if err != nil {
		return nil, err
	}
	counts := map[string]int64{}
	for name, n := range all {
		if n > 0 {
			counts[name] = int64(n)
		}
	}
	return counts, nil
}

// aerCounters reads lines of a name and a number: "Data Link Protocol 0", of older
// kernels "DLP 0". The sum in the last line, TOTAL_ERR_FATAL, is left out.
func aerCounters(text string) (map[string]uint64, error) {
	counts, lines := map[string]uint64{}, 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		if at <= 0 {
			return nil, fmt.Errorf("%.40q is no error and its count", line)
		}
		n, err := strconv.ParseInt(line[at+1:], 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%.40q is no error and its count", line)
		}
		lines++
		if name := strings.TrimSpace(line[:at]); !strings.HasPrefix(name, "TOTAL_ERR_") {
			counts[name] = uint64(n)
		}
	}
	if lines == 0 {
		return nil, fmt.Errorf("holds no counts")
	}
	return counts, nil
}

// AERCounters is the object of a function's correctable errors.
func AERCounters(bdf string) string { return "aer " + bdf }
