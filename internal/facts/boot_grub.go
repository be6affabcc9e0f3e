// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// grubValue is a variable of GRUB: its text, or that it is not known.
type grubValue struct {
	text    string
	unknown bool
}

// grubArg is one word of a command after expansion.
type grubArg struct {
	text    string
	unknown bool // holds a variable whose value is not known; the text has ${NAME} there
}

// grubStatus is how a command ends.
type grubStatus int

const (
	grubFalse grubStatus = iota
	grubTrue
	grubMaybe
)

// grubEntry is a menu entry, or a submenu.
type grubEntry struct {
	title, id string
	file      string
	line      int
	submenu   bool
	maybe     bool // defined only if a condition holds that is not known
	body      []grubCommand
	bls       *blsEntry // an entry of blscfg
}

// grubBoot is what an entry would boot.
type grubBoot struct {
	kernel     string
	initrd     []string
	cmdline    string // as GRUB hands it to the kernel, without BOOT_IMAGE
	unresolved []string
	ambiguous  bool // different lines under conditions that are not known
	line       int
	found      bool
}

// grubMenu runs a GRUB script as far as files tell: what the machine alone
// knows (does this font load, is that device there) is not known, and both
// branches are followed.
type grubMenu struct {
	read  func(path string) (text string, absent bool, err error)
	isset func(op, path string) grubStatus // file tests
	bls   func() []*blsEntry
	env   map[string]string // stands for the environment block
	file  string            // being run
	dir   string            // $prefix

	vars     map[string]grubValue
	exported map[string]bool
	args     []string // $1 … in a function
	funcs    map[string][]grubCommand
	entries  []*grubEntry
	saves    map[string]bool // names that save_env was asked to write
	problems []BootProblem
	steps    *int
	calls    int
	ended    bool // by return, or too many steps
	maybe    bool // in a branch that may not run
	boot     *grubBoot
}

// maxGrubSteps bounds the commands that are run, and the variables that are
// copied for a branch.
const maxGrubSteps = 200_000

func newGrubMenu(file string) *grubMenu {
	m := &grubMenu{file: file, dir: path.Dir(file), vars: map[string]grubValue{}, exported: map[string]bool{}, funcs: map[string][]grubCommand{},
		saves: map[string]bool{}, steps: new(int)}
	for _, name := range []string{"feature_menuentry_id", "feature_default_font_path", "feature_timeout_style", "feature_platform_search_hint", "feature_all_video_module",
		"feature_menuentry_options", "feature_nativedisk_cmd", "feature_200_final", "feature_chainloader_bpb", "feature_ntldr"} {
		m.vars[name] = grubValue{text: "y"}
	}
	m.vars["prefix"] = grubValue{text: m.dir}
	m.vars["config_directory"] = grubValue{text: m.dir}
	for _, name := range []string{"root", "grub_platform", "grub_cpu", "cmdpath", "lockdown", "shim_lock", "timeout"} {
		m.vars[name] = grubValue{unknown: true}
	}
	for name := range m.vars {
		m.exported[name] = true
	}
	return m
}

// step counts n commands and reports whether to go on.
func (m *grubMenu) step(n int) bool {
	*m.steps += n
	if *m.steps > maxGrubSteps && !m.ended {
		m.ended = true
		m.problems = append(m.problems, BootProblem{Kind: BootBroken, File: m.file, Why: "it runs more commands than any generated file"})
	}
	return !m.ended
}

func (m *grubMenu) run(list []grubCommand) grubStatus {
	last := grubTrue
	for i := range list {
		if !m.step(1) {
			return grubMaybe
		}
		last = m.command(&list[i])
	}
	return last
}

// clone copies what a branch may change.
func (m *grubMenu) clone() *grubMenu {
	m.step(1 + (len(m.vars)+len(m.entries))/8)
	c := *m
	c.vars, c.exported, c.entries = maps.Clone(m.vars), maps.Clone(m.exported), slices.Clone(m.entries)
	c.maybe = true
	if m.boot != nil {
		c.boot = new(*m.boot)
	}
	return &c
}

