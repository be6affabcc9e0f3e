// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// ownedBy gives the refusal of a wish for a setting that another program holds
// on this host, with the change to make there; nil where none does. A program
// that is installed and does not set this very setting holds nothing.
func ownedBy(f *facts.Facts, w plan.Wish) *plan.Refusal {
	for _, o := range f.Owners() {
		if o.Active != nil && !*o.Active {
			continue
		}
		for _, held := range o.Holds {
			if !held.Covers(w.Kind, w.Target, w.Name) || within(held.Value, w.Want) {
				continue
			}
			reason := fmt.Sprintf("%s holds this setting: %s", owner(o), held.Source)
			if held.Value != "" {
				reason += fmt.Sprintf(" says %q", held.Value)
			}
			r := refuse(w, reason, nativeSteps(o, held, w)...)
			return &r
		}
	}
	return nil
}

func owner(o facts.Owner) string {
	if o.Detail == "" {
		return o.Name
	}
	return fmt.Sprintf("%s (%s)", o.Name, o.Detail)
}

// within reports whether TuneD leaves a value alone: ">N" only raises and "<N"
// only lowers (tuned-profiles, assignment modifiers).
func within(rule, want string) bool {
	if len(rule) < 2 || rule[0] != '>' && rule[0] != '<' {
		return false
	}
	limit, err1 := strconv.ParseInt(strings.TrimSpace(rule[1:]), 10, 64)
	n, err2 := strconv.ParseInt(want, 10, 64)
	return err1 == nil && err2 == nil && (rule[0] == '>' && n >= limit || rule[0] == '<' && n <= limit)
}

// nativeSteps is the same change in the owner's own way.
func nativeSteps(o facts.Owner, held facts.Held, w plan.Wish) []string {
	switch o.Name {
	case facts.OwnerTuned:
		return tunedSteps(o, held, w)
	case facts.OwnerSaptune:
		note := held.Source[strings.LastIndexByte(held.Source, '/')+1:]
		note, _, _ = strings.Cut(note, ":")
		note = strings.TrimSuffix(note, ".conf")
		return []string{
			fmt.Sprintf("write to /etc/saptune/override/%s, section [sysctl]: %s = %s", note, w.Name, w.Want),
			fmt.Sprintf("saptune note revert %s && saptune note apply %s", note, note),
		}
	case facts.OwnerMachineConfig:
		return machineConfigSteps(w)
	case facts.OwnerSRIOVOperator:
		return []string{fmt.Sprintf("change the SriovNetworkNodePolicy of the cluster that selects %s: oc edit sriovnetworknodepolicies -A (numVfs, mtu, eSwitchMode)", w.Target)}
	case facts.OwnerNICOperator:
		return []string{"change the NicConfigurationTemplate of the cluster that selects this NIC: kubectl edit nicconfigurationtemplates -A (roceOptimized, pciPerformanceOptimized, numVfs)"}
	case facts.OwnerNetplan:
		return []string{fmt.Sprintf("change it in %s, then: netplan try", place(held.Source))}
	case facts.OwnerCloudInit:
		return []string{
			"change the instance's user data or network configuration, or keep cloud-init away from it: write \"network: {config: disabled}\" to /etc/cloud/cloud.cfg.d/99-disable-network-config.cfg",
			fmt.Sprintf("then change %s", place(held.Source)),
		}
	case facts.OwnerNetworkManager:
		if w.Kind == "sysctl" {
			return []string{"change the IPv6 settings of the interface's connection: nmcli connection modify NAME ipv6.…, then nmcli connection up NAME"}
		}
		return []string{fmt.Sprintf("change the connection in %s: nmcli connection modify NAME …, then nmcli connection up NAME", place(held.Source))}
	case facts.OwnerDOCA:
		return []string{fmt.Sprintf("change what %s asks for: doca-hugepages config, then doca-hugepages reload", place(held.Source))}
	case facts.OwnerCilium:
		return []string{
			"Cilium's agent writes this file again at each start; switch that off in its Helm values: sysctlfix.enabled=false",
			"remove " + place(held.Source) + " and run hostcheck again",
		}
	}
	return nil
}

// place is the file of "file:line".
func place(source string) string {
	file, _, _ := strings.Cut(source, ":")
	return file
}

// tunedSteps makes a profile on top of the active ones.
func tunedSteps(o facts.Owner, held facts.Held, w plan.Wish) []string {
	dir := "/etc/tuned"
	if strings.Contains(held.Source, "/tuned/profiles/") {
		dir += "/profiles"
	}
	section := map[string]string{
		"sysctl": "[sysctl]\n%s=%s\n", "sysfs": "[sysfs]\n%s=%s\n", "modprobe": "[modules]\n%s=%s\n", "cmdline": "[bootloader]\ncmdline_hostcheck=+%[1]s\n",
	}[w.Kind]
	if section == "" {
		return []string{fmt.Sprintf("change it in a profile of your own that includes %s (%s), then: tuned-adm profile NAME", strings.ReplaceAll(o.Detail, " ", ","), place(held.Source))}
	}
	name, want := w.Name, w.Want
	if w.Kind == "modprobe" && w.Target != "" {
		name, want = w.Target, w.Name+"="+w.Want
	} else if w.Kind == "modprobe" {
		want = ""
	}
	line := strings.TrimSuffix(fmt.Sprintf(section, name, want), "=\n")
	if file := place(held.Source); strings.HasPrefix(file, "/etc/tuned/") && strings.HasSuffix(file, "/hostcheck/tuned.conf") {
		return []string{"change it in " + file + ": " + strings.ReplaceAll(strings.TrimSpace(line), "\n", " "), "tuned-adm profile " + o.Detail}
	}
	text := fmt.Sprintf("[main]\ninclude=%s\n\n%s", strings.ReplaceAll(o.Detail, " ", ","), line)
	return []string{
		"mkdir -p " + dir + "/hostcheck",
		fmt.Sprintf("printf %s > %s/hostcheck/tuned.conf", shellText(text), dir),
		"tuned-adm profile hostcheck",
	}
}

// shellText quotes a text of several lines for printf.
func shellText(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `%`, `%%`, "\n", `\n`, `'`, `'\''`).Replace(s)
	return "'" + s + "'"
}

func machineConfigSteps(w plan.Wish) []string {
	switch w.Kind {
	case "sysctl":
		return []string{fmt.Sprintf("add to a Tuned object of the cluster (tuned.openshift.io/v1, namespace openshift-cluster-node-tuning-operator), in spec.profile.data: [main] include=openshift-node [sysctl] %s=%s", w.Name, w.Want),
			"let spec.recommend select this node's machine config pool; no reboot follows"}
	case "hugepages":
		return []string{"set spec.hugepages.pages of the PerformanceProfile that selects this node; the nodes of its pool reboot one after another"}
	case "cmdline":
		return []string{fmt.Sprintf("add %q to spec.kernelArguments of a MachineConfig for this node's pool; its nodes reboot one after another", w.Name)}
	case "unit":
		return []string{fmt.Sprintf("set %s in spec.config.systemd.units of a MachineConfig for this node's pool; its nodes reboot one after another", w.Target)}
	}
	return []string{fmt.Sprintf("put the file for %s into spec.config.storage.files of a MachineConfig for this node's pool; its nodes reboot one after another", strings.TrimSpace(w.Target+" "+w.Name))}
}
