// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/bundle"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/fixture/trial"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/report"
)

// What others collected is judged as far as it carries facts. These tests make
// collections of hosts as the collectors do, and compare: of a part of a host
// no verdict may come that the whole host does not get.

func reportOf(t *testing.T, h *host.Host, opt trial.Options) *report.Report {
	t.Helper()
	judgeHost(t, h, opt)
	out, err := trial.Run(h, checks.All(), opt)
	if err != nil {
		t.Fatal(err)
	}
	return out.Report
}

// isVerdict reports whether a finding says something about the host.
func isVerdict(f *report.Finding) bool {
	return slices.Contains([]check.Status{check.Pass, check.Warn, check.Fail}, f.Status)
}

// noFalseVerdict compares the report of a part with that of the whole host, and
// gives how many verdicts the part has. Virtual functions, which no dump tells
// from others, may pass what the whole host does not ask of them.
func noFalseVerdict(t *testing.T, part, whole *report.Report, vfs ...string) int {
	t.Helper()
	shares := func(a, b string) bool {
		return a == b || slices.ContainsFunc(strings.Fields(a), func(w string) bool { return slices.Contains(strings.Fields(b), w) })
	}
	n := 0
	for i := range part.Findings {
		f := &part.Findings[i]
		if !isVerdict(f) {
			continue
		}
		n++
		if f.Status == check.Pass && slices.Contains(vfs, f.Subject) {
			continue
		}
		if !slices.ContainsFunc(whole.Findings, func(w report.Finding) bool {
			return w.Check == f.Check && w.Status == f.Status && shares(w.Subject, f.Subject)
		}) {
			t.Errorf("%s %q is %s in the part alone: got %q, why %q, evidence %v", f.Check, f.Subject, f.Status, f.Got, f.Why, f.Evidence)
		}
	}
	return n
}

// archive packs the files, directories and links of a tree that keep names
// says, in its order of names.
type archive struct {
	t   *testing.T
	buf bytes.Buffer
	w   *tar.Writer
	z   *gzip.Writer
}

func newArchive(t *testing.T) *archive {
	a := &archive{t: t}
	a.z = gzip.NewWriter(&a.buf)
	a.w = tar.NewWriter(a.z)
	return a
}

func (a *archive) add(h *tar.Header, data string) {
	a.t.Helper()
	h.Size = int64(len(data))
	if err := a.w.WriteHeader(h); err != nil {
		a.t.Fatal(err)
	}
	if _, err := a.w.Write([]byte(data)); err != nil {
		a.t.Fatal(err)
	}
}

func (a *archive) file(name, data string) {
	a.add(&tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, ModTime: time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)}, data)
}

