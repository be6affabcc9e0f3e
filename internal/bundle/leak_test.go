// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/fixture/trial"
	"github.com/hostcheck/hostcheck/internal/host"
)

// A canary is something that must not be in a redacted bundle, in any spelling.
type canary struct{ what, text string }

const (
	canaryMAC    = "a4:bb:6d:c1:7e:39"
	canaryHost   = "kestrel-gpu17"
	canaryDomain = "dc4.wrenfield-labs.com"
	canaryUser   = "mfeatherstone"
	canarySecret = "Zq9vXt-hunter2-sesame"
	canarySerial = "CN7792QZ81X0443"
	canaryUUID   = "5d2f0c1e-93ab-4e77-b1c8-0f6a2d9e4c35"
	canaryID     = "i-0c41f7be92d35a608"
	canaryIP     = "10.73.218.41"
	canaryPublic = "203.0.177.92"
	canaryIP6    = "2001:db8:7a31:c4::d09:51e7:6b2a"
	canaryGUID   = "a4bb:6d03:00c1:7e39" // as mlx5 makes it of the MAC
)

func lan(ip string) []byte { a := netip.MustParseAddr(ip); return a.AsSlice() }

// spellings are all forms in which a canary can stand somewhere.
func spellings() []canary {
	mac := strings.ReplaceAll(canaryMAC, ":", "")
	eui := "a6bb:6dff:fec1:7e39" // RFC 4291
	little := lan(canaryIP)
	slices.Reverse(little)
	v6 := lan(canaryIP6)
	var out []canary
	add := func(what string, forms ...string) {
		for _, f := range forms {
			out = append(out, canary{what, f})
		}
	}
	add("MAC", canaryMAC, strings.ReplaceAll(canaryMAC, ":", "-"), mac, strings.ReplaceAll(eui, ":", ""), eui, strings.ReplaceAll(canaryGUID, ":", ""), canaryGUID, strings.ReplaceAll(canaryMAC, ":", `\x3a`))
	add("host", canaryHost, strings.ReplaceAll(canaryHost, "-", "--"), strings.ReplaceAll(canaryHost, "-", `\x2d`), strings.ReplaceAll(canaryHost, "-", "_"))
	add("domain", canaryDomain, "wrenfield")
	add("user", canaryUser)
	add("secret", canarySecret)
	add("serial", canarySerial)
	add("UUID", canaryUUID, strings.ReplaceAll(canaryUUID, "-", ""), strings.ReplaceAll(canaryUUID, "-", `\x2d`))
	add("cloud id", canaryID)
	add("IP", canaryIP, strings.ReplaceAll(canaryIP, ".", "-"), hex.EncodeToString(little), hex.EncodeToString(lan(canaryIP)), canaryPublic, canaryIP6, hex.EncodeToString(v6), netip.MustParseAddr(canaryIP6).StringExpanded())
	for _, c := range slices.Clone(out) {
		add(c.what+" in base64", base64.StdEncoding.EncodeToString([]byte(c.text)))
		wide := make([]byte, 0, 2*len(c.text))
		for _, u := range utf16.Encode([]rune(c.text)) {
			wide = binary.LittleEndian.AppendUint16(wide, u)
		}
		add(c.what+" in UTF-16", string(wide))
	}
	raw, _ := hex.DecodeString(mac)
	back := slices.Clone(raw)
	slices.Reverse(back)
	add("MAC as bytes", string(raw), string(back))
	return out
}

