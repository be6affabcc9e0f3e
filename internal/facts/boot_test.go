// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/fixture"
)

// The three truths of a tree of each boot loader.
func TestBootLoaders(t *testing.T) {
	paths, err := filepath.Glob("../../testdata/boot/*.txtar")
	if err != nil || len(paths) < 8 {
		t.Fatalf("trees: %v, %v", paths, err)
	}
	loaders := map[string]bool{}
	for _, p := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(p), ".txtar"), func(t *testing.T) {
			b := New(fixture.Load(t, p).Host(t)).Boot()
			loaders[show(b.Loader).(string)] = true
			got, err := json.MarshalIndent(b, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(p, ".txtar") + ".json"
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)+"\n"); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
	for _, l := range []string{LoaderTalos, LoaderOSTree, LoaderFlatcar, LoaderGrubBLS, LoaderUKI, LoaderSystemdBoot, LoaderGrubDebian, LoaderGrub} {
		if !loaders[l] {
			t.Errorf("no tree has the boot loader %s", l)
		}
	}
}

// What a shell would give the variable X, or where and why that is not known.
func TestShellVars(t *testing.T) {
	for _, tt := range []struct{ text, want, why string }{
		{text: `X=a`, want: "a"},
		{text: "X=\"a b\"\n", want: "a b"},
		{text: `X='a $Y "b"'`, want: `a $Y "b"`},
		{text: `X="a \"b\" \$c \x"`, want: `a "b" $c \x`},
		{text: `X=a"b"'c'\ d`, want: "abc d"},
		{text: "X=a\nX=\"$X b\"\nX=\"${X} c\"", want: "a b c"},
		{text: "X=a # not b", want: "a"},
		{text: "X=a#b", want: "a#b"},
		{text: "X=a; X=b", want: "b"},
		{text: "Y=1 X=b", want: "b"},
		{text: "export X=a", want: "a"},
		{text: "X=a\nexport X", want: "a"},
		{text: "X=a\nunset X", want: ""},
		{text: "X=a\\\nb", want: "ab"},
		{text: "X=\"a\nb\"", want: "a\nb"},
		{text: ":\nX=a", want: "a"},
		{text: `X="${X:+$X }\$tuned_params"`, want: `$tuned_params`},
		{text: "X=a\n" + `X="${X:+$X }\$tuned_params"`, want: `a $tuned_params`},
		{text: `X="${Y:-d}"`, want: "d"},
		{text: `X="${Y-d}"`, want: "d"},
		{text: "Y=\nX=\"${Y-d}\"", want: ""},
		{text: "Y=`uname`\nX=a", want: "a"},
		{text: "Y=$(uname -r)\nX=a", want: "a"},
		{text: "X=`uname -r`", why: "f:1: the output of a command (`…`) is known to a shell only"},
		{text: "\nX=\"a $(nproc)\"", why: "f:2: the output of a command ($(…)) is known to a shell only"},
		{text: "Y=$(nproc)\nX=\"a $Y\"", why: "f:2: f:1: the output of a command ($(…)) is known to a shell only"},
		{text: "X=a$1", why: "f:1: $1 is known to a shell only"},
		{text: "X=${Y%b}", why: "f:1: ${Y%b} is known to a shell only"},
		{text: "X=${Y:+${Z}}", why: "f:1: ${Y:+${Z}} is known to a shell only"},
		{text: "X=a\nX=\"b", why: "f:2: a double quote is not closed"},
		{text: "X='b", why: "f:1: a single quote is not closed"},
		{text: "X=`b", why: "f:1: a back-tick is not closed"},
		{text: "X=$(b", why: "f:1: $( is not closed"},
		{text: "X=a\nif true; then X=b; fi", why: `f:2: "if" is not an assignment; hostcheck runs no shell`},
		{text: "X=a\n. /etc/other", why: `f:2: "." is not an assignment; hostcheck runs no shell`},
		{text: "X=a && true", why: `f:1: "&" is more than an assignment; hostcheck runs no shell`},
		{text: "X=a some command", why: `f:1: "some" is not an assignment; hostcheck runs no shell`},
		{text: `"X"=a`, why: `f:1: "\"X\"=a" is not an assignment; hostcheck runs no shell`},
	} {
		v := newShellVars()
		v.source("f", tt.text)
		text, why := v.get("X")
		if why != tt.why || why == "" && text != tt.want {
			t.Errorf("%q gives %q, %q; want %q, %q", tt.text, text, why, tt.want, tt.why)
		}
	}
}

