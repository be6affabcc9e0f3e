// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// Settings that a reboot loses are kept in files and set again at each boot.
const (
	SettingsDir    = "/etc/hostcheck/settings.d"
	settingsFile   = SettingsDir + "/50-hostcheck.yaml"
	settingsSchema = "hostcheck.settings/v1"

	maxSettings     = 1000
	maxSettingsText = 256 << 10 // bytes of one file
)

// Saved is one setting of such a file, as a check wishes it. A device is named by
// its PCI address, in Target; where a path has the name of a device in it, "@"
// stands for that.
type Saved struct {
	Kind   string `yaml:"kind"`
	Target string `yaml:"target"`
	Name   string `yaml:"name"`
	Value  string `yaml:"value"`
	Why    string `yaml:"why"`

	File string `yaml:"-"` // that says so
}

func (s Saved) setting() plan.Setting {
	return plan.Setting{Kind: s.Kind, Target: s.Target, Name: s.Name}
}

// savable is one kind of setting that may be kept.
type savable struct {
	// check says what is wrong with a setting as it is kept, without looking at the host.
	check func(s Saved) error
	// save gives the form in which a setting is kept; the error is why it cannot be.
	save func(h *host.Host, s Saved) (Saved, error)
	// load gives the setting as it is on this host now; a device that is not there is an error.
	load func(h *host.Host, s plan.Setting) (plan.Setting, error)
}

// savables are all kinds that may stand in a file: what is not here is neither
// written to one nor taken from one.
var savables = map[string]savable{
	"dcb":         {checkDCB, saveDCB, loadInterface},
	"dcqcn":       {checkDCQCN, saveInterface, loadInterface},
	"ethtool":     {checkEthtool, saveInterface, loadInterface},
	"hugepages":   {checkPool, func(_ *host.Host, s Saved) (Saved, error) { return s, nil }, func(_ *host.Host, s plan.Setting) (plan.Setting, error) { return s, nil }},
	kindMigration: {checkMigration, func(_ *host.Host, s Saved) (Saved, error) { return s, nil }, loadMigration},
	"sysfs":       {checkSysfs, saveSysfs, loadSysfs},
}

// Lasts reports whether what is changed of a kind holds over a reboot: boot
// loader and files say so themselves, or a file of ours does.
func Lasts(kind string) bool {
	_, saved := savables[kind]
	return saved || slices.Contains([]string{"cmdline", kindACS, "sysctl", "modprobe", "unit"}, kind)
}

