// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// sosPlugins are those of sos that collect what hostcheck looks at.
const sosPlugins = "kernel,networking,pci,hardware,memory,infiniband"

// sos compares a bundle of this machine with a sosreport of it: what somebody
// waits for and sends when support asks for the facts of a host.
func (b *bench) sos() error {
	fmt.Fprintf(b.out, "\nfacts of this machine in a file\thostcheck bundle create\tsos report -o %s\ttimes\tgoal\n", sosPlugins)
	sos, err := exec.LookPath("sos")
	switch {
	case err != nil:
		fmt.Fprintln(b.out, "not compared: sos is not installed (Debian package sosreport)")
		return nil
	case os.Geteuid() != 0:
		fmt.Fprintln(b.out, "not compared: sos needs root")
		return nil
	}
	var fast, slow costs
	var small, large int64
	for range max(1, b.rounds/7) { // it takes its time
		dir, err := os.MkdirTemp("", "hostcheck-bench-sos-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		bundle := filepath.Join(dir, "bundle.tar.gz")
		f, err := b.spawn([]string{b.hostcheck, "bundle", "create", "-o", bundle})
		if err != nil {
			return err
		}
		s, err := b.spawn([]string{sos, "report", "--batch", "--quiet", "--tmp-dir", dir, "-o", sosPlugins})
		if err != nil {
			fmt.Fprintf(b.out, "not compared: %v\n", err)
			return nil
		}
		made, err := filepath.Glob(filepath.Join(dir, "sosreport-*.tar.?z"))
		if err != nil || len(made) != 1 {
			fmt.Fprintf(b.out, "not compared: sos made %v\n", made)
			return nil
		}
		if small, err = size(bundle); err == nil {
			large, err = size(made[0])
		}
		if err != nil {
			return err
		}
		fast, slow = append(fast, f.cost), append(slow, s.cost)
	}
	f, s := fast.median(), slow.median()
	fmt.Fprintf(b.out, "  time\t%s\t%s\t%.1f\t≥ 10\n  CPU\t%s\t%s\t%.1f\n", ms(f.Wall), ms(s.Wall), float64(s.Wall)/float64(f.Wall), ms(f.CPU), ms(s.CPU), float64(s.CPU)/float64(f.CPU))
	fmt.Fprintf(b.out, "  size\t%d KiB\t%d KiB\t%.1f\t> 1\n", small>>10, large>>10, float64(large)/float64(small))
	return nil
}

func size(name string) (int64, error) {
	st, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
