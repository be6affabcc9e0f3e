// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/host"
)

// space builds configuration space for tests.
type space []byte

func newSpace(size int, vendor, device uint16) space {
	s := make(space, size)
	s.w(0, vendor)
	s.w(2, device)
	return s
}

func (s space) w(at int, v uint16) { binary.LittleEndian.PutUint16(s[at:], v) }
func (s space) l(at int, v uint32) { binary.LittleEndian.PutUint32(s[at:], v) }

// express puts a PCI Express capability of a port type at 0x40.
func (s space) express(port int) space {
	s[6] |= 1 << 4
	s[0x34] = 0x40
	s[0x40] = capExpress
	s.w(0x42, uint16(2|port<<4))
	s.l(0x44, 2)           // MaxPayload 512
	s.w(0x48, 0x5130|1<<4) // MaxReadReq 4096, ExtTag, MaxPayload 256, RlxdOrd
	s.l(0x4c, 5|16<<4)
	s.w(0x52, 4|8<<4)
	return s
}

func (s space) ext(at, id, next int) { s.l(at, uint32(id|1<<16|next<<20)) }

func TestDecodePCISpace(t *testing.T) {
	nic := newSpace(4096, 0x15b3, 0x1021).express(0)
	nic.ext(0x100, extAER, 0x148)
	nic.l(0x108, 0x00100000)
	nic.ext(0x148, extATS, 0x160)
	nic.w(0x14e, 0x8000)
	nic.ext(0x160, extSRIOV, 0)
	nic.w(0x168, 1)
	nic.w(0x16c, 16)
	nic.w(0x16e, 16)
	nic.w(0x170, 8)
	nic.w(0x174, 2)
	nic.w(0x176, 1)
	nic.w(0x17a, 0x101e)

	s := DecodePCISpace(nic)
	if s.Why != "" || s.ExtWhy != "" || s.PortType() != "Endpoint" || s.Forwards() {
		t.Fatalf("got %q %q %q", s.Why, s.ExtWhy, s.PortType())
	}
	want := Express{Port: 0, MPSMax: 512, MPS: 256, MRRS: 4096, RelaxedOrdering: true, ExtendedTag: true, HasLink: true, MaxGTs: 32, GTs: 16, MaxWidth: 16, Width: 8}
	if *s.Express != want {
		t.Errorf("express: got %+v, want %+v", *s.Express, want)
	}
	if s.ATS == nil || !s.ATS.Enabled || s.ATS.Offset != 0x148 {
		t.Errorf("ATS: %+v", s.ATS)
	}
	if got, want := *s.SRIOV, (SRIOV{0x160, true, 16, 16, 8, 2, 1, 0x101e}); got != want {
		t.Errorf("SR-IOV: got %+v, want %+v", got, want)
	}
	if s.AER == nil || s.AER.UncorMask != 0x00100000 {
		t.Errorf("AER: %+v", s.AER)
	}
	if s.ACS != nil {
		t.Errorf("ACS: got %+v on a function without it", s.ACS)
	}
}

func TestPCISpaceCutShort(t *testing.T) {
	whole := newSpace(4096, 0x1000, 0xc030).express(portDownstream)
	whole.ext(0x100, extACS, 0)
	whole.w(0x104, 0x1f)
	for _, c := range []struct {
		n                 int
		express, extended bool   // are known
		why               string // in Why or ExtWhy
	}{
		{0, false, false, "only 0 bytes"},
		{64, false, false, "CAP_SYS_ADMIN"},
		{128, true, false, "CAP_SYS_ADMIN"},
		{256, true, false, "no ECAM"},
		{4096, true, true, ""},
	} {
		s := DecodePCISpace(whole[:c.n])
		if got := s.Express != nil; got != c.express {
			t.Errorf("%d bytes: express known is %v, want %v", c.n, got, c.express)
		}
		if got := s.ACS != nil; got != c.extended {
			t.Errorf("%d bytes: ACS known is %v, want %v", c.n, got, c.extended)
		}
		if (s.ExtWhy == "") != c.extended || !strings.Contains(s.ExtWhy, c.why) {
			t.Errorf("%d bytes: ExtWhy is %q, want %q in it", c.n, s.ExtWhy, c.why)
		}
	}
	// conventional PCI has no extended space: nothing is unknown
	if s := DecodePCISpace(newSpace(256, 0x8086, 0x1234)); s.Why != "" || s.ExtWhy != "" || s.PortType() != "" {
		t.Errorf("conventional: %+v", s)
	}
	gone := make([]byte, 4096)
	for i := range gone {
		gone[i] = 0xff
	}
	if s := DecodePCISpace(gone); s.Express != nil || !strings.Contains(s.ExtWhy, "does not answer") {
		t.Errorf("a function that is gone: %+v", s)
	}
}

