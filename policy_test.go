// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/plan"
)

const module = "github.com/hostcheck/hostcheck"

// source is one Go file of this repository.
type source struct {
	path string // relative, "internal/host/host.go"
	head string // its first line
	ast  *ast.File
}

func (s source) dir() string { return path.Dir(s.path) }
func (s source) test() bool  { return strings.HasSuffix(s.path, "_test.go") }

// generator reports whether the file is of a program for "go generate".
func (s source) generator() bool { return strings.Contains(s.dir()+"/", "/gen/") }

func (s source) imports() (names []string) {
	for _, i := range s.ast.Imports {
		name, _ := strconv.Unquote(i.Path.Value)
		names = append(names, name)
	}
	return names
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	files := token.NewFileSet()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "dist") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") {
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(files, p, b, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		head, _, _ := strings.Cut(string(b), "\n")
		all = append(all, source{filepath.ToSlash(p), head, f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d Go files found", len(all))
	}
	return all
}

func TestSourceFiles(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if s.head != "// SPDX-License-Identifier: Apache-2.0" {
			t.Errorf("%s does not start with the SPDX line", s.path)
		}
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function: say what runs, and when, in main", s.path)
			}
		}
		if s.test() {
			continue
		}
		has := false
		if s.ast.Doc != nil {
			text := s.ast.Doc.Text()
			has = strings.HasPrefix(text, "Package "+s.ast.Name.Name+" ") || s.ast.Name.Name == "main" && strings.HasPrefix(text, "Command ")
			if !has {
				t.Errorf("%s: the package comment starts with %.40q", s.path, text)
			}
		}
		documented[s.dir()] = documented[s.dir()] || has
	}
	for dir, has := range documented {
		if !has {
			t.Errorf("package %s has no package comment", dir)
		}
	}
}

// layer is how high a package stands: it may import lower ones only.
var layer = map[string]int{
	"internal/pattern": 0, "internal/quiet": 0, "internal/units": 0, "internal/ansible": 0,
	"internal/host":      1,
	"internal/plan":      2,
	"internal/facts":     2,
	"internal/inventory": 2, "internal/bench": 2,
	"internal/bundle":  2,
	"internal/profile": 3,
	"fixes":            3,
	"internal/check":   4,
	"checks":           5,
	"internal/slurm":   5,
	"internal/fleet":   5,
	"tune":             6,
	"internal/report":  6,
	"internal/cli":     7,
	".":                8,
}

// support is linked into no product.
var support = []string{"internal/fixture", "internal/fixture/trial", "internal/fixture/unpack", "internal/densehost", "internal/chromium", "internal/densefleet", "internal/densefleet/write", "internal/plan/plantest", "bench",
	"internal/lab", "internal/lab/agent", "internal/lab/changer", "internal/lab/open", "internal/lab/tinyguest", "internal/lab/wire", "packaging/kubernetes/apitest", "e2e", "e2e/programs"}

func TestLayers(t *testing.T) {
	for _, s := range sources(t) {
		at, product := layer[s.dir()]
		if !product && !s.generator() && !slices.Contains(support, s.dir()) {
			t.Errorf("%s: the package has no layer; give it one here and in ARCHITECTURE.md", s.path)
		}
		if s.test() || !product {
			continue
		}
		for _, i := range s.imports() {
			below, ours := strings.CutPrefix(i, module+"/")
			if !ours {
				continue
			}
			to, ok := layer[below]
			if !ok || to >= at {
				t.Errorf("%s imports %s, which does not stand below it", s.path, below)
			}
		}
	}
}

// Only internal/host reads the machine, and only internal/plan changes it or
// starts a process, beside internal/bench, which measures in processes of its own, and internal/slurm, which runs scontrol; a verb may hand it an ioctl.
func TestForbiddenImports(t *testing.T) {
	readers := []string{"os", "io/ioutil", "net", "syscall", "golang.org/x/sys/unix", "github.com/jaypipes/ghw", "github.com/safchain/ethtool", "github.com/prometheus/procfs"}
	for _, s := range sources(t) {
		if s.test() || slices.Contains(support, s.dir()) || s.generator() {
			continue
		}
		for _, i := range s.imports() {
			verdict := slices.Contains([]string{"internal/facts", "internal/check", "internal/profile", "internal/report", "checks", "fixes", "tune"}, s.dir())
			switch {
			case i == "os/exec" && s.dir() != "internal/slurm" && s.dir() != "internal/plan" && s.dir() != "internal/bench":
				t.Errorf("%s imports os/exec: only internal/plan, internal/bench and internal/slurm start processes", s.path)
			case i == "net/http":
				t.Errorf("%s imports net/http: hostcheck talks to no network", s.path)
			case s.dir() == "fixes" && (i == "golang.org/x/sys/unix" || i == "github.com/safchain/ethtool"):
			case i == "unsafe" || i == "C":
				t.Errorf("%s imports %s", s.path, i)
			case verdict && i == "syscall" && onlyErrno(s):
			case verdict && slices.Contains(readers, i):
				t.Errorf("%s imports %s: what decides a verdict goes through internal/host", s.path, i)
			case verdict && strings.HasPrefix(i, module+"/internal/inventory"):
				t.Errorf("%s imports internal/inventory, which is for display only", s.path)
			}
		}
	}
}

// onlyErrno reports whether all a file uses of syscall is error numbers.
func onlyErrno(s source) bool {
	only := true
	ast.Inspect(s.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == "syscall" && !strings.HasPrefix(sel.Sel.Name, "E") {
			only = false
		}
		return true
	})
	return only
}

