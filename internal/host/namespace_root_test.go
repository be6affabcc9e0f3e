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

// inNamespace is set in the environment of a test that runs once more in a
// network namespace of its own.
const inNamespace = "HOSTCHECK_TEST_IN_NETNS"

// needs skips the test where a tool that it compares with is missing.
func needs(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("skipped: %s is not installed", tool)
		}
	}
}

// eachInterface runs compare for each interface of this machine and for one
// that does not exist; then does the same again in a network namespace that
// ends with the test, for veth, dummy and bridge devices made there.
func eachInterface(t *testing.T, compare func(*testing.T, string)) {
	t.Helper()
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
		t.Run(l.Ifname, func(t *testing.T) { compare(t, l.Ifname) })
	}
	if os.Getenv(inNamespace) == "" {
		t.Run("in a namespace", again)
	}
}

// again runs the test above it once more in a new network namespace.
func again(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: making a network namespace needs root")
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$", "-test.v")
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
	if !strings.Contains(string(out), "--- PASS: "+name+"/hcveth0") && !strings.Contains(string(out), "--- PASS: "+name+"/hcdummy0") {
		t.Error("no device of our own was compared")
	}
}
