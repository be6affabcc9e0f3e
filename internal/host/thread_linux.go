// SPDX-License-Identifier: Apache-2.0

package host

import "golang.org/x/sys/unix"

// threadID is that of the thread that calls.
func threadID() int { return unix.Gettid() }

// idle leaves a thread of this process only the time that nobody wants: its
// read tries again without end, and nobody waits for it any more.
func idle(thread int) {
	_ = unix.SchedSetAttr(thread, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0) // else it goes on as before
}
