// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/pattern"
)

// tools are the programs that advice speaks of: those that change a host, and
// the shells and wrappers that could start them.
var tools = strings.Fields(` apt apt-get bash blacklist bootctl cat cd chattr chmod chown cma_roce_tos cp dcb dcbtool devlink dnf dracut driverctl echo efibootmgr env ethtool
 exec grub-editenv grub-install grub-mkconfig grub-reboot grub-set-default grub2-editenv grub2-mkconfig grubby hugeadm insmod ip ipmitool
 kernel-install kernelstub kill kubectl lldptool ln loginctl lspci machinectl mkdir mkinitcpio mlnx_qos mlx mlxconfig mlxfwmanager mlxfwreset mlxreg modprobe mount
 mstconfig mstflint mstfwmanager mstfwreset mstreg mv netplan nmcli nohup numactl nvidia-smi oc perl pkill poweroff printf python python3 rdma reboot rm
 rmmod rpm rpm-ostree rtcwake saptune sed service setpci sh shutdown ssh sudo swapoff sysctl systemctl systemd-run talosctl taskset tc tee timeout touch
 transactional-update tuned-adm ukify umount update-bootloader update-grub update-initramfs virsh wipefs xargs yum zipl zypper`)

// separators are what a shell begins a new command after.
var separators = pattern.Late("\\s*[;|&\n]+\\s*|\\$\\(|`")

// IsProse reports whether a text does nothing when it is handed to a shell as it
// stands: neither it nor what follows a separator in it begins with a program.
// The one program that advice may be for is hostcheck, which shows, asks,
// verifies and can undo.
func IsProse(text string) bool {
	if starts(text, true) {
		return false
	}
	for _, at := range separators().FindAllStringIndex(text, -1) {
		if starts(text[at[1]:], false) {
			return false
		}
	}
	return true
}

// starts reports whether a command begins with a program other than hostcheck.
func starts(command string, first bool) bool {
	word, _, _ := strings.Cut(strings.TrimSpace(command), " ")
	word = strings.TrimRight(word, ",:.)`'\"")
	if path.Base(word) == "hostcheck" {
		return false
	}
	return slices.Contains(tools, word) || strings.HasPrefix(word, "/") || first && strings.ContainsAny(word, "=/<>$`")
}

// ByHand is what [Prose] begins a command of another program with.
const ByHand = "by hand: "

// Prose is advice as it is given to people and programs: what is dangerous is
// there to read, and is no list of commands to run.
func Prose(text string) string {
	if IsProse(text) {
		return text
	}
	var b strings.Builder
	b.WriteString(ByHand)
	text = strings.TrimSpace(text)
	from := 0
	for _, at := range separators().FindAllStringIndex(text, -1) {
		if starts(text[at[1]:], false) {
			b.WriteString(text[from:at[0]] + ", then ")
			from = at[1]
		}
	}
	return b.String() + text[from:]
}
