// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

const head = "schema: hostcheck.profile/v1\n"

// want is the place and the beginning of each message, and the character that
// the caret stands under.
func TestProblemsNameTheirPlace(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string // "line:col: text in the message | what the caret points at"
	}{
		{"unknown key", head + "hugepages:\n  default_siz: 1G\n", []string{`3:3: unknown key "default_siz"; did you mean "default_size"? | d`}},
		{"unknown section", head + "hugepage: {}\n", []string{`2:1: unknown key "hugepage"; did you mean "hugepages"? | h`}},
		{"nothing near", head + "iommu:\n  zzzzzzzz: 1\n", []string{`3:3: unknown key "zzzzzzzz"; known here: domain_types, state | z`}},
		{"key in flow", head + "nics: [{id: a, match: {drvier: x}, mtu_min: 1500}]\n", []string{`2:24: unknown key "drvier"; did you mean "driver"? | d`}},
		{"duplicate", head + "inventory:\n  gpus: 8\n  gpus: 4\n", []string{`4:3: the key "gpus" stands twice; the first is in line 3 | g`}},
		{"duplicate section", head + "iommu: {state: any}\niommu: {state: any}\n", []string{`3:1: the key "iommu" stands twice`}},
		{"tab", head + "iommu:\n\tstate: any\n", []string{"3:1: a tab indents this line | \t"}},
		{"tab after blanks", head + "iommu:\n  \tstate: any\n", []string{"3:3: a tab indents this line"}},
		{"anchor", head + "iommu: &a {state: any}\n", []string{"2:8: anchors (&) are not accepted | &"}},
		{"exploding anchors", bomb(), []string{"2:4: anchors", "3:8: aliases"}},
		{"merge key", head + "iommu:\n  <<: {state: any}\n", []string{"3:3: merge keys (<<) are not accepted | <"}},
		{"tag", head + "title: !!binary aGk=\n", []string{"2:8: tags (!) are not accepted | !"}},
		{"directive", "%YAML 1.1\n---\n" + head, []string{"1:1: directives (%)"}},
		{"complex key", head + "? title\n: x\n", []string{"2:1: complex keys (?)"}},
		{"two documents", head + "---\n" + head, []string{"2:1: the file holds 2 documents | -"}},
		{"empty", "", []string{"1:1: the file is empty"}},
		{"comment only", "# nothing\n", []string{"1:1: the file is empty"}},
		{"list at the top", "- a\n", []string{"1:1: a profile is a mapping"}},
		{"text at the top", "hello\n", []string{"1:1: a profile is a mapping"}},
		{"no schema", "title: x\n", []string{"1:1: the file does not say its format"}},
		{"future schema", "schema: hostcheck.profile/v2\n", []string{`1:9: schema "hostcheck.profile/v2": version 2 of the format is newer than this hostcheck | h`}},
		{"other schema", "schema: v1\n", []string{"1:1: the file does not say its format"}},
		{"other format of ours", "schema: hostcheck.waivers/v1\n", []string{`1:9: schema "hostcheck.waivers/v1": not a profile of hostcheck`}},
		{"ours as JSON", `{"bogus": 1, "schema": "hostcheck.profile/v1"}`, []string{`1:2: unknown key "bogus" | "`}},
		{"not UTF-8", head + "title: \"a\xffb\"\n", []string{"2:10: not UTF-8: byte 0xff"}},
		{"UTF-16", "\xff\xfes\x00c\x00", []string{"1:1: not UTF-8; nothing of the file is quoted"}},
		{"control character", head + "title: \"a\x1b[31mb\"\n", []string{"2:10: the control character U+001B"}},
		{"null section", head + "cmdline:\n", []string{"2:1: cmdline is empty | c"}},
		{"null value", head + "inventory: {gpus: ~}\n", []string{"2:13: gpus is empty | g"}},
		{"number as text", head + "inventory:\n  gpus: \"8\"\n", []string{`3:9: gpus takes a whole number in decimal digits, not the text "8" | "`}},
		{"hex number", head + "inventory: {gpus: 0x8}\n", []string{"2:19: gpus takes a whole number in decimal digits, not 0x8"}},
		{"octal number", head + "inventory: {gpus: 010}\n", []string{"2:19: gpus takes a whole number"}},
		{"underscored number", head + "inventory: {gpus: 1_0}\n", []string{"2:19: gpus takes a whole number"}},
		{"fraction", head + "inventory: {gpus: 1.5}\n", []string{"2:19: gpus takes a whole number in decimal digits, not 1.5"}},
		{"huge number", head + "inventory: {gpus: 99999999999999999999}\n", []string{"2:19: gpus"}},
		{"negative count", head + "inventory: {rails: -1}\n", []string{"2:20: rails is out of range: -1 is not within 0 to 1024 | -"}},
		{"percent", head + "hugepages: {node_percent_max: 101}\n", []string{"2:31: node_percent_max is out of range: 101 is not within 0 to 100"}},
		{"speed", head + "nics: [{id: a, match: {name: x}, speed_mbps: 2000000}]\n", []string{"2:46: speed_mbps is out of range"}},
		{"mtu", head + "nics: [{id: a, match: {name: x}, mtu_min: 67}]\n", []string{"2:43: mtu_min is out of range: 67 is not within 68 to 65535"}},
		{"mtu order", head + "nics: [{id: a, match: {name: x}, mtu_min: 9000, mtu_max: 1500}]\n", []string{"2:49: mtu_max 1500 is below mtu_min 9000 | m"}},
		{"boolean word", head + "hugepages: {overcommit: yes}\n", []string{`2:25: overcommit takes true or false, not the text "yes"`}},
		{"a list without end", head + "modules:\n  require: [" + strings.Repeat("a, ", 1000) + "a]\n", []string{"3:12: require has 1001 entries; at most 1000 are taken"}},
		{"text for a list", head + "modules: {require: ib_uverbs}\n", []string{"2:20: require takes a list, not the text \"ib_uverbs\"; write [ib_uverbs]"}},
		{"list for a text", head + "iommu: {state: [any]}\n", []string{"2:16: state takes a text, not a list"}},
		{"text for a mapping", head + "iommu: any\n", []string{"2:8: iommu takes a mapping of keys, not the text \"any\""}},
		{"number for a text", head + "nics: [{id: a, match: {name: x}, firmware_min: 28.39}]\n", []string{`2:48: firmware_min takes a text, not 28.39; write "28.39" in quotes if that is meant`}},
		{"bad word", head + "iommu: {state: maybe}\n", []string{`2:16: state "maybe": want one of on, off, any`}},
		{"bad size", head + "hugepages: {default_size: 3M}\n", []string{`2:27: default_size "3M": a hugepage size is a power of two from 64K to 16G`}},
		{"bad size unit", head + "hugepages: {pools: [{size: 2MB, total: 1}]}\n", []string{`2:28: size "2MB": a hugepage size`}},
		{"bad glob", head + "nics: [{id: a, match: {name: \"eth[\"}}]\n", []string{`2:30: name "eth[": not a glob | "`}},
		{"bad PCI id", head + "nics: [{id: a, match: {pci: [\"15B3:1021\"]}}]\n", []string{`2:30: pci "15B3:1021": a PCI id is vendor:device in lower-case hex`}},
		{"bad kernel range", head + "iommu: {state: {value: any, kernel: \"5.8\"}}\n", []string{`2:37: kernel "5.8": a kernel range is`}},
		{"empty kernel range", head + "iommu: {state: {value: any, kernel: \">=6.11 <5.8\"}}\n", []string{`2:37: kernel ">=6.11 <5.8": no kernel is in this range`}},
		{"unquoted range", head + "iommu: {state: any}\ntitle: >=5\n", []string{`3:8: not valid YAML: a text that starts with ">" or "|" needs quotes`}},
		{"bad intent", head + "intent: gest\n", []string{`2:9: intent "gest": want one of baremetal-gpudirect`}},
		{"bad check glob", head + "require: [\"Link\"]\n", []string{`2:11: require "Link": a check is area.name`}},
		{"value missing", head + "iommu: {state: {why: x}}\n", []string{"2:16: state has no value | {"}},
		{"token with blank", head + "cmdline: {forbid: [{token: \"a b\"}]}\n", []string{`2:28: token "a b": a token is a name`}},
		{"rule without token", head + "cmdline:\n  forbid:\n    - id: a\n", []string{"4:7: the rule needs a token | i"}},
		{"rule without id", head + "nics: [{match: {name: x}}]\n", []string{"2:8: the rule needs an id | {"}},
		{"rule without match", head + "nics:\n  - id: a\n    mtu_min: 1500\n", []string{"3:5: the rule needs a match"}},
		{"empty match", head + "nics: [{id: a, match: {}}]\n", []string{"2:16: the rule needs a match | m"}},
		{"pool without count", head + "hugepages: {pools: [{size: 1G}]}\n", []string{"2:21: the pool needs per_node or total"}},
		{"same id", head + "cmdline:\n  forbid:\n    - {id: a, token: x}\n    - {id: a, token: y}\n", []string{`5:7: the id "a" is given twice, first in line 4`}},
		{"drop without id", head + "nics: [{drop: true}]\n", []string{"2:8: drop needs the id"}},
		{"bad indentation", head + "title: x\n doc: y\n", []string{"2:8: not valid YAML: mapping value is not allowed"}},
		{"unclosed list", head + "require: [a\n", []string{"2:10: not valid YAML: sequence end token"}},
		{"unclosed quote", head + "title: 'a\n", []string{"2:8: not valid YAML: could not find end character"}},
		{"wide characters", head + "title: \"日本\"\ninventory: {gpus: 1, rials: 2}\n", []string{`3:22: unknown key "rials"; did you mean "rails"? | r`}},
		{"wide characters before", head + "nics: [{id: a, match: {name: 日本}, x: 1}]\n", []string{`2:35: unknown key "x" | x`}},
		{"all are reported", head + "bogus: 1\ninventory: {gpus: -1, rails: x}\niommu: {state: 1}\n",
			[]string{`2:1: unknown key "bogus"`, "3:19: gpus is out of range", "3:30: rails takes a whole number", "4:16: state takes a text, not 1"}},
		{"CRLF", strings.ReplaceAll(head+"iommu:\n  stat: any\n", "\n", "\r\n"), []string{`3:3: unknown key "stat"; did you mean "state"? | s`}},
		{"too deep", head + "title: " + strings.Repeat("[", 40) + "\n", []string{"2:40: nested deeper than 32 levels"}},
		{"too deep entries", head + strings.Repeat("- ", 300) + "\n", []string{"2:5: nested too deep"}},
		{"empty selector", head + "match: {functions: [{kind: vf}]}\n", []string{"2:21: the entry needs pci or driver"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Lint([]byte(tc.text), "site.yaml")
			if len(got) != len(tc.want) {
				t.Fatalf("%d problems, want %d:\n%v", len(got), len(tc.want), Problems(got))
			}
			for i, w := range tc.want {
				w, caret, hasCaret := strings.Cut(w, " | ")
				p := got[i]
				if at := fmt.Sprintf("%d:%d: %s", p.Line, p.Col, p.Msg); !strings.HasPrefix(at, w) {
					t.Errorf("problem %d\n got %s\nwant %s", i, at, w)
				}
				text := p.Error()
				if !strings.HasPrefix(text, "site.yaml:") || strings.ContainsAny(text, "\x1b\r") {
					t.Errorf("text is %q", text)
				}
				if hasCaret {
					if c := underCaret(t, text); c != caret {
						t.Errorf("the caret stands under %q, want %q:\n%s", c, caret, text)
					}
				}
			}
		})
	}
}

