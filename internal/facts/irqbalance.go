// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Irqbalance is the daemon that moves interrupts between CPUs, every 10
// seconds unless it is told otherwise.
type Irqbalance struct {
	Active  *bool   `json:"active"`  // runs, or will at boot
	Banned  *string `json:"banned"`  // CPU list that its configuration takes from it; "" when it says none, and then it leaves isolated and nohz_full CPUs alone by itself
	Source  string  `json:"source"`  // the file that says so; "" when there is none
	OneShot bool    `json:"oneshot"` // places them once after its start and ends
	Unknown Unknown `json:"unknown,omitempty"`
}

const irqbalanceUnit = "irqbalance.service"

// irqbalanceFiles are the environment files of the unit: Debian's, and that of
// Red Hat and SUSE.
var irqbalanceFiles = []string{"/etc/default/irqbalance", "/etc/sysconfig/irqbalance"}

func readIrqbalance(h *host.Host) (b Irqbalance) {
	if b.Active = unitActive(h, irqbalanceUnit); b.Active == nil {
		b.Unknown.say("active", "whether "+irqbalanceUnit+" runs is not in this tree")
	}
	b.Banned = new("")
	for _, p := range irqbalanceFiles {
		text, err := h.Text(p)
		switch {
		case host.Absent(err):
			continue
		case err != nil:
			b.Banned = nil
			b.Unknown.say("banned", host.Reason(err))
			return b
		}
		b.Source = p
		cpus, oneshot, err := parseIrqbalance(text)
		if err != nil {
			b.Banned = nil
			b.Unknown.say("banned", fmt.Sprintf("%s: %v", p, err))
			return b
		}
		b.Banned, b.OneShot = new(cpus.String()), oneshot
		return b
	}
	return b
}

// parseIrqbalance reads an environment file of systemd, as far as irqbalance
// reads it (cputree.c, setup_banned_cpus): a mask counts before a list,
// although the daemon warns that it is discarded.
func parseIrqbalance(text string) (banned CPUSet, oneshot bool, err error) {
	env := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") && !strings.HasPrefix(key, ";") {
			env[strings.TrimSpace(key)] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	oneshot = env["IRQBALANCE_ONESHOT"] != ""
	for arg := range strings.FieldsSeq(env["IRQBALANCE_ARGS"] + " " + env["OPTIONS"]) {
		oneshot = oneshot || arg == "--oneshot" || arg == "-o"
	}
	if mask := env["IRQBALANCE_BANNED_CPUS"]; mask != "" {
		banned, err = parseHexMask(mask)
		return banned, oneshot, err
	}
	banned, err = ParseCPUSet(env["IRQBALANCE_BANNED_CPULIST"])
	return banned, oneshot, err
}

// parseHexMask reads a mask as people write it: "ff00", "0xff00",
// "ffffffff,00000000", or more than 8 digits without a comma.
func parseHexMask(text string) (s CPUSet, err error) {
	bad := fmt.Errorf("not a CPU mask: %.40q", text)
	words := strings.Split(strings.TrimPrefix(strings.TrimSpace(text), "0x"), ",")
	var digits strings.Builder
	for i, w := range words {
		if w == "" || i > 0 && len(w) > 8 {
			return s, bad
		}
		if i > 0 {
			digits.WriteString(strings.Repeat("0", 8-len(w)))
		}
		digits.WriteString(w)
	}
	d := digits.String()
	if len(d) > MaxCPUs/4 {
		return s, bad
	}
	for i := range len(d) {
		v, err := strconv.ParseUint(d[len(d)-1-i:len(d)-i], 16, 8)
		if err != nil {
			return CPUSet{}, bad
		}
		for bit := range 4 {
			if v&(1<<bit) != 0 {
				s.Add(4*i + bit)
			}
		}
	}
	return s, nil
}
