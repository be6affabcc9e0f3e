// SPDX-License-Identifier: Apache-2.0

package report

import "github.com/hostcheck/hostcheck/internal/check"

// Exit codes. Where several hold, the first of 5, 4, 1, 3, 10, 0 is given; a
// signal's own code goes before them.
const (
	ExitOK         = 0  // compliant
	ExitFindings   = 1  // findings at or above the threshold remain
	ExitUsage      = 2  // usage, profile or output error; nothing was judged or changed
	ExitIncomplete = 3  // a required check is unknown or in error, or nothing could be judged
	ExitRestored   = 4  // a fix failed, and the host was restored and read back
	ExitBroken     = 5  // a fix failed, and restoring is incomplete
	ExitPending    = 10 // nothing fails, but something is pending a reboot
	ExitBusy       = 11 // another hostcheck holds the lock
	ExitSignal     = 128
)

// Meaning says in words what an exit code of a check run stands for.
func Meaning(code int) string {
	switch code {
	case ExitOK:
		return "compliant"
	case ExitFindings:
		return "findings remain"
	case ExitUsage:
		return "usage error"
	case ExitIncomplete:
		return "incomplete"
	case ExitPending:
		return "pending a reboot"
	}
	if code > ExitSignal {
		return "interrupted"
	}
	return "unknown"
}

// state is the word that [Summary] counts a finding under.
func (f *Finding) state() string {
	switch {
	case f.Waiver != nil:
		return "waived"
	case f.Pending && (f.Status == check.Fail || f.Status == check.Warn):
		return "pending"
	}
	return string(f.Status)
}

func (s *Summary) count(f *Finding) {
	switch f.state() {
	case "waived":
		s.Waived++
	case "pending":
		s.Pending++
	case "pass":
		s.Pass++
	case "warn":
		s.Warn++
	case "fail":
		s.Fail++
	case "skip":
		s.Skip++
	case "unknown":
		s.Unknown++
	case "error":
		s.Error++
	}
}

// judged is how many findings are a verdict on the host.
func (s *Summary) judged() int { return s.Pass + s.Warn + s.Fail + s.Waived + s.Pending }

func (s *Summary) exit(failOn check.Status, incomplete bool, signal int) int {
	switch {
	case signal != 0:
		return ExitSignal + signal
	case s.Fail > 0, failOn == check.Warn && s.Warn > 0:
		return ExitFindings
	case incomplete, s.judged() == 0:
		return ExitIncomplete
	case s.Pending > 0:
		return ExitPending
	}
	return ExitOK
}

// tone is how a verdict is shown: as what colour, or class of a style sheet.
type tone string

const (
	good   tone = "good"
	bad    tone = "bad"
	uneasy tone = "uneasy"
	unsure tone = "unsure"
)

// hardly reports whether the run is hardly a verdict; see [check.Hardly].
func (s *Summary) hardly() bool { return check.Hardly(s.Pass, s.Unknown+s.Error) }

// verdict says in a sign and words what a run came to.
func (s *Summary) verdict() (sign, word string, how tone) {
	switch {
	case s.Exit > ExitSignal:
		return "?", "INTERRUPTED", unsure
	case s.Exit == ExitFindings && s.Fail == 0:
		return "!", "NOT FIT: warnings count as failures here", uneasy
	case s.Exit == ExitFindings:
		return "✗", "NOT FIT", bad
	case s.judged() == 0:
		return "?", "INCOMPLETE: nothing could be judged", unsure
	case s.Exit == ExitIncomplete:
		return "?", "INCOMPLETE: what the profile requires could not be judged", unsure
	case s.Exit == ExitPending:
		return "↻", "FIT AFTER THE NEXT BOOT", uneasy
	case s.hardly():
		return "?", "NO FAULT FOUND, but most could not be judged", unsure
	case s.Warn > 0:
		return "!", "FIT, with warnings", uneasy
	case s.Waived > 0:
		return "!", "FIT but for what is waived", uneasy
	case s.Unknown+s.Error > 0:
		return "✓", "FIT, as far as it could be judged", good
	}
	return "✓", "FIT", good
}
