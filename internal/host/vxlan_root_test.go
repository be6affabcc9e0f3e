// SPDX-License-Identifier: Apache-2.0

//go:build root

package host

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ipVXLAN is what "ip -d -j link show type vxlan" says.
type ipVXLAN struct {
	Ifname   string
	Ifindex  int
	Flags    []string
	MTU      int
	Linkinfo struct {
		Data struct {
			ID                             int
			Group, Group6, Remote, Remote6 string
			Local, Local6                  string
			Link                           string
			Port                           int
			External, GPE                  bool
			UDPCsum                        bool `json:"udp_csum"`
			ZeroTX6                        bool `json:"udp_zero_csum6_tx"`
			ZeroRX6                        bool `json:"udp_zero_csum6_rx"`
		} `json:"info_data"`
	}
}

// TestRootVXLAN makes VXLAN interfaces of every kind in a network namespace of
// its own, and compares what we are told with what ip(8) is.
func TestRootVXLAN(t *testing.T) {
	needs(t, "ip")
	if os.Getenv(inNamespace) == "" {
		if os.Geteuid() != 0 {
			t.Skip("skipped: making a network namespace needs root")
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestRootVXLAN$", "-test.v")
		cmd.Env = append(os.Environ(), inNamespace+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		out, err := cmd.CombinedOutput()
		switch {
		case errors.Is(err, syscall.EPERM):
			t.Skipf("skipped: cannot make a network namespace: %v", err)
		case strings.Contains(string(out), "--- SKIP"):
			t.Skipf("%s", out)
		case err != nil || !strings.Contains(string(out), "--- PASS: TestRootVXLAN"):
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("%s", out)
		return
	}
	links := func() []VXLANLink {
		t.Helper()
		h, err := Open("/", Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		l, err := h.VXLANLinks()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if l := links(); l == nil || len(l) != 0 {
		t.Fatalf("an empty namespace has %v", l)
	}
	ipRun := func(args string) error {
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		if err != nil {
			t.Logf("ip %s: %v: %s", args, err, out)
		}
		return err
	}
	if ipRun("link add hcv0 type veth peer name hcv1") != nil || ipRun("link set hcv0 up") != nil {
		t.Skip("skipped: this kernel has no veth")
	}
	if ipRun("link add hcx0 type vxlan id 17 dev hcv0 group 239.1.1.1") != nil {
		t.Skip("skipped: this kernel has no vxlan")
	}
	made := 1
	for _, args := range []string{
		"hcx1 type vxlan id 18 local 192.0.2.1 remote 192.0.2.2 dstport 4789 noudpcsum", "hcx2 type vxlan external dstport 4791",
		"hcx3 mtu 1400 type vxlan id 16777215 local fd00::1 remote fd00::2 dev hcv0 dstport 4789 udp6zerocsumtx", "hcx4 type vxlan external gpe dstport 4792",
		"hcx5 type vxlan id 20 local fd00::1 group ff05::100 dev hcv0 dstport 4789 udp6zerocsumrx",
	} {
		if ipRun("link add "+args) == nil {
			made++
		}
	}
	if made < 5 {
		t.Errorf("only %d interfaces could be made", made)
	}
	if err := ipRun("link set hcx0 up"); err != nil {
		t.Error(err)
	}
	out, err := exec.Command("ip", "-d", "-j", "link", "show", "type", "vxlan").Output()
	if err != nil {
		t.Fatal(err)
	}
	var said []ipVXLAN
	if err := json.Unmarshal(out, &said); err != nil {
		t.Fatal(err)
	}
	ours := links()
	if len(ours) != made || len(said) != made {
		t.Fatalf("%d were made, ip tells of %d, we are told of %v", made, len(said), ours)
	}
	for i, s := range said {
		l, d := ours[i], s.Linkinfo.Data
		first := func(words ...string) string {
			for _, w := range words {
				if w != "" {
					return w
				}
			}
			return "invalid IP"
		}
		got := []any{l.Name, l.Index, l.Up, l.MTU, l.VNI, l.Port, l.Lower, l.Local.String(), l.Remote.String(), l.External, l.GPE, l.Csum, l.ZeroTX6, l.ZeroRX6}
		want := []any{s.Ifname, s.Ifindex, slices.Contains(s.Flags, "UP"), s.MTU, d.ID, d.Port, d.Link, first(d.Local, d.Local6), first(d.Group, d.Group6, d.Remote, d.Remote6),
			d.External, d.GPE, d.UDPCsum, d.ZeroTX6, d.ZeroRX6}
		if !slices.Equal(got, want) {
			t.Errorf("we are told\n%v, ip\n%v", got, want)
		}
	}
	h, err := Open("/", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if tables, err := h.EthtoolTunnels("hcv0"); !errors.Is(err, syscall.EOPNOTSUPP) || tables != nil {
		t.Errorf("a veth's tunnels: %v %v", tables, err)
	}
	if _, err := h.EthtoolTunnels("hcnone0"); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("no interface: %v", err)
	}

	// moved away, its packets still leave through the namespace it came from
	other := exec.Command("sleep", "60")
	other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	pid := strconv.Itoa(other.Process.Pid)
	if err := ipRun("link set hcx0 netns " + pid); err != nil {
		t.Fatal(err)
	}
	if len(links()) != made-1 {
		t.Errorf("one went away, and these stay: %v", links())
	}
	type answer struct {
		links []VXLANLink
		err   error
	}
	there := make(chan answer)
	go func() {
		runtime.LockOSThread() // it ends with this goroutine: it is of no use in the other namespace
		fd, err := unix.Open("/proc/"+pid+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err = errors.Join(err, unix.Setns(fd, unix.CLONE_NEWNET)); err != nil {
			there <- answer{nil, err}
			return
		}
		l, err := askVXLAN()
		there <- answer{l, err}
	}()
	if a := <-there; a.err != nil || len(a.links) != 1 || !a.links[0].Elsewhere || a.links[0].Lower != "" || a.links[0].LowerID == 0 {
		t.Errorf("seen from there: %+v %v", a.links, a.err)
	}
}
