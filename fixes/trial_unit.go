// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/plan"
)

// trialService judges the host in the boot that tries a command line, and
// confirms it.
const trialService = "hostcheck-trial.service"

// trialServiceText is behind all that the host is for, so that what fails there
// is seen; nothing waits for it.
func trialServiceText(program string, args []string) string {
	line := program + " trial"
	for _, a := range args {
		line += " " + unitQuoted(a)
	}
	return unitHeader + `[Unit]
Description=Confirms the kernel command line that hostcheck tries, when the host is healthy with it
After=multi-user.target
ConditionKernelCommandLine=hostcheck.trial

[Service]
ExecStart=` + line + `

[Install]
WantedBy=multi-user.target
`
}

// unitQuoted writes one word of a command line of a unit (systemd.service(5)).
func unitQuoted(word string) string {
	if unitWord(word) && word != "" {
		return word
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$", "\n", `\n`).Replace(word) + `"`
}

// trials reports whether a plan arms a trial, and confirms whether it makes one last.
func trials(changes []plan.Change) (arms, confirms bool) {
	for _, c := range changes {
		if c.Kind == plan.KindFile && slices.Contains(trialFiles, c.Target) {
			arms, confirms = c.After.Present, !c.After.Present
		}
	}
	return arms, confirms
}

// Judging gives the arguments of "hostcheck trial": how a trial is judged after
// its boot. It is asked only where a plan has one, for it asks systemd.
type Judging func() []string

// unjudged says that nobody but a person confirms a trial.
func unjudged(why string) plan.Refusal {
	return plan.Refusal{
		Setting: UnitSetting(trialService, UnitEnabled), Want: enabled,
		Reason: "nothing confirms the new command line by itself: " + why,
		Steps:  []string{"after the reboot, when the host is well: hostcheck confirm"},
	}
}