// TestNothingElseIsQuoted: of a file that does not say that it is hostcheck's a
// message gives the place and the kind of mistake, and no word of the file.
func TestNothingElseIsQuoted(t *testing.T) {
	for name, text := range map[string]string{
		"shadow":         "root:$6$secret$secretsecret:19700:0:99999:7:::\ndaemon:*:19700:0:99999:7:::\nsecret:!:1::::::\n",
		"key":            "-----BEGIN PRIVATE KEY-----\nsecretsecretsecret+secret/secret==\n-----END PRIVATE KEY-----\n",
		"mapping":        "user: root\npassword: secret\nsecret: {secret: secret}\n",
		"one pair":       "secret: secret\n",
		"list":           "- secret\n- {secret: secret}\n",
		"word":           "secret\n",
		"number":         "5ec2e7\n",
		"anchor":         "a: &secret secret\n",
		"alias":          "a: *secret\n",
		"tag":            "!secret secret\n",
		"directive":      "%secret secret\n---\na: 1\n",
		"header":         "a: >secret\n",
		"bracket":        "[secret\n",
		"quote":          "\"secret\n",
		"escape":         "a: \"secret\\qsecret\"\n",
		"tab":            "secret:\n\tsecret: 1\n",
		"indent":         "secret: a\n secret: b\n",
		"bytes":          "secret\xff\xfe\n",
		"control":        "secret\x1bsecret\n",
		"documents":      "secret: 1\n---\nsecret: 2\n",
		"schema of them": "schema: secret/v1\nsecret: secret\n",
		"schema inside":  "data:\n  schema: hostcheck.profile/v1\n  secret: secret\n",
	} {
		_, waivers := ParseWaivers("x", []byte(text))
		_, _, load := Load(LoadOptions{Platform: intelHost(), Names: []string{"./1.yaml"}, ReadFile: file1(text)})
		for _, err := range []error{Problems(Lint([]byte(text), "x")).err(), waivers, load} {
			switch {
			case err == nil:
				t.Errorf("%s: no problem", name)
			case strings.Contains(err.Error(), "secret"), strings.Contains(err.Error(), "5ec2e7"), !utf8.ValidString(err.Error()), strings.ContainsAny(err.Error(), "\x1b\n"), strings.Contains(err.Error(), "0xff"):
				t.Errorf("%s: the file is quoted: %v", name, err)
			case !regexp.MustCompile(`^(x|\./1\.yaml):[1-9]\d*:[1-9]\d*: `).MatchString(err.Error()):
				t.Errorf("%s: no place: %v", name, err)
			case !strings.Contains(err.Error(), "schema: hostcheck."):
				t.Errorf("%s: not what a file of ours has: %v", name, err)
			}
		}
	}
	// with the line, a mistake in YAML is quoted as any other
	text := "# ours\n'schema' : hostcheck.profile/v1\ntitle: 'a\n"
	if err := Problems(Lint([]byte(text), "x")).err(); err == nil || !strings.Contains(err.Error(), "find end character") || !strings.Contains(err.Error(), "\n    title: 'a\n") {
		t.Errorf("a profile with a mistake: %v", err)
	}
}

