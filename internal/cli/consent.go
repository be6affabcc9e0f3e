// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/hostcheck/hostcheck/internal/report"
)

var errDeclined = errors.New("nothing was changed")

// consent shows the plan where the one who decides sees it, and asks once.
// Anything but a typed yes is a no.
func (r *fixing) consent() error {
	ask := r.canAsk()
	if !r.yes && !ask {
		if err := r.show(false); err != nil {
			return err
		}
		return errors.New("nothing was changed: there is no terminal to ask on; --yes applies this plan without asking")
	}
	if !r.json() {
		r.page.add(r.text().Plan(r.view))
		if err := r.page.flush(); err != nil {
			return err // before anything is changed
		}
	}
	if r.yes {
		return nil
	}
	if r.json() || !r.toTerminal() {
		text := r.coloured(r.textFor(r.stderr).Plan(r.view), true)
		if _, err := r.stderr.Write(text); err != nil {
			return fmt.Errorf("cannot show the plan: %w", cause(err))
		}
	}
	n := len(r.view.Plan.Changes)
	what := fmt.Sprintf("make these %d changes", n)
	if n == 1 {
		what = "make this change"
	}
	where := "to this host"
	if !r.live() {
		where = "to " + report.Clean(r.flags.root)
	}
	yes, err := r.ask(what + " " + where)
	if err != nil {
		return err
	}
	if yes {
		return nil
	}
	if r.json() {
		if err := r.writeJSON(r.view.Document()); err != nil {
			return err
		}
	}
	if err := r.page.end(); err != nil {
		return err
	}
	return errDeclined
}

// canAsk reports whether somebody can be asked.
func (a *app) canAsk() bool {
	return term.IsTerminal(int(a.stdin.Fd())) && term.IsTerminal(int(a.stderr.Fd()))
}

// ask asks once; anything but a typed yes is a no.
func (a *app) ask(what string) (bool, error) {
	// what was typed before the question is no answer to it
	_ = unix.IoctlSetInt(int(a.stdin.Fd()), unix.TCFLSH, unix.TCIFLUSH)
	if _, err := fmt.Fprintf(a.stderr, "\n%s? [y/N] ", what); err != nil {
		return false, fmt.Errorf("cannot ask: %w", cause(err))
	}
	answer, err := bufio.NewReader(io.LimitReader(a.stdin, 1024)).ReadString('\n')
	if err != nil {
		_, _ = fmt.Fprintln(a.stderr)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return err == nil, nil
	}
	return false, nil
}
