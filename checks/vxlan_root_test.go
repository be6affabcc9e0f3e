// SPDX-License-Identifier: Apache-2.0

//go:build root

package checks_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fixture/trial"
	"github.com/hostcheck/hostcheck/internal/host"
)

const inVXLANSpace = "HOSTCHECK_TEST_VXLAN_SPACE"

// TestRootVXLAN judges real VXLAN interfaces in namespaces of its own: they
// pass, fail, and pass again when what the check says is done.
func TestRootVXLAN(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("skipped: ip (iproute2) is not installed")
	}
	if os.Getenv(inVXLANSpace) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRootVXLAN$", "-test.v")
		cmd.Env = append(os.Environ(), inVXLANSpace+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		switch {
		case strings.Contains(string(out), "--- SKIP"):
			t.Skipf("%s", out)
		case err != nil || !strings.Contains(string(out), "--- PASS: TestRootVXLAN"):
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("%s", out)
		return
	}
	for _, m := range []struct {
		kind, at string
		flags    uintptr
	}{{"none", "/", unix.MS_REC | unix.MS_PRIVATE}, {"sysfs", "/sys", 0}} {
		if err := unix.Mount(m.kind, m.at, m.kind, m.flags, ""); err != nil {
			t.Skipf("skipped: cannot mount: %v", err)
		}
	}
	ip := func(commands ...string) {
		t.Helper()
		for _, c := range commands {
			if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
				t.Fatalf("ip %s: %v: %s", c, err, out)
			}
		}
	}
	if out, err := exec.Command("ip", strings.Fields("link add hcv0 type veth peer name hcv1")...).CombinedOutput(); err != nil {
		t.Skipf("skipped: this kernel has no veth: %s", out)
	}
	if out, err := exec.Command("ip", strings.Fields("link add hcx0 type vxlan id 17 dev hcv0 group 239.1.1.1")...).CombinedOutput(); err != nil {
		t.Skipf("skipped: this kernel has no vxlan: %s", out)
	}
	is := func(id, subject string, want check.Status, says string) {
		t.Helper()
		h, err := host.Open("/", host.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		i := slices.IndexFunc(checks.All(), func(c *check.Check) bool { return c.ID == id })
		out, err := trial.Run(h, checks.All()[i:i+1], trial.Options{Profile: []string{"vxlan-overlay"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range out.Results[0].Findings {
			complete(t, &f)
			if f.Subject == subject {
				if f.Status != want || !strings.Contains(f.Got+f.Want+f.Why, says) {
					t.Errorf("%s is %s of %s, want %s and %q: %+v", id, f.Status, subject, want, says, f)
				}
				return
			}
		}
		t.Errorf("%s says nothing about %s: %+v", id, subject, out.Results[0].Findings)
	}
	is("vxlan.device", "", check.Fail, "1 down")
	is("vxlan.port", "hcx0", check.Skip, "down")
	ip("link set hcv0 up", "link set hcv1 up", "link set hcx0 up", "addr add 192.0.2.1/24 dev hcv0")
	is("vxlan.device", "", check.Pass, "1 up")
	is("vxlan.port", "hcx0", check.Fail, "8472") // made as guides have it, without dstport
	is("vxlan.mtu", "hcx0", check.Pass, "at most 1450")
	ip("link set hcv0 mtu 1400") // the kernel would refuse more of the tunnel, but does not look again here
	is("vxlan.mtu", "hcx0", check.Fail, "at most 1350")
	ip("link set hcx0 mtu 1350")
	is("vxlan.mtu", "hcx0", check.Pass, "at most 1350")
	ip("link set hcv0 mtu 1500", "link set hcx0 mtu 1450")
	ip("link set hcv0 mtu 9000", "link set hcv1 mtu 9000")
	is("vxlan.mtu", "hcx0", check.Warn, "6 times the packets")
	ip("link set hcv0 mtu 1500", "link set hcv1 mtu 1500")

	// without a lower device the kernel leaves 1500
	ip("link add hcx1 type vxlan id 18 local 192.0.2.1 remote 192.0.2.2 dstport 4789", "link set hcx1 up")
	is("vxlan.port", "hcx1", check.Pass, "4789")
	is("vxlan.mtu", "hcx1", check.Fail, "by the route to 192.0.2.2")
	is("vxlan.offload", "hcv0", check.Skip, "virtual interface")
	is("vxlan.steering", "", check.Skip, "no ConnectX-3")
	ip("link del hcx1", "link del hcx0")
	is("vxlan.mtu", "", check.Skip, "no VXLAN interface")

	if exec.Command("ip", strings.Fields("link add hcx6 type vxlan id 19 local fd00::1 remote fd00::2 dev hcv0 dstport 4789 udp6zerocsumtx")...).Run() != nil {
		t.Log("this kernel has no IPv6")
		return
	}
	ip("link set hcx6 up")
	is("vxlan.mtu", "hcx6", check.Pass, "at most 1430")
	is("vxlan.checksum", "hcx6", check.Fail, "noudp6zerocsumrx")
	ip("link del hcx6", "link add hcx6 type vxlan id 19 local fd00::1 remote fd00::2 dev hcv0 dstport 4789 udp6zerocsumtx udp6zerocsumrx", "link set hcx6 up")
	is("vxlan.checksum", "hcx6", check.Pass, "udp6zerocsumrx")
}
