// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hostcheck/hostcheck/internal/report"
)

// Engines that run hostcheck read its exit code in terms of their own, also
// where it came to no verdict. What they must never see then is a good state,
// or an old one.

// plugin reports whether hostcheck is run as a plugin of Nagios. A command line
// that is not understood says so, too: it is looked through by hand.
func (a *app) plugin() bool { return a.asked() == formatNagios }

// shortFormat is -f, also behind flags without a value: -qf nagios, -fnagios.
var shortFormat = regexp.MustCompile(`^-[qvh]*f=?(.*)$`)

// asked is the format that the arguments or the environment ask for.
func (a *app) asked() string {
	format := a.getenv(envName("format"))
	for i := 0; i < len(a.args) && a.args[i] != "--"; i++ {
		arg := a.args[i]
		if i == 0 && strings.HasPrefix(arg, "__complete") {
			return "" // the shell asks what may come next
		}
		value, long := strings.CutPrefix(arg, "--format=")
		switch m := shortFormat.FindStringSubmatch(arg); {
		case long:
			format = value
		case m != nil && m[1] != "":
			format = m[1]
		case (m != nil || arg == "--format") && i+1 < len(a.args):
			i++
			format = a.args[i]
		}
	}
	return format
}

// runPlugin is run for Nagios: whatever keeps hostcheck from a verdict, be it a
// slip on the command line, a full disk or a mistake of its own, is the state
// unknown with the reason on the first line of stdout.
func (a *app) runPlugin() (code int) {
	unjudged := func(why string) int {
		_, _ = a.stdout.Write(report.NagiosUnjudged(why)) // if not even that: the exit code stands
		return report.NagiosUnknown
	}
	defer func() {
		if v := recover(); v != nil {
			code = unjudged(fmt.Sprintf("hostcheck failed here: %v", v))
		}
	}()
	err := a.execute()
	var verdict exit
	switch {
	case a.judged && err == nil:
		return report.NagiosOK
	case a.judged && errors.As(err, &verdict):
		return int(verdict)
	case err == nil:
		return report.NagiosUnknown // help and the like
	}
	return unjudged(err.Error())
}

// writeUnjudged leaves a textfile of Prometheus that tells of the run without a
// verdict, in place of one that looks as if the host were still well.
func (a *app) writeUnjudged(code int) {
	known := slices.Contains(a.flags.formats, formatPrometheus) // else the command has no such result
	if known && a.flags.format == formatPrometheus && a.toFile() {
		_ = a.write(report.PrometheusUnjudged(tool(), code, time.Now())) // where it cannot be written, the old file gets old
	}
}
