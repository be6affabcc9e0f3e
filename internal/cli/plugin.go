// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/pattern"
	"github.com/hostcheck/hostcheck/internal/report"
)

// Engines that run hostcheck read its exit code in terms of their own, also
// where it came to no verdict. What they must never see then is a good state,
// or an old one.

// engine is what a format of a plugin has for a run without a verdict.
type engine struct {
	unknown  int // exit code
	unjudged func(why string) []byte
}

// engines are those that run hostcheck as a plugin, by the format.
var engines = map[string]engine{
	formatNagios: {report.NagiosUnknown, report.NagiosUnjudged},
	formatNPD:    {report.NPDUnknown, report.NPDUnjudged},
}

// plugin gives the engine that runs hostcheck as its plugin, if one does. A
// command line that is not understood says so, too: it is looked through by hand.
func (a *app) plugin() (engine, bool) {
	e, ok := engines[a.asked()]
	return e, ok
}

// shortFormat is -f, also behind flags without a value: -qf nagios, -fnagios.
var shortFormat = pattern.Late(`^-[qvh]*f=?(.*)$`)

// asked is the format that the arguments or the environment ask for.
func (a *app) asked() string {
	format := a.getenv(envName("format"))
	for i := 0; i < len(a.args) && a.args[i] != "--"; i++ {
		arg := a.args[i]
		if i == 0 && strings.HasPrefix(arg, "__complete") {
			return "" // the shell asks what may come next
		}
		value, long := strings.CutPrefix(arg, "--format=")
		switch m := shortFormat().FindStringSubmatch(arg); {
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

// runPlugin is run for an engine: whatever keeps hostcheck from a verdict, be it
// a slip on the command line, a full disk or a mistake of its own, is the state
// unknown with the reason on the first line of stdout.
func (a *app) runPlugin(e engine) (code int) {
	unjudged := func(why string) int {
		a.voice.take()
		_, _ = a.stdout.Write(e.unjudged(why)) // if not even that: the exit code stands
		return e.unknown
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
		return report.ExitOK
	case a.judged && errors.As(err, &verdict):
		return int(verdict)
	case err == nil:
		return e.unknown // help and the like
	}
	return unjudged(err.Error())
}

// voice lets one of two speak on stdout, the run or the signal that ends it: an
// engine takes the first line for the whole.
type voice struct {
	mu   sync.Mutex
	mine bool // of the run: it may speak again
}

// take waits until the run may speak; where a signal was first, the process ends
// meanwhile.
func (v *voice) take() {
	if !v.mine {
		v.mu.Lock()
		v.mine = true
	}
}

// lastWords is how long a signal waits for somebody to read stdout.
const lastWords = time.Second

// interrupted says that a signal ends the run, and gives the exit code. If the
// run is just saying what it found, it may come to its end, with its own code.
func (a *app) interrupted(e engine, n syscall.Signal) int {
	said := make(chan struct{})
	go func() {
		if a.voice.mu.TryLock() {
			_, _ = a.stdout.Write(e.unjudged("interrupted by " + unix.SignalName(n) + " before there was a verdict"))
			close(said)
		}
	}()
	select {
	case <-said:
	case <-time.After(lastWords):
	}
	return e.unknown
}

// writeUnjudged leaves a file for Prometheus or Node Feature Discovery that tells
// of the run without a verdict, in place of one that looks as if the host were
// still well.
func (a *app) writeUnjudged(code int) {
	if !slices.Contains(a.flags.formats, a.flags.format) || !a.toFile() { // a command without that result
		return
	}
	switch a.flags.format { // where it cannot be written, the old file gets old
	case formatPrometheus:
		_ = a.write(report.PrometheusUnjudged(tool(), code, time.Now()))
	case formatNFD:
		_ = a.write(report.NFDUnjudged(time.Now().Add(a.valid())))
	}
}
