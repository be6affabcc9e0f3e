// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSysctlNames(t *testing.T) {
	for _, tt := range []struct{ in, path, name string }{
		{"net.core.rmem_max", "net/core/rmem_max", "net.core.rmem_max"},
		{"net/core/rmem_max", "net/core/rmem_max", "net.core.rmem_max"},
		{"net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter", "net.ipv4.conf.eth0/100.rp_filter"},
		{"net/ipv4/conf/eth0.100/rp_filter", "net/ipv4/conf/eth0.100/rp_filter", "net.ipv4.conf.eth0/100.rp_filter"},
		{"/kernel/domainname", "kernel/domainname", "kernel.domainname"},
		{"kernel..domainname", "kernel/domainname", "kernel.domainname"},
		{"/../etc/passwd", "etc/passwd", "etc.passwd"},
	} {
		if got := SysctlPath(tt.in); got != tt.path {
			t.Errorf("SysctlPath(%q) = %q, want %q", tt.in, got, tt.path)
		}
		if got := SysctlName(SysctlPath(tt.in)); got != tt.name {
			t.Errorf("SysctlName of %q is %q, want %q", tt.in, got, tt.name)
		}
	}
	for in, want := range map[string]string{"4096\t131072\t6291456\n": "4096 131072 6291456", "0x10": "16", " 0X1f  2": "31 2", "010": "010", "bbr": "bbr", "": ""} {
		if got := SysctlDecimal(in); got != want {
			t.Errorf("SysctlDecimal(%q) = %q, want %q", in, got, want)
		}
	}
}

