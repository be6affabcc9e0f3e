// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/report"
)

const (
	// minEvery keeps a host from being judged all the time.
	minEvery = time.Second
	// maxEvery is longer than anybody believes a verdict.
	maxEvery = 7 * 24 * time.Hour
	// maxLeft is how many reads may be left behind before a new process is
	// better than this one.
	maxLeft = 256
)

// checkEvery judges the host again and again, each time a fresh sample. It goes
// on whatever the verdict; what makes judging impossible ends it, so that
// whoever keeps it running sees that.
func (a *app) checkEvery(selected []*check.Check) error {
	switch _, plugin := engines[a.flags.format]; {
	case a.every < minEvery || a.every > maxEvery:
		return fmt.Errorf("--every must be %v to %v, not %v", minEvery, maxEvery, a.every)
	case plugin:
		return fmt.Errorf("--every does not go with -f %s: its engine reads the exit code, and runs hostcheck itself", a.flags.format)
	case a.flags.from != "":
		return errors.New("--every is for a host that changes, and a bundle does not")
	}
	debug.SetGCPercent(100) // this one does not end soon
	for {
		err := a.check(selected)
		var verdict exit
		switch {
		case err != nil && !errors.As(err, &verdict):
			return err
		case verdict > report.ExitSignal:
			return err
		case a.unread:
			return nil
		case a.left > maxLeft:
			return &failure{report.ExitIncomplete, fmt.Errorf("%d reads of the host never came back: this process ends, so that another one begins anew", a.left)}
		}
		time.Sleep(a.every) // a signal ends the process
	}
}

// maxAge is how long what is written once is worth something.
const maxAge = time.Hour

// valid is how long a result may be taken for the host's state: until two more
// are overdue.
func (a *app) valid() time.Duration {
	if a.every > 0 {
		return 3*a.every + a.flags.timeout
	}
	return maxAge
}