// What the kernel gets of the arguments of a linux command.
func TestGrubLine(t *testing.T) {
	vars := map[string]grubValue{"a": {text: "1 2"}, "u": {unknown: true}, "e": {}}
	for _, tt := range []struct{ text, want, unresolved, why string }{
		{text: `a  b	c`, want: "a b c"},
		{text: `pci=config_acs="A;B"`, want: "pci=config_acs=A;B"},
		{text: `x='y z'`, want: `"x=y z"`},
		{text: `a\ b`, want: `"a b"`},
		{text: `x="a'b"`, want: `x=a\'b`},
		{text: `x=\"a\"`, want: `x=\"a\"`},
		{text: `$a`, want: "1 2"},
		{text: `x"$a"y`, want: `"x1 2y"`},
		{text: `x$e y`, want: "x y"},
		{text: `x $e y`, want: "x y"},
		{text: `x "" y`, want: "x  y"},
		{text: `x $u y`, want: "x y", unresolved: "${u}"},
		{text: `a # b`, want: "a"},
		{text: `x=$`, want: "x=$"},
		{text: `pci=config_acs=A;B`, why: `GRUB ends the command at a ";" or a line break outside quotes`},
		{text: "a\nb", why: `GRUB ends the command at a ";" or a line break outside quotes`},
		{text: `a "b`, why: "GRUB cannot read it as one command: a double quote is not closed"},
		{text: `a 'b`, why: "GRUB cannot read it as one command: a single quote is not closed"},
		{text: `a | b`, why: `GRUB cannot read it as one command: unexpected "|"`},
		{text: `a } b`, why: `GRUB cannot read it as one command: unexpected "}"`},
	} {
		words, unresolved, err := grubLine(tt.text, func(n string) grubValue { return vars[n] })
		why := ""
		if err != nil {
			why = err.Error()
		}
		if got := strings.Join(words, " "); got != tt.want || why != tt.why || strings.Join(unresolved, " ") != tt.unresolved {
			t.Errorf("%q gives %q, %q, %q; want %q, %q, %q", tt.text, got, unresolved, why, tt.want, tt.unresolved, tt.why)
		}
	}
}

// menuOf runs a script as grub.cfg, with an environment block.
func menuOf(t *testing.T, script string, env map[string]string) *grubMenu {
	t.Helper()
	list, err := parseGrubScript(script)
	if err != nil {
		t.Fatal(err)
	}
	m := newGrubMenu("/boot/grub/grub.cfg")
	m.read = func(string) (string, bool, error) { return "", true, os.ErrNotExist }
	m.isset = func(string, string) grubStatus { return grubTrue }
	m.env = env
	m.run(list)
	return m
}

const menuScript = `
load_env
if [ "${next_entry}" ] ; then set default="${next_entry}"; else set default="${saved_entry}"; fi
v=kept
export menuentry_id_option
menuentry_id_option="--id"
menuentry 'One' --class x $menuentry_id_option 'one' { linux /a one }
submenu 'More > here' --id more {
	menuentry 'Two' --id two { linux /b two $v }
	menuentry "Three's" { linux /c three; initrd /i1 /i2 }
}
menuentry Four --id=four { chainloader +1 }
if keystatus --shift; then
	menuentry Five --id five { linux /e five }
fi
menuentry Plain --id plain { linux /p plain }
menuentry Six --id six { if sleep 1; then linux /x six; else linux /x seven; fi }
`

// The entry that a default names, as GRUB finds it.
func TestGrubPick(t *testing.T) {
	for _, tt := range []struct{ spec, id, cmdline, why string }{
		{"", "one", "one", ""},
		{"0", "one", "one", ""},
		{"one", "one", "one", ""},
		{"One", "one", "one", ""},
		{"1", "more>>two", "", ""}, // see below
		{"more>two", "", "", ""},
		{"1>1", "", "", ""},
		{"More >> here>Three's", "", "", ""},
		{"2", "four", "-", ""},
		{"none", "one", "one", `the default "none" names no entry, and GRUB boots the first one`},
		{"9", "one", "one", `the default "9" names no entry, and GRUB boots the first one`},
		{"1>none", "more>two", "two", `the default "1>none" names no entry, and GRUB boots the first one`},
		{"plain", "plain", "plain", ""},
		{"4", "", "", "an entry of the menu is there only under a condition that the machine alone knows"},
		{"five", "", "", "an entry of the menu is there only under a condition that the machine alone knows"},
	} {
		switch tt.spec { // submenus: the variable v is not exported
		case "1", "more>two":
			tt.id, tt.cmdline = "more>two", "two"
		case "1>1", "More >> here>Three's":
			tt.id, tt.cmdline = "more>Three's", "three"
		}
		m := menuOf(t, menuScript, map[string]string{"saved_entry": tt.spec})
		e, why := m.pick("f", "")
		id, cmdline := "", ""
		if e != nil {
			id, cmdline = e.ID, "-"
			if e.Cmdline != nil && e.Unresolved == nil {
				cmdline = *e.Cmdline
			}
		}
		if id != tt.id || cmdline != tt.cmdline || why != tt.why {
			t.Errorf("default %q is %q, %q, %q; want %q, %q, %q", tt.spec, id, cmdline, why, tt.id, tt.cmdline, tt.why)
		}
	}
	m := menuOf(t, menuScript, map[string]string{"saved_entry": "one", "next_entry": "2"})
	if e, _ := m.pick("f", ""); e == nil || e.ID != "four" {
		t.Errorf("next_entry is passed over: %v", e)
	}
	boot, _ := m.of(m.entries[len(m.entries)-1])
	if !boot.ambiguous {
		t.Errorf("an entry with two lines under an unknown condition is taken for certain: %+v", boot)
	}
}

