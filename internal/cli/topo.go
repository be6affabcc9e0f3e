// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/profile"
	"github.com/hostcheck/hostcheck/internal/report"
)

func (a *app) topoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "topo",
		Short: "where GPUs and NICs stand, and how far from each other; a picture with -f svg",
		Args:  none,
		RunE: func(*cobra.Command, []string) error {
			h, err := a.openHost()
			if err != nil {
				return err
			}
			defer h.Close()
			f := facts.New(h)
			if a.flags.format == "json" {
				doc, err := factsDocument(f, []string{"topology"})
				if err != nil {
					return err
				}
				return a.write(doc)
			}
			p, err := a.loadProfile(f)
			if err != nil {
				return err
			}
			v := report.NewTopology(f, nearEnough(p))
			if a.flags.format == formatSVG {
				return a.write([]byte(v.SVG()))
			}
			return a.writeText(a.text().Topology(v))
		},
	}
}

// nearEnough is up to which distance a GPU has its NIC at hand.
func nearEnough(p *profile.Profile) facts.Distance {
	if want := p.NUMA.GPUNICMax; want.Set {
		return facts.Distance(want.V)
	}
	return facts.PXB // up to which NCCL uses GPUDirect RDMA
}