// seed puts every canary into everything of a snapshot that can hold one, in the
// forms in which it can. It gives how many sources there are.
func seed(t *testing.T, s *host.Snapshot) int {
	t.Helper()
	n := 0
	put := func(p, text string) { s.Files[p] = []byte(text); n++ }
	put("/proc/sys/kernel/hostname", canaryHost+"\n")
	put("/etc/hostname", canaryHost+"."+canaryDomain+"\n")
	put("/etc/hosts", canaryIP+" "+canaryHost+"."+canaryDomain+" "+canaryHost+"\n")
	put("/etc/machine-id", strings.ReplaceAll(canaryUUID, "-", "")+"\n")
	put("/sys/class/dmi/id/product_serial", canarySerial+"\n")
	put("/sys/class/dmi/id/product_uuid", strings.ToUpper(canaryUUID)+"\n")
	put("/sys/class/dmi/id/chassis_asset_tag", canarySerial+"\n")
	put("/etc/security/limits.d/90-x.conf", canaryUser+" soft memlock unlimited\n@"+canaryUser+" - nofile 1\n")
	put("/proc/net/arp", "IP address HW type Flags HW address Mask Device\n"+canaryIP+" 0x1 0x2 "+canaryMAC+" * eth0\n")
	little := lan(canaryIP)
	slices.Reverse(little)
	put("/proc/net/route", "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t"+strings.ToUpper(hex.EncodeToString(little))+"\t0003\t0\t0\t0\t00000000\n")
	put("/proc/net/ipv6_route", hex.EncodeToString(lan(canaryIP6))+" 80 "+strings.Repeat("0", 32)+" 00 "+strings.Repeat("0", 32)+" 00000100 00000001 00000000 00000001 eth0\n")
	put("/proc/net/tcp", "  sl  local_address rem_address\n   0: "+strings.ToUpper(hex.EncodeToString(little))+":0016 0100007F:8AE0 01 00000000:00000000\n")
	put("/sys/class/infiniband/mlx5_7/node_guid", canaryGUID+"\n")
	put("/sys/class/infiniband/mlx5_7/node_desc", canaryHost+" mlx5_7\n")
	put("/sys/class/infiniband/mlx5_7/ports/1/gids/0", "fe80:0000:0000:0000:a6bb:6dff:fec1:7e39\n")
	put("/sys/class/infiniband/mlx5_7/ports/1/gids/3", "0000:0000:0000:0000:0000:ffff:0a49:da29\n")
	put("/sys/class/infiniband/mlx5_7/ports/1/gids/4", netip.MustParseAddr(canaryIP6).StringExpanded()+"\n")
	put("/sys/class/net/ib9/address", "80:00:00:48:fe:80:00:00:00:00:00:00:a4:bb:6d:03:00:c1:7e:39\n")
	put("/sys/class/net/enx"+strings.ReplaceAll(canaryMAC, ":", "")+"/address", canaryMAC+"\n")
	put("/sys/class/net/eth9/phys_switch_id", strings.ReplaceAll(canaryMAC, ":", "")+"\n")
	put("/boot/loader/entries/"+strings.ReplaceAll(canaryUUID, "-", "")+"-6.1.0.conf", "options root=UUID="+canaryUUID+" systemd.machine_id="+strings.ReplaceAll(canaryUUID, "-", "")+"\n")
	wide := []byte{6, 0, 0, 0}
	for _, u := range utf16.Encode([]rune(strings.ReplaceAll(canaryUUID, "-", "") + "-6.1.0.conf\x00")) {
		wide = binary.LittleEndian.AppendUint16(wide, u)
	}
	put("/sys/firmware/efi/efivars/LoaderEntrySelected-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", string(wide))
	config := make([]byte, 4096)
	raw, _ := hex.DecodeString(strings.ReplaceAll(canaryMAC, ":", ""))
	copy(config[0x100:], []byte{3, 0, 1, 0})
	copy(config[0x104:], slices.Concat(reversed(raw[3:]), []byte{0xff, 0xfe}, reversed(raw[:3])))
	put("/sys/bus/pci/devices/0000:ff:00.0/config", string(config))
	s.Links["/dev/disk/by-uuid/"+canaryUUID] = "../../sda1"
	s.Links["/etc/systemd/system/"+strings.ReplaceAll(canaryUUID, "-", `\x2d`)+".swap"] = "/home/" + canaryUser + "/unit"
	n += 2

	// what anything that a person or a tool wrote may hold
	everything := strings.Join([]string{
		"mac=" + canaryMAC, strings.ToUpper(canaryMAC), strings.ReplaceAll(canaryMAC, ":", "-"), "ip=" + canaryIP + "::" + canaryIP + ":255.255.255.0:" + canaryHost,
		canaryPublic + "/24", "[" + canaryIP6 + "]:6443", canaryHost + "." + canaryDomain, "ip-" + strings.ReplaceAll(canaryIP, ".", "-"),
		"password=" + canarySecret, "rd.luks.key=" + canarySecret, "--token=" + canarySecret, "--bootstrap-token " + canarySecret, `api_key: "` + canarySecret + `"`,
		"https://" + canaryUser + ":" + canarySecret + "@" + canaryHost + "." + canaryDomain + "/x", canaryUser + "@" + canaryDomain, "/home/" + canaryUser + "/x",
		"UUID=" + canaryUUID, "/dev/disk/by-uuid/" + canaryUUID, "/dev/mapper/" + strings.ReplaceAll(canaryHost, "-", "--") + "-root", "serial=" + canarySerial, canaryID,
		"node " + canaryGUID, strings.ReplaceAll(canaryMAC, ":", ""),
	}, " ")
	for p, data := range s.Files {
		writable := strings.HasPrefix(p, "/etc/") && p != "/etc/hostname" && p != "/etc/hosts" && !strings.HasPrefix(p, "/etc/security/") && p != "/etc/machine-id" ||
			strings.HasPrefix(p, "/boot/grub/") || p == "/proc/cmdline" || strings.HasPrefix(p, "/proc/") && strings.HasSuffix(p, "/mounts")
		if writable {
			s.Files[p] = []byte(string(data) + "\n" + everything + "\n")
			n++
		}
	}
	s.Files["/proc/4242/cmdline"] = []byte("/usr/bin/kubelet\x00--token\x00" + canarySecret + "\x00--hostname-override=" + canaryHost + "\x00")
	s.Exact.Failed[host.Name("read /home/"+canaryUser+"/x")] = host.Failure{Error: "cannot read /home/" + canaryUser + " on " + canaryHost}
	s.Exact.Notes[host.Name("trusted /home/"+canaryUser)] = host.Note{Fail: &host.Failure{Error: "others may write to /home/" + canaryUser}}
	s.Exact.Again["read /proc/4242/environ"] = host.Repeated{Data: []byte("SECRET=" + canarySecret + "\x00HOST=" + canaryHost)}
	s.Exact.Lists["/home"] = host.Listing{Names: []host.Name{canaryUser}}
	answer, _ := json.Marshal(host.Recorded{Answer: json.RawMessage(`{"address":"` + canaryMAC + `","lines":["` + canaryIP + ` ` + canaryHost + `"],"` + canaryIP6 + `":1}`)})
	s.Queries["ethtool enx"+strings.ReplaceAll(canaryMAC, ":", "")+" permaddr"] = answer
	return n + 6
}

