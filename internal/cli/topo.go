// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/internal/facts"
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
			switch a.flags.format {
			case "json":
				doc, err := factsDocument(f, []string{"topology"})
				if err != nil {
					return err
				}
				return a.write(doc)
			case formatSVG:
				return a.write([]byte(report.NewTopology(f).SVG()))
			}
			return a.writeText(a.text().Topology(report.NewTopology(f)))
		},
	}
}
