// SPDX-License-Identifier: Apache-2.0

//go:build root

package bench

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Packets that share a page take half of one where pages are of 4K, and nothing
// is left behind.
func TestRootMeasureRX(t *testing.T) {
	before := networks(t)
	r, err := MeasureRX(t.Context(), RXOptions{Duration: MinDuration})
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
		t.Skipf("skipped: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	gone(t, before)
	if len(r.Runs) != 2 || len(r.Summary) < 3 {
		t.Fatalf("%+v", r)
	}
	for i, run := range r.Runs {
		if run.Packets == 0 || run.PacketBytes == nil || *run.PacketBytes < float64(run.Predicted)*0.9 || *run.PacketBytes > float64(run.Predicted)*1.3 {
			t.Errorf("run %d: %+v, %v bytes", i, run, run.PacketBytes)
		}
	}
	if *r.Runs[1].PacketBytes > 0.7**r.Runs[0].PacketBytes {
		t.Errorf("%.0f bytes where pages are shared, %.0f where not", *r.Runs[1].PacketBytes, *r.Runs[0].PacketBytes)
	}
}

// An interface is looked at and nothing more; lo has no page pool.
func TestRootWatchRX(t *testing.T) {
	r, err := MeasureRX(t.Context(), RXOptions{Duration: MinDuration, NIC: &RXNIC{Name: "lo"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Runs) != 1 || r.Runs[0].PacketBytes != nil || r.Runs[0].How != HowNot {
		t.Errorf("%+v", r.Runs)
	}
}