func TestACSRegisters(t *testing.T) {
	port := func(vendor, device uint16, typ int) space {
		s := newSpace(4096, vendor, device).express(typ)
		s.ext(0x100, extACS, 0)
		s.w(0x104, 0x5f)
		s.w(0x106, 0x1d)
		return s
	}
	s := DecodePCISpace(port(0x1000, 0xc030, portDownstream))
	if s.ACS == nil || s.ACS.Cap != 0x5f || s.ACS.Ctl != 0x1d || s.ACS.Quirk != "" || !s.ACS.Redirects() {
		t.Errorf("a switch port: %+v", s.ACS)
	}
	if got := ACSString(0x1d); got != "SrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-" {
		t.Errorf("ACSString: %s", got)
	}
	// Sunrise Point: 32-bit registers, so the control word at +6 is half of the capability
	for _, c := range []struct {
		device uint16
		port   int
		quirk  bool
	}{{0xa110, portRoot, true}, {0xa11f, portRoot, true}, {0xa120, portRoot, false}, {0xa167, portRoot, true}, {0xa2ee, portRoot, true}, {0x9d10, portRoot, true}, {0x9d1c, portRoot, false}, {0xa110, portDownstream, false}} {
		b := port(0x8086, c.device, c.port)
		b.l(0x104, 0x0f)
		b.l(0x108, 0x0d)
		s := DecodePCISpace(b)
		wantCtl := uint16(0)
		if c.quirk {
			wantCtl = 0x0d
		}
		if s.ACS == nil || s.ACS.Cap != 0x0f || s.ACS.Ctl != wantCtl || (s.ACS.Quirk != "") != c.quirk {
			t.Errorf("8086:%04x as %s: %+v, want control %04x", c.device, s.PortType(), s.ACS, wantCtl)
		}
	}
	for _, c := range []struct{ cap, ctl, want, missing uint16 }{
		{0x1f, 0x1d, 0x1d, 0},
		{0x1f, 0x01, 0x1d, 0x1c},
		{0x05, 0x05, 0x1d, 0}, // what the capability lacks is so by construction
		{0x1f, 0x1d, 0x3d, 0x20},
	} {
		if got := (&ACS{Cap: c.cap, Ctl: c.ctl}).Missing(c.want); got != c.missing {
			t.Errorf("cap %02x ctl %02x: missing of %02x is %02x, want %02x", c.cap, c.ctl, c.want, got, c.missing)
		}
	}
}

func TestPCISpaceListsThatLoop(t *testing.T) {
	s := newSpace(4096, 1, 2).express(0)
	s[0x41] = 0x40
	s.ext(0x100, 0x1, 0x140)
	s.ext(0x140, 0x2, 0x100)
	d := DecodePCISpace(s)
	if len(d.Caps) != 1 || d.Ext != nil || d.Why == "" || d.ExtWhy == "" {
		t.Errorf("got %v and %v, want one capability, and reasons: %q, %q", d.Caps, d.Ext, d.Why, d.ExtWhy)
	}
	s[0x41] = 0
	d = DecodePCISpace(s)
	if len(d.Caps) != 1 || len(d.Ext) != 2 || d.Why != "" || d.ExtWhy == "" {
		t.Errorf("got %v and %v, want one and two capabilities, and a reason: %q, %q", d.Caps, d.Ext, d.Why, d.ExtWhy)
	}
}

