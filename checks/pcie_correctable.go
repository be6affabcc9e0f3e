// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
)

var pcieCorrectable = &check.Check{
	ID:       "pcie.correctable",
	Title:    "No PCI Express link of a NIC or GPU corrects errors right now",
	Severity: check.Medium,
	Doc: `A PCI Express link repairs bit errors by sending again. The kernel counts that (aer_dev_correctable), since the device was found: a
total of thousands may be from one bad morning. So the counts are read twice, a second apart (interval_ms of the profile's rdma, the
same two samples as for rdma.counters), and what grew between is judged. Where nothing was corrected since boot there is nothing to wait
for. "--skip pcie.correctable" spares the wait, where rdma.counters does not want it too.

PCI Express allows a link one bit error in 10^12 bits: about one in four seconds on 16 GT/s x16, one in two on 32 GT/s x16.

    RxErr, BadTLP, BadDLLP, Timeout, Rollover
                        the link itself. More than ten times of what is allowed in the interval, and more than two: a failure;
                        fewer: a warning, and worth a longer look. At 64 GT/s the link sends again by design: a warning at most
    NonFatalErr, CorrIntErr, HeaderOF
                        the device or a driver that asks for what is not there: a warning

A port counts what it received: errors of the root port are of what the card sent, those of the card of what the slot sent. Each one costs
a repetition, so bandwidth and latency; a link that has many retrains lower one day (pcie.link) or loses transactions (pcie.errors).
Where the firmware keeps the errors to itself the counts stay 0.

By hand:

    watch -d -n 10 'grep -v " 0$" /sys/bus/pci/devices/0000:18:00.0/aer_dev_correctable'
    dmesg | grep -E 'PCIe Bus Error: severity=Correct'

Then reseat card, riser and cable of the slot, look at the retimer's firmware, and try the card in another slot.

Often copied and wrong: pci=noaer, "because the log is full of them". It hides the errors that take the link down, too.`,
	Refs: []string{
		"https://docs.kernel.org/PCI/pcieaer-howto.html", "https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats",
		"PCI Express Base Specification, bit error rate of the physical layer (10^-12)",
	},
	Requires: []string{"pcie.errors"},
	Run:      runPCIeCorrectable,
}

func runPCIeCorrectable(ctx context.Context, r *check.Run) error {
	if noBus(r) {
		return nil
	}
	eachLinked(r, func(fn *facts.PCIFunction) check.Finding { return judgeCorrectable(ctx, r, fn) })
	return nil
}

func judgeCorrectable(ctx context.Context, r *check.Run, fn *facts.PCIFunction) check.Finding {
	unknown := func(why string) check.Finding { return check.Finding{Status: check.Unknown, Why: why} }
	total := r.Facts.AER().Of(fn.BDF)
	switch {
	case total == nil:
		return check.Finding{Status: check.Skip, Why: noAER}
	case total.Correctable == nil:
		return unknown(total.Unknown["correctable"])
	case len(total.Correctable) == 0:
		return check.Finding{Status: check.Pass, Got: "none since boot", Evidence: []check.Evidence{{Source: fn.Attr("aer_dev_correctable"), Value: "none"}}}
	}
	c := sampled(ctx, r).Of(facts.AERCounters(fn.BDF))
	switch {
	case c == nil:
		return unknown("its counts were not read twice")
	case c.Seconds == nil:
		return unknown("how fast they grow is not known: " + c.Unknown["seconds"])
	}
	return rateOfErrors(fn, c, errorCounts(total.Correctable))
}

// ofTheLink are the kinds of correctable error that are the link's own, in the
// words of today's kernels and of older ones (drivers/pci/pcie/aer.c).
var ofTheLink = []string{"RxErr", "BadTLP", "BadDLLP", "Rollover", "Timeout", "Receiver Error", "Bad TLP", "Bad DLLP", "RELAY_NUM Rollover", "Replay Timer Timeout"}

// bitErrorRate is what PCI Express allows a link.
const bitErrorRate = 1e-12

// allowedErrors is how many bit errors a link may have in a time. A link that is
// not known counts as the fastest without flits.
func allowedErrors(l facts.PCILink, seconds float64) float64 {
	gts, width := 32.0, 16
	if l.SpeedGTs != nil && l.Width != nil {
		gts, width = *l.SpeedGTs, *l.Width
	}
	return gts * 1e9 * float64(width) * bitErrorRate * seconds
}

func rateOfErrors(fn *facts.PCIFunction, c *facts.Counted, since string) check.Finding {
	over := " in " + seconds(*c.Seconds)
	f := check.Finding{Status: check.Pass, Want: "none, as a link makes one bit error in 10^12", Got: "none" + over + "; since boot: " + since}
	f.Evidence = []check.Evidence{{Source: c.Source(), Value: "nothing grew" + over}}
	var grew, lines []string
	var worst uint64
	for _, kind := range slices.Sorted(maps.Keys(c.Last)) {
		n, ok := c.Grown(kind)
		if !ok || n == 0 {
			continue
		}
		grew = append(grew, fmt.Sprintf("%s +%d", kind, n))
		lines = append(lines, fmt.Sprintf("%s %d to %d", kind, c.First[kind], c.Last[kind]))
		if slices.Contains(ofTheLink, kind) {
			worst = max(worst, n)
		}
	}
	if grew == nil {
		return f
	}
	f.Got = strings.Join(grew, ", ") + over
	f.Evidence = []check.Evidence{{Source: c.Source(), Value: strings.Join(lines, ", ") + over}}
	f.Status, f.Why = check.Warn, "errors are corrected right now; so few may be chance"
	f.Next = fmt.Sprintf("look longer: watch -d -n 10 cat %s; if they go on, reseat card, riser and cable", fn.Attr("aer_dev_correctable"))
	flits := fn.Link.SpeedGTs != nil && *fn.Link.SpeedGTs >= 64
	switch allowed := allowedErrors(fn.Link, *c.Seconds); {
	case worst == 0:
		f.Why = "the device corrects errors of its own, or a driver asks for what is not there; the link is not to blame"
		f.Next = "see in \"dmesg | grep -F " + fn.BDF + "\" what they are; update the device's firmware"
	case flits:
		f.Why = "at 64 GT/s a link sends again by design; compare with the other cards of the host"
	case worst > 2 && float64(worst) > 10*allowed:
		f.Status, f.Why = check.Fail, "the link sends again and again: it has more bit errors than PCI Express allows, and costs bandwidth and latency"
		f.Next = "reseat card, riser and cable of the slot, look at the retimer's firmware, try another slot"
	}
	return f
}