// bomb is the "billion laughs" text.
func bomb() string {
	var b strings.Builder
	b.WriteString(head)
	b.WriteString("a: &a [x, x]\n")
	for c := 'b'; c < 'k'; c++ {
		fmt.Fprintf(&b, "%c: &%c [*%c, *%c]\n", c, c, c-1, c-1)
	}
	return b.String()
}

func underCaret(t *testing.T, text string) string {
	t.Helper()
	lines := strings.Split(text, "\n")
	if len(lines) != 3 || !strings.HasSuffix(lines[2], "^") {
		t.Fatalf("no caret line:\n%s", text)
	}
	line, caret := []rune(lines[1]), []rune(lines[2])
	if len(line) < len(caret) {
		return ""
	}
	return string(line[len(caret)-1])
}

func TestLimitsOfFile(t *testing.T) {
	big := head + "doc: \"" + strings.Repeat("x", maxSize) + "\"\n"
	if ps := Lint([]byte(big), "x"); len(ps) != 1 || !strings.Contains(ps[0].Msg, "at most 1048576") {
		t.Errorf("a file that is too large: %.200v", ps)
	}
	many := head + strings.Repeat("bogus: 1\n", 1000)
	ps := Lint([]byte(many), "x")
	if len(ps) != maxProblems+1 || ps[maxProblems].Msg != "and more" {
		t.Errorf("%d problems of a thousand are reported, want %d and a note", len(ps), maxProblems)
	}
	long := head + "title: {" + strings.Repeat("a: 1, ", 500) + "}\n"
	for _, p := range Lint([]byte(long), "x") {
		for l := range strings.SplitSeq(p.Error(), "\n") {
			if utf8.RuneCountInString(l) > 300 {
				t.Fatalf("a line of %d characters in the message", len(l))
			}
		}
	}
}

