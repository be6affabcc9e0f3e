// SPDX-License-Identifier: Apache-2.0

//go:build root

package host

import (
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestRootDCB asks real devices for their data center bridging and compares
// with dcb(8) of iproute2.
func TestRootDCB(t *testing.T) {
	needs(t, "ip", "dcb")
	eachInterface(t, compareWithDCB)
}

func compareWithDCB(t *testing.T, ifname string) {
	got, err := askDCB(ifname)
	tool, toolErr := exec.Command("dcb", "-j", "pfc", "show", "dev", ifname).CombinedOutput()
	text := string(tool)
	switch {
	case errors.Is(err, syscall.EOPNOTSUPP):
		if toolErr == nil || !strings.Contains(text, "not supported") {
			t.Errorf("we were told %v, dcb: %v %s", err, toolErr, text)
		}
	case errors.Is(err, syscall.ENODEV):
		if toolErr == nil || !strings.Contains(text, "No such device") {
			t.Errorf("we were told %v, dcb: %v %s", err, toolErr, text)
		}
	case err != nil:
		t.Errorf("cannot ask for %s: %v (dcb: %s)", ifname, err, text)
	case toolErr != nil:
		if got.PFC != nil {
			t.Errorf("we were told PFC %+v, dcb: %s", *got.PFC, text)
		}
	default:
		comparePFC(t, got, tool)
		compareDCBX(t, got, ifname)
	}
}

func comparePFC(t *testing.T, got *DCB, tool []byte) {
	var pfc struct {
		Cap   uint8  `json:"pfc_cap"`
		Delay uint16 `json:"delay"`
		Prio  []bool `json:"pfc"`
	}
	if err := json.Unmarshal(tool, &pfc); err != nil {
		t.Fatalf("cannot read what dcb says: %v: %s", err, tool)
	}
	var bits uint8
	for i, on := range pfc.Prio {
		if on {
			bits |= 1 << i
		}
	}
	if got.PFC == nil || got.PFC.Enable != bits || got.PFC.Cap != pfc.Cap || got.PFC.Delay != pfc.Delay {
		t.Errorf("we were told %+v, dcb: %s", got.PFC, tool)
	}
}

func compareDCBX(t *testing.T, got *DCB, ifname string) {
	out, err := exec.Command("dcb", "dcbx", "show", "dev", ifname).Output()
	if err != nil {
		return
	}
	for word, bit := range map[string]uint8{"host": DCBXHost, "lld-managed": DCBXLLD, "cee": DCBXCEE, "ieee": DCBXIEEE, "static": DCBXStatic} {
		said := strings.Contains(" "+strings.Join(strings.Fields(string(out)), " ")+" ", " "+word+" ")
		if on := got.DCBX != nil && *got.DCBX&bit != 0; on != said {
			t.Errorf("%s: we were told %v, dcb %v", word, on, said)
		}
	}
}
