// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"

	"github.com/hostcheck/hostcheck/internal/host"
)

// tarOf packs headers; a regular file holds what its PAX comment says.
func tarOf(t testing.TB, hs ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		data := h.Uname
		h.Uname, h.Mode = "", 0o644
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(data))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); h.Typeflag == tar.TypeReg && err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func xzOf(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := xz.WriterConfig{BlockSize: 64 << 10, DictCap: 1 << 20}.NewWriter(&out)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

const top = "sosreport-h-1/"

func sosHead() []tar.Header {
	return []tar.Header{{Name: top, Typeflag: tar.TypeDir}, {Name: top + "sos_commands/kernel/uname_-a", Uname: "Linux h 6.1.0 #1 SMP x86_64 GNU/Linux\n"}}
}

func topoOf(config []byte, more string) []byte {
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	_, _ = w.Write(config)
	_ = w.Close()
	return fmt.Appendf(nil, `[{"realpath": "/sys/devices/pci0000:00/0000:00:01.0", "config": %q, "modalias": "pci:v000015B3d00001021sv000015B3sd00000023bc02sc00i00"%s}]`,
		base64.StdEncoding.EncodeToString(z.Bytes()), more)
}

// What is hostile or broken is refused with the reason.
func TestForeignRefused(t *testing.T) {
	sos := func(h ...tar.Header) []byte { return gzipped(t, tarOf(t, append(sosHead(), h...)...)) }
	good := sos()
	big := xzOf(t, bytes.Repeat([]byte("0123456789"), 20_000))
	dict := bytes.Clone(big)
	dict[16] = 40 // 4 GiB
	binary.LittleEndian.PutUint32(dict[12+int(dict[12])*4:], crc32.ChecksumIEEE(dict[12:12+int(dict[12])*4]))
	flipped := bytes.Clone(big)
	flipped[len(flipped)/2] ^= 0x40
	for _, tc := range []struct {
		name string
		data []byte
		want string
	}{
		{"escape", sos(tar.Header{Name: top + "../../etc/x", Uname: "x"}), "is not a clean path inside the archive"},
		{"absolute", sos(tar.Header{Name: "/etc/passwd", Uname: "x"}), "is not a clean path inside the archive"},
		{"twice", sos(tar.Header{Name: top + "etc/a", Uname: "x"}, tar.Header{Name: top + "etc/a", Uname: "y"}), "is there twice"},
		{"below a link", sos(tar.Header{Name: top + "etc/a", Typeflag: tar.TypeSymlink, Linkname: "/"}, tar.Header{Name: top + "etc/a/b", Uname: "y"}), "which is no directory"},
		{"truncated", good[:len(good)-9], "truncated"},
		{"damaged", append(bytes.Clone(good[:len(good)-8]), 1, 2, 3, 4, 5, 6, 7, 8), "damaged"},
		{"no commands", gzipped(t, tarOf(t, tar.Header{Name: "sosreport-x/etc/hostname", Uname: "x"})), "it has no sos_commands"},
		{"ghw with neither", gzipped(t, tarOf(t, tar.Header{Name: "etc/hostname", Uname: "x"})), "it has neither sys nor proc"},
		{"xz dictionary", dict, "its decoder would need 4096 MiB"},
		{"topo twice", append(append(bytes.TrimSuffix(topoOf(nil, ""), []byte("]")), ','), topoOf(nil, "")[1:]...), "0000:00:01.0 is there twice"},
		{"topo path", bytes.Replace(topoOf(nil, ""), []byte("/sys/devices/pci0000:00"), []byte("/sys/devices/../../etc"), 1), "is not one of a PCI function"},
		{"topo elsewhere", bytes.Replace(topoOf(nil, ""), []byte("/sys/devices"), []byte("/etc"), 1), "is not one of a PCI function"},
		{"topo modalias", bytes.Replace(topoOf(nil, ""), []byte("bc02"), []byte("bcxx"), 1), "its modalias"},
		{"topo config bomb", topoOf(make([]byte, 8<<20), ""), "its config has more than 4096 bytes"},
		{"topo config", bytes.Replace(topoOf(nil, ""), []byte(`"config": "`), []byte(`"config": "AAAA`), 1), "its config cannot be decoded"},
		{"topo name", topoOf(nil, `, "subsystems": {"net": ["../../../x"]}`), "is no name of class net"},
		{"topo cut", bytes.TrimSuffix(topoOf(nil, ""), []byte("]")), "truncated after device 1"},
		{"topo of what", []byte(`[{"a": 1}]`), `its realpath "" is not one`},
		{"topo empty", []byte("[]"), "without a device"},
		{"topo types", []byte(`[{"realpath": 7}]`), "cannot decode device 1"},
		{"something else", []byte("hello"), "it is no bundle"},
	} {
		b, err := open("-", bytes.NewReader(tc.data))
		if tc.name == "xz dictionary" { // told from its first entry otherwise
			_, err = readSOS(bytes.NewReader(tc.data))
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, %v; want %q", tc.name, b, err, tc.want)
		}
	}
	if r, err := newXZ(bytes.NewReader(flipped)); err != nil {
		t.Error(err)
	} else if _, err := io.ReadAll(r); err == nil || !strings.Contains(err.Error(), "damaged") && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a flipped bit: %v", err)
	}
	if r, err := newXZ(bytes.NewReader(big[:len(big)/2])); err != nil {
		t.Error(err)
	} else if _, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a file: %v", err)
	}
}