// either takes over what two branches did, of which one will run.
func (m *grubMenu) either(a, b *grubMenu) {
	n := len(m.entries)
	m.entries = slices.Concat(m.entries, a.entries[n:], b.entries[n:])
	m.problems = mergeProblems(a.problems, b.problems)
	for name := range b.vars {
		if _, ok := a.vars[name]; !ok {
			a.vars[name] = grubValue{}
		}
	}
	for name, v := range a.vars {
		if b.vars[name] != v {
			v = grubValue{unknown: true}
		}
		m.vars[name] = v
	}
	maps.Copy(m.exported, a.exported)
	maps.Copy(m.exported, b.exported)
	m.ended = m.ended || *m.steps > maxGrubSteps
	if m.boot != nil {
		*m.boot = *a.boot
		m.boot.ambiguous = m.boot.ambiguous || b.boot.ambiguous || a.boot.found != b.boot.found || a.boot.cmdline != b.boot.cmdline || a.boot.kernel != b.boot.kernel
		if !a.boot.found {
			ambiguous := m.boot.ambiguous
			*m.boot = *b.boot
			m.boot.ambiguous = ambiguous
		}
	}
}

func mergeProblems(a, b []BootProblem) []BootProblem {
	out := slices.Clone(a)
	for _, p := range b {
		if len(out) < 64 && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

func (m *grubMenu) command(c *grubCommand) grubStatus {
	switch {
	case c.loop == "for":
		return m.forLoop(c)
	case c.loop != "": // how often is not known
		a, b := m.clone(), m.clone()
		b.run(c.branches[0].cond)
		b.run(c.branches[0].body)
		m.either(a, b)
		return grubMaybe
	case c.branches != nil:
		return m.branch(c.branches)
	case c.has && c.name != "":
		m.funcs[c.name] = c.block
		return grubTrue
	}
	return m.simple(c)
}

func (m *grubMenu) forLoop(c *grubCommand) grubStatus {
	last := grubTrue
	for _, a := range m.expand(c.words) {
		if !m.step(1) {
			return grubMaybe
		}
		m.vars[c.name] = grubValue(a)
		last = m.run(c.branches[0].body)
	}
	return last
}

func (m *grubMenu) branch(branches []grubBranch) grubStatus {
	for i, b := range branches {
		if b.isElse {
			return m.run(b.body)
		}
		switch m.run(b.cond) {
		case grubTrue:
			return m.run(b.body)
		case grubMaybe:
			then, other := m.clone(), m.clone()
			then.run(b.body)
			other.branch(branches[i+1:])
			m.either(then, other)
			return grubMaybe
		case grubFalse:
		}
	}
	return grubTrue
}

// expand gives the words of a command. An unquoted variable is split at blanks
// (grub-core/script/execute.c, grub_script_arglist_to_argv).
func (m *grubMenu) expand(words []grubWord) []grubArg {
	var out []grubArg
	for _, w := range words {
		var cur grubArg
		has := false
		add := func(v grubValue, split bool, name string) {
			text := v.text
			if v.unknown {
				text, cur.unknown = "${"+name+"}", true
			}
			if !split {
				cur.text += text
				has = has || text != ""
				return
			}
			for i := range len(text) {
				if c := text[i]; c != ' ' && c != '\t' {
					cur.text += text[i : i+1]
					has = true
				} else if has {
					out = append(out, cur)
					cur, has = grubArg{}, false
				}
			}
		}
		for _, p := range w {
			switch {
			case !p.variable:
				cur.text += p.text
				has = true
			case p.text == "@" || p.text == "*":
				for i, a := range m.args {
					if i > 0 {
						out = append(out, cur)
						cur = grubArg{}
					}
					cur.text += a
					has = true
				}
			case len(p.text) == 1 && p.text[0] >= '1' && p.text[0] <= '9':
				if i := int(p.text[0] - '1'); i < len(m.args) {
					add(grubValue{text: m.args[i]}, !p.quoted, p.text)
				}
			case p.text == "?" || p.text == "#" || p.text == "0":
				add(grubValue{unknown: true}, false, p.text)
			default:
				add(m.vars[p.text], !p.quoted, p.text)
			}
		}
		if has {
			out = append(out, cur)
		}
		if !m.step(len(w) / 8) {
			break
		}
	}
	return out
}

func texts(args []grubArg) []string {
	s := make([]string, len(args))
	for i, a := range args {
		s[i] = a.text
	}
	return s
}

func (m *grubMenu) simple(c *grubCommand) grubStatus {
	args := m.expand(c.words)
	if len(args) == 0 {
		return grubTrue
	}
	cmd := args[0].text
	args = args[1:]
	if name, value, ok := strings.Cut(cmd, "="); ok && isShellName(name) && len(args) == 0 {
		m.vars[name] = grubValue{value, strings.Contains(value, "${")}
		return grubTrue
	}
	if c.has {
		if cmd == "menuentry" || cmd == "submenu" {
			m.menuentry(c, args, cmd == "submenu")
		}
		return grubTrue
	}
	if body, ok := m.funcs[cmd]; ok {
		return m.call(body, args)
	}
	switch cmd {
	case "set", "export":
		for _, a := range args {
			name, value, ok := strings.Cut(a.text, "=")
			if ok {
				m.vars[name] = grubValue{value, a.unknown}
			}
			if cmd == "export" {
				m.exported[name] = true
			}
		}
		return grubTrue
	case "unset":
		for _, a := range args {
			delete(m.vars, a.text)
		}
		return grubTrue
	case "true", "insmod", "echo":
		return grubTrue
	case "false":
		return grubFalse
	case "[", "test":
		if cmd == "[" {
			if len(args) == 0 || args[len(args)-1].text != "]" {
				return grubFalse
			}
			args = args[:len(args)-1]
		}
		return (&grubTest{m: m, args: args}).or()
	case "load_env":
		return m.loadEnv(args)
	case "save_env":
		for _, a := range args {
			m.saves[a.text] = true
		}
		return grubMaybe
	case "source", ".", "configfile":
		return m.source(args)
	case "blscfg":
		if m.bls != nil {
			for _, e := range m.bls() {
				m.entries = append(m.entries, &grubEntry{title: e.title, id: e.id, file: e.file, line: 1, maybe: m.maybe, bls: e})
			}
		}
		return grubTrue
	case "linux", "linux16", "linuxefi":
		m.linux(args, c.line)
		return grubTrue
	case "initrd", "initrd16", "initrdefi":
		if m.boot != nil {
			m.boot.initrd = texts(args)
		}
		return grubTrue
	case "multiboot", "multiboot2", "chainloader", "xen_hypervisor", "uki":
		if m.boot != nil && len(args) > 0 {
			*m.boot = grubBoot{kernel: args[0].text, found: true, line: c.line, unresolved: []string{cmd}}
		}
		return grubTrue
	case "return":
		return grubMaybe
	}
	m.setters(args)
	return grubMaybe
}

// setters forgets the variables that a command on the machine would set:
// "search --set=root …", "hwmatch" sets $match.
func (m *grubMenu) setters(args []grubArg) {
	m.vars["match"] = grubValue{unknown: true}
	for i, a := range args {
		if name, ok := strings.CutPrefix(a.text, "--set="); ok {
			m.vars[name] = grubValue{unknown: true}
		} else if (a.text == "--set" || a.text == "-s") && i+1 < len(args) && isShellName(args[i+1].text) {
			m.vars[args[i+1].text] = grubValue{unknown: true}
		}
	}
}

func (m *grubMenu) call(body []grubCommand, args []grubArg) grubStatus {
	if m.calls >= maxGrubDepth {
		m.step(maxGrubSteps)
		return grubMaybe
	}
	outer := m.args
	m.args = texts(args)
	m.calls++
	status := m.run(body)
	m.calls--
	m.args = outer
	return status
}

// envNames are the variables that matter and that only the environment block
// tells.
var envNames = []string{"next_entry", "saved_entry", "prev_saved_entry", "boot_once", "kernelopts", "tuned_params", "recordfail", "boot_success", "boot_indeterminate", "menu_show_once"}

func (m *grubMenu) loadEnv(args []grubArg) grubStatus {
	file := m.dir + "/grubenv"
	var only []string
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case (a.text == "-f" || a.text == "--file") && i+1 < len(args):
			i++
			file = args[i].text
			if args[i].unknown {
				return grubMaybe
			}
		case strings.HasPrefix(a.text, "--file="):
			file = strings.TrimPrefix(a.text, "--file=")
		case strings.HasPrefix(a.text, "-"):
		default:
			only = append(only, a.text)
		}
	}
	vars := m.env
	text, absent, err := "", false, error(nil)
	if vars == nil || file != m.dir+"/grubenv" {
		text, absent, err = m.read(file)
		vars, _ = parseGrubenv([]byte(text))
	}
	switch {
	case absent:
		return grubFalse
	case err != nil: // it may say anything
		for _, n := range envNames {
			m.vars[n] = grubValue{unknown: true}
		}
		return grubMaybe
	}
	for name, value := range vars {
		if only == nil || slices.Contains(only, name) {
			m.vars[name] = grubValue{text: value}
		}
	}
	return grubTrue
}

