// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"context"
	"fmt"
	"time"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
)

// ConfirmWithin is how long a change of tier link may wait to be confirmed.
const ConfirmWithin = 2 * time.Minute

// The units that take an unconfirmed change back.
const (
	expireTimer   = "hostcheck-expire.timer"
	expireService = "hostcheck-expire.service"
	etcSystemd    = "/etc/systemd/system/"
)

const unitHeader = ownHeader + ownNote + "\n"

// expireTimerText counts from when the timer starts, and again from each boot:
// so it needs no clock that is right, and after a reboot there is time to log
// in. What a run could not finish is tried again.
var expireTimerText = fmt.Sprintf(unitHeader+`[Unit]
Description=Time to confirm a change of hostcheck
Documentation=man:systemd.timer(5)

[Timer]
OnActiveSec=%d
OnUnitInactiveSec=60
AccuracySec=1

[Install]
WantedBy=timers.target
`, int(ConfirmWithin.Seconds()))

func expireServiceText(program string) string {
	return unitHeader + `[Unit]
Description=Takes back a change of hostcheck that nobody confirmed

[Service]
Type=oneshot
ExecStart=` + program + ` expire
TimeoutStartSec=infinity
`
}

// Deadline arms and disarms the timer that takes back a change of tier link
// when nobody confirms it, hostcheck itself is killed, or the host reboots: kind
// "deadline", Name the timer, value "armed" or nothing. No file tells whether a
// timer runs, so the link that starts it at boot counts; systemctl fails where
// it cannot be started, and nothing is changed then.
type Deadline struct{}

// Kind is "deadline".
func (Deadline) Kind() string { return "deadline" }

var deadlineSetting = plan.Setting{Kind: "deadline", Name: expireTimer}

const armed = "armed"

// Read tells whether the timer is armed.
func (Deadline) Read(_ context.Context, h *host.Host, s plan.Setting) (plan.Value, error) {
	if s != deadlineSetting {
		return plan.Absent, fmt.Errorf("%s is not the timer of hostcheck", s)
	}
	_, err := h.Link(etcSystemd + "timers.target.wants/" + expireTimer)
	switch {
	case host.Absent(err):
		return plan.Absent, nil
	case err != nil:
		return plan.Absent, err
	}
	return plan.Text(armed), nil
}

// Apply starts the timer and has each boot start it, or neither; the timer
// counts as armed until both are done.
func (Deadline) Apply(_ context.Context, tx *plan.Tx, changes []plan.Change) error {
	for _, c := range changes {
		if c.Setting != deadlineSetting {
			return fmt.Errorf("%s is not the timer of hostcheck", c.Setting)
		}
		verbs := []string{"stop", "disable"}
		if c.After.Present {
			verbs = []string{"enable", "restart"} // enable has systemd read the files
		}
		for _, verb := range verbs {
			if err := tx.Run("systemctl", "--no-ask-password", verb, "--", expireTimer); err != nil {
				return err
			}
		}
	}
	return nil
}

// ByHand is how a person does it.
func (Deadline) ByHand(c plan.Change) string {
	if c.After.Present {
		return "systemctl enable --now " + expireTimer
	}
	return "systemctl disable --now " + expireTimer
}

// Expand refuses: no check wishes for a timer, [Complete] adds it.
func (Deadline) Expand(_ context.Context, _ *host.Host, wishes []plan.Wish) (_ []plan.Change, refused []plan.Refusal, _ error) {
	for _, w := range wishes {
		refused = append(refused, refuse(w, "the timer is armed with a change that needs it, and not by itself"))
	}
	return nil, refused, nil
}