// The modules that are linked or used by tests are those that somebody
// decided on: testdata/modules.txt says why each is there.
func TestModules(t *testing.T) {
	b, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(?:require )?\t?(\S+) v\S+(?: // indirect)?$`).FindAllStringSubmatch(string(b), -1) {
		used[m[1]] = true
	}
	list, err := os.ReadFile("testdata/modules.txt")
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	for line := range strings.Lines(string(list)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, why, _ := strings.Cut(line, " ")
		if strings.TrimSpace(why) == "" {
			t.Errorf("testdata/modules.txt does not say why %s is there", name)
		}
		allowed[name] = true
		if !used[name] {
			t.Errorf("testdata/modules.txt names %s, which go.mod does not need", name)
		}
	}
	for name := range used {
		if !allowed[name] {
			t.Errorf("go.mod needs %s, which testdata/modules.txt does not name", name)
		}
	}
}

// No test support is linked into the product.
func TestNotLinked(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Skipf("go list does not run here: %v", err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, module+"/internal/host") {
		t.Fatalf("go list gave %d packages without the reader", len(deps))
	}
	for _, d := range deps {
		ours, _ := strings.CutPrefix(d, module+"/")
		if d == "testing" || slices.Contains(support, ours) || strings.HasPrefix(d, "golang.org/x/tools") {
			t.Errorf("%s is linked into hostcheck", d)
		}
	}
}

func TestCheckList(t *testing.T) {
	all := checks.All()
	byID := map[string]*check.Check{}
	var areas []string
	form := regexp.MustCompile(`^[a-z0-9]+\.[a-z0-9]+(_[a-z0-9]+)*$`)
	for _, c := range all {
		if byID[c.ID] != nil {
			t.Errorf("%s is listed twice", c.ID)
		}
		byID[c.ID] = c
		if !form.MatchString(c.ID) {
			t.Errorf("%s is not of the form area.noun", c.ID)
		}
		if !slices.Contains(checks.Areas, c.Area()) {
			t.Errorf("%s: the area is not in the list of areas", c.ID)
		}
		if len(areas) == 0 || areas[len(areas)-1] != c.Area() {
			areas = append(areas, c.Area())
		}
		if c.Run == nil {
			t.Errorf("%s does nothing", c.ID)
		}
		if c.Title == "" || strings.HasSuffix(c.Title, ".") || len(c.Title) > 90 {
			t.Errorf("%s: the title %q is not a short noun phrase", c.ID, c.Title)
		}
		if len(c.Doc) < 400 {
			t.Errorf("%s: the doc of %d characters does not explain what, why and how to fix it", c.ID, len(c.Doc))
		}
		if len(c.Refs) == 0 {
			t.Errorf("%s names no reference", c.ID)
		}
		if !slices.Contains([]check.Severity{check.Info, check.Low, check.Medium, check.High}, c.Severity) {
			t.Errorf("%s: severity %q", c.ID, c.Severity)
		}
		if !slices.Contains([]plan.Tier{"", plan.Safe, plan.Link, plan.Boot, plan.Firmware}, c.FixTier) {
			t.Errorf("%s: fix tier %q", c.ID, c.FixTier)
		}
	}
	slices.Sort(areas)
	if unique := slices.Compact(slices.Clone(areas)); len(unique) != len(areas) {
		t.Errorf("the checks of an area do not stand together: %v", areas)
	}
	for _, c := range all {
		for _, id := range c.Requires {
			if byID[id] == nil || id == c.ID {
				t.Errorf("%s requires %s, which is no other check", c.ID, id)
			} else if slices.Contains(byID[id].Requires, c.ID) {
				t.Errorf("%s and %s require each other", c.ID, id)
			}
		}
	}
}

// Nothing in the test data tells one real machine from another: interface
// addresses are made up, and files that hold serial numbers are absent.
func TestNoIdentifiers(t *testing.T) {
	address := regexp.MustCompile(`(?i)(?:^|[^0-9a-f:])([0-9a-f]{2}(?::[0-9a-f]{2}){5})(?:$|[^0-9a-f:])`)
	serial := regexp.MustCompile(`(?m)^-- .*(product_serial|product_uuid|board_serial|chassis_serial|machine-id|/vpd|/serial)\b`)
	n := 0
	err := filepath.WalkDir("testdata", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n++
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if m := serial.Find(b); m != nil {
			t.Errorf("%s holds %s", p, m)
		}
		for _, m := range address.FindAllSubmatch(b, -1) {
			mac, err := net.ParseMAC(string(m[1]))
			if err == nil && !madeUp(mac) {
				t.Errorf("%s: %s may be a real interface's address; use one that starts with 02:", p, mac)
			}
		}
		return nil
	})
	if err != nil || n == 0 {
		t.Fatalf("%d files, %v", n, err)
	}
}

// madeUp: locally administered, group and zero addresses, and the range for
// documents (RFC 9542, 00-00-5E-00-53).
func madeUp(mac net.HardwareAddr) bool {
	return mac[0]&3 != 0 || mac.String() == "00:00:00:00:00:00" || strings.HasPrefix(mac.String(), "00:00:5e:00:53:")
}

// The tests that docs/safety.md names are there.
func TestSafetyNames(t *testing.T) {
	b, err := os.ReadFile("docs/safety.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, s := range sources(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				there[f.Name.Name] = true
			}
		}
	}
	n := 0
	for _, name := range regexp.MustCompile("`Test[A-Za-z0-9]+`").FindAllString(string(b), -1) {
		if n++; !there[strings.Trim(name, "`")] {
			t.Errorf("docs/safety.md names %s, which is not there", name)
		}
	}
	if n < 20 {
		t.Errorf("docs/safety.md names %d tests only", n)
	}
}