func reversed(b []byte) []byte { c := slices.Clone(b); slices.Reverse(c); return c }

// unpacked gives every byte of a bundle: names, links, contents, and EFI
// variables and base64 decoded.
func unpacked(t *testing.T, file []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	for in := tar.NewReader(bytes.NewReader(all)); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(append(all, '\n'), h.Name+"\n"+h.Linkname...)
	}
}

func TestLeaks(t *testing.T) {
	paths := []string{"../../testdata/hosts/rdma-intel-sick.txtar", "../../testdata/hosts/azure-mana-x86.txtar"}
	forms := spellings()
	sources := 0
	for _, level := range []Redaction{Standard, Strict} {
		for _, p := range paths {
			f := fixture.Load(t, p)
			h := f.Host(t)
			out, err := trial.Run(h, checks.All(), trial.Options{Intent: f.Intent})
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range facts.Areas {
				a.Get(out.Facts)
			}
			s, err := h.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			sources += seed(t, s)
			var file bytes.Buffer
			if err := Write(&file, &Bundle{Host: s, Manifest: &Manifest{}}); err != nil {
				t.Fatal(err)
			}
			before := bytes.ToLower(unpacked(t, file.Bytes()))
			seen := 0
			for _, c := range forms {
				if bytes.Contains(before, bytes.ToLower([]byte(c.text))) {
					seen++
				}
			}
			if seen < 20 {
				t.Fatalf("only %d canaries are in the bundle before redaction", seen)
			}
			redacted, named, err := Redact(s, level)
			if err != nil {
				t.Fatal(err)
			}
			var stands []string
			for _, n := range named {
				stands = append(stands, n.Stands)
			}
			file.Reset()
			if err := Write(&file, &Bundle{Host: redacted, Manifest: &Manifest{Pseudonyms: stands}}); err != nil {
				t.Fatal(err)
			}
			all := unpacked(t, file.Bytes())
			low := bytes.ToLower(all)
			for _, c := range forms {
				text := []byte(c.text)
				if strings.Contains(c.what, "base64") || strings.Contains(c.what, "bytes") {
					leak(t, p, level, c, all, text)
					continue
				}
				leak(t, p, level, c, low, bytes.ToLower(text))
			}
		}
	}
	if t.Failed() {
		return
	}
	t.Logf("%d spellings of canaries, seeded into %d sources of %d hosts: none is in a redacted bundle", len(forms), sources, 2*len(paths))
}

func leak(t *testing.T, p string, level Redaction, c canary, all, text []byte) {
	t.Helper()
	if i := bytes.Index(all, text); i >= 0 {
		t.Errorf("%s, %s: the %s %q is in the bundle: %q", filepath.Base(p), level, c.what, c.text, all[max(0, i-80):min(len(all), i+80)])
	}
}