var pciForm = pattern.Late(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`)

// savedDevice is the device of a setting as it is kept, "" for none.
func savedDevice(s plan.Setting) string {
	if pciForm().MatchString(s.Target) {
		return s.Target
	}
	return ""
}

func onDevice(s Saved) error {
	if savedDevice(s.setting()) == "" {
		return fmt.Errorf("the target %q is not a PCI address such as 0000:18:00.0", s.Target)
	}
	return nil
}

// saveInterface needs a device whose only interface this is: names change.
func saveInterface(h *host.Host, s Saved) (Saved, error) {
	bdf, _ := device(s.Target)
	if bdf == "" {
		return s, fmt.Errorf("%s is no PCI device, and the name of an interface may mean another one after a reboot", s.Target)
	}
	s.Target = bdf
	_, err := interfaceOf(h, bdf)
	return s, err
}

func loadDevice(h *host.Host, s plan.Setting) (plan.Setting, error) {
	if !exists(h, facts.PCIDevices+"/"+s.Target+"/vendor") {
		return s, gone("there is no device " + s.Target)
	}
	return s, nil
}

// loadInterface needs the device's driver to be there, too: it may come later.
func loadInterface(h *host.Host, s plan.Setting) (plan.Setting, error) {
	if _, err := loadDevice(h, s); err != nil {
		return s, err
	}
	if _, err := interfaceOf(h, s.Target); errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	return s, nil
}

func checkPool(s Saved) error {
	_, err := parsePool(s.setting())
	_, notNumber := number(0, 1<<40).check(s.Value)
	return cmp.Or(err, notNumber)
}

func checkEthtool(s Saved) error {
	_, word, g, err := ethtoolName(s.setting())
	if err = cmp.Or(onDevice(s), err); err != nil {
		return err
	}
	if !g.bool(word) {
		_, err = number(0, 1<<31).check(s.Value)
	} else if s.Value != "on" && s.Value != "off" {
		err = fmt.Errorf("%s is on or off, not %.40q", s.Name, s.Value)
	}
	return err
}

// checkDCQCN takes the names and values that the verb takes.
func checkDCQCN(s Saved) error {
	role, prio, isSwitch := strings.Cut(s.Name, " ")
	if isSwitch {
		isSwitch = (role == "np" || role == "rp") && len(prio) == 1 && prio >= "0" && prio <= "7"
	}
	if !isSwitch && !slices.Contains(facts.DCQCNParams(), s.Name) {
		return fmt.Errorf("congestion control has no setting %.40q", s.Name)
	}
	_, err := dcqcnBytes(s.Name, s.Value)
	return cmp.Or(onDevice(s), err)
}

// checkDCB takes what there is to set of an interface, and no DSCP by itself.
func checkDCB(s Saved) error {
	err := onDevice(s)
	switch {
	case err != nil:
		return err
	case s.Name == dcbDCBX && s.Value == "host", s.Name == dcbTrust && (s.Value == "dscp" || s.Value == "pcp"):
		return nil
	case s.Name == dcbApp:
		_, err = tableOf(s.Value)
	case s.Name == dcbPFC:
		_, err = parsePrios(s.Value)
	default:
		return fmt.Errorf("data center bridging has no %.40q that can be %.40q at each boot", s.Name, s.Value)
	}
	return err
}

// saveDCB keeps who runs DCBX and not the flags, which a driver may have others
// of after a reboot.
func saveDCB(h *host.Host, s Saved) (Saved, error) {
	if s.Name == dcbDCBX {
		mode, err := parseMode(s.Value)
		if err != nil {
			return s, err
		}
		if mode&host.DCBXHost != 0 {
			s.Value = "host"
		}
	}
	return saveInterface(h, s)
}

// devicePaths are the classes whose files are kept with "@" for the device.
var devicePaths = []string{facts.NetClass, "/sys/class/infiniband"}

func checkSysfs(s Saved) error {
	p, marks := s.Name, strings.Count(s.Name, "@")
	if marks > 0 {
		ok := false
		for _, dir := range devicePaths {
			ok = ok || strings.HasPrefix(p, dir+"/@/")
		}
		if !ok || marks > 1 || savedDevice(s.setting()) == "" {
			return fmt.Errorf("%s: \"@\" stands for the device in %s, and the target is its PCI address", p, strings.Join(devicePaths, " or "))
		}
		p = strings.Replace(p, "@", "device", 1)
	} else if s.Target != "" {
		return fmt.Errorf("%s has no device in it, and the target %q means nothing", p, s.Target)
	}
	k, err := knobOf(SysfsSetting(p))
	if err == nil {
		_, err = k.form.check(s.Value)
	}
	if err != nil {
		return err
	}
	if marks == 0 && namesDevice(p) {
		return fmt.Errorf("%s names a device that may have another name after a reboot", p)
	}
	return nil
}

// namesDevice reports whether a path has a name in it that a boot gives out.
func namesDevice(p string) bool {
	return slices.ContainsFunc(append([]string{"/sys/kernel/config/rdma_cm"}, devicePaths...), func(dir string) bool { return strings.HasPrefix(p, dir+"/") })
}

func saveSysfs(h *host.Host, s Saved) (Saved, error) {
	for _, dir := range devicePaths {
		rest, ok := strings.CutPrefix(s.Name, dir+"/")
		if !ok {
			continue
		}
		name, rest, _ := strings.Cut(rest, "/")
		bdf, err := h.LinkBase(path.Join(dir, name, "device"))
		if err != nil || !pciForm().MatchString(bdf) {
			return s, fmt.Errorf("%s is no PCI device, and its name may mean another one after a reboot", name)
		}
		s.Target, s.Name = bdf, dir+"/@/"+rest
		break
	}
	return s, nil
}

func loadSysfs(h *host.Host, s plan.Setting) (plan.Setting, error) {
	if !strings.Contains(s.Name, "@") {
		return s, nil
	}
	if _, err := loadDevice(h, s); err != nil {
		return s, err
	}
	for _, dir := range devicePaths {
		if !strings.HasPrefix(s.Name, dir+"/@/") {
			continue
		}
		sub := path.Join(facts.PCIDevices, s.Target, path.Base(dir))
		names, err := h.List(sub)
		if err != nil || len(names) != 1 {
			return s, gone(fmt.Sprintf("%s has not one %s device", s.Target, path.Base(dir)))
		}
		return SysfsSetting(strings.Replace(s.Name, "@", names[0], 1)), nil
	}
	return s, fmt.Errorf("%s is not below a class of devices", s.Name)
}

// Wish is the setting as a wish on this host. The error is a device that is
// not there.
func (s Saved) Wish(h *host.Host) (plan.Wish, error) {
	now, err := savables[s.Kind].load(h, s.setting())
	return plan.Wish{Setting: now, Want: s.Value, Tier: plan.Link, Check: path.Base(s.File), Why: s.Why}, err
}

// Ignored is a file that is not used, and why.
type Ignored struct{ File, Why string }

// Settings is what the files say is to be set at each boot.
type Settings struct {
	All     []Saved // by kind in the order of [All], target, name; of files that say the same, the last by name counts
	Ignored []Ignored
}

// ReadSettings reads all files. One that others than root could have written,
// or that is not right in every line, is ignored as a whole.
func ReadSettings(h *host.Host) Settings {
	var out Settings
	ignore := func(p string, err error) { out.Ignored = append(out.Ignored, Ignored{p, host.Reason(err)}) }
	names, err := h.List(SettingsDir)
	if host.Absent(err) {
		return out
	}
	if err == nil {
		err = h.Trusted(SettingsDir)
	}
	if err != nil {
		ignore(SettingsDir, err)
		return out
	}
	found := map[plan.Setting]Saved{}
	for _, n := range names {
		if path.Ext(n) != ".yaml" || n[0] == '.' {
			continue
		}
		p := path.Join(SettingsDir, n)
		all, err := readSettingsFile(h, p)
		if err != nil {
			ignore(p, err)
			continue
		}
		for _, s := range all {
			found[s.setting()] = s
		}
	}
	for _, s := range found {
		out.All = append(out.All, s)
	}
	sortSaved(out.All)
	return out
}

// sortSaved orders settings as a plan would make them: rings and pause of an
// interface before its PFC.
func sortSaved(all []Saved) {
	verbs := All()
	rank := func(s Saved) int {
		return slices.IndexFunc(verbs, func(v plan.Verb) bool { return v.Kind() == s.Kind })
	}
	slices.SortStableFunc(all, func(a, b Saved) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Target, b.Target), cmp.Compare(a.Name, b.Name))
	})
}

func readSettingsFile(h *host.Host, p string) ([]Saved, error) {
	if err := h.Trusted(p); err != nil {
		return nil, err
	}
	b, err := h.Read(p)
	if err != nil {
		return nil, err
	}
	all, err := parseSettings(b)
	for i := range all {
		all[i].File = p
	}
	return all, err
}

// parseSettings decodes a file strictly: what is not understood is an error,
// never left out.
func parseSettings(text []byte) (all []Saved, err error) {
	defer func() { // whatever the library makes of a text
		if v := recover(); v != nil {
			all, err = nil, fmt.Errorf("the YAML library failed on it: %v", v)
		}
	}()
	if len(text) > maxSettingsText {
		return nil, fmt.Errorf("it is larger than %d bytes", maxSettingsText)
	}
	for line := range bytes.Lines(text) { // anchors and aliases multiply what is written
		if s := bytes.TrimSpace(line); len(s) > 0 && s[0] != '#' && bytes.ContainsAny(s, "&*") && !bytes.ContainsAny(s, `"'`) {
			return nil, errors.New("it has an anchor or an alias, or a text that needs quotes")
		}
	}
	var file struct {
		Schema   string  `yaml:"schema"`
		Settings []Saved `yaml:"settings"`
	}
	d := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict())
	if err := d.Decode(&file); errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty")
	} else if err != nil {
		return nil, fmt.Errorf("not valid: %s", firstLine(err))
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the document")
	}
	switch {
	case file.Schema != settingsSchema:
		return nil, fmt.Errorf("its schema is %.40q; this hostcheck knows %s", file.Schema, settingsSchema)
	case len(file.Settings) > maxSettings:
		return nil, fmt.Errorf("it has %d settings; at most %d are taken", len(file.Settings), maxSettings)
	}
	seen := map[plan.Setting]bool{}
	for i, s := range file.Settings {
		if err := s.check(); err != nil {
			return nil, fmt.Errorf("setting %d: %w", i+1, err)
		}
		if seen[s.setting()] {
			return nil, fmt.Errorf("setting %d: %s is there twice", i+1, s.setting())
		}
		seen[s.setting()] = true
	}
	return file.Settings, nil
}

