// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/profile"
)

var linkFECChecks = []*check.Check{linkFEC}

const fecDoc = "https://docs.kernel.org/networking/ethtool-netlink.html"

var linkFEC = &check.Check{
	ID:       "link.fec",
	Title:    "The error correction of a link is the one that was configured",
	Severity: check.Medium,
	Doc: `Forward error correction (FEC) repairs bits that the cable or the optics lost. Both ends must use the same one, or there is no link.
Links of 25 Gb/s per lane may do without on short copper and on some optics; those of 50 Gb/s per lane and more (PAM4) make errors by
design, and their standards demand RS-FEC. Such a link without it is up, and loses packets at a rate that RDMA does not survive.

Judged are the Ethernet interfaces of the nics rules that have a link:

    fec in the nics rule       what is in use must be one of the list. A failure
    configured, without auto   what is in use must be one of these: else driver or firmware chose another. A failure
    off, at 100 Gb/s or more   a warning. The kernel does not tell here how many lanes share the speed. 100GBASE-LR4 runs without by
                               its standard: say "fec: [off]" in the nics rule of such ports

RS is Reed-Solomon (clause 91, 108 or 134; RS-FEC 528 and 544 are one word here), baser is Fire code (clause 74), llrs the short
RS code of low latency. The evidence is the kernel's answer to ethtool's query, by netlink, which kernels have since 5.13.

By hand:

    ethtool --show-fec ens1np0                  # configured, then active
    ethtool -I --show-fec ens1np0               # blocks that were corrected, and that could not be
    ethtool --set-fec ens1np0 encoding rs       # the link goes away for a moment; do the same on the switch port
    mlxlink -d 18:00.0 -c                       # raw and effective bit error rate

Leave "auto" where the two ends agree on something good. Set it by hand only where the switch port is set by hand too.

Often copied and wrong: "encoding off" for latency. RS costs about 0.1 microseconds; one lost packet costs a retransmission.`,
	Refs:     []string{fecDoc, "IEEE 802.3 clauses 74, 91, 108, 134", "net/ethtool/fec.c"},
	Requires: []string{"driver.bound", "link.carrier"},
	Run:      runFEC,
}

func runFEC(_ context.Context, r *check.Run) error {
	eachNIC(r, func(n *profile.NICRule) bool { return true }, func(w profile.NICWant) check.Finding {
		return judgeFEC(w.NIC, w.Rule.FEC)
	})
	return nil
}

// fastEnoughForFEC is the speed from which a link without error correction is
// the exception, in Mb/s.
const fastEnoughForFEC = 100_000

func judgeFEC(n *facts.NIC, rule profile.Val[[]string]) check.Finding {
	f := check.Finding{Subject: n.Subject()}
	fec := n.FEC
	switch {
	case fec == nil:
		f.Status, f.Why = notTold(n, "fec")
		return f
	case !fec.Auto && len(fec.Configured) == 0 && fec.Active == "":
		f.Status, f.Why = check.Skip, "the driver has no error correction to set"
		return f
	case n.Carrier != nil && !*n.Carrier, n.AdminUp != nil && !*n.AdminUp:
		f.Status, f.Why = check.Skip, "without a link no error correction is in use"
		return f
	case fec.Active == "" || fec.Active == "unknown":
		f.Status, f.Why = check.Unknown, "the driver does not tell which error correction is in use"
		return f
	}
	configured := slices.Clone(fec.Configured)
	if fec.Auto {
		configured = append([]string{"auto"}, configured...)
	}
	f.Status, f.Got, f.Want = check.Pass, fec.Active, strings.Join(configured, " or ")+", as configured"
	f.Evidence = []check.Evidence{{Source: host.FECKey(n.Name), Value: fmt.Sprintf("configured %s; active %s", orNone(strings.Join(configured, " ")), fec.Active)}}
	if n.SpeedMbps != nil {
		f.Evidence = append(f.Evidence, check.Evidence{Source: n.Attr("speed"), Value: fmt.Sprint(*n.SpeedMbps)})
	}
	set := func(words []string) string {
		return fmt.Sprintf("ethtool --set-fec %s encoding %s, and the same on the switch port; the link goes away for a moment", n.Name, strings.Join(words, " "))
	}
	fast := n.SpeedMbps != nil && *n.SpeedMbps >= fastEnoughForFEC
	switch {
	case rule.Set && !slices.Contains(rule.V, fec.Active):
		f.Status, f.Want, f.Source = atMostWarn(check.Fail, rule.Origin), strings.Join(rule.V, " or "), rule.Origin.String()
		f.Why = reason(rule.Origin, "the profile accepts another error correction for this link")
		f.Next = set(rule.V[:min(1, len(rule.V))])
	case rule.Set:
		f.Want, f.Source = strings.Join(rule.V, " or "), rule.Origin.String()
	case !fec.Auto && len(fec.Configured) > 0 && !slices.Contains(fec.Configured, fec.Active):
		f.Status, f.Source = check.Fail, fecDoc
		f.Why = "the link runs with another error correction than was asked for: the other end, the module or the firmware decided"
		f.Next = fmt.Sprintf("look at what the switch port is set to; then set both ends alike, or both to auto (ethtool --set-fec %s encoding auto)", n.Name)
	case fast && fec.Active == "off":
		f.Status, f.Want, f.Source = check.Warn, "an error correction at "+speed(*n.SpeedMbps), "IEEE 802.3 clauses 91 and 134"
		f.Why = "lanes of 50 Gb/s and more make bit errors by design, and nothing repairs them: packets are lost"
		f.Next = set([]string{"rs"}) + ". For optics that need none (100GBASE-LR4): fec: [off] in the nics rule"
	}
	return f
}
