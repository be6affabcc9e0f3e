// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
	"github.com/hostcheck/hostcheck/internal/report"
)

const (
	dscp    = "/sys/class/net/eth1/ecn/roce_np/cnp_dscp"
	minTime = "/sys/class/net/eth1/ecn/roce_np/min_time_between_cnps"
	share   = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"
	mine    = fixes.SettingsDir + "/60-mine.yaml"
	attempt = plan.Dir + "/settings-attempt"
)

// bootLab is a host just booted, with settings of two devices to set.
func bootLab(t *testing.T) *lab {
	t.Helper()
	l := newLab(t)
	plantest.Files(t, l.root, map[string]string{
		"/proc/cmdline": "quiet\n", dscp: "0\n", minTime: "4\n", share: "0\n", "/var/lib/": "",
		"/sys/bus/pci/devices/0000:18:00.0/vendor": "0x15b3\n", "/sys/bus/pci/devices/0000:18:00.0/net/eth1/": "",
		mine: `schema: hostcheck.settings/v1
settings:
  - {kind: dcqcn, target: "0000:18:00.0", name: np_cnp_dscp, value: "48"}
  - {kind: dcqcn, target: "0000:18:00.0", name: np_min_time_between_cnps, value: "2"}
  - {kind: sysfs, name: "` + share + `", value: "7"}
  - {kind: dcqcn, target: "0000:99:00.0", name: np_cnp_dscp, value: "48"}
`, "/sys/class/net/eth1/device/": "",
	})
	if err := os.Symlink("../../../../bus/pci/drivers/mlx5_core", l.path("/sys/class/net/eth1/device/driver")); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lab) has(cnp, time, pages string) {
	l.Helper()
	if got := strings.Fields(l.text(dscp) + l.text(minTime) + l.text(share)); got[0] != cnp || got[1] != time || got[2] != pages {
		l.Errorf("the settings are %s, want %s %s %s", got, cnp, time, pages)
	}
}

func TestSettingsApply(t *testing.T) {
	l := bootLab(t)
	_, errs := l.exits(0, "settings", "apply")
	l.has("48", "2", "7")
	l.wants(errs, "there is no device 0000:99:00.0") // it may come later, and is no failure
	out, _ := l.exits(0, "history", "-q")
	if strings.Count(out, "applied again") != 2 {
		t.Errorf("want a transaction per device:\n%s", out)
	}
	out, _ = l.exits(0, "undo") // it is nobody's change to take back
	l.wants(out, "there is nothing to undo")
	_, errs = l.exits(0, "settings", "apply", "-q")
	if out, _ = l.exits(0, "history", "-q"); strings.Count(out, "applied again") != 2 {
		t.Errorf("what holds already is set again:\n%s%s", out, errs)
	}
	out, _ = l.exits(0, "status")
	l.wants(out, "4 settings set again at each boot")
}

// One device that refuses does not keep the others.
func TestSettingsRefused(t *testing.T) {
	l := bootLab(t)
	kernel := l.knob
	l.knob = func(p, text string) error {
		if p == minTime {
			return errors.New("input/output error")
		}
		return kernel(p, text)
	}
	_, errs := l.exits(4, "settings", "apply")
	l.has("0", "4", "7")
	l.wants(errs, "dcqcn 0000:18:00.0 is as it was", "input/output error")
	l.exits(0, "status") // the attempt was completed
	l.knob = kernel
	l.exits(0, "settings", "apply")
	l.has("48", "2", "7")
}

func TestSettingsOff(t *testing.T) {
	l := bootLab(t)
	l.write("/proc/cmdline", "quiet hostcheck.settings=off\n")
	_, errs := l.exits(0, "settings", "apply")
	l.wants(errs, "hostcheck.settings=off")
	l.has("0", "4", "0")
	out, _ := l.exits(0, "status")
	l.wants(out, "4 settings not set at boot: the kernel has hostcheck.settings=off")
}