// What is odd and does no harm is passed over: nothing of it is a fact.
func TestForeignPassedOver(t *testing.T) {
	data := tarOf(t, append(sosHead(),
		tar.Header{Name: top + "etc/loop", Typeflag: tar.TypeSymlink, Linkname: "loop"},
		tar.Header{Name: top + "etc/out", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../etc/passwd"},
		tar.Header{Name: top + "etc/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		tar.Header{Name: top + "etc/fifo", Typeflag: tar.TypeFifo},
		tar.Header{Name: top + "etc/hard", Typeflag: tar.TypeLink, Linkname: top + "etc/x.d/a"},
		tar.Header{Name: top + "etc/large", Uname: strings.Repeat("x", host.MaxFile+1)},
		tar.Header{Name: "elsewhere/etc/hostname", Uname: "x"},
		tar.Header{Name: top + "etc/x.d/a", Uname: "a"},
		tar.Header{Name: top + "sys/module/m/parameters/p", Uname: "1"},
		tar.Header{Name: top + "var/log/messages", Uname: "secret"},
	)...)
	for name, packed := range map[string][]byte{"plain": data, "gzip": gzipped(t, data), "xz": xzOf(t, data)} {
		b, err := open("-", bytes.NewReader(packed))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		h := b.Replay()
		for _, p := range []string{"/etc/loop", "/etc/out", "/etc/null", "/etc/fifo", "/etc/hard", "/etc/large", "/etc/hostname", "/var/log/messages", "/etc/passwd"} {
			if s, err := h.Read(p); err == nil {
				t.Errorf("%s: %s: %.20q", name, p, s)
			}
		}
		if s, err := h.Text("/etc/x.d/a"); s != "a" {
			t.Errorf("%s: a file: %q, %v", name, s, err)
		}
		if l, err := h.List("/etc/x.d"); len(l) != 1 {
			t.Errorf("%s: a directory that sos takes whole: %v, %v", name, l, err)
		}
		if l, err := h.List("/sys/module"); !errors.Is(err, host.ErrNotCaptured) {
			t.Errorf("%s: one that it does not: %v, %v", name, l, err)
		}
		if h.Lacks(&host.Error{Op: "read", Path: "/sys/module/m/version", Err: os.ErrNotExist}) {
			t.Errorf("%s: a sosreport proves an absence", name)
		}
	}
}

// An unpacked one is read inside its directory only, and never hangs.
func TestForeignDirectory(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, d := range []string{"sos_commands/kernel", "etc", "proc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(outside, filepath.Join(dir, "etc/hostname")), os.Symlink(filepath.Dir(outside), filepath.Join(dir, "sys")),
		os.WriteFile(filepath.Join(dir, "proc/cmdline"), []byte("quiet\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	b, err := open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := b.Replay()
	if s, err := h.Text("/proc/cmdline"); s != "quiet" {
		t.Errorf("%q, %v", s, err)
	}
	for _, p := range []string{"/etc/hostname", "/sys/outside"} {
		if s, err := h.Text(p); err == nil {
			t.Errorf("%s: %q", p, s)
		}
	}
	if _, err := open(t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "it is a directory") {
		t.Error(err)
	}
}

func FuzzForeign(f *testing.F) {
	f.Add(tarOf(f, sosHead()...))
	f.Add(gzipped(f, tarOf(f, tar.Header{Name: "sys/bus/pci/devices/a", Typeflag: tar.TypeSymlink, Linkname: "b"}, tar.Header{Name: "proc/cpuinfo", Uname: "x"})))
	f.Add(xzOf(f, tarOf(f, sosHead()...)))
	f.Add(topoOf([]byte("abc"), `, "numa_node": 1, "iommu_group": 3, "subsystems": {"net": ["eth0"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, read := range []func(io.Reader) (*Bundle, error){readSOS, readGHW, readRDMATopo} {
			b, err := read(bytes.NewReader(data))
			if err != nil {
				if err.Error() == "" {
					t.Error("an error without a word")
				}
				continue
			}
			h := b.Replay()
			for p := range b.Host.Files {
				if !strings.HasPrefix(p, "/") {
					t.Errorf("a file at %q", p)
				}
				_, _ = h.Read(p)
			}
			for p := range b.Host.Links {
				_, _ = h.Read(p)
				_, _ = h.List(p)
			}
		}
	})
}

// What commands printed becomes answers of the kernel only where it is plain.
func FuzzForeignOutputs(f *testing.F) {
	f.Add("net.core.rmem_max = 1\nnet.ipv4.conf.a/1.x = 2\n", "Ring parameters for eth0:\nPre-set maximums:\nRX: 8\nTX: n/a\nCurrent hardware settings:\nRX:\t4\nTX: 2\n", "Linux h 6.1 #1 SMP x86_64 GNU/Linux")
	f.Fuzz(func(t *testing.T, sysctl, ring, uname string) {
		c := newForeign("a sosreport")
		c.sysctl(sysctl)
		c.uname(uname)
		for _, name := range []string{"ethtool_-i_eth0", "ethtool_-g_eth0", "ethtool_-l_eth0"} {
			c.ethtool(name, ring)
		}
		for p := range c.snap.Files {
			if p != filepath.Clean(p) || !strings.HasPrefix(p, "/proc/sys/") {
				t.Errorf("a file at %q", p)
			}
		}
		h := host.Replay(c.snap, KindSOS)
		_, _ = h.EthtoolRings("eth0")
		_, _ = h.Uname()
	})
}