// What is broken or cut off must not read as a port without ACS.
func TestPCISpaceBroken(t *testing.T) {
	whole := func() space {
		s := newSpace(4096, 0x1000, 0xc030).express(portDownstream)
		s[0x41] = 0x80
		s[0x80] = 0x05
		s.ext(0x100, extAER, 0x168)
		s.ext(0x168, extACS, 0)
		s.w(0x16c, 0x1f)
		s.w(0x16e, 0x1d)
		return s
	}
	if s := DecodePCISpace(whole()); s.Why != "" || s.ExtWhy != "" || s.ACS == nil {
		t.Fatalf("the whole: %+v", s)
	}
	for name, c := range map[string]struct {
		change func(s space)
		why    string // in ExtWhy
	}{
		"zeros":                       {func(s space) { clear(s) }, "no vendor"},
		"no start of the list":        {func(s space) { s[0x34] = 0 }, "to 0x0"},
		"a start in the header":       {func(s space) { s[0x34] = 0x20 }, "0x20"},
		"a pointer into the header":   {func(s space) { s[0x81] = 0x3c }, "0x3c"},
		"a loop":                      {func(s space) { s[0x81] = 0x80 }, "0x80 twice"},
		"a loop before express":       {func(s space) { s[0x34], s[0x81] = 0x80, 0x80 }, "0x80 twice"},
		"ID ff":                       {func(s space) { s[0x80] = 0xff }, "0x80"},
		"express over the end":        {func(s space) { s[0x34], s[0xf8] = 0xf8, capExpress }, "0xf8"},
		"extended header ff":          {func(s space) { s.l(0x100, 0xffffffff) }, "0x100"},
		"a later header 0":            {func(s space) { s.l(0x168, 0) }, "0x168"},
		"an extended loop":            {func(s space) { s.ext(0x100, extAER, 0x100) }, "0x100 twice"},
		"an extended pointer to 0xfc": {func(s space) { s.ext(0x100, extAER, 0xfc) }, "0xfc"},
		"ACS over the end":            {func(s space) { s.ext(0x100, extAER, 0xffc); s.ext(0xffc, extACS, 0) }, "0xffc"},
	} {
		s := whole()
		c.change(s)
		if d := DecodePCISpace(s); d.ACS != nil && d.ExtWhy == "" || !strings.Contains(d.ExtWhy, c.why) || d.ExtWhy == "" {
			t.Errorf("%s: ACS %+v, ExtWhy %q, want %q in it", name, d.ACS, d.ExtWhy, c.why)
		}
	}
	for _, n := range []int{65, 100, 127, 128, 255, 257, 259, 260, 262, 365, 367, 1000, 4095} {
		if d := DecodePCISpace(whole()[:n]); d.ExtWhy == "" || !strings.Contains(d.ExtWhy, fmt.Sprint(n)) {
			t.Errorf("%d bytes: ExtWhy is %q", n, d.ExtWhy)
		}
	}
	none := newSpace(4096, 0x1000, 0xc030).express(portUpstream) // the way to say that there is no extended capability
	if d := DecodePCISpace(none); d.ExtWhy != "" || len(d.Ext) != 0 {
		t.Errorf("no extended capability: %+v", d)
	}
}

func FuzzPCIConfig(f *testing.F) {
	loop := newSpace(4096, 0x8086, 0xa110).express(portRoot)
	loop.ext(0x100, extACS, 0xffc)
	loop.ext(0xffc, extSRIOV, 0x100)
	f.Add([]byte(loop))
	f.Add([]byte(newSpace(256, 0x15b3, 0x1021).express(0)))
	f.Add([]byte(newSpace(256, 0x15b3, 0x1021).express(0)[:64]))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := DecodePCISpace(b)
		seen := map[int]bool{}
		for _, c := range slices.Concat(s.Caps, s.Ext) {
			if c.Offset < configHeader || c.Offset+2 > len(b) || seen[c.Offset] {
				t.Fatalf("capability %+v of %d bytes is outside, or there twice", c, len(b))
			}
			seen[c.Offset] = true
		}
		if s.ACS != nil && s.find(s.Ext, extACS) == 0 {
			t.Fatal("an ACS that is not in the list")
		}
		if len(b) <= configConv && s.ACS != nil {
			t.Fatal("an ACS without extended configuration space")
		}
		if x := s.Express; x != nil && (x.MPS < 128 || x.MPS > 16384 || x.MRRS < 128 || x.MRRS > 16384) {
			t.Fatalf("sizes out of range: %+v", x)
		}
	})
}

// dumps reads the "lspci -xxxx" texts of the host collection: by file name
// without extension, the configuration spaces by address.
func dumps(t *testing.T) map[string]map[string][]byte {
	t.Helper()
	dir := os.Getenv("HOSTCHECK_EXPECT")
	if dir == "" {
		t.Skip("HOSTCHECK_EXPECT is not set: it names the folder with expect-acs.tsv and acs/")
	}
	files, _ := filepath.Glob(filepath.Join(dir, "acs", "*.txt.xz"))
	if len(files) == 0 {
		t.Skip("no acs/*.txt.xz in ", dir)
	}
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("xz is not installed, which the captures are packed with")
	}
	all := map[string]map[string][]byte{}
	for _, file := range files {
		text, err := exec.Command("xz", "-dc", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".txt.xz")] = parseDump(t, string(text))
	}
	return all
}