// The same thing has the same pseudonym in each of its spellings.
func TestRelations(t *testing.T) {
	s := host.NewSnapshot()
	seed(t, s)
	redacted, named, err := Redact(s, Standard)
	if err != nil {
		t.Fatal(err)
	}
	stands := map[string]string{}
	for _, n := range named {
		stands[n.For] = n.Stands
	}
	text := func(p string) string { return strings.TrimSpace(string(redacted.Files[p])) }
	bare := stands[strings.ReplaceAll(canaryMAC, ":", "")]
	if bare == "" || text("/sys/class/net/enx"+bare+"/address") != like(canaryMAC, bare) {
		t.Errorf("the interface enx… and its address: %q, %v", bare, slices.Sorted(maps.Keys(redacted.Files)))
	}
	if got, want := text("/sys/class/infiniband/mlx5_7/ports/1/gids/0"), "fe80:0000:0000:0000:"+like("0000:0000", turn(bare[:2])+bare[2:6]+"ff")+":fe"+bare[6:8]+":"+bare[8:]; got != want {
		t.Errorf("GID %s, want %s", got, want)
	}
	if got := text("/sys/class/infiniband/mlx5_7/ports/1/gids/3"); !strings.HasPrefix(got, "0000:0000:0000:0000:0000:ffff:") {
		t.Errorf("GID of IPv4: %s", got)
	}
	name := text("/proc/sys/kernel/hostname")
	if name != stands[canaryHost] || text("/sys/class/infiniband/mlx5_7/node_desc") != name+" mlx5_7" {
		t.Errorf("host name %q, %q", name, text("/sys/class/infiniband/mlx5_7/node_desc"))
	}
	id := text("/etc/machine-id")
	if _, ok := redacted.Files["/boot/loader/entries/"+id+"-6.1.0.conf"]; !ok {
		t.Errorf("the boot entry is not named after the machine %s: %v", id, slices.Sorted(maps.Keys(redacted.Files)))
	}
}

// Addresses keep their subnets, and networks stay networks.
func TestAddresses(t *testing.T) {
	s := host.NewSnapshot()
	s.Files["/etc/x"] = []byte("10.20.0.0/16 10.20.30.0/24 192.168.7.0/24 2001:db8:12::/48 10.0.0.0/8")
	r := NewRedactor(Standard)
	r.Learn(s)
	move := func(ip string) netip.Addr { return r.ip(netip.MustParseAddr(ip)) }
	for _, tc := range []struct {
		a, b string
		bits int
	}{{"10.20.1.2", "10.20.200.9", 16}, {"10.20.30.7", "10.20.30.0", 24}, {"192.168.7.1", "192.168.7.254", 24}, {"2001:db8:12:1::5", "2001:db8:12:9::6", 48}} {
		a, b := move(tc.a), move(tc.b)
		p, _ := a.Prefix(tc.bits)
		if !p.Contains(b) || a.String() == tc.a || b.String() == tc.b {
			t.Errorf("%s and %s became %s and %s", tc.a, tc.b, a, b)
		}
	}
	for _, net := range []string{"10.20.0.0/16", "10.20.30.0/24", "192.168.7.0/24", "2001:db8:12::/48", "10.0.0.0/8"} {
		p := netip.MustParsePrefix(net)
		moved := netip.PrefixFrom(r.ip(p.Addr()), p.Bits())
		if moved != moved.Masked() {
			t.Errorf("%s became %s, which is no network", net, moved)
		}
	}
	for _, keep := range []string{"127.0.0.1", "0.0.0.0", "255.255.255.0", "224.0.0.1", "169.254.169.254", "168.63.129.16", "::1", "fe80::1", "ff02::1"} {
		if got := move(keep); got.String() != keep {
			t.Errorf("%s became %s", keep, got)
		}
	}
}

// What only looks like an identifier stays.
func TestNotRedacted(t *testing.T) {
	r := NewRedactor(Standard)
	for _, text := range []string{
		"0000:1a:00.0", "0000:1a:00.0 enp26s0np0", "15b3:1021", "5.14.0-427.13.1.el9_4.x86_64", "6.12.107+deb13-amd64", "0-3,8-11", "2026-01-02T03:04:05Z", "12:34:56",
		"getty@tty1.service", "key", "the token iommu=pt is missing", "GRUB_CMDLINE_LINUX=\"quiet iommu=pt\"", "std::string", "ffff:ffff", "00:00:00:00:00:00", "v1.2.3.4", "tcp_fastopen_key",
	} {
		if got := string(r.replace([]byte(text), where{path: "/etc/x"})); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	for key, text := range map[string]string{"firmware": "20.41.1.10", "version": "1.2.3.4"} {
		if got := string(r.replace([]byte(text), where{key: key})); got != text {
			t.Errorf("%s %q became %q", key, text, got)
		}
	}
}

// Whatever a text is, redaction ends with one, and once more changes nothing
// that was replaced.
func FuzzRedact(f *testing.F) {
	f.Add([]byte("mac a4:bb:6d:c1:7e:39 10.73.218.41/24 password=x"), "/etc/x")
	f.Add([]byte("\x06\x00\x00\x00a\x00\xff"), "/sys/firmware/efi/efivars/x")
	f.Add(make([]byte, 300), "/sys/bus/pci/devices/0000:00:00.0/config")
	f.Fuzz(func(t *testing.T, text []byte, p string) {
		s := host.NewSnapshot()
		s.Files["/"+p] = text
		out, _, err := Redact(s, Strict)
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Files) != 1 {
			t.Fatalf("%d files", len(out.Files))
		}
	})
}
