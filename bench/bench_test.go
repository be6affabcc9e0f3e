// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/hostcheck/hostcheck/internal/densehost"
	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/host"
)

// The whole benchmark on a small host. What it measures is not judged.
func TestRun(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the go command is not in PATH")
	}
	list := filepath.Join(t.TempDir(), "list.sh")
	if err := os.WriteFile(list, []byte("echo one\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	b := bench{rounds: 1, times: 2, dir: fixture.TempDir(t), shape: densehost.Small, checklist: list, fleets: []int{20, 60}}
	if err := b.run(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1×: 16 PCI functions", "2×: 32 PCI functions", "growth per PCI function", "shell checklist", "start-up", "60 hosts: ", "hostcheck fleet merge", "hostcheck fleet plan", "20 to 60 hosts"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}

// A checklist that cannot run is told, and is not compared.
func TestChecklistThatFails(t *testing.T) {
	out, err := exec.Command("/bin/sh", "-c", "PATH=/nonexistent; . ./seed-checklist.sh").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not installed: dmesg grep") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestFloorReadsWhatIsAsked(t *testing.T) {
	dir := fixture.TempDir(t)
	if err := densehost.Write(dir, densehost.Small); err != nil {
		t.Fatal(err)
	}
	asked, stats, err := sources(dir)
	if err != nil {
		t.Fatal(err)
	}
	if stats.Files < 100 || stats.Links < 16 || stats.Dirs < 5 || stats.Bytes == 0 || len(asked) != stats.Files+stats.Links+stats.Dirs {
		t.Errorf("a run reads %+v, %d sources", stats, len(asked))
	}
	path := filepath.Join(t.TempDir(), "list")
	if err := writeList(path, asked); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := parseList(b); err != nil || !slices.Equal(back, asked) {
		t.Errorf("the list came back changed: %v", err)
	}
	if _, err := parseList([]byte("9/x\n")); err == nil {
		t.Error("a list with an unknown kind was taken")
	}
	if err := readOnce(dir, []host.Op{{Kind: host.ReadFile, Path: "/sys/nothing"}}); err != nil {
		t.Errorf("a source that is absent: %v", err)
	}
	if err := readOnce(dir+"/nothing", asked); err == nil {
		t.Error("a floor without a tree")
	}
}

// Without sos the comparison says so.
func TestWithoutSOS(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var out bytes.Buffer
	b := bench{rounds: 1, out: tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)}
	if err := b.sos(); err != nil {
		t.Fatal(err)
	}
	_ = b.out.Flush()
	if !strings.Contains(out.String(), "not compared: sos is not installed") {
		t.Error(out.String())
	}
}

func TestSizes(t *testing.T) {
	if n, err := sizes("1000,10000"); err != nil || !slices.Equal(n, []int{1000, 10000}) {
		t.Errorf("%v, %v", n, err)
	}
	for _, s := range []string{"", "0", "-1", "1000,", "1e3", "9999999"} {
		if n, err := sizes(s); err == nil {
			t.Errorf("%q gives %v", s, n)
		}
	}
}