// Which line wins, for each of the two programs; "file:line value", or "" for
// nobody.
func TestSysctlOrders(t *testing.T) {
	file := func(p, text string) string { return "-- " + p + " --\n" + text + "\n" }
	const key = "net.ipv4.conf.eth0.rp_filter"
	for name, tt := range map[string]struct {
		tree            string
		systemd, procps string
	}{
		"nobody":                 {file("etc/hostname", "x"), "", ""},
		"later name":             {file("etc/sysctl.d/50-a.conf", key+"=1") + file("etc/sysctl.d/60-b.conf", key+"=2"), "/etc/sysctl.d/60-b.conf:1 2", "/etc/sysctl.d/60-b.conf:1 2"},
		"across directories":     {file("etc/sysctl.d/50-a.conf", key+"=1") + file("usr/lib/sysctl.d/60-b.conf", key+"=2"), "/usr/lib/sysctl.d/60-b.conf:1 2", "/usr/lib/sysctl.d/60-b.conf:1 2"},
		"same name masks":        {file("etc/sysctl.d/50-a.conf", "# nothing") + file("usr/lib/sysctl.d/50-a.conf", key+"=2"), "", ""},
		"run before usr":         {file("run/sysctl.d/50-a.conf", key+"=1") + file("usr/local/lib/sysctl.d/50-a.conf", key+"=2"), "/run/sysctl.d/50-a.conf:1 1", "/run/sysctl.d/50-a.conf:1 1"},
		"/dev/null masks":        {"-- etc/sysctl.d/50-a.conf -> /dev/null --\n" + file("usr/lib/sysctl.d/50-a.conf", key+"=2"), "", ""},
		"a link to nowhere":      {"-- etc/sysctl.d/50-a.conf -> ../gone --\n" + file("usr/lib/sysctl.d/50-a.conf", key+"=2"), "", ""},
		"a directory":            {"-- etc/sysctl.d/50-a.conf [dir] --\n" + file("usr/lib/sysctl.d/50-a.conf", key+"=2"), "", ""},
		"later line":             {file("etc/sysctl.d/50-a.conf", key+"=1\n\n"+key+" = 2"), "/etc/sysctl.d/50-a.conf:3 2", "/etc/sysctl.d/50-a.conf:3 2"},
		"slashes":                {file("etc/sysctl.d/50-a.conf", "net/ipv4/conf/eth0/rp_filter = 2"), "/etc/sysctl.d/50-a.conf:1 2", "/etc/sysctl.d/50-a.conf:1 2"},
		"may fail":               {file("etc/sysctl.d/50-a.conf", "-"+key+" = 2"), "/etc/sysctl.d/50-a.conf:1 2", "/etc/sysctl.d/50-a.conf:1 2"},
		"glob":                   {file("etc/sysctl.d/50-a.conf", "net.ipv4.conf.*.rp_filter = 2"), "/etc/sysctl.d/50-a.conf:1 2", "/etc/sysctl.d/50-a.conf:1 2"},
		"glob stops at a slash":  {file("etc/sysctl.d/50-a.conf", "net.ipv4.*.rp_filter = 2"), "", ""},
		"explicit beats glob":    {file("etc/sysctl.d/50-a.conf", key+"=1") + file("etc/sysctl.d/60-b.conf", "net.ipv4.conf.*.rp_filter=2"), "/etc/sysctl.d/50-a.conf:1 1", "/etc/sysctl.d/50-a.conf:1 1"},
		"exclusion":              {file("etc/sysctl.d/50-a.conf", "net.ipv4.conf.*.rp_filter=2\n-"+key), "", ""},
		"exclusion after it":     {file("etc/sysctl.d/50-a.conf", key+"=2\n-"+key), "", "/etc/sysctl.d/50-a.conf:1 2"},
		"an equal line stays":    {file("etc/sysctl.d/50-a.conf", "net.ipv4.conf.e*.rp_filter=1\nnet.ipv4.conf.*.rp_filter=2\nnet.ipv4.conf.e*.rp_filter=1"), "/etc/sysctl.d/50-a.conf:2 2", "/etc/sysctl.d/50-a.conf:3 1"},
		"sysctl.conf is procps'": {file("etc/sysctl.d/99-z.conf", key+"=1") + file("etc/sysctl.conf", key+"=2"), "/etc/sysctl.d/99-z.conf:1 1", "/etc/sysctl.conf:1 2"},
		"99-sysctl.conf":         {"-- etc/sysctl.d/99-sysctl.conf -> ../sysctl.conf --\n" + file("etc/sysctl.conf", key+"=2"), "/etc/sysctl.d/99-sysctl.conf:1 2", "/etc/sysctl.conf:1 2"},
		"hidden":                 {file("etc/sysctl.d/.50-a.conf", key+"=2"), "", "/etc/sysctl.d/.50-a.conf:1 2"},
		"another suffix":         {file("etc/sysctl.d/50-a.conf.bak", key+"=2"), "", ""},
		"lib that is usr/lib":    {"-- lib -> usr/lib --\n" + file("usr/lib/sysctl.d/50-a.conf", key+"=2"), "/usr/lib/sysctl.d/50-a.conf:1 2", "/usr/lib/sysctl.d/50-a.conf:1 2"},
		"lib of its own":         {file("lib/sysctl.d/50-a.conf", key+"=2"), "/lib/sysctl.d/50-a.conf:1 2", "/lib/sysctl.d/50-a.conf:1 2"},
		"the command line":       {file("proc/cmdline", "ro sysctl.net.ipv4.conf.eth0.rp_filter=1"), "/proc/cmdline 1", "/proc/cmdline 1"},
		"files after that":       {file("proc/cmdline", "ro sysctl.net.ipv4.conf.eth0.rp_filter=1") + file("etc/sysctl.d/1.conf", key+"=2"), "/etc/sysctl.d/1.conf:1 2", "/etc/sysctl.d/1.conf:1 2"},
		"no assignment":          {file("etc/sysctl.d/50-a.conf", key+"\n;"+key+"=1\n#"+key+"=1"), "", ""},
		"hexadecimal":            {file("etc/sysctl.d/50-a.conf", key+" = 0x2"), "/etc/sysctl.d/50-a.conf:1 2", "/etc/sysctl.d/50-a.conf:1 2"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(tt.tree, "-- etc/") {
				tt.tree += file("etc/hostname", "x")
			}
			s := treeOf(t, tt.tree).Sysctl()
			if s.Conf == nil {
				t.Fatal(s.Unknown)
			}
			k := s.Key(key)
			show := func(a *Assignment) string {
				if a == nil {
					return ""
				}
				return a.At() + " " + a.Value
			}
			if got := show(k.Systemd); got != tt.systemd {
				t.Errorf("systemd-sysctl: %q, want %q", got, tt.systemd)
			}
			if got := show(k.Procps); got != tt.procps {
				t.Errorf("sysctl --system: %q, want %q", got, tt.procps)
			}
		})
	}
}

// What cannot be read may hold the line that wins: then none is known.
func TestSysctlUnreadable(t *testing.T) {
	for _, tree := range []string{
		"-- etc/sysctl.d/50-a.conf --\nvm.swappiness=1\n-- etc/sysctl.d/60-b.conf [errno EACCES] --\n",
		"-- etc/hostname --\nx\n-- usr/lib/sysctl.d [errno EIO] --\n",
		"-- etc/hostname --\nx\n-- etc/sysctl.conf [errno EACCES] --\n",
		"-- proc/sys/vm/swappiness --\n60\n", // no /etc at all
	} {
		s := treeOf(t, tree).Sysctl()
		k := s.Key("vm.swappiness")
		if s.Conf != nil || s.Files != nil || s.Unknown["configured"] == "" || k.Known() || k.Systemd != nil || k.Procps != nil {
			t.Errorf("%s: %+v %+v", tree, s, k)
		}
	}
}

