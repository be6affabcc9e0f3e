// SPDX-License-Identifier: Apache-2.0

//go:build vm

package e2e

import (
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/internal/lab"
)

// TestLab is the lab itself: exact exit codes, files in and out, a command that
// does not end, a reboot, a reset, a power cut, a power-off.
func TestLab(t *testing.T) {
	ctx := limit(t, 10*time.Minute)
	g := settled(t, ctx, lab.Options{})
	t.Log(exits(t, ctx, g, "x", 7, "uname -a; ls -R "+lab.ModulesDir+"; hostcheck; lspci -tv; exit 7"))
}
