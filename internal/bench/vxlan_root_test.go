// SPDX-License-Identifier: Apache-2.0

//go:build root

package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// networks gives the interfaces of the host and the network namespaces that
// threads of this process are in.
func networks(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("/sys/class/net/*")
	if err != nil {
		t.Fatal(err)
	}
	tasks, _ := filepath.Glob("/proc/self/task/*/ns/net")
	for _, p := range tasks {
		if ns, err := os.Readlink(p); err == nil && !slices.Contains(all, ns) {
			all = append(all, ns)
		}
	}
	return all
}

// gone waits until all is as it was: the threads end shortly after.
func gone(t *testing.T, before []string) {
	t.Helper()
	for range 100 {
		if slices.Equal(networks(t), before) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("left behind: %q, before %q", networks(t), before)
}

// Short runs have every part, and leave nothing behind.
func TestRootMeasureVXLAN(t *testing.T) {
	before := networks(t)
	var told []string
	v, err := MeasureVXLAN(t.Context(), VXLANOptions{Duration: MinDuration, Streams: 3, MTU: 1500, Progress: func(format string, _ ...any) { told = append(told, format) }})
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("skipped: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	gone(t, before)
	if len(v.Runs) != 8 || len(told) != 8 || v.InnerMTU != 1450 || len(v.Summary) < 5 {
		t.Errorf("%+v, told %d times", v, len(told))
	}
	seen := map[string]bool{}
	for i := range v.Runs {
		r := &v.Runs[i]
		seen[r.Path+r.Segmentation+streamCount(r.Streams)] = true
		if r.Bytes <= 0 || r.Gbps <= 0 || r.Seconds < MinDuration.Seconds() || len(r.Cores) == 0 || r.Bound == "" || r.CPUPerByte < 0 {
			t.Errorf("%+v", r)
		}
	}
	if len(seen) != 8 {
		t.Errorf("some runs are missing: %v", seen)
	}
}

// What is interrupted stops at once, tells what is complete, and leaves
// nothing behind either.
func TestRootInterrupted(t *testing.T) {
	before := networks(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	n := 0
	start := time.Now()
	v, err := MeasureVXLAN(ctx, VXLANOptions{Duration: time.Second, Streams: 2, MTU: 9000, Progress: func(string, ...any) {
		if n++; n == 2 {
			start = time.Now()
			cancel(why)
		}
	}})
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("skipped: %v", err)
	}
	if !errors.Is(err, why) || v == nil || len(v.Runs) != 1 || v.InnerMTU != 8950 {
		t.Errorf("%v %+v", err, v)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %v to stop", d)
	}
	gone(t, before)
}

// The tunnel is what it should be, and the host's namespace has none of it.
func TestRootTunnel(t *testing.T) {
	ends, err := makeTunnel(1500)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("skipped: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range ends {
		if err := s.do(func() error {
			b, err := os.ReadFile("/proc/thread-self/net/dev")
			if err == nil && (!strings.Contains(string(b), vethName+":") || !strings.Contains(string(b), vxlanName+":")) {
				err = errors.New("it has " + string(b))
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		s.close()
	}
	b, err := os.ReadFile("/proc/self/net/dev")
	if err != nil || strings.Contains(string(b), vethName) {
		t.Errorf("the host has %s, %v", b, err)
	}
}
