// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"path"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// yamlLine is one "key: value" of block YAML, with the keys above it.
type yamlLine struct {
	keys  []string // from the top to this one
	value string
	line  int
}

// parseBlockYAML reads the keys of a block mapping as people and netplan write
// it. What stands in braces or a list stays a text: enough to see which
// settings a file gives, and safe on any input.
func parseBlockYAML(text string) []yamlLine {
	type level struct {
		indent int
		key    string
	}
	var stack []level
	var out []yamlLine
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		body := strings.TrimLeft(line, " ")
		indent := len(line) - len(body)
		key, value, ok := strings.Cut(body, ":")
		if !ok || key == "" || strings.ContainsAny(key[:1], "#-[{") || value != "" && value[0] != ' ' && value[0] != '\r' {
			continue
		}
		for len(stack) > 0 && stack[len(stack)-1].indent >= indent {
			stack = stack[:len(stack)-1]
		}
		if len(stack) > 64 {
			return out
		}
		stack = append(stack, level{indent, strings.Trim(strings.TrimSpace(key), `"'`)})
		value, _, _ = strings.Cut(value, " #")
		l := yamlLine{value: strings.Trim(strings.TrimSpace(value), `"'`), line: n}
		for _, s := range stack {
			l.keys = append(l.keys, s.key)
		}
		out = append(out, l)
	}
	return out
}

// netplanSettings maps what netplan can set of a device (netplan(5)) to the
// settings of a plan.
var netplanSettings = map[string][2]string{
	"mtu":                            {"mtu", "*"},
	"virtual-function-count":         {"sriov", "*"},
	"embedded-switch-mode":           {"sriov", "*"},
	"receive-checksum-offload":       {"ethtool", "feature*"},
	"transmit-checksum-offload":      {"ethtool", "feature*"},
	"tcp-segmentation-offload":       {"ethtool", "feature*"},
	"tcp6-segmentation-offload":      {"ethtool", "feature*"},
	"generic-segmentation-offload":   {"ethtool", "feature*"},
	"generic-receive-offload":        {"ethtool", "feature*"},
	"large-receive-offload":          {"ethtool", "feature*"},
	"accept-ra":                      {"sysctl", "net.ipv6.conf.%.accept_ra"},
	"ipv6-privacy":                   {"sysctl", "net.ipv6.conf.%.use_tempaddr"},
	"ipv6-mtu":                       {"sysctl", "net.ipv6.conf.%.mtu"},
	"ignore-carrier":                 {"link", "*"},
	"infiniband-mode":                {"ipoib", "*"},
	"delay-virtual-functions-rebind": {"sriov", "*"},
}

// netplanHolds gives what one file sets.
func netplanHolds(f *Facts, p, text string) []Held {
	lines := parseBlockYAML(text)
	names := map[string]string{} // by id: a glob on interface names
	id := func(l yamlLine) string {
		if len(l.keys) >= 4 && l.keys[0] == "network" {
			return l.keys[1] + "/" + l.keys[2]
		}
		return ""
	}
	for _, l := range lines {
		k := id(l)
		switch last := l.keys[len(l.keys)-1]; {
		case k == "":
		case last == "name" && len(l.keys) == 5 && l.keys[3] == "match" && names[k] == "", last == "set-name" && len(l.keys) == 4:
			names[k] = l.value
		case last == "macaddress" && len(l.keys) == 5 && l.keys[3] == "match" && names[k] == "":
			for _, n := range f.NICs().List {
				if n.MAC != nil && strings.EqualFold(*n.MAC, l.value) {
					names[k] = n.Name
				}
			}
		}
	}
	var out []Held
	for _, l := range lines {
		k := id(l)
		set, ok := netplanSettings[l.keys[len(l.keys)-1]]
		if k == "" || !ok || len(l.keys) != 4 {
			continue
		}
		name := names[k]
		if name == "" {
			name = l.keys[2]
		}
		held := Held{Kind: set[0], Target: name, Name: set[1], Value: l.value, Source: fmt.Sprintf("%s:%d", p, l.line)}
		if set[0] == "sysctl" {
			held.Target, held.Name = "", strings.ReplaceAll(set[1], "%", swapDots(name))
		}
		out = append(out, held)
	}
	return out
}

const netplanCloudInit = "50-cloud-init.yaml"

// netplanFiles lists netplan's files; of one name that of /run, then /etc wins.
func netplanFiles(h *host.Host) (paths []string) {
	seen := map[string]bool{}
	for _, dir := range []string{"/run/netplan", "/etc/netplan", "/lib/netplan"} {
		names, _ := h.List(dir) // absent where there is no netplan
		for _, n := range names {
			if strings.HasSuffix(n, ".yaml") && !seen[n] {
				seen[n] = true
				paths = append(paths, path.Join(dir, n))
			}
		}
	}
	return paths
}

func findNetplan(f *Facts, _ []string) *Owner {
	o := &Owner{Name: OwnerNetplan, Active: new(true)}
	for _, p := range netplanFiles(f.host) {
		if path.Base(p) != netplanCloudInit {
			o.read(f, p)
		}
	}
	if o.Source == "" {
		return nil
	}
	return o
}