func firstLine(err error) string {
	for line := range strings.Lines(err.Error()) {
		return strings.TrimSpace(line)
	}
	return ""
}

func (s Saved) check() error {
	for _, text := range []string{s.Kind, s.Target, s.Name, s.Value, s.Why} {
		if len(text) > 400 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return fmt.Errorf("%.40q is not a short text of one line", text)
		}
	}
	k, ok := savables[s.Kind]
	switch {
	case !ok:
		return fmt.Errorf("settings of kind %.40q are not set at boot", s.Kind)
	case s.Value == "":
		return fmt.Errorf("%s has no value", s.setting())
	}
	return k.check(s)
}

// renderSettings writes our file; one without settings is none.
func renderSettings(all []Saved) plan.Value {
	if len(all) == 0 {
		return plan.Absent
	}
	var b strings.Builder
	b.WriteString(ownHeader + "# hostcheck writes this file as a whole: put your own settings into another one here.\n")
	fmt.Fprintf(&b, "schema: %s\nsettings:\n", settingsSchema)
	for _, s := range all {
		sep := "- "
		for _, f := range [][2]string{{"kind", s.Kind}, {"target", s.Target}, {"name", s.Name}, {"value", s.Value}, {"why", s.Why}} {
			if f[1] == "" {
				continue
			}
			fmt.Fprintf(&b, "  %s%s: %s\n", sep, f[0], quoted(f[1]))
			sep = "  "
		}
	}
	return plan.Text(b.String())
}

// quoted is a double-quoted YAML scalar: JSON's strings are those of YAML.
func quoted(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return strings.TrimSpace(b.String())
}

// SettingsOff reports whether the kernel was told to have nothing set at boot:
// hostcheck.settings=off, the last word counts.
func SettingsOff(h *host.Host) (bool, error) {
	text, err := h.Text("/proc/cmdline")
	off := false
	for word := range strings.FieldsSeq(text) {
		if v, ok := strings.CutPrefix(word, "hostcheck.settings="); ok {
			off = v == "off" || v == "0" || v == "no"
		}
	}
	return off, err
}