var (
	dumpFunction = regexp.MustCompile(`^((?:[0-9a-f]{4,}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) `)
	dumpBytes    = regexp.MustCompile(`^([0-9a-f]{2,3}):((?: [0-9a-f]{2})+)\s*$`)
)

func parseDump(t *testing.T, text string) map[string][]byte {
	t.Helper()
	m, bdf := map[string][]byte{}, ""
	for line := range strings.Lines(text) {
		if f := dumpFunction.FindStringSubmatch(line); f != nil {
			if bdf = f[1]; len(bdf) == len("00:00.0") {
				bdf = "0000:" + bdf
			}
		}
		if f := dumpBytes.FindStringSubmatch(strings.TrimRight(line, "\n")); f != nil {
			at, _ := strconv.ParseInt(f[1], 16, 32)
			if int(at) != len(m[bdf]) {
				t.Fatalf("%s: bytes at %x follow %x", bdf, at, len(m[bdf]))
			}
			for _, x := range strings.Fields(f[2]) {
				v, _ := strconv.ParseUint(x, 16, 8)
				m[bdf] = append(m[bdf], byte(v))
			}
		}
	}
	return m
}

// tsv reads a table of the host collection: rows by column name.
func tsv(t *testing.T, name string) []map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(os.Getenv("HOSTCHECK_EXPECT"), name))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	head := strings.Split(lines[0], "\t")
	var rows []map[string]string
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, v := range strings.Split(line, "\t") {
			row[head[i]] = v
		}
		rows = append(rows, row)
	}
	return rows
}

func TestACSOfRealHosts(t *testing.T) {
	all := dumps(t)
	checked := 0
	for _, row := range tsv(t, "expect-acs.tsv") {
		at := row["case"] + " " + row["bdf"]
		b := all["pciutils-"+strings.TrimPrefix(row["case"], "pu-")][row["bdf"]]
		if b == nil {
			t.Errorf("%s: not in the captures", at)
			continue
		}
		checked++
		s := DecodePCISpace(b)
		if s.ACS == nil {
			t.Errorf("%s: no ACS: %+v", at, s)
			continue
		}
		effect := "off"
		if s.ACS.Redirects() {
			effect = "redirect"
		}
		for _, c := range [][2]string{
			{fmt.Sprintf("%04x:%04x", u16(b, 0), u16(b, 2)), row["vendor_device"]},
			{s.PortType(), row["pcie_type"]},
			{fmt.Sprintf("0x%x", s.ACS.Offset), row["cap_offset"]},
			{fmt.Sprintf("0x%04x", s.ACS.Cap), row["acscap_hex"]},
			{fmt.Sprintf("0x%04x", s.ACS.Ctl), row["acsctl_hex"]},
			{ACSString(s.ACS.Cap), row["lspci_ACSCap"]},
			{ACSString(s.ACS.Ctl), row["lspci_ACSCtl"]},
			{effect, row["p2p_effect"]},
			{s.ACS.Quirk, row["quirk"]},
		} {
			if c[0] != c[1] {
				t.Errorf("%s: got %q, want %q", at, c[0], c[1])
			}
		}
	}
	if checked == 0 {
		t.Error("no row was checked")
	}
}

func TestACSFactsOfRealTree(t *testing.T) {
	trees := os.Getenv("HOSTCHECK_HOSTS")
	if trees == "" || os.Getenv("HOSTCHECK_EXPECT") == "" {
		t.Skip("HOSTCHECK_HOSTS and HOSTCHECK_EXPECT are not set: the unpacked trees and the folder with expect-acs.tsv")
	}
	const tree = "pci-pu-tree-asus-p6t6"
	h, err := host.Open(filepath.Join(trees, tree), host.Options{})
	if err != nil {
		t.Skip(err)
	}
	defer h.Close()
	ports := map[string]ACSPort{}
	for _, p := range New(h).ACS().List {
		ports[p.BDF] = p
	}
	rows := 0
	for _, row := range tsv(t, "expect-acs.tsv") {
		if "pci-"+row["case"] != tree {
			continue
		}
		rows++
		p, ok := ports[row["bdf"]]
		if !ok || p.Cap == nil || p.Ctl == nil || "0x"+*p.Cap != row["acscap_hex"] || "0x"+*p.Ctl != row["acsctl_hex"] || *p.PortType != row["pcie_type"] || *p.Redirect != (row["p2p_effect"] == "redirect") {
			t.Errorf("%s: got %+v, want %v", row["bdf"], p, row)
		}
	}
	if rows == 0 {
		t.Error("no row was checked")
	}
}