// read adds what a file of netplan holds.
func (o *Owner) read(f *Facts, p string) {
	if o.Source == "" {
		o.Source = p
	}
	b, err := f.host.Read(p)
	if err != nil {
		o.Unknown.say("holds", whyNot(f.host, err))
		return
	}
	o.Holds = append(o.Holds, netplanHolds(f, p, string(b))...)
}

// findCloudInit: it renders the network's configuration at each new instance,
// and writes files that its user data name.
func findCloudInit(f *Facts, _ []string) *Owner {
	h := f.host
	if !there(h, "/etc/cloud/cloud.cfg") && !there(h, "/var/lib/cloud/instance") {
		return nil
	}
	o := &Owner{Name: OwnerCloudInit, Source: "/etc/cloud/cloud.cfg", Active: new(!there(h, "/etc/cloud/cloud-init.disabled"))}
	for _, p := range netplanFiles(h) {
		if path.Base(p) == netplanCloudInit {
			o.read(f, p)
		}
	}
	const data = "/var/lib/cloud/instance/cloud-config.txt"
	b, err := h.Read(data)
	if err != nil {
		if !host.Absent(err) {
			o.Unknown.say("holds", whyNot(h, err))
		}
		return o
	}
	n := 0
	for line := range strings.SplitSeq(string(b), "\n") {
		n++
		key, value, _ := strings.Cut(strings.TrimLeft(line, " -"), ":")
		if p := strings.Trim(strings.TrimSpace(value), `"'`); key == "path" && path.IsAbs(p) {
			o.Holds = append(o.Holds, Held{Kind: "file", Target: p, Source: fmt.Sprintf("%s:%d", data, n)})
		}
	}
	return o
}

// findNetworkManager: of the devices that it manages it sets what their
// connections say, and IPv6's parameters.
func findNetworkManager(f *Facts, _ []string) *Owner {
	h := f.host
	const run = "/run/NetworkManager/devices"
	indices, err := h.List(run)
	active := unitActive(h, "NetworkManager.service")
	if err != nil && (active == nil || !*active) {
		return nil
	}
	o := &Owner{Name: OwnerNetworkManager, Source: run, Active: active}
	if err == nil {
		o.Active = new(true)
	} else {
		o.Source = "/etc/systemd/system/multi-user.target.wants/NetworkManager.service"
	}
	byIndex := interfacesByIndex(h, len(indices) > 0)
	devices := map[string][]string{} // by connection
	for _, i := range indices {
		text, err := h.Text(path.Join(run, i))
		name := byIndex[i]
		if err != nil || name == "" {
			continue
		}
		managed, uuid := false, ""
		for _, l := range parseINI(text) {
			switch l.key {
			case "managed":
				managed = truth(l.value)
			case "connection-uuid":
				uuid = l.value
			}
		}
		if managed {
			devices[uuid] = append(devices[uuid], name)
			o.Holds = append(o.Holds, Held{Kind: "sysctl", Name: "net.ipv6.conf." + swapDots(name) + ".*", Source: path.Join(run, i)})
		}
	}
	for _, dir := range []string{"/etc/NetworkManager/system-connections", "/run/NetworkManager/system-connections"} {
		names, err := h.List(dir)
		if err != nil {
			if !host.Absent(err) {
				o.Unknown.say("holds", whyNot(h, err))
			}
			continue
		}
		for _, n := range names {
			p := path.Join(dir, n)
			text, err := h.Text(p)
			if err != nil {
				o.Unknown.say("holds", whyNot(h, err))
				continue
			}
			o.Holds = append(o.Holds, connectionHolds(p, text, devices)...)
		}
	}
	return o
}

// interfacesByIndex names the interfaces by their numbers.
func interfacesByIndex(h *host.Host, wanted bool) map[string]string {
	out := map[string]string{}
	names, err := h.List(NetClass)
	if err != nil || !wanted {
		return out
	}
	var ops []host.Op
	for _, n := range names {
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: path.Join(NetClass, n, "ifindex")})
	}
	h.Prefetch(ops)
	for _, n := range names {
		if i, err := h.Text(path.Join(NetClass, n, "ifindex")); err == nil {
			out[i] = n
		}
	}
	return out
}

// connectionHolds gives what a connection's file sets (nm-settings-keyfile(5)).
func connectionHolds(p, text string, devices map[string][]string) []Held {
	lines := parseINI(text)
	var on []string
	uuid := ""
	for _, l := range lines {
		switch {
		case l.section == "connection" && l.key == "interface-name":
			on = []string{l.value}
		case l.section == "connection" && l.key == "uuid":
			uuid = l.value
		}
	}
	if on == nil {
		on = devices[uuid]
	}
	var out []Held
	for _, l := range lines {
		kind, name := "", "*"
		switch {
		case l.section == "ethtool" && strings.Contains(l.key, "-"):
			kind = "ethtool"
			group, _, _ := strings.Cut(l.key, "-") // feature, ring, coalesce, channels, pause, eee
			name = strings.TrimSuffix(strings.TrimSuffix(group, "s"), "e") + "*"
		case (l.section == "ethernet" || l.section == "802-3-ethernet" || l.section == "infiniband") && l.key == "mtu":
			kind = "mtu"
		case l.section == "sriov" && l.key == "total-vfs":
			kind = "sriov"
		}
		for _, d := range on {
			if kind != "" {
				out = append(out, Held{kind, d, name, l.value, fmt.Sprintf("%s:%d", p, l.line)})
			}
		}
	}
	return out
}