func TestGrubScriptErrors(t *testing.T) {
	for script, want := range map[string]string{
		"if true; then\nset a=b\n":            `line 3: the file ends where "fi" is expected`,
		"menuentry x {\n linux /a\n":          "line 3: a block is not closed",
		"set a='b":                            "line 1: a single quote is not closed",
		"fi":                                  `line 1: unexpected "fi"`,
		"}":                                   `line 1: unexpected "}"`,
		"a | b":                               `line 1: unexpected "|"`,
		"function {":                          "line 1: a name is expected",
		"for x in a b; set y=1; done":         `line 1: "set" where "do" is expected`,
		strings.Repeat("if true; then\n", 60): "line 41: nested deeper than 40 levels",
	} {
		_, err := parseGrubScript(script)
		if err == nil || err.Error() != want {
			t.Errorf("%.40q gives %v, want %q", script, err, want)
		}
	}
}

// Conditions as grub.cfg has them; u is not known.
func TestGrubTest(t *testing.T) {
	for expr, want := range map[string]grubStatus{
		`[ "" ]`: grubFalse, `[ a ]`: grubTrue, `[ -z "" ]`: grubTrue, `[ -n "" ]`: grubFalse, `[ x$f = xy ]`: grubTrue, `[ xa != xa ]`: grubFalse,
		`[ ! a ]`: grubFalse, `[ ! "" -a a ]`: grubTrue, `[ "" -o a ]`: grubTrue, `[ "" -a $u ]`: grubFalse, `[ a -o $u ]`: grubTrue, `[ $u = a ]`: grubMaybe,
		`[ ( "" -o a ) -a a ]`: grubTrue, `[ 3 -gt 2 ]`: grubTrue, `[ $u -gt 2 ]`: grubMaybe, `[ -s /x ]`: grubTrue, `[ -f $u ]`: grubMaybe, `[ a`: grubFalse, `true`: grubTrue, `false`: grubFalse,
		`[ "$?" = 0 ]`: grubMaybe, `loadfont x`: grubMaybe,
	} {
		m := menuOf(t, "", nil)
		m.vars["u"], m.vars["f"] = grubValue{unknown: true}, grubValue{text: "y"}
		list, err := parseGrubScript(expr)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.run(list); got != want {
			t.Errorf("%s is %d, want %d", expr, got, want)
		}
	}
}

func TestGrubenv(t *testing.T) {
	block, err := FormatGrubenv([]string{"next_entry", "odd"}, map[string]string{"next_entry": "a>b", "odd": "x\\y\nz"})
	if err != nil || len(block) != grubenvSize {
		t.Fatal(len(block), err)
	}
	vars, err := parseGrubenv(block)
	if err != nil || vars["next_entry"] != "a>b" || vars["odd"] != "x\\y\nz" || len(vars) != 2 {
		t.Errorf("%q, %v", vars, err)
	}
	if _, err := FormatGrubenv([]string{"a"}, map[string]string{"a": strings.Repeat("x", 1100)}); err == nil {
		t.Error("a variable longer than the block fits")
	}
	for _, text := range []string{"", "saved_entry=0\n", grubenvHead + "a=b\n"} {
		if _, err := parseGrubenv([]byte(text)); err == nil {
			t.Errorf("%q is taken for whole", text)
		}
	}
}