func (a *archive) tree(root, prefix string, keep func(p string) bool) {
	a.t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil || !keep("/"+rel) {
			return err
		}
		h := &tar.Header{Name: prefix + rel, Mode: 0o644}
		switch kind := d.Type(); {
		case kind.IsDir():
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
			a.add(h, "")
		case kind&fs.ModeSymlink != 0:
			h.Typeflag = tar.TypeSymlink
			if h.Linkname, err = os.Readlink(p); err != nil {
				return err
			}
			a.add(h, "")
		case kind.IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			a.add(h, string(b))
		}
		return nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// write ends the archive and gives its file.
func (a *archive) write(name string) string {
	a.t.Helper()
	if err := a.w.Close(); err != nil {
		a.t.Fatal(err)
	}
	if err := a.z.Close(); err != nil {
		a.t.Fatal(err)
	}
	p := filepath.Join(a.t.TempDir(), name)
	if err := os.WriteFile(p, a.buf.Bytes(), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return p
}

func openForeign(t *testing.T, name, kind string) *host.Host {
	t.Helper()
	b, err := bundle.Open(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b.Kind != kind {
		t.Fatalf("%s is taken for a %s", name, b.Kind)
	}
	return b.Replay()
}

// sosKeeps is what plugins of sos copy, in the words of their globs.
var sosKeeps = regexp.MustCompile(`^/(proc/(cmdline|cpuinfo|meminfo|interrupts|modules|version|net/dev|self)$|sys/class/net/[^/]*$|sys/devices/(pci|virtual).*/net/[^/]*/(flags|device|statistics)$|` +
	`sys/devices/system/(cpu|node)/|sys/kernel/mm/|etc/(hostname|sysctl\.conf|sysctl\.d/|modprobe\.d/|default/grub$)|usr/lib/(sysctl|modprobe)\.d/|boot/grub)`)

func TestForeignSOS(t *testing.T) {
	f := fixture.Load(t, "testdata/hosts/rdma-intel.txtar")
	h, err := host.Open(f.Root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	opt := trial.Options{Intent: f.Intent}
	whole := reportOf(t, h, opt)
	const top = "sosreport-gpu-a01-2026-11-02-abcdefg/"
	a := newArchive(t)
	a.add(&tar.Header{Name: top, Mode: 0o755, Typeflag: tar.TypeDir}, "")
	a.tree(f.Root, top, sosKeeps.MatchString)
	var sysctl strings.Builder
	for _, p := range []string{"kernel/osrelease", "kernel/hostname", "net/core/rmem_max", "net/ipv4/tcp_rmem", "kernel/numa_balancing"} {
		if v, err := h.Text("/proc/sys/" + p); err == nil {
			fmt.Fprintf(&sysctl, "%s = %s\n", strings.ReplaceAll(p, "/", "."), v)
		}
	}
	a.file(top+"sos_commands/kernel/sysctl_-a", sysctl.String()+"sysctl: permission denied on key 'kernel.cad_pid'\nnet.ipv4.conf.a.b/1.rp_filter = 2\nmulti.line = a\nmulti.line = b\n")
	a.file(top+"sos_commands/kernel/uname_-a", "Linux gpu-a01 6.12.107+deb13-amd64 #1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1 (2026-10-01) x86_64 GNU/Linux\n")
	a.file(top+"sos_commands/networking/ethtool_-i_ens1np0", "driver: mlx5_core\nversion: 6.12.107+deb13-amd64\nfirmware-version: 28.43.2026 (MT_0000000838)\nexpansion-rom-version: \nbus-info: 0000:18:00.0\n")
	a.file(top+"sos_commands/networking/ethtool_-g_ens1np0", "Ring parameters for ens1np0:\nPre-set maximums:\nRX:\t\t\t8192\nRX Mini:\t\tn/a\nRX Jumbo:\t\tn/a\nTX:\t\t\t8192\nCurrent hardware settings:\nRX:\t\t\t1024\nRX Mini:\t\tn/a\nTX:\t\t\t512\n")
	a.file(top+"sos_commands/networking/ethtool_-l_ens1np0", "netlink error: Operation not supported\n")
	a.file(top+"sos_commands/date/date_--utc", "Mon Nov  2 08:00:00 UTC 2026\n")
	a.file(top+"var/log/huge", strings.Repeat("x", 1<<20))
	a.file(top+"version.txt", "sosreport: 4.8.0\n")
	name := a.write("sosreport.tar.gz")

	// unpacked, it gives the same
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-C", dir, "-xf", name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var reports []*report.Report
	for _, name := range []string{name, filepath.Join(dir, path.Clean(top))} {
		s := openForeign(t, name, bundle.KindSOS)
		if got := s.Time().Format(time.RFC3339); got != "2026-11-02T08:00:00Z" {
			t.Errorf("taken at %s", got)
		}
		r := reportOf(t, s, opt)
		reports = append(reports, r)
		if n := noFalseVerdict(t, r, whole); n < 10 {
			t.Errorf("only %d verdicts", n)
		} else {
			t.Logf("%d verdicts of %d findings", n, len(r.Findings))
		}
		if r.Host.Source != bundle.KindSOS {
			t.Errorf("the source is %q", r.Host.Source)
		}
		if v, err := s.EthtoolRings("ens1np0"); err != nil || v != (host.Rings{RX: 1024, TX: 512, RXMax: 8192, TXMax: 8192}) {
			t.Errorf("rings: %+v, %v", v, err)
		}
		if v, err := s.EthtoolDriver("ens1np0"); err != nil || v.Firmware != "28.43.2026 (MT_0000000838)" || v.Bus != "0000:18:00.0" {
			t.Errorf("driver: %+v, %v", v, err)
		}
		for p, want := range map[string]string{
			"/proc/sys/net/core/rmem_max":               "268435456",
			"/proc/sys/net/ipv4/conf/a/b.1/rp_filter":   "",
			"/proc/sys/net/ipv4/conf/a.b/1/rp_filter":   "",
			"/proc/sys/multi/line":                      "",
			"/sys/class/infiniband/mlx5_0/fw_ver":       "",
			"/etc/NetworkManager/conf.d/x.conf":         "",
			"/sys/bus/pci/devices/0000:18:00.0/vendor":  "",
			"/var/log/huge":                             "",
			"/proc/sys/kernel/osrelease":                "6.12.107+deb13-amd64",
			"/sos_commands/kernel/sysctl_-a":            "",
			"/sys/class/net/ens1np0/../ens1np0/address": "",
		} {
			got, err := s.Text(p)
			if p == "/proc/sys/net/ipv4/conf/a/b.1/rp_filter" {
				want = "2"
			}
			if got != want || want == "" && !strings.HasSuffix(fmt.Sprint(err), "not in a sosreport") {
				t.Errorf("%s: %q, %v; want %q", p, got, err, want)
			}
		}
		if _, err := s.EthtoolChannels("ens1np0"); !strings.HasSuffix(fmt.Sprint(err), "not in a sosreport") {
			t.Errorf("channels: %v", err)
		}
	}
	if a, b := reports[0], reports[1]; fmt.Sprint(a.Findings) != fmt.Sprint(b.Findings) {
		t.Error("the archive and its directory are judged differently")
	}
}

// A report that the real sos makes of this machine.
func TestForeignRealSOS(t *testing.T) {
	sos, err := exec.LookPath("sos")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("sos (Debian package sosreport) is not installed, or this is not root")
	}
	dir := t.TempDir()
	out, err := exec.Command(sos, "report", "--batch", "--quiet", "--tmp-dir", dir, "-o", "kernel,memory,pci").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(dir, "sosreport-*.tar.*z"))
	if err != nil || len(found) != 1 {
		t.Fatalf("sos made %v: %v: %s", found, err, out)
	}
	h, err := host.Open("/", host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	s := openForeign(t, found[0], bundle.KindSOS)
	part := reportOf(t, s, trial.Options{})
	n := noFalseVerdict(t, part, reportOf(t, h, trial.Options{}))
	if n < 3 {
		t.Errorf("only %d verdicts", n)
	}
	t.Logf("%d verdicts of %d findings", n, len(part.Findings))
	if d := time.Since(s.Time()); d < 0 || d > 10*time.Minute {
		t.Errorf("taken %v ago", d)
	}
	for _, p := range []string{"/proc/cmdline", "/proc/meminfo", "/proc/sys/kernel/osrelease"} {
		a, err := s.Text(p)
		if b, err2 := h.Text(p); err != nil || err2 != nil || p != "/proc/meminfo" && a != b {
			t.Errorf("%s: %q, %v; the host has %q, %v", p, a, err, b, err2)
		}
	}
}

var ghwKeeps = regexp.MustCompile(`^/(proc|sys)$|^/proc/(cpuinfo|meminfo|self)|^/sys/devices/system/(cpu/|node/|(cpu|node)$)|^/sys/(bus|bus/pci|bus/pci/devices|bus/pci/devices/[^/]*|devices)$|` +
	`^/sys/devices/pci.*/(class|device|driver|iommu_group|irq|local_cpulist|modalias|numa_node|revision|vendor)$|^/sys/devices/pci[^/]*(/[0-9a-f]{4}:[^/]*)*$`)

// foreignHosts runs a test for every base host, which has VFs as the links of
// its physical functions say.
func foreignHosts(t *testing.T, test func(t *testing.T, root string, h *host.Host, opt trial.Options, vfs []string) int) {
	t.Helper()
	paths, err := filepath.Glob("testdata/hosts/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no base hosts: %v", err)
	}
	most := 0
	for _, p := range paths {
		t.Run(filepath.Base(p), func(t *testing.T) {
			f := fixture.Load(t, p)
			h, err := host.Open(f.Root, host.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			links, err := filepath.Glob(filepath.Join(f.Root, "sys/bus/pci/devices/*/physfn"))
			if err != nil {
				t.Fatal(err)
			}
			var vfs []string
			for _, l := range links {
				vfs = append(vfs, filepath.Base(filepath.Dir(l)))
			}
			n := test(t, f.Root, h, trial.Options{Intent: f.Intent}, vfs)
			t.Logf("%d verdicts", n)
			most = max(most, n)
		})
	}
	if most < 10 {
		t.Errorf("no host gets more than %d verdicts", most)
	}
}

func TestForeignGHW(t *testing.T) {
	foreignHosts(t, func(t *testing.T, root string, h *host.Host, opt trial.Options, vfs []string) int {
		a := newArchive(t)
		a.tree(root, "", ghwKeeps.MatchString)
		s := openForeign(t, a.write("ghw.tar.gz"), bundle.KindGHW)
		if _, err := s.Read("/proc/cmdline"); !strings.HasSuffix(fmt.Sprint(err), "not in a snapshot of ghw") {
			t.Error(err)
		}
		return noFalseVerdict(t, reportOf(t, s, opt), reportOf(t, h, opt), vfs...)
	})
}

func TestForeignRDMATopo(t *testing.T) {
	foreignHosts(t, func(t *testing.T, _ string, h *host.Host, opt trial.Options, vfs []string) int {
		name := filepath.Join(t.TempDir(), "topo.json")
		if err := os.WriteFile(name, topoDump(t, h), 0o600); err != nil {
			t.Fatal(err)
		}
		s := openForeign(t, name, bundle.KindRDMATopo)
		names, err := s.List("/sys/bus/pci/devices")
		if err != nil || len(names) == 0 {
			t.Fatalf("devices: %v, %v", names, err)
		}
		for _, bdf := range names {
			for _, attr := range []string{"vendor", "class", "config", "numa_node"} {
				p := "/sys/bus/pci/devices/" + bdf + "/" + attr
				a, err := s.Read(p)
				b, err2 := h.Read(p)
				if err != nil != (err2 != nil) || !bytes.Equal(a, b) {
					t.Errorf("%s: %q, %v; the host has %q, %v", p, a, err, b, err2)
				}
			}
		}
		return noFalseVerdict(t, reportOf(t, s, opt), reportOf(t, h, opt), vfs...)
	})
}

// topoDump is what "rdma_topo dump" prints about a host.
func topoDump(t *testing.T, h *host.Host) []byte {
	t.Helper()
	names, err := h.List("/sys/bus/pci/devices")
	if err != nil {
		t.Fatal(err)
	}
	all := []map[string]any{}
	for _, bdf := range names {
		dir := "/sys/bus/pci/devices/" + bdf
		attr := func(name string) string {
			s, err := h.Text(dir + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			return strings.ToUpper(strings.TrimPrefix(s, "0x"))
		}
		class := attr("class")
		if slices.Contains([]string{"060000", "060100", "080700", "088000", "110100", "130000"}, class) {
			continue
		}
		config, _ := h.Read(dir + "/config") // some fixtures have none
		to, err := h.Link(dir)
		if err != nil {
			t.Fatal(err)
		}
		var z bytes.Buffer
		w := zlib.NewWriter(&z)
		_, _ = w.Write(config)
		_ = w.Close()
		d := map[string]any{
			"realpath": path.Join("/sys/bus/pci/devices", to), "config": base64.StdEncoding.EncodeToString(z.Bytes()),
			"modalias":    fmt.Sprintf("pci:v0000%sd0000%ssv00000000sd00000000bc%ssc%si%s", attr("vendor"), attr("device"), class[:2], class[2:4], class[4:]),
			"iommu_group": nil, "numa_node": nil, "subsystems": map[string][]string{},
		}
		if n, err := h.Int(dir + "/numa_node"); err == nil {
			d["numa_node"] = n
		}
		for _, c := range []string{"net", "infiniband"} {
			if list, err := h.List(dir + "/" + c); err == nil {
				d["subsystems"].(map[string][]string)[c] = list
			}
		}
		all = append(all, d)
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
