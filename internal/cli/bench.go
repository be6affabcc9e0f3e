// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/internal/bench"
	"github.com/hostcheck/hostcheck/internal/report"
)

func (a *app) benchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "measure what no file tells; leaves nothing behind",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("bench measures one thing; name it: hostcheck bench vxlan, rx or migration")
		},
	}
	c.AddCommand(a.benchVXLANCommand(), a.benchRXCommand(), a.benchMigrationCommand(), a.benchWorkerCommand())
	return c
}

func (a *app) benchVXLANCommand() *cobra.Command {
	var o bench.VXLANOptions
	var plot string
	c := &cobra.Command{
		Use:   "vxlan",
		Short: "what VXLAN costs TCP on this host, and which CPU pays",
		Long: `Measures TCP between two network namespaces that it makes, over a pair of veth interfaces and in a VXLAN tunnel over the same
pair: one stream and several, with large packets passed on whole and with packets that the CPU cuts and joins, as it must
where a NIC has no offloads for tunnels. Shows throughput, CPU time for each byte, softirq of each CPU, and what bounds it.

Needs root. No interface of the host is touched, and no file is written but that of --plot. The namespaces have no name: the
kernel takes them away with this process, however it ends. The kernel loads its modules veth and vxlan where it has not yet.
It measures the kernel's work, not a NIC or a network, and whatever else runs on the host meanwhile counts in.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.benchVXLAN(o, plot) },
	}
	c.Flags().SortFlags = false
	c.Flags().DurationVar(&o.Duration, "duration", 3*time.Second, "`TIME` of each of the 8 runs")
	c.Flags().IntVar(&o.Streams, "streams", 4, "`N` TCP connections at a time in the runs with several")
	c.Flags().IntVar(&o.MTU, "mtu", 1500, "MTU of the underlay in `BYTES`")
	c.Flags().StringVar(&plot, "plot", "", "write a plot (SVG) to `FILE`, whole or not at all")
	return c
}

func (a *app) benchVXLAN(o bench.VXLANOptions, plot string) error {
	if !a.live() {
		return errors.New("a measurement is of the running host: it cannot be made with --root")
	}
	s := a.steps()
	o.Progress = s.say
	var v *bench.VXLAN
	n, err := a.measure(func(ctx context.Context) (err error) {
		v, err = bench.MeasureVXLAN(ctx, o)
		return err
	})
	s.end()
	if v != nil && len(v.Runs) > 0 {
		if shown := a.showVXLAN(v, plot); shown != nil {
			return errors.Join(err, shown)
		}
	}
	if n != 0 {
		a.say("interrupted after %d of 8 runs", runs(v))
		return exit(report.ExitSignal + int(n))
	}
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w; try: sudo hostcheck bench vxlan", err)
	}
	return err
}

// measure runs a measurement that a signal ends; the runs that are complete are
// shown then. n is the signal, 0 for none.
func (a *app) measure(work func(context.Context) error) (n syscall.Signal, err error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signalled := make(chan syscall.Signal, 1)
	onSignal := func(n syscall.Signal) {
		signalled <- n
		cancel(errors.New("interrupted"))
	}
	a.onSignal.Store(&onSignal)
	err = work(ctx)
	a.onSignal.Store(nil)
	select {
	case n = <-signalled:
	default:
	}
	return n, err
}

func runs(v *bench.VXLAN) int {
	if v == nil {
		return 0
	}
	return len(v.Runs)
}

func (a *app) showVXLAN(v *bench.VXLAN, plot string) error {
	if plot != "" {
		if err := writeFile(plot, []byte(v.SVG())); err != nil {
			return fmt.Errorf("cannot write %s: %w", plot, cause(err))
		}
	}
	if a.json() {
		return a.writeJSON(v)
	}
	return a.writeText(v.Text())
}