func (m *grubMenu) source(args []grubArg) grubStatus {
	if len(args) != 1 || m.calls >= maxGrubDepth {
		return grubMaybe
	}
	file := args[0].text
	text, absent, err := m.read(file)
	if absent {
		return grubFalse
	}
	if err != nil || args[0].unknown {
		m.problems = mergeProblems(m.problems, []BootProblem{{Kind: BootUnresolved, File: file, Why: "GRUB reads it, and it cannot be read here"}})
		return grubMaybe
	}
	if !m.step(1 + len(text)/64) {
		return grubMaybe
	}
	list, err := parseGrubScript(text)
	if err != nil {
		m.problems = mergeProblems(m.problems, []BootProblem{grubBroken(file, err)})
		return grubFalse
	}
	outer := m.file
	m.file = file
	m.calls++
	status := m.run(list)
	m.calls--
	m.file = outer
	return status
}

// menuentry defines an entry. Its options are those of
// grub-core/commands/menuentry.c.
func (m *grubMenu) menuentry(c *grubCommand, args []grubArg, submenu bool) {
	e := &grubEntry{file: m.file, line: c.line, submenu: submenu, maybe: m.maybe, body: c.block}
	titled := false
	for i := 0; i < len(args); i++ {
		a := args[i].text
		name, value, has := strings.Cut(a, "=")
		switch {
		case slices.Contains([]string{"--class", "--users", "--hotkey", "--source", "--id"}, name) && strings.HasPrefix(a, "--"):
			if !has {
				if i++; i < len(args) {
					value = args[i].text
				}
			}
			if name == "--id" {
				e.id = value
			}
		case strings.HasPrefix(a, "--"):
		case !titled:
			e.title, titled = a, true
		}
	}
	if e.id == "" {
		e.id = e.title
	}
	m.entries = append(m.entries, e)
}

