// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/internal/bench"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/report"
)

func (a *app) benchRXCommand() *cobra.Command {
	var o bench.RXOptions
	var before, plot string
	c := &cobra.Command{
		Use:   "rx [IF]",
		Short: "memory of received packets and packets each second, before and after a change",
		Long: `Of an interface it looks for a while at what passes anyhow, sending and changing nothing: packets each second, and the memory that
each takes, from the page pools that the kernel lists and counts. Keep a result, change something, and set the next beside it:

    hostcheck bench rx enP30832s1 -f json -o before.json
    hostcheck tune apply rxfrag --allow link
    hostcheck bench rx enP30832s1 --before before.json --plot rx.svg

Without IF it takes the first interface whose driver's buffers hostcheck knows (mana, mlx5, mlx4). Where there is none it measures
between two network namespaces that it makes, with packets that have a page each and packets that share one, and says so: that needs root
and loads a program of XDP of two instructions into the namespace; the kernel takes both away with this process, however it ends.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			return a.benchRX(o, name, before, plot)
		},
	}
	c.Flags().SortFlags = false
	c.Flags().DurationVar(&o.Duration, "duration", 5*time.Second, "`TIME` of a run")
	c.Flags().StringVar(&before, "before", "", "an earlier result of the same interface in `FILE` (-f json), to set beside; - is standard input")
	c.Flags().StringVar(&plot, "plot", "", "write a plot (SVG) to `FILE`, whole or not at all")
	return c
}

func (a *app) benchRX(o bench.RXOptions, name, before, plot string) error {
	if !a.live() {
		return errors.New("a measurement is of the running host: it cannot be made with --root")
	}
	if before != "" {
		b, err := a.readNamed(before)
		if err != nil {
			return err
		}
		if o.Before, err = bench.ParseRX(b); err != nil {
			return fmt.Errorf("cannot use %s: %w", before, err)
		}
		if name == "" {
			name = o.Before.Interface
		}
	}
	nic, err := rxInterface(name)
	if err != nil {
		return err
	}
	o.NIC = nic
	s := a.steps()
	o.Progress = s.say
	var r *bench.RX
	n, err := a.measure(func(ctx context.Context) (err error) {
		r, err = bench.MeasureRX(ctx, o)
		return err
	})
	s.end()
	if r != nil && len(r.Runs) > 0 {
		if shown := a.showRX(r, plot); shown != nil {
			return errors.Join(err, shown)
		}
	}
	if n != 0 {
		a.say("interrupted")
		return exit(report.ExitSignal + int(n))
	}
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w; try: sudo hostcheck bench rx", err)
	}
	return err
}

// rxInterface finds the interface to look at, and what its driver's rule says;
// nil where no name is given and none has a rule.
func rxInterface(name string) (*bench.RXNIC, error) {
	h, err := host.Open("/", host.Options{})
	if err != nil {
		return nil, err
	}
	defer h.Close()
	f := facts.New(h)
	all := f.RXFrag()
	if name == "" {
		for _, n := range all.NICs {
			if n.Predicted != nil {
				return rxNIC(n), nil
			}
		}
		return nil, nil
	}
	if n := all.Of(name); n != nil {
		return rxNIC(n), nil
	}
	n := f.NICs().Named(name)
	if n == nil {
		var names []string
		for _, o := range f.NICs().List {
			names = append(names, o.Name)
		}
		return nil, unknown("interface", name, names)
	}
	x := &bench.RXNIC{Name: n.Name}
	if n.Driver != nil {
		x.Driver = *n.Driver
	}
	return x, nil
}

func rxNIC(n *facts.RXNIC) *bench.RXNIC {
	x := &bench.RXNIC{Name: n.Name, Driver: n.Driver}
	if n.Predicted != nil {
		x.PacketBytes = n.Predicted.PacketBytes
	}
	if n.Queues != nil && n.Ring != nil {
		x.Slots = *n.Queues * *n.Ring
	}
	return x
}

func (a *app) showRX(r *bench.RX, plot string) error {
	if plot != "" {
		if err := writeFile(plot, []byte(r.SVG())); err != nil {
			return fmt.Errorf("cannot write %s: %w", plot, cause(err))
		}
	}
	if a.json() {
		return a.writeJSON(r)
	}
	return a.writeText(r.Text())
}
