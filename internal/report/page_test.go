// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/checks"
	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/bench"
	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/chromium"
	"github.com/hostcheck/hostcheck/internal/densehost"
	"github.com/hostcheck/hostcheck/internal/fixture/trial"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// shape is a dense host with few VFs, for speed.
var shape = densehost.Shape{Copies: 1, Switches: 4, NICsPerSwitch: 2, GPUsPerSwitch: 2, VFs: 4, Queues: 8}

// densePage judges a dense host after change has had its way with the tree.
func densePage(t *testing.T, s densehost.Shape, change func(dir string) error) report.Page {
	t.Helper()
	dir := t.TempDir()
	err := densehost.Write(dir, s)
	if err == nil && change != nil {
		err = change(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.Open(dir, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	out, err := trial.Run(h, checks.All(), trial.Options{Intent: "sriov-tenant"})
	if err != nil {
		t.Fatal(err)
	}
	name := "dense-01"
	out.Report.Host.Name = &name
	var wanted []plan.Wish
	for _, r := range out.Results {
		for _, f := range r.Findings {
			if f.Status == check.Fail || f.Status == check.Warn {
				wanted = append(wanted, f.Fix...)
			}
		}
	}
	e := plan.Engine{Root: dir, Verbs: fixes.All(), Tool: "test"}
	p, err := e.Plan(context.Background(), h, out.Profile.Hash, wanted)
	if err != nil {
		t.Fatal(err)
	}
	return report.Page{Report: out.Report, Checks: checks.All(), Facts: out.Facts, Plan: &p, Again: []string{"hostcheck"}}
}

func sickPage(t *testing.T) report.Page {
	return densePage(t, shape, func(dir string) error { return densehost.Sicken(dir, shape) })
}

func html(t *testing.T, p report.Page) string {
	t.Helper()
	b, err := p.HTML()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	tagForm  = regexp.MustCompile(`<[a-zA-Z/!][^>]*>`)
	nameForm = regexp.MustCompile(`^<[/!]?[a-zA-Z0-9]+| [a-zA-Z-]+=`)
)

// structure is the tags of a page with the names of their attributes.
func structure(s string) (all []string) {
	for _, tag := range tagForm.FindAllString(s, -1) {
		all = append(all, strings.Join(nameForm.FindAllString(tag, -1), ""))
	}
	return all
}

// inert complains unless a page holds nothing that loads or runs, and what
// refers to something in it finds it.
func inert(t *testing.T, s string, links int) {
	t.Helper()
	for _, never := range []string{"<script", "<link", "<iframe", "<object", "<embed", "<form", "<base", "@import", "url(", " style=", " srcset=", "javascript:", "NaN", "%!"} {
		if strings.Contains(s, never) {
			t.Errorf("the page holds %s", never)
		}
	}
	for _, m := range regexp.MustCompile(` src="([^"]{0,40})`).FindAllStringSubmatch(s, -1) {
		t.Errorf("the page loads %s", m[1])
	}
	if on := regexp.MustCompile(`<[^>]* on[a-z]+=`).FindString(s); on != "" {
		t.Errorf("a tag runs something: %s", on)
	}
	_, style, _ := strings.Cut(s, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	policy := `content="default-src &#39;none&#39;; style-src &#39;sha256-` + base64.StdEncoding.EncodeToString(sum[:]) + `&#39;; base-uri &#39;none&#39;; form-action &#39;none&#39;"`
	if head, _, _ := strings.Cut(s, "<style>"); style == "" || !strings.Contains(strings.ReplaceAll(head, "&#43;", "+"), policy) {
		t.Errorf("the policy does not name the style sheet's hash %s", policy)
	}
	ids := map[string]int{}
	for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(s, -1) {
		ids[m[1]]++
		if ids[m[1]] == 2 {
			t.Errorf("two elements are called %s", m[1])
		}
	}
	refs := regexp.MustCompile(` (?:href="#|aria-labelledby=")([^"]*)"`).FindAllStringSubmatch(s, -1)
	for _, m := range refs {
		for id := range strings.FieldsSeq(m[1]) {
			if ids[id] == 0 {
				t.Errorf("something leads to #%s, which is not there", id)
			}
		}
	}
	if len(refs) < links {
		t.Errorf("only %d references", len(refs))
	}
	for _, m := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(s, -1) {
		if !strings.HasPrefix(m[1], "#") {
			t.Errorf("a link leads out of the page: %s", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`(?s)<svg .*?</svg>`).FindAllString(s, -1) {
		wellFormed(t, m)
		if head, _, _ := strings.Cut(m, ">"); !strings.Contains(head, "aria-label") && !strings.Contains(head, `aria-hidden="true"`) {
			t.Errorf("a picture has no name: %s", head)
		}
	}
}

func TestPageStructure(t *testing.T) {
	s := html(t, sickPage(t))
	inert(t, s, 40)
	if n, want := strings.Count(s, "<svg "), 2+2+2*8; n != want { // nodes, pools, interrupts
		t.Errorf("%d pictures, not %d", n, want)
	}
}

// Trouble is marked in the box and the row that it is about, in the picture and
// in the list beside it.
func TestPageMarks(t *testing.T) {
	p := sickPage(t)
	s := html(t, p)
	for _, tt := range []struct{ at, until, mark string }{
		{">NIC1 0000:13:00.0", ">NIC2", "✗ FAIL iommu.domain of a VF"},
		{">NIC2 0000:14:00.0", ">GPU0", "✗ FAIL pcie.link"},
		{">NIC2 0000:14:00.0", ">GPU0", "✗ FAIL irq.local"},
		{">GPU0 0000:15:00.0", ">GPU1", "✗ FAIL pcie.link"},
		{">NIC3 0000:43:00.0", ">NIC4", "✗ FAIL link.mtu"},
		{">NIC4 0000:44:00.0", ">GPU2", "✗ FAIL link.carrier"},
		{">node1", "root port", "! warn hugepages.balance"},
	} {
		for what, begin := range map[string]string{"picture": `<svg class="topo"`, "list": `<ul class="tree">`} {
			found := false
			for part := range strings.SplitSeq(s, begin) {
				part, _, _ = strings.Cut(part, map[string]string{"picture": "</svg>", "list": "</figcaption>"}[what])
				_, after, ok := strings.Cut(part, tt.at)
				if !ok {
					continue
				}
				box, _, _ := strings.Cut(after, tt.until)
				found = found || strings.Contains(box, tt.mark)
			}
			if !found {
				t.Errorf("%s: no %q at %s", what, tt.mark, tt.at)
			}
		}
	}
	cells := regexp.MustCompile(`<rect class="vf ([a-z]+)"`).FindAllStringSubmatch(s, -1)
	failed := slices.IndexFunc(cells, func(m []string) bool { return m[1] == "fail" })
	if len(cells) != 8*shape.VFs || failed != shape.VFs-1 {
		t.Errorf("%d cells of VFs, the failed one is %d", len(cells), failed)
	}
	for _, text := range []string{
		`aria-label="28 of 40 pages in use"`, // node1
		`<span class="text bad">7 queues on 4 CPUs; 7 served on another node</span>`,
		`<span class="text">7 queues on 7 CPUs</span>`,
		`<span class="del">- 1500`, `<span class="add">&#43; 4192`,
	} {
		if !strings.Contains(s, text) {
			t.Errorf("the page lacks %s", text)
		}
	}
}

// A healthy host's page has no finding that fails, and says so first.
func TestPageHealthy(t *testing.T) {
	p := densePage(t, shape, nil)
	s := html(t, p)
	if n := p.Report.Summary; n.Fail+n.Warn+n.Error != 0 || n.Pass < 100 {
		t.Errorf("the healthy host has %+v", n)
	}
	verdict, findings := strings.Index(s, `class="verdict good"`), strings.Index(s, `<section id="findings"`)
	if verdict < 0 || verdict > findings || strings.Contains(s, `class="finding fail"`) || strings.Contains(s, " has-fail") {
		t.Error("the page of a healthy host does not say so first")
	}
}

// evil is what a host could call itself to break out of what shows it: tags,
// attributes, style, terminal sequences, reversed text, broken UTF-8.
const evil = "zq</style></pre></title>]]>--><script>alert(1)</script>\"'`onload=x ![a](http://b) |@c #1 \x1b[31m\u202e\u2066\u200b\xff\x00"

// fill sets every string of a value, as far as it is one of the host or a
// profile and no word of our own.
func fill(v reflect.Value, s string) {
	switch v.Kind() {
	case reflect.String:
		if v.Type() == reflect.TypeFor[string]() {
			v.SetString(s)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			fill(v.Elem(), s)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), s)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			fill(v.Index(i), s)
		}
	default:
	}
}

// seeded is a page with s in every place that a host, a profile or a plan fills.
func seeded(s string) report.Page {
	change := report.Change{Tier: plan.Safe}
	r := &report.Report{Host: report.Host{Name: new(string), Kernel: new(string), Arch: new(string), BootID: new(string), CapturedAt: new(string)}, Profile: report.Profile{Layers: []string{""}}}
	for _, st := range check.Statuses {
		r.Findings = append(r.Findings, report.Finding{
			Status: st, Severity: check.High, Truth: &check.Truth{}, Evidence: make([]check.Evidence, 1), Fix: []report.Change{change}, Waiver: nil,
		})
	}
	r.Findings = append(r.Findings, report.Finding{Status: check.Fail, Severity: check.Low, Waiver: &report.Waiver{}}, report.Finding{Status: check.Fail, Severity: check.Low, Pending: true})
	p := &plan.Plan{Changes: []plan.Change{{Tier: plan.Link}}, Refused: []plan.Refusal{{Steps: []string{""}}}}
	page := report.Page{Report: r, Plan: p, Checks: []*check.Check{{Refs: []string{""}}}, Again: []string{""}, Bench: []*bench.Stored{{Summary: []string{""}}}}
	fill(reflect.ValueOf(&page).Elem(), s)
	for i := range r.Findings {
		r.Findings[i].Check = "x." + s
	}
	page.Checks[0].ID = "x." + s
	r.Findings[0].Truth.Live, r.Findings[0].Fix[0].Before = s+"1", s+"1"
	for i := range p.Changes {
		p.Changes[i].Why = "x." + s + ": " + s
	}
	p.Refused[0].Why = p.Changes[0].Why
	return page
}

// harmless has none of the letters that mean something.
const harmless = "zq harmless"

// judgeHostile compares a page of hostile texts with one of harmless texts, of
// which each holds as many, and at least so many.
func judgeHostile(t *testing.T, s, calm string, least int) {
	t.Helper()
	if n, k := strings.Count(s, "zq"), strings.Count(calm, "zq"); n != k || n < least {
		t.Fatalf("the hostile text stands %d times, the harmless one %d times", n, k)
	}
	if d := cmp.Diff(structure(calm), structure(s)); d != "" {
		t.Errorf("a text from a host changes the page's tags (-harmless +hostile):\n%s", d)
	}
	for _, m := range regexp.MustCompile(`zq.{0,12}`).FindAllString(s, -1) {
		if !strings.HasPrefix(m, "zq&lt;/style") {
			t.Errorf("not escaped: %q", m)
		}
	}
	for _, never := range []string{"\x1b", "\u202e", "\u2066", "\u200b", "\xff", "\x00"} {
		if strings.Contains(s, never) {
			t.Errorf("the page holds %q", never)
		}
	}
}

func TestPageHostile(t *testing.T) {
	s, calm := html(t, seeded(evil)), html(t, seeded(harmless))
	judgeHostile(t, s, calm, 60)
}

// The same for what the pictures take from the host: names in its directories.
func TestPageHostileTree(t *testing.T) {
	s := densehost.Small
	s.Queues = 4
	page := densePage(t, s, func(dir string) error {
		const name = `zq<script>alert"'&1` + "\u202e\x1b"
		class := filepath.Join(dir, "sys/class/net/ens1np0")
		at, err := filepath.EvalSymlinks(class)
		if err != nil {
			return err
		}
		to, err := os.Readlink(class)
		if err != nil {
			return err
		}
		for _, err := range []error{
			os.Rename(at, filepath.Join(filepath.Dir(at), name)),
			os.Remove(class),
			os.Symlink(filepath.Join(filepath.Dir(to), name), filepath.Join(filepath.Dir(class), name)),
		} {
			if err != nil {
				return err
			}
		}
		return nil
	})
	out := html(t, page)
	pictures := regexp.MustCompile(`(?s)<svg .*?</svg>`).FindAllString(out, -1)
	for _, m := range pictures {
		wellFormed(t, m)
	}
	if n := strings.Count(strings.Join(pictures, ""), "zq&lt;script&gt;"); n == 0 {
		t.Error("the picture does not show the interface")
	}
	if strings.Contains(out, "<script") || strings.Contains(out, "zq<") || strings.ContainsAny(out, "\u202e\x1b") {
		t.Error("the interface's name is not escaped")
	}
}

func TestMarkdownHostile(t *testing.T) {
	s, calm := report.Markdown(seeded(evil).Report), report.Markdown(seeded(harmless).Report)
	lines := func(s string) (heads []string) {
		inside := false
		for l := range strings.Lines(s) {
			head, _, _ := strings.Cut(l, "zq")
			if inside = inside != strings.HasPrefix(l, "```"); inside {
				head = strings.TrimLeft(head, "+- ")
			}
			heads = append(heads, strings.TrimSpace(head))
		}
		return heads
	}
	if d := cmp.Diff(lines(calm), lines(s)); d != "" {
		t.Errorf("a text from the host changes the page's lines (-harmless +hostile):\n%s", d)
	}
	inside := false
	for l := range strings.Lines(s) {
		fence := strings.HasPrefix(l, "```")
		inside = inside != fence
		if inside || fence {
			continue
		}
		l = regexp.MustCompile("^(#### \\S+ \\S+ )`[^`]*`").ReplaceAllString(l, "$1")
		l = strings.ReplaceAll(l, "<!-- -->", "·")
		if tag := regexp.MustCompile(`<[^>]*`).FindString(l); tag != "" && !slices.Contains([]string{"<details", "<summary", "</details", "</summary"}, tag) {
			t.Errorf("a tag from the host: %s", l)
		}
		for _, never := range []string{"@c", "#1", "://", `![`, "\x1b", "\u202e"} {
			if strings.Contains(l, never) {
				t.Errorf("%q has a meaning in: %s", never, l)
			}
		}
	}
}

// In a browser: what [chromium.Browser.Look] asks of a page, and a plot that is
// seen.
func TestPageInChromium(t *testing.T) {
	c := chromium.New(t)
	measured := sickPage(t)
	v := bench.VXLAN{Runs: []bench.VXLANRun{{Path: bench.Tunnel, Segmentation: bench.Software, Streams: 1, Gbps: 3}}}
	measured.Bench = []*bench.Stored{{Title: "TCP in a VXLAN tunnel", SVG: v.SVG(), Summary: []string{"one stream is bound by one CPU"}}}
	c.Look("hostile", html(t, seeded(evil)))
	c.Look("measured", html(t, measured))
	var wide int
	if c.Eval("document.querySelector('.plot').naturalWidth", &wide); wide < 100 {
		t.Errorf("the plot is %d pixels wide", wide)
	}
}

var screenshots = flag.String("screenshots", "", "write the pictures of docs/report.md to this directory")

// TestScreenshots makes the pictures of the documentation.
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("-screenshots names no directory")
	}
	c := chromium.New(t)
	s := densehost.Dense
	s.Queues = 64
	for name, p := range map[string]report.Page{
		"healthy": densePage(t, s, nil),
		"sick":    densePage(t, s, func(dir string) error { return densehost.Sicken(dir, s) }),
	} {
		file := filepath.Join(t.TempDir(), name+".html")
		if err := os.WriteFile(file, []byte(html(t, p)), 0o600); err != nil {
			t.Fatal(err)
		}
		to := func(what string) string { return filepath.Join(*screenshots, "report-"+name+"-"+what+".png") }
		c.As("light", 1000)
		c.Open("file://" + file)
		c.Shoot(to("topology"), "#topology", ".matrix", 0.62)
		if name == "healthy" {
			continue
		}
		c.Shoot(to("top"), "body", "#f2", 0.62)
		c.Shoot(to("maps"), "#hugepages", "#passed", 0.62)
		c.As("dark", 375)
		c.Shoot(to("phone"), "body", "#f2", 0.8)
	}
}
