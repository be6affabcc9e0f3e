// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// MLX4 is what decides about tunnels on a ConnectX-3.
type MLX4 struct {
	// MgmEntrySize is the parameter log_num_mgm_entry_size of mlx4_core: the
	// card looks into tunnels only with device-managed steering, which 0 and
	// less ask for.
	MgmEntrySize *int       `json:"log_num_mgm_entry_size"`
	Configured   *int       `json:"configured"`    // in modprobe.d, for the next load; nil for nothing there
	ConfiguredAt string     `json:"configured_at"` // "/etc/modprobe.d/mlx4.conf:3"; "" for nowhere
	Cards        []MLX4Card `json:"cards"`         // those that carry tunnels
	Unknown      Unknown    `json:"unknown,omitempty"`
}

// MLX4Card is one ConnectX-3, whose ports share one UDP port for tunnels.
type MLX4Card struct {
	BDF     string   `json:"bdf"`
	Pro     *bool    `json:"pro"`  // ConnectX-3 Pro: a ConnectX-3 does not look into tunnels at all
	NICs    []string `json:"nics"` // all its interfaces
	Unknown Unknown  `json:"unknown,omitempty"`
}

// MLX4Module and MLX4Parameter name the module's parameter.
const (
	MLX4Module    = "mlx4_core"
	MLX4Parameter = "log_num_mgm_entry_size"
)

// MLX4Path is the file of the parameter.
const MLX4Path = "/sys/module/" + MLX4Module + "/parameters/" + MLX4Parameter

// Device numbers (drivers/net/ethernet/mellanox/mlx4/main.c, mlx4_pci_table).
const (
	connectX3Pro = "1007"
	connectX3VF  = "1004" // of both
)

func decodeMLX4(f *Facts, nics []VXLANNIC) *MLX4 {
	m := &MLX4{Cards: []MLX4Card{}}
	for i := range nics {
		n := &nics[i]
		if n.BDF == "" || n.Driver == nil || !strings.HasPrefix(*n.Driver, "mlx4") || slices.ContainsFunc(m.Cards, func(c MLX4Card) bool { return c.BDF == n.BDF }) {
			continue
		}
		c := MLX4Card{BDF: n.BDF, NICs: []string{}}
		for _, nic := range f.NICs().Of(n.BDF) {
			c.NICs = append(c.NICs, nic.Name)
		}
		switch fn := f.PCI().At(n.BDF); {
		case fn == nil || fn.Device == nil:
			c.Unknown.say("pro", "its PCI device number is not known")
		case *fn.Device == connectX3VF:
			c.Unknown.say("pro", "a virtual function: the host of its physical function decides about it")
		default:
			pro := *fn.Device == connectX3Pro
			c.Pro = &pro
		}
		m.Cards = append(m.Cards, c)
	}
	if len(m.Cards) == 0 {
		return nil
	}
	v, err := f.host.Int(MLX4Path)
	if err != nil {
		m.Unknown.say("log_num_mgm_entry_size", whyNot(f.host, err))
	} else {
		m.MgmEntrySize = new(int(v))
	}
	value, at, why := moduleOption(f.host, MLX4Module, MLX4Parameter)
	n, err := strconv.ParseInt(value, 0, 32)
	switch {
	case why != "":
		m.Unknown.say("configured", why)
	case at != "" && err != nil:
		m.ConfiguredAt = at
		m.Unknown.say("configured", at+": not a number")
	case at != "":
		m.Configured, m.ConfiguredAt = new(int(n)), at
	}
	return m
}

// moduleOption gives the value that modprobe.d has for a parameter, and where;
// the last of several counts, files in the order of their names.
func moduleOption(h *host.Host, module, parameter string) (value, at, why string) {
	files, why := ConfFiles(h, "modprobe.d", ModprobePlaces...)
	if why != "" {
		return "", "", why
	}
	slices.SortFunc(files, func(a, b string) int { return strings.Compare(path.Base(a), path.Base(b)) })
	for _, p := range files {
		b, err := h.Read(p)
		if err != nil && !host.Absent(err) {
			return "", "", host.Reason(err)
		}
		if v, line := parseModuleOption(string(b), module, parameter); line > 0 {
			value, at = v, fmt.Sprintf("%s:%d", p, line)
		}
	}
	return value, at, ""
}

// parseModuleOption finds the last "options MODULE … PARAMETER=VALUE" of a file
// of modprobe.d(5) and its line, 0 for none.
func parseModuleOption(text, module, parameter string) (value string, at int) {
	for _, l := range ModprobeLines(text) {
		if len(l.Words) < 3 || l.Words[0] != "options" || ModuleName(l.Words[1]) != ModuleName(module) {
			continue
		}
		for _, w := range l.Words[2:] {
			if name, v, ok := strings.Cut(w, "="); ok && ModuleName(name) == parameter {
				value, at = strings.Trim(v, `"`), l.Line
			}
		}
	}
	return value, at
}
