// SPDX-License-Identifier: Apache-2.0

//go:build root

package host

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

const inNamespace = "HOSTCHECK_TEST_IN_NETNS"

// TestRootDCB asks real devices for their data center bridging and compares
// with dcb(8) of iproute2: the devices of this machine, and veth, dummy and
// bridge devices in a network namespace of the test's own.
func TestRootDCB(t *testing.T) {
	for _, tool := range []string{"ip", "dcb"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("skipped: %s (iproute2) is not installed", tool)
		}
	}
	if os.Getenv(inNamespace) != "" {
		for _, args := range []string{"link add hcveth0 type veth peer name hcveth1", "link add hcdummy0 type dummy", "link add hcbr0 type bridge"} {
			if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
				t.Logf("ip %s: %v: %s", args, err, out) // a kernel need not have every kind
			}
		}
	}
	out, err := exec.Command("ip", "-j", "link", "show").Output()
	if err != nil {
		t.Fatal(err)
	}
	var links []struct{ Ifname string }
	if err := json.Unmarshal(out, &links); err != nil {
		t.Fatal(err)
	}
	for _, l := range append(links, struct{ Ifname string }{"hcnone0"}) {
		t.Run(l.Ifname, func(t *testing.T) { compareWithDCB(t, l.Ifname) })
	}
	if os.Getenv(inNamespace) == "" {
		t.Run("in a namespace", again)
	}
}

// again runs the test once more in a new network namespace, which ends with it.
func again(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: making a network namespace needs root")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRootDCB$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("skipped: cannot make a network namespace: %v", err)
	}
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "--- PASS: TestRootDCB/hcveth0") && !strings.Contains(string(out), "--- PASS: TestRootDCB/hcdummy0") {
		t.Error("no device of our own was compared")
	}
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