// Texts that have brought down YAML readers end as problems: without the
// limits, the larger of them exhaust the stack or run for minutes.
func TestHostileTexts(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("[", 1<<19), strings.Repeat("{", 1<<19), strings.Repeat("- ", 1<<16), strings.Repeat("? ", 1<<16),
		strings.Repeat("a: ", 1<<16), strings.Repeat("'", 1<<19), strings.Repeat("!a ", 1<<16), strings.Repeat("&a ", 1<<16),
		strings.Repeat("*a ", 1<<16), strings.Repeat("a:\n", 1<<16), strings.Repeat("---\n", 1<<15), strings.Repeat("\n", 1<<19),
		strings.Repeat("- [\n", 1<<16), strings.Repeat("{a: ", 1<<16), strings.Repeat("|\n", 1<<16), strings.Repeat("\\", 1<<19),
		"a: |" + strings.Repeat("9", 1<<10), stairs(5000),
	} {
		if f, probs := parseFile("x", []byte(text)); len(probs) == 0 {
			t.Errorf("%.8q… is a profile: %+v", text, f)
		}
	}
}

// stairs nests by indentation, one blank a level.
func stairs(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%*sa:\n", min(i, 400), "")
	}
	return b.String()
}

func TestFilesOfTestdata(t *testing.T) {
	dir := filepath.Join("..", "..", "testdata", "profiles")
	for _, kind := range []string{"good", "bad"} {
		files, err := filepath.Glob(filepath.Join(dir, kind, "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no profiles in %s: %v", kind, err)
		}
		for _, path := range files {
			t.Run(kind+"/"+filepath.Base(path), func(t *testing.T) {
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				got := Problems(Lint(data, filepath.Base(path)))
				if kind == "good" {
					if len(got) > 0 {
						t.Errorf("%v", got)
					}
					return
				}
				golden(t, strings.TrimSuffix(path, ".yaml")+".want", got.Error()+"\n")
			})
		}
	}
}

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; make golden writes it", err)
	}
	if string(want) != got {
		t.Errorf("%s differs; make golden rewrites it\n got:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestEveryTagIsUnderstood(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var walk func(string, reflect.Type)
	walk = func(key string, rt reflect.Type) {
		if rt.Kind() == reflect.Slice || rt.Kind() == reflect.Pointer {
			rt = rt.Elem()
		}
		if rt.Kind() != reflect.Struct || seen[rt] {
			return
		}
		seen[rt] = true
		for _, f := range fields(rt) {
			name := key + "." + f.key
			if f.tag.Get("doc") == "" {
				t.Errorf("%s has no doc", name)
			}
			if form := f.tag.Get("form"); form != "" {
				if _, ok := forms[form]; !ok {
					t.Errorf("%s: there is no form %q", name, form)
				}
			}
			ft := rt.FieldByIndex(f.index).Type
			leaf := ft
			if v, ok := reflect.New(ft).Interface().(value); ok {
				leaf = v.elem().Type()
			}
			if _, _, ok := f.limits(); leaf.Kind() == reflect.Int && !ok {
				t.Errorf("%s is a number without a range", name)
			}
			if leaf.Kind() == reflect.String && f.tag.Get("form") == "" && f.tag.Get("enum") == "" {
				switch f.key {
				case "title", "doc", "source", "why", "instead", "comment":
				default:
					t.Errorf("%s takes any text", name)
				}
			}
			if ft == leaf {
				walk(name, ft)
			}
		}
	}
	walk("", reflect.TypeFor[file]())
}

func FuzzParse(f *testing.F) {
	for _, info := range List() {
		data, err := Text(info.Name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(bomb()))
	f.Add([]byte(head + "nics: [{id: a, match: {name: \"é*\"}, mtu_min: {value: 1, why: x}}]\n"))
	f.Add([]byte(head + "a:\n\tb: |\n  x\r\n? z\n"))
	p := intelHost()
	f.Fuzz(func(t *testing.T, data []byte) {
		file, probs := parseFile("x", data)
		for _, p := range probs {
			if text := p.Error(); !utf8.ValidString(text) || strings.ContainsAny(text, "\x1b\x00\r") {
				t.Fatalf("a message that is not plain text: %q", text)
			}
		}
		if file == nil {
			if len(probs) == 0 {
				t.Fatal("neither a profile nor a problem")
			}
			return
		}
		if len(probs) > 0 {
			return
		}
		read := func(string) ([]byte, error) { return data, nil }
		opts := LoadOptions{Platform: p, Names: []string{"./x.yaml"}, ReadFile: read}
		one, _, err1 := Load(opts)
		two, _, err2 := Load(opts)
		if (err1 == nil) != (err2 == nil) {
			t.Fatalf("two readings of one text: %v, %v", err1, err2)
		}
		if err1 != nil {
			return
		}
		if one.Hash != two.Hash || !reflect.DeepEqual(one.Rows(), two.Rows()) {
			t.Fatal("two readings of one text differ")
		}
		for _, r := range one.Rows() {
			if r.Key == "" || r.Origin.Layer == "" || !r.Applied && r.Why == "" {
				t.Fatalf("a row without key, origin or reason: %+v", r)
			}
		}
	})
}