func TestBootVersions(t *testing.T) {
	// from the older to the newer, as the specification's examples have them
	for _, list := range []string{"122.1 123~rc1-1 123 123-a 123-a.1 123-1 123-1.1 123^post1 123.a-1 123.1-1 123a-1 124-1", "A a", "0-rescue 5.14.0-427 5.14.0-503 6.9 6.12.90+deb13 6.12.107+deb13 6.12.117+deb13"} {
		versions := strings.Fields(list)
		for i := range versions {
			for j := range versions {
				want := compareBool(i > j, false) - compareBool(i < j, false)
				if got := compareVersions(versions[i], versions[j]); got != want {
					t.Errorf("%s against %s is %d, want %d", versions[i], versions[j], got, want)
				}
			}
		}
	}
}

func TestBootCounter(t *testing.T) {
	for _, tt := range []struct {
		name, id   string
		counted    bool
		left, done int
	}{
		{"a.conf", "a.conf", false, 0, 0}, {"a+3.conf", "a.conf", true, 3, 0}, {"a+0-3.conf", "a.conf", true, 0, 3}, {"a+2-1.efi", "a.efi", true, 2, 1},
		{"6.12+deb13.conf", "6.12+deb13.conf", false, 0, 0}, {"6.12+deb13+3.conf", "6.12+deb13.conf", true, 3, 0}, {"a+.conf", "a+.conf", false, 0, 0}, {"a+-1.conf", "a+-1.conf", false, 0, 0},
	} {
		id, counted, left, done := bootCounter(tt.name)
		if id != tt.id || counted != tt.counted || left != tt.left || done != tt.done {
			t.Errorf("%s is %s %v %d %d", tt.name, id, counted, left, done)
		}
	}
}

func FuzzShellVars(f *testing.F) {
	f.Add("X=\"a $(b) ${c:+d}\"\nif x; then\n`y`")
	f.Fuzz(func(t *testing.T, text string) {
		v := newShellVars()
		v.source("f", text)
		if len(v.set) > len(text) {
			t.Errorf("%d assignments in %d bytes", len(v.set), len(text))
		}
	})
}

func FuzzGrubScript(f *testing.F) {
	f.Add(menuScript, "1>0")
	f.Add("function a { a; a; }\na\nfor x in 1 2 3; do if y; then a; fi; done", "0")
	f.Add("source /boot/grub/grub.cfg\nwhile x; do source y; done", "")
	f.Fuzz(func(t *testing.T, text, spec string) {
		list, err := parseGrubScript(text)
		if err != nil {
			return
		}
		m := newGrubMenu("/boot/grub/grub.cfg")
		m.read = func(string) (string, bool, error) { return text, false, nil }
		m.isset = func(string, string) grubStatus { return grubMaybe }
		m.env = map[string]string{"saved_entry": spec}
		m.run(list)
		m.vars["default"] = grubValue{text: spec}
		if e, why := m.pick("f", ""); e == nil && why == "" {
			t.Error("no entry and no reason")
		}
	})
}

func FuzzGrubenv(f *testing.F) {
	f.Add([]byte(grubenvHead + "a=b\\\nc\n#"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if vars, err := parseGrubenv(b); err != nil && len(vars) > len(b) {
			t.Error(len(vars))
		}
		set, err := EditGrubenv(b, "next_entry", "x")
		if err != nil {
			return
		}
		vars, err := parseGrubenv(set)
		was, _ := parseGrubenv(b)
		if was["next_entry"] = "x"; err != nil || !maps.Equal(vars, was) {
			t.Errorf("set: %v, %v, want %v", vars, err, was)
		}
		gone, err := EditGrubenv(set, "next_entry", "")
		vars, _ = parseGrubenv(gone)
		if delete(was, "next_entry"); err != nil || !maps.Equal(vars, was) {
			t.Errorf("taken away: %v, %v, want %v", vars, err, was)
		}
	})
}

func FuzzBLS(f *testing.F) {
	f.Add("a+1-2.conf", "title x\noptions $a b\n")
	f.Fuzz(func(t *testing.T, name, text string) {
		e := parseBLS(name, "/f", text)
		e.expand(nil)
		if compareBLS(e, e) != 0 {
			t.Error("an entry differs from itself")
		}
	})
}

func FuzzCompareVersions(f *testing.F) {
	f.Add("1.2~rc-3", "1.2^4")
	f.Fuzz(func(t *testing.T, a, b string) {
		if compareVersions(a, b) != -compareVersions(b, a) {
			t.Errorf("%q and %q: the order depends on the side", a, b)
		}
	})
}

func FuzzUKI(f *testing.F) {
	f.Add([]byte("MZ"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if s, err := parseUKI(b); err == nil {
			osReleaseValue(s.osrel, "ID")
		}
	})
}

func FuzzEFIText(f *testing.F) {
	f.Add([]byte{7, 0, 0, 0, 'a', 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := efiText(b); ok && len(s) > 3*len(b) {
			t.Error(len(s))
		}
	})
}
