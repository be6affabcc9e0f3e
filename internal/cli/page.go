// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/term"

	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// page is a text that is written in parts: at once on stdout, whole at the end
// where it goes to a file.
type page struct {
	app   *app
	text  strings.Builder
	begun bool
}

// add adds a part, with an empty line before it.
func (p *page) add(s string) {
	if p.begun {
		p.text.WriteByte('\n')
	}
	p.begun = true
	p.text.WriteString(s)
}

// flush shows what there is so far, where it can be seen.
func (p *page) flush() error {
	if p.app.toFile() {
		return nil
	}
	return p.end()
}

// end writes the rest.
func (p *page) end() error {
	s := p.text.String()
	p.text.Reset()
	if s == "" {
		return nil
	}
	return p.app.writeText(s)
}

// steps shows on stderr what the engine is doing: in place on a terminal, a
// line each elsewhere.
type steps struct {
	mu       sync.Mutex
	a        *app
	terminal bool
	shown    bool
}

func (a *app) steps() *steps { return &steps{a: a, terminal: term.IsTerminal(int(a.stderr.Fd()))} }

func (s *steps) show(step plan.Step) {
	switch name := report.Clean(step.Change.String()); step.Phase {
	case "apply":
		s.say("%d of %d: %s", step.I+1, step.N, name)
	case "restore":
		s.say("putting back %d of %d: %s", step.I+1, step.N, name)
	case "verify":
		s.say("verifying")
	}
}

func (s *steps) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	switch {
	case s.a.flags.quiet:
	case s.terminal:
		s.shown = true
		width, _, err := term.GetSize(int(s.a.stderr.Fd()))
		if err != nil || width < 20 {
			width = 80
		}
		if r := []rune(text); len(r) > width-1 {
			text = string(r[:width-2]) + "…"
		}
		_, _ = fmt.Fprint(s.a.stderr, "\r\x1b[K"+text)
	default:
		s.a.say("%s", text)
	}
}

func (s *steps) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shown {
		_, _ = fmt.Fprint(s.a.stderr, "\r\x1b[K")
		s.shown = false
	}
}

// interruptible gives a context that the first signal ends; the engine then
// stops after the change at hand and puts everything back. Further signals do
// not cut that short. A lost terminal (SIGHUP) is a signal, too, unless it is
// ignored as under nohup(1).
func (a *app) interruptible(s *steps) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	if a.caught != nil && !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(a.caught, syscall.SIGHUP)
	}
	first := true
	var telling sync.Mutex // the end of the work waits for what is being said
	var onSignal func(syscall.Signal)
	onSignal = func(n syscall.Signal) {
		telling.Lock()
		defer telling.Unlock()
		if first {
			cancel(plan.Signal{Signal: n})
		}
		s.end()
		if first {
			s.a.say("stopping after the change at hand, then putting back what was changed")
		} else {
			s.a.say("still putting back; this ends by itself")
		}
		first = false
		a.onSignal.Store(&onSignal)
	}
	a.onSignal.Store(&onSignal)
	return ctx, func() {
		if ctx.Err() != nil {
			telling.Lock()
			defer telling.Unlock()
			late := func(syscall.Signal) {} // one on its way must not cost the result
			a.onSignal.Store(&late)
		} else {
			a.onSignal.Store(nil) // from here on a signal ends the process
		}
		cancel(nil)
	}
}
