// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/plan/plantest"
	"github.com/hostcheck/hostcheck/internal/report"
)

// screen is a pseudo-terminal and what was shown on it.
type screen struct {
	t             *testing.T
	master, slave *os.File
	mu            sync.Mutex
	shown         bytes.Buffer
	ended         chan struct{}
}

func newScreen(t *testing.T) *screen {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 80})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, master: master, slave: slave, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			s.mu.Lock()
			s.shown.Write(b[:n])
			s.mu.Unlock()
			if err != nil { // EIO when the last slave is closed
				return
			}
		}
	}()
	return s
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

func (s *screen) typed(keys string) {
	if _, err := io.WriteString(s.master, keys); err != nil {
		s.t.Error(err)
	}
}

// asked waits for the question.
func (s *screen) asked() bool {
	for range 500 {
		if strings.Contains(s.text(), "[y/N]") {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Errorf("nobody was asked:\n%s", s.text())
	return false
}

func (s *screen) close() string {
	s.slave.Close()
	<-s.ended
	s.master.Close()
	return s.text()
}

// Only a typed yes after the question is a yes.
func TestConsent(t *testing.T) {
	for keys, want := range map[string]int{
		"y\n": 0, "yes\n": 0, " YES \n": 0,
		"n\n": 2, "\n": 2, "yeah\n": 2, "yes please\n": 2, "q\n": 2,
		"\x04":                           2, // end of file
		"y\x04\x04":                      2, // and no line
		strings.Repeat("x", 2000) + "\n": 2,
	} {
		t.Run(fmt.Sprintf("%.12q", keys), func(t *testing.T) {
			l := newLab(t)
			before := plantest.Snapshot(t, l.root)
			s := newScreen(t)
			ended := make(chan int)
			go func() { ended <- l.on(s.slave, s.slave, s.slave, "--fix").run() }()
			if s.asked() {
				s.typed(keys)
			}
			code := <-ended
			out := s.close()
			if code != want {
				t.Errorf("exit %d, want %d:\n%s", code, want, out)
			}
			l.wants(out, "queue = 4096", "make these 2 changes to "+l.root+"? [y/N]")
			if strings.Index(out, "queue = 4096") > strings.Index(out, "[y/N]") {
				t.Error("the question comes before the plan")
			}
			if want == 0 {
				l.wants(out, "DONE", "undo")
				return
			}
			l.wants(out, "nothing was changed")
			l.same(before, "without consent")
			if _, err := os.Stat(l.path(plan.Dir)); err == nil {
				t.Error("there is a journal")
			}
		})
	}
}

// What was typed before the question does not answer it.
func TestTypedAhead(t *testing.T) {
	l := newLab(t)
	s := newScreen(t)
	s.typed("y\n")
	time.Sleep(20 * time.Millisecond) // the line discipline has it
	ended := make(chan int)
	go func() { ended <- l.on(s.slave, s.slave, s.slave, "--fix").run() }()
	if s.asked() {
		s.typed("n\n")
	}
	if code := <-ended; code != 2 || l.text(queue) != "128\n" {
		t.Errorf("exit %d", code)
	}
	s.close()
}

// With the result elsewhere than on the terminal, the plan is shown where the
// question is.
func TestConsentBesides(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		for _, answer := range []string{"y\n", "n\n"} {
			l := newLab(t)
			s := newScreen(t)
			out, err := os.CreateTemp(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan int)
			go func() { ended <- l.on(s.slave, out, s.slave, "--fix", "-f", format).run() }()
			if s.asked() {
				s.typed(answer)
			}
			code := <-ended
			shown := s.close()
			l.wants(shown, "PLAN: 2 changes", "queue = 4096")
			b, _ := os.ReadFile(out.Name())
			switch {
			case format == "text":
				l.wants(string(b), "PLAN: 2 changes")
				if strings.Contains(string(b), "\x1b[") {
					t.Error("colour in a file")
				}
			case answer == "n\n":
				if p := document[plan.Plan](t, string(b)); code != 2 || len(p.Changes) != 2 {
					t.Errorf("exit %d, %+v", code, p)
				}
			default:
				if f := document[report.Fix](t, string(b)); code != 0 || f.Result.Outcome != plan.Applied {
					t.Errorf("exit %d, %+v", code, f)
				}
			}
		}
	}
}