// linux notes the kernel and its command line.
func (m *grubMenu) linux(args []grubArg, line int) {
	if m.boot == nil || len(args) == 0 {
		return
	}
	b := grubBoot{kernel: args[0].text, initrd: m.boot.initrd, line: line, found: true, ambiguous: m.boot.ambiguous}
	var words []string
	for _, a := range args[1:] {
		if a.unknown {
			b.unresolved = append(b.unresolved, a.text)
			continue
		}
		words = append(words, grubLoaderArg(a.text))
	}
	b.cmdline = strings.Join(words, " ")
	*m.boot = b
}

// grubLoaderArg writes an argument as GRUB puts it on the kernel's command
// line (grub-core/lib/cmdline.c): quotes around one with a blank, a backslash
// before a quote or a backslash.
func grubLoaderArg(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c == '\\' && !strings.HasPrefix(s[i+1:], "x") || c == '\'' || c == '"' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	if strings.Contains(s, " ") {
		return `"` + b.String() + `"`
	}
	return b.String()
}

// of evaluates an entry: what it boots, or the menu that it opens.
func (m *grubMenu) of(e *grubEntry) (boot *grubBoot, sub *grubMenu) {
	c := m.clone()
	c.maybe = e.maybe
	c.file = e.file
	if e.submenu { // it sees exported variables only
		for name := range c.vars {
			if !c.exported[name] {
				delete(c.vars, name)
			}
		}
		c.entries = nil
		c.run(e.body)
		return nil, c
	}
	c.boot = new(grubBoot)
	if e.bls != nil {
		c.boot.kernel, c.boot.initrd, c.boot.found, c.boot.line = e.bls.linux, e.bls.initrd, e.bls.linux != "", e.bls.optionsLine
		text, unresolved := e.bls.expand(c.vars)
		c.boot.cmdline, c.boot.unresolved = text, unresolved
		return c.boot, nil
	}
	c.run(e.body)
	return c.boot, nil
}