// What stopped the host once is not tried again by itself.
func TestSettingsAttempt(t *testing.T) {
	l := bootLab(t)
	kernel := l.knob
	l.knob = func(p, text string) error {
		if _, err := os.Stat(l.path(attempt)); err != nil {
			t.Errorf("%s is set without a record: %v", p, err)
		}
		return kernel(p, text)
	}
	l.exits(0, "settings", "apply")
	if _, err := os.Stat(l.path(attempt)); err == nil {
		t.Error("the record stays")
	}
	for name, text := range map[string]string{
		"as it was written": `{"boot_id":"boot-0","started":"2026-11-21T06:00:00Z"}` + "\n",
		"cut short":         `{"boot`,
	} {
		l := bootLab(t)
		l.exits(0, "--fix", "--yes")
		if err := os.WriteFile(l.path(attempt), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, errs := l.exits(2, "settings", "apply")
		l.wants(errs, "nothing is set: an earlier attempt did not complete", "settings apply --retry")
		l.has("0", "4", "0")
		out, _ := l.exits(1, "status")
		l.wants(strings.Join(strings.Fields(out), " "), "! SETTINGS what should be set at each boot is not", "did not complete, so no boot tries it again until: hostcheck")
		out, _ = l.exits(1, "status", "-f", "json")
		s := document[report.Status](t, out)
		if s.Settings.Stopped == nil || (*s.Settings.Stopped == "2026-11-21T06:00:00Z") != (name == "as it was written") || s.Settings.Count != 4 {
			t.Errorf("%s: %+v", name, s.Settings)
		}
		l.exits(0, "settings", "apply", "--retry")
		l.has("48", "2", "7")
		l.exits(0, "status")
	}
}

// A device that can be neither set nor put back leaves an attempt that did not
// complete. Trying again first takes back what it left half way.
func TestSettingsHalfWay(t *testing.T) {
	l := bootLab(t)
	kernel, broken := l.knob, true
	l.knob = func(p, text string) error {
		if broken && (p == minTime || p == dscp && text == "0") {
			return errors.New("input/output error")
		}
		return kernel(p, text)
	}
	l.exits(5, "settings", "apply")
	l.has("48", "4", "7")
	for _, boot := range []string{"the same", "the next"} {
		if boot == "the next" {
			l.write("/proc/sys/kernel/random/boot_id", "22222222-2222-4333-8444-555555555555\n")
		}
		l.exits(2, "settings", "apply")
		out, _ := l.exits(1, "status", "-f", "json")
		if s := document[report.Status](t, out); s.Settings.Retry == "" || len(s.Pending) != 1 {
			t.Errorf("%s boot: %+v", boot, s)
		}
		_, errs := l.exits(5, "settings", "apply", "--retry")
		l.wants(errs, "input/output error")
	}
	broken = false
	l.exits(0, "settings", "apply", "--retry")
	l.has("48", "2", "7")
	l.exits(0, "status")
}

// A device that comes while others are being set is set, too: systemd does not
// start a unit once more that runs.
func TestSettingsMeanwhile(t *testing.T) {
	l := bootLab(t)
	driver := l.path("/sys/bus/pci/devices/0000:18:00.0/net")
	if err := os.Rename(driver, driver+".away"); err != nil {
		t.Fatal(err)
	}
	_, errs := l.exits(0, "settings", "apply") // its driver may come later, and that is no failure
	l.wants(errs, "0000:18:00.0 has no network interface")
	l.has("0", "4", "7")

	const later = "/sys/class/net/eth2/ecn/roce_np/cnp_dscp" // its turn is later
	plantest.Files(t, l.root, map[string]string{
		later: "0\n", "/sys/bus/pci/devices/0000:28:00.0/vendor": "0x15b3\n", "/sys/bus/pci/devices/0000:28:00.0/net/eth2/": "", "/sys/class/net/eth2/device/": "",
		fixes.SettingsDir + "/70-more.yaml": "schema: hostcheck.settings/v1\nsettings:\n  - {kind: dcqcn, target: \"0000:28:00.0\", name: np_cnp_dscp, value: \"50\"}\n",
	})
	if err := os.Symlink("../../../../bus/pci/drivers/mlx5_core", l.path("/sys/class/net/eth2/device/driver")); err != nil {
		t.Fatal(err)
	}
	kernel := l.knob
	l.knob = func(p, text string) error {
		if p == later {
			if err := os.Rename(driver+".away", driver); err != nil {
				t.Error(err)
			}
		}
		return kernel(p, text)
	}
	l.exits(0, "settings", "apply")
	l.has("48", "2", "7")
}

// A file that others could have written is named, and nothing of it is set.
func TestSettingsIgnored(t *testing.T) {
	l := bootLab(t)
	l.chmod(mine, 0o666)
	_, errs := l.exits(0, "settings", "apply")
	l.wants(errs, "warning: "+mine+" is ignored: others than root may write to "+mine)
	l.has("0", "4", "0")
	out, _ := l.exits(1, "status")
	l.wants(strings.Join(strings.Fields(out), " "), "! SETTINGS", mine+" is ignored")
}

// The boot waits for another hostcheck to end.
func TestSettingsWait(t *testing.T) {
	l := bootLab(t)
	l.exits(0, "--fix", "--yes")
	release := busy(t, l)
	go func() {
		time.Sleep(300 * time.Millisecond)
		release()
	}()
	l.exits(0, "settings", "apply")
	l.has("48", "2", "7")
}
