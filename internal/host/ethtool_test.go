// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hostcheck/hostcheck/internal/host"
)

func TestEthtoolRecorded(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, ".hostcheck"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "sys"), 0o755); err != nil {
		t.Fatal(err)
	}
	capture := `{"schema": "hostcheck.capture/v1", "queries": {
		"ethtool eth0 drvinfo": {"answer": {"driver": "mlx5_core", "firmware": "28.43.2026 (MT_1)", "bus": "0000:9a:00.0"}},
		"ethtool eth0 privflags": {"errno": "EOPNOTSUPP"},
		"ethtool eth0 rings": {"answer": {"rx": 1024, "tx": 256, "rx_max": 8192, "tx_max": 16384}},
		"ethtool eth0 channels": {"answer": {"combined": 16, "combined_max": 64}},
		"ethtool eth0 features": {"errno": "EPERM"},
		"ethtool eth0 coalesce": {"answer": {"rx_usecs": 8, "adaptive_rx": true}},
		"ethtool eth0 pause": {"answer": "rubbish"}}}`
	if err := os.WriteFile(filepath.Join(root, host.CaptureFile), []byte(capture), 0o644); err != nil {
		t.Fatal(err)
	}
	h, err := host.Open(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()

	if d, err := h.EthtoolDriver("eth0"); err != nil || d.Firmware != "28.43.2026 (MT_1)" || d.Driver != "mlx5_core" {
		t.Errorf("drvinfo: %+v, %v", d, err)
	}
	if _, err := h.EthtoolPrivFlags("eth0"); !host.NotOffered(err) {
		t.Errorf("private flags: %v, want an operation that is not offered", err)
	}
	if r, err := h.EthtoolRings("eth0"); err != nil || r != (host.Rings{RX: 1024, TX: 256, RXMax: 8192, TXMax: 16384}) {
		t.Errorf("rings: %+v, %v", r, err)
	}
	if c, err := h.EthtoolChannels("eth0"); err != nil || c != (host.Channels{Combined: 16, CombinedMax: 64}) {
		t.Errorf("channels: %+v, %v", c, err)
	}
	if _, err := h.EthtoolFeatures("eth0"); host.NotOffered(err) || !errors.Is(err, syscall.EPERM) {
		t.Errorf("features: %v, want EPERM, which is no answer", err)
	}
	if c, err := h.EthtoolCoalesce("eth0"); err != nil || c.RXUsecs != 8 || !c.AdaptiveRX {
		t.Errorf("coalesce: %+v, %v", c, err)
	}
	if _, err := h.EthtoolPause("eth0"); err == nil {
		t.Error("an answer of the wrong shape was taken")
	}
	if _, err := h.EthtoolRings("eth1"); !errors.Is(err, host.ErrNotCaptured) {
		t.Errorf("another interface: %v, want not captured", err)
	}
}

func TestTogether(t *testing.T) {
	var n atomic.Int32
	questions := make([]func(), 100)
	for i := range questions {
		questions[i] = func() { n.Add(1) }
	}
	host.Together(questions)
	if n.Load() != 100 {
		t.Errorf("%d questions were asked, want 100", n.Load())
	}
}
