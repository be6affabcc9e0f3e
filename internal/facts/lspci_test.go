// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/fixture"
)

// TestFactsAgainstLspci compares the pci and acs facts of the base hosts with
// what lspci makes of the same tree; TestRootPCI does it on this machine.
func TestFactsAgainstLspci(t *testing.T) {
	if _, err := exec.LookPath("lspci"); err != nil {
		t.Skip("skipped: lspci is not installed")
	}
	archives, err := filepath.Glob("../../testdata/hosts/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no base hosts: %v", err)
	}
	for _, archive := range archives {
		t.Run(filepath.Base(archive), func(t *testing.T) {
			fix := fixture.Load(t, archive)
			devices, err := filepath.Glob(fix.Root + PCIDevices + "/*")
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range devices { // lspci ends without these, which no fact needs
				for name, text := range map[string]string{"irq": "0\n", "resource": ""} {
					if err := os.WriteFile(filepath.Join(d, name), []byte(text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			compareWithLspci(t, New(fix.Host(t)), "-A", "linux-sysfs", "-O", "sysfs.path="+fix.Root+"/sys/bus/pci")
		})
	}
}

// lspciFields are the fields of "lspci -vvv -D -n" that facts have, too; the
// words found are joined by blanks. A function has each of them once at most.
var lspciFields = map[string]*regexp.Regexp{
	"class":      regexp.MustCompile(`(?m)^\S+ ([0-9a-f]{4}): `),
	"vendor":     regexp.MustCompile(`(?m)^\S+ [0-9a-f]{4}: ([0-9a-f]{4}:[0-9a-f]{4})`),
	"interface":  regexp.MustCompile(`(?m)^\S+ [0-9a-f]{4}: .*\(prog-if ([0-9a-f]{2})`),
	"subsystem":  regexp.MustCompile(`(?m)^\tSubsystem: ([0-9a-f]{4}:[0-9a-f]{4})`),
	"numa_node":  regexp.MustCompile(`(?m)^\tNUMA node: (\d+)`),
	"group":      regexp.MustCompile(`(?m)^\tIOMMU group: (\d+)`),
	"driver":     regexp.MustCompile(`(?m)^\tKernel driver in use: (\S+)`),
	"port_type":  regexp.MustCompile(`(?m)^\tCapabilities: \[[0-9a-f]+\] Express \(v\d\) ([A-Z][A-Za-z/-]+(?: [A-Z/][A-Za-z/-]+)*)`),
	"sizes":      regexp.MustCompile(`(?m)^\t+MaxPayload (\d+) bytes, MaxReadReq (\d+) bytes`),
	"max_speed":  regexp.MustCompile(`(?m)^\t+LnkCap:\t.*Speed ([\d.]+)GT/s, Width x[1-9]`),
	"max_width":  regexp.MustCompile(`(?m)^\t+LnkCap:\t.*Speed [\d.]+GT/s, Width x([1-9]\d*)`),
	"speed":      regexp.MustCompile(`(?m)^\t+LnkSta:\tSpeed ([\d.]+)GT/s(?: \(\w+\))?, Width x[1-9]`),
	"width":      regexp.MustCompile(`(?m)^\t+LnkSta:\tSpeed [\d.]+GT/s(?: \(\w+\))?, Width x([1-9]\d*)`),
	"acs cap":    regexp.MustCompile(`(?m)^\t+ACSCap:\t(.*[+-])$`),
	"acs ctl":    regexp.MustCompile(`(?m)^\t+ACSCtl:\t(.*[+-])$`),
	"restricted": regexp.MustCompile(`(?m)^\tCapabilities: (<access denied>)`),
}

// compareWithLspci runs lspci with options and wants it to tell what f has,
// field by field.
func compareWithLspci(t *testing.T, f *Facts, options ...string) {
	t.Helper()
	cmd := exec.Command("lspci", append(options, "-vvv", "-D", "-n")...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("lspci: %v: %s", err, stderr.String())
	}
	said := map[string]map[string]string{}
	for block := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n\n") {
		bdf, _, _ := strings.Cut(block, " ")
		fields := map[string]string{}
		for name, re := range lspciFields {
			if m := re.FindStringSubmatch(block); m != nil {
				fields[name] = strings.Join(m[1:], " ")
			}
		}
		said[bdf] = fields
	}
	ours := lspciView(f)
	if a, b := slices.Sorted(maps.Keys(ours)), slices.Sorted(maps.Keys(said)); !slices.Equal(a, b) {
		t.Fatalf("functions: we see %q, lspci %q", a, b)
	}
	compared := 0
	for bdf, fields := range ours {
		for name := range lspciFields {
			v, has := said[bdf][name]
			switch name {
			case "restricted", // looked at below
				"interface": // lspci leaves 00 out where that has no name
				if !has || name == "restricted" {
					continue
				}
			case "subsystem": // lspci does not show an empty one
				if !has && fields[name] == "0000:0000" {
					continue
				}
			case "sizes": // lspci prints a VF's reserved fields
				if f.PCIAll().At(bdf).VF() {
					continue
				}
			}
			compared++
			if fields[name] != v {
				t.Errorf("%s: %s is %q to us, %q to lspci", bdf, name, fields[name], v)
			}
		}
		if (said[bdf]["restricted"] != "") != (f.PCIAll().At(bdf).Unknown["mps"] != "" && *f.PCIAll().At(bdf).ConfigBytes == configHeader) {
			t.Errorf("%s: lspci may see the capabilities, and we may not, or the other way round", bdf)
		}
	}
	t.Logf("%d functions, %d fields alike", len(ours), compared)
}

// lspciView writes the facts in the words of lspciFields; what is not known
// is left out.
func lspciView(f *Facts) map[string]map[string]string {
	view := map[string]map[string]string{}
	for _, fn := range f.PCIAll().Functions {
		v := map[string]string{
			"vendor": fn.ID(), "class": (*fn.Class)[:4], "interface": (*fn.Class)[4:], "subsystem": *fn.SubVendor + ":" + *fn.SubDevice,
		}
		if fn.NUMANode != nil {
			v["numa_node"] = strconv.Itoa(*fn.NUMANode)
		}
		if g := f.IOMMU().Group(fn.BDF); g != nil {
			v["group"] = strconv.Itoa(g.ID)
		}
		if *fn.Driver != "" {
			v["driver"] = *fn.Driver
		}
		if fn.Space != nil && fn.Space.Express != nil {
			v["port_type"] = fn.Space.PortType()
		}
		if fn.MPS != nil {
			v["sizes"] = fmt.Sprintf("%d %d", *fn.MPS, *fn.MRRS)
		}
		link := fn.Link
		for name, p := range map[string]*float64{"speed": link.SpeedGTs, "max_speed": link.MaxSpeedGTs} {
			if p != nil {
				v[name] = strconv.FormatFloat(*p, 'g', -1, 64)
			}
		}
		for name, p := range map[string]*int{"width": link.Width, "max_width": link.MaxWidth} {
			if p != nil {
				v[name] = strconv.Itoa(*p)
			}
		}
		view[fn.BDF] = v
	}
	for _, p := range f.ACS().List {
		if p.Cap == nil || p.Quirk != "" { // lspci does not know the quirk
			continue
		}
		for name, hex := range map[string]string{"acs cap": *p.Cap, "acs ctl": *p.Ctl} {
			n, _ := strconv.ParseUint(hex, 16, 16)
			view[p.BDF][name] = ACSString(uint16(n))
		}
	}
	return view
}
