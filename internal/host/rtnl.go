// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// rtnlFiles are those below /sys/class/net/IF, and in its queues, that the kernel shows only under
// its lock of all network configuration, rtnl (net/core/net-sysfs.c). Where
// another holds it, such a read does not sleep but tries again without end, at
// the cost of a CPU.
var rtnlFiles = []string{"carrier", "duplex", "phys_port_id", "phys_port_name", "phys_switch_id", "speed", "xps_cpus", "xps_rxqs"}

// rtnlNIC is the interface of a path or query that needs rtnl, else "".
func rtnlNIC(source string) string {
	if rest, ok := strings.CutPrefix(source, "/sys/class/net/"); ok {
		if nic, _, _ := strings.Cut(rest, "/"); slices.Contains(rtnlFiles, path.Base(rest)) {
			return nic
		}
		return ""
	}
	if f := strings.Fields(source); len(f) == 3 && (f[0] == "ethtool" || f[0] == "dcb") {
		return f[1]
	}
	return ""
}

// maxRTNL is how many interfaces may leave us waiting under rtnl before it is
// plain that nobody gets it. Newer kernels ask drivers under a lock of their
// own; there the other interfaces answer.
const maxRTNL = 4

// rtnl is what waits for rtnl, or has it and does not answer.
type rtnl struct {
	mu      sync.Mutex
	waiting []rtnlWait
}

type rtnlWait struct {
	source string
	since  time.Time
	left   bool // nobody waits for its answer any more
}

// begin notes a source that is being asked.
func (r *rtnl) begin(source string, since time.Time) {
	if rtnlNIC(source) == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, rtnlWait{source: source, since: since})
}

// end notes that it answered, however late.
func (r *rtnl) end(source string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = slices.DeleteFunc(r.waiting, func(w rtnlWait) bool { return w.source == source })
}

// late leaves a source behind and gives the error, which names the one that
// has waited longest: most likely that one has the lock.
func (r *rtnl) late(source string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.waiting {
		if r.waiting[i].source == source {
			r.waiting[i].left = true
		}
	}
	return r.named(source, ErrDeadline)
}

// refuses gives an error for what would not be answered either: of an
// interface that did not answer, or of any when several did not.
func (r *rtnl) refuses(source string) error {
	nic := rtnlNIC(source)
	if nic == "" {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	stuck := map[string]bool{}
	for _, w := range r.waiting {
		if w.left {
			stuck[rtnlNIC(w.source)] = true
		}
	}
	if stuck[nic] || len(stuck) >= maxRTNL {
		return r.named(source, ErrBlocked)
	}
	return nil
}

func (r *rtnl) named(source string, err error) error {
	if rtnlNIC(source) == "" || len(r.waiting) == 0 {
		return err
	}
	first := slices.MinFunc(r.waiting, func(a, b rtnlWait) int { return a.since.Compare(b.since) })
	if first.source == source {
		return err
	}
	return fmt.Errorf("%w; the first that did not was %s", err, first.source)
}
