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
	ask := term.IsTerminal(int(r.stdin.Fd())) && term.IsTerminal(int(r.stderr.Fd()))
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
	// what was typed before the question is no answer to it
	_ = unix.IoctlSetInt(int(r.stdin.Fd()), unix.TCFLSH, unix.TCIFLUSH)
	if _, err := fmt.Fprintf(r.stderr, "\n%s %s? [y/N] ", what, where); err != nil {
		return fmt.Errorf("cannot ask: %w", cause(err))
	}
	answer, err := bufio.NewReader(io.LimitReader(r.stdin, 1024)).ReadString('\n')
	if err != nil {
		_, _ = fmt.Fprintln(r.stderr)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		if err == nil {
			return nil
		}
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
