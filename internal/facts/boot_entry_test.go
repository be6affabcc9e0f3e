// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"strings"
	"testing"

	"github.com/hostcheck/hostcheck/internal/fixture"
)

// What is rewritten of an entry is its options and nothing else.
func TestSetOptions(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"title a\noptions  x y \nlinux /l\n", "title a\noptions  z w \nlinux /l\n"},
		{"options\tx y\r\n", "options\tz w\r\n"},
		{"  options x y", "  options z w"},
		{"options \noptions options\n#options u\n", "options \noptions z w\n#options u\n"},
		{"options x\noptions y\n", ""},
		{"title a\n", ""},
		{"options \"x y\"\n", ""},
		{"options 'x y'\n", ""},
		{"options-more x\n", ""},
	} {
		if got, err := SetOptions(tt.text, "z w"); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q becomes %q, %v; want %q", tt.text, got, err, tt.want)
		}
	}
}

// Any entry: other options are read back, and the old ones give back the file.
func FuzzSetOptions(f *testing.F) {
	f.Add("title x\noptions root=a ro\nlinux /l\n", "root=b")
	f.Add("options options\n", "options")
	f.Fuzz(func(t *testing.T, text, options string) {
		old, ok := Options(text)
		there, err := SetOptions(text, options)
		if err != nil {
			return
		}
		if now, _ := Options(there); !ok || now != options {
			t.Fatalf("%q with %q becomes %q", text, options, there)
		}
		if back, err := SetOptions(there, old); err != nil || back != text {
			t.Errorf("%q with %q becomes %q, and back %q, %v", text, options, there, back, err)
		}
	})
}

// Which entry boots by default where one more is installed.
func TestEntryWith(t *testing.T) {
	b := New(fixture.Load(t, "../../testdata/boot/systemd-boot.txtar").Host(t)).Boot()
	const usual = "4f9b2c1d3e4f5a6b7c8d9e0f1a2b3c4d-6.12.107+deb13-amd64.conf"
	for _, tt := range []struct{ name, text, want string }{
		{"zz.conf", "linux /l\noptions a\n", usual},
		{"zz.conf", "linux /l\nsort-key debian\noptions a\n", "zz.conf"}, // by machine-id, and it has none
		{"zz.conf", "linux /l\nsort-key a\noptions a\n", "zz.conf"},
	} {
		now, added := b.With(tt.name, "/efi/loader/entries/"+tt.name, tt.text)
		if now.ID != tt.want || added.ID != tt.name || *added.Cmdline != "a" {
			t.Errorf("with %s the default is %s, want %s", strings.ReplaceAll(tt.text, "\n", ", "), now.ID, tt.want)
		}
	}
}