func TestSysctlBoot(t *testing.T) {
	for tree, want := range map[string]string{
		"-- etc/hostname --\nx\n":      SystemdSysctl,
		"-- etc/init.d/procps --\nx\n": ProcpsSystem,
		"-- etc/init.d/procps --\nx\n-- usr/lib/systemd/systemd-sysctl --\nx\n":            SystemdSysctl,
		"-- etc/hostname --\nx\n-- etc/init.d/sysctl --\n-- run/systemd/system [dir] --\n": SystemdSysctl,
	} {
		if got := treeOf(t, tree).Sysctl().Boot; got != want {
			t.Errorf("%s: %s, want %s", tree, got, want)
		}
	}
}

// Set and Drop ask what would be, and leave the host's own files alone.
func TestSysctlWhatIf(t *testing.T) {
	c := treeOf(t, "-- etc/sysctl.d/50-a.conf --\nvm.swappiness=1\n-- etc/sysctl.conf --\nvm.swappiness=2\n").Sysctl().Conf
	more := c.Set("/etc/sysctl.d/99-z.conf", "vm.swappiness = 3\n")
	if a, b := more.BySystemd("vm.swappiness").Value, more.ByProcps("vm.swappiness").Value; a != "3" || b != "2" {
		t.Errorf("with a later file: %s, %s", a, b)
	}
	if a := more.Drop(SysctlMain).ByProcps("vm.swappiness").Value; a != "3" {
		t.Errorf("without sysctl.conf: %s", a)
	}
	if a := more.Set("/etc/sysctl.d/99-z.conf", "").BySystemd("vm.swappiness").Value; a != "1" {
		t.Errorf("emptied: %s", a)
	}
	if d := cmp.Diff("1", c.BySystemd("vm.swappiness").Value); d != "" {
		t.Errorf("the original changed: %s", d)
	}
	if d := cmp.Diff([]string{"vm.swappiness"}, c.Named()); d != "" {
		t.Error(d)
	}
}

func TestSoftnet(t *testing.T) {
	for text, want := range map[string]int64{
		"0000af31 00000010 00000002\n00000000 00000001 00000000\n": 17,
		"0000af31 00000000\n": 0, "": -1, "x\n": -1, "1 zz\n": -1,
	} {
		n, ok := parseSoftnet(text)
		if !ok {
			n = -1
		}
		if n != want {
			t.Errorf("%q: %d, want %d", text, n, want)
		}
	}
}

func FuzzParseSysctl(f *testing.F) {
	f.Add("net.core.rmem_max = 1\n-net.ipv4.conf.*.rp_filter=2\n-net.ipv4.conf.all.rp_filter\n# x\n")
	f.Add("a/b.c=\x00\r\n = \n-\n[*]/?=1")
	f.Fuzz(func(t *testing.T, text string) {
		lines := parseSysctl(text)
		for _, l := range lines {
			if l.path == "" || strings.HasPrefix(l.path, "/") || strings.HasPrefix(l.path, "../") || strings.Contains(l.path, "\n") {
				t.Errorf("path %q", l.path)
			}
			if l.line < 1 || l.line > strings.Count(text, "\n")+1 {
				t.Errorf("line %d", l.line)
			}
			if !l.set && l.value != "" {
				t.Errorf("an exclusion with a value: %q", l.value)
			}
			// a name leads back to its path, unless the name starts with a slash of its own
			if name := SysctlName(l.path); !strings.Contains(l.path, ".") && SysctlPath(name) != l.path {
				t.Errorf("%q is named %q, which is %q", l.path, name, SysctlPath(name))
			}
		}
		c := (&SysctlConf{dirs: map[string][]SysctlFile{}}).Set("/etc/sysctl.d/50-a.conf", text).Set("/etc/sysctl.d/60-b.conf", text)
		for _, l := range lines {
			a, b := c.BySystemd(SysctlName(l.path)), c.ByProcps(SysctlName(l.path))
			for _, x := range []*Assignment{a, b} {
				if x != nil && (x.Line < 1 || SysctlDecimal(x.Value) != x.Value) {
					t.Errorf("%q: %+v", l.path, x)
				}
			}
		}
	})
}

func FuzzOwnerFiles(f *testing.F) {
	f.Add("[main]\ninclude=a\n[sysctl]\nk=v\n", "network:\n  ethernets:\n    e:\n      mtu: 1\n")
	f.Fuzz(func(t *testing.T, ini, yaml string) {
		for _, l := range parseINI(ini) {
			if l.line < 1 || strings.Contains(l.key+l.value, "\n") {
				t.Errorf("%+v", l)
			}
		}
		for _, l := range parseBlockYAML(yaml) {
			if len(l.keys) == 0 || len(l.keys) > 65 || l.line < 1 {
				t.Errorf("%+v", l)
			}
		}
		connectionHolds("/x", ini, nil)
		netplanHolds(&Facts{}, "/x", strings.ReplaceAll(yaml, "macaddress", "name"))
	})
}
