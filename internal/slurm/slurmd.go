// SPDX-License-Identifier: Apache-2.0

package slurm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Slurmd is the slurmd that started us.
type Slurmd struct {
	PID     int
	Program string        // its file, "" where that cannot be told
	Age     time.Duration // since it was started
}

// ticks is USER_HZ, in which /proc counts on every architecture that we run on.
const ticks = 100

// Parent finds the slurmd that started us, nil where none did. Slurm runs its
// health check once before slurmd registers, with the same environment as ever:
// only the age of slurmd tells that run from later ones.
func Parent() *Slurmd {
	var found *Slurmd
	now, err := uptime()
	if err != nil {
		return nil
	}
	for pid, n := os.Getppid(), 0; pid > 1 && n < 32; n++ {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			break
		}
		p, err := parseStat(b)
		if err != nil {
			break
		}
		// alternatives give the program another name, and a slurmd may have
		// forked: the oldest counts
		if p.name == "slurmd" || strings.HasPrefix(p.name, "slurmd-") {
			found = &Slurmd{PID: pid, Age: now - p.start}
			found.Program, _ = os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)) // of another user's process it cannot be read
		} else if found != nil {
			break
		}
		pid = p.parent
	}
	return found
}

// stat is what /proc/PID/stat says of a process.
type stat struct {
	name   string
	parent int
	start  time.Duration // after boot
}

// parseStat reads /proc/PID/stat (proc_pid_stat(5)): the name stands in
// parentheses and may hold any character; ppid is field 4, starttime field 22.
func parseStat(b []byte) (stat, error) {
	from, to := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if from < 0 || to < from {
		return stat{}, errors.New("not the state of a process")
	}
	fields := strings.Fields(string(b[to+1:]))
	const parent, start = 4 - 3, 22 - 3
	if len(fields) <= start {
		return stat{}, errors.New("the state of a process ends early")
	}
	ppid, err := strconv.Atoi(fields[parent])
	if err != nil {
		return stat{}, err
	}
	n, err := strconv.ParseUint(fields[start], 10, 39) // more than 170 years overflow a Duration
	if err != nil {
		return stat{}, err
	}
	return stat{string(b[from+1 : to]), ppid, time.Duration(float64(n) / ticks * float64(time.Second))}, nil
}

// uptime is the time since boot, with the time asleep.
func uptime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("cannot read the clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}
