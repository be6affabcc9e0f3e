// SPDX-License-Identifier: Apache-2.0

package facts

import "strings"

// cpuInfo is what /proc/cpuinfo says of the first processor.
type cpuInfo struct {
	arch     string          // "amd64", "386", "arm64", or "" when its shape does not tell
	vendor   string          // "GenuineIntel"; on Arm the maker's name
	flags    map[string]bool // x86 only; nil elsewhere
	platform string          // powerpc: "PowerNV" (bare metal) or "pSeries" (guest)
}

// armMakers are the implementer codes of Arm's MIDR register that servers have
// (arch/arm64/include/asm/cputype.h).
var armMakers = map[string]string{
	"0x41": "ARM", "0x42": "Broadcom", "0x43": "Cavium", "0x46": "Fujitsu", "0x48": "HiSilicon", "0x4e": "NVIDIA",
	"0x50": "APM", "0x51": "Qualcomm", "0x61": "Apple", "0x6d": "Microsoft", "0x70": "Phytium", "0xc0": "Ampere",
}

// parseCPUInfo reads the first processor's block alone: the file repeats it
// for every CPU, which is close to a megabyte on the largest hosts.
func parseCPUInfo(text string) (c cpuInfo) {
	first, _, _ := strings.Cut(text, "\n\n")
	fields := map[string]string{}
	for line := range strings.SplitSeq(first, "\n") {
		if name, v, ok := strings.Cut(line, ":"); ok {
			fields[strings.TrimSpace(name)] = strings.TrimSpace(v)
		}
	}
	switch {
	case fields["flags"] != "":
		c.vendor = fields["vendor_id"]
		c.flags = map[string]bool{}
		for f := range strings.FieldsSeq(fields["flags"]) {
			c.flags[f] = true
		}
		if c.arch = "386"; c.flags["lm"] { // long mode; a 32-bit kernel has it too, but nobody runs that here
			c.arch = "amd64"
		}
	case fields["CPU implementer"] != "":
		c.vendor = armMakers[strings.ToLower(fields["CPU implementer"])]
		if c.vendor == "" {
			c.vendor = "implementer " + fields["CPU implementer"]
		}
		if strings.Contains(" "+fields["Features"]+" ", " asimd ") { // a 32-bit kernel says neon
			c.arch = "arm64"
		}
	case strings.HasPrefix(fields["cpu"], "POWER"):
		c.vendor = "IBM"
		if i := strings.LastIndex(text, "\nplatform\t"); i >= 0 {
			_, v, _ := strings.Cut(text[i:], ":")
			v, _, _ = strings.Cut(v, "\n")
			c.platform = strings.TrimSpace(v)
		}
	case fields["vendor_id"] != "": // s390x, LoongArch
		c.vendor = fields["vendor_id"]
	}
	return c
}