// TestAgainstLspci compares what is decoded with what lspci prints of the same
// bytes, register by register.
func TestAgainstLspci(t *testing.T) {
	if _, err := exec.LookPath("lspci"); err != nil {
		t.Skip("lspci is not installed")
	}
	dir := os.Getenv("HOSTCHECK_EXPECT")
	all := dumps(t)
	for name, functions := range all {
		file := filepath.Join(t.TempDir(), name)
		text, err := exec.Command("xz", "-dc", filepath.Join(dir, "acs", name+".txt.xz")).Output()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("lspci", "-D", "-F", file, "-vvv").Output()
		if err != nil {
			t.Fatalf("lspci: %v", err)
		}
		said := lspciWords(string(out))
		if len(said) != len(functions) {
			t.Errorf("%s: lspci tells of %d functions, the dump of %d", name, len(said), len(functions))
		}
		words := 0
		for bdf, b := range functions {
			ours := ourWords(DecodePCISpace(b))
			words += len(ours)
			if !slices.Equal(ours, said[bdf]) {
				t.Errorf("%s %s:\nours  %q\nlspci %q", name, bdf, ours, said[bdf])
			}
		}
		t.Logf("%s: %d functions, %d registers alike", name, len(functions), words)
	}
}

// lspciLines finds the registers that are compared in lspci's text.
var lspciLines = []*regexp.Regexp{
	regexp.MustCompile(`^\s+Capabilities: (\[[0-9a-f]+)`),
	regexp.MustCompile(`^\s+Capabilities: \[[0-9a-f]+\] Express \(v\d\) ([A-Z][A-Za-z/-]+(?: [A-Z/][A-Za-z/-]+)*)`),
	regexp.MustCompile(`^\s+DevCap:\s(MaxPayload \d+ bytes)`),
	regexp.MustCompile(`^\s+(RlxdOrd[+-] ExtTag[+-])`),
	regexp.MustCompile(`^\s+(MaxPayload \d+ bytes, MaxReadReq \d+ bytes)`),
	regexp.MustCompile(`^\s+LnkCap:\s.*(Speed [\d.]+GT/s, Width x\d+)`),
	regexp.MustCompile(`^\s+LnkSta:\s(Speed [\d.]+GT/s(?: \(\w+\))?, Width x\d+)`),
	regexp.MustCompile(`^\s+ACSCap:\s(.*[+-])`),
	regexp.MustCompile(`^\s+ACSCtl:\s(.*[+-])`),
}

func lspciWords(out string) map[string][]string {
	m, bdf := map[string][]string{}, ""
	for line := range strings.Lines(out) {
		if f := dumpFunction.FindStringSubmatch(line); f != nil {
			bdf = f[1]
			m[bdf] = nil
		}
		for _, re := range lspciLines {
			if f := re.FindStringSubmatch(line); f != nil {
				m[bdf] = append(m[bdf], regexp.MustCompile(` \(\w+\)`).ReplaceAllString(f[1], ""))
			}
		}
	}
	for bdf := range m {
		slices.Sort(m[bdf])
	}
	return m
}

func ourWords(s *PCISpace) []string {
	var w []string
	sign := map[bool]string{true: "+", false: "-"}
	for _, c := range slices.Concat(s.Caps, s.Ext) {
		w = append(w, fmt.Sprintf("[%02x", c.Offset))
	}
	if x := s.Express; x != nil {
		w = append(w, s.PortType(), fmt.Sprintf("MaxPayload %d bytes", x.MPSMax),
			"RlxdOrd"+sign[x.RelaxedOrdering]+" ExtTag"+sign[x.ExtendedTag],
			fmt.Sprintf("MaxPayload %d bytes, MaxReadReq %d bytes", x.MPS, x.MRRS))
		if x.HasLink {
			w = append(w, fmt.Sprintf("Speed %gGT/s, Width x%d", x.MaxGTs, x.MaxWidth), fmt.Sprintf("Speed %gGT/s, Width x%d", x.GTs, x.Width))
		}
	}
	if a := s.ACS; a != nil {
		w = append(w, ACSString(a.Cap), ACSString(a.Ctl))
	}
	slices.Sort(w)
	return w
}
