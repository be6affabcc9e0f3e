// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hostcheck/hostcheck/internal/check"
)

// reportSchema is the format of the reports that are read.
const reportSchema = "hostcheck.report/v1"

// ahead is how far the clock of a host may be ahead of this one's.
const ahead = 5 * time.Minute

// maxStamp is the longest boot_id and captured_at, which are kept of each host;
// those of Linux have 36 and 20 bytes.
const maxStamp = 64

// maxWord is the longest kernel, architecture, profile hash and intent, in bytes.
const maxWord = 1 << 10

// head is a report without its findings.
type head struct {
	Schema string
	Tool   Tool
	Host   struct {
		Name, Kernel, Arch *string
		BootID             *string `json:"boot_id"`
		CapturedAt         *string `json:"captured_at"`
	}
	Profile struct {
		Hash, Intent string
		Layers       json.RawMessage
	}
	Summary counts
}

// counts is the summary of a report.
type counts struct {
	Pass, Warn, Fail, Skip, Unknown, Error, Waived, Pending int
	Exit                                                    *int
}

// reports gives take every report of a stream, usable or not, and lost each
// that take refuses. An error of the reader is a problem too: what came before
// it counts.
func reports(name string, in io.Reader, take func(piece) (*head, error), lost func(Problem)) {
	problem := func(line int, host, why string) {
		lost(Problem{Source: name, Line: line, Host: host, Why: why, Lost: true})
	}
	s, err := newStream(in)
	if err != nil {
		problem(0, "", err.Error())
		return
	}
	found := 0
	names := map[string]string{} // by label: a host that has several would be several
	for p, ok := s.next(); ok; p, ok = s.next() {
		found++
		p.known = names[p.label]
		h, err := take(p)
		switch {
		case err != nil:
			problem(p.line, h.name(), err.Error())
		case tells(p.label):
			names[p.label] = h.name()
		}
	}
	switch {
	case s.err != nil && !errors.Is(s.err, io.EOF):
		problem(s.line, "", "it cannot be read on: "+s.err.Error())
	case found == 0:
		problem(0, "", "it is empty")
	}
}

var topKeys = []string{`"schema"`, `"tool"`, `"host"`, `"profile"`, `"summary"`, `"findings"`}

// read decodes a report; findings is called for the list at b[i] and gives the
// index after it.
func (h *head) read(p piece, findings func(b []byte, i int) (int, error)) error {
	*h = head{}
	if p.why != "" {
		return errors.New(p.why)
	}
	b := p.b
	i := space(b, 0)
	if i == len(b) || b[i] != '{' {
		return fmt.Errorf("it is no report: it begins with %q%s", clip(b, 30), howElse(b[i:]))
	}
	seen := 0
	i = space(b, i+1)
	for first := true; ; first = false {
		if i >= len(b) {
			return errCut
		}
		if b[i] == '}' {
			break
		}
		if !first {
			if b[i] != ',' {
				return broken(b, i)
			}
			i = space(b, i+1)
		}
		if i >= len(b) {
			return errCut
		}
		if b[i] != '"' {
			return broken(b, i)
		}
		end, err := stringEnd(b, i)
		if err != nil {
			return err
		}
		key := b[i:end]
		i = space(b, end)
		if i >= len(b) {
			return errCut
		}
		if b[i] != ':' {
			return broken(b, i)
		}
		i = space(b, i+1)
		if n := slices.Index(topKeys, string(key)); n >= 0 {
			if seen&(1<<n) != 0 {
				return fmt.Errorf("it has %s twice", key)
			}
			seen |= 1 << n
		}
		if string(key) == `"findings"` {
			switch {
			case i >= len(b):
				return errCut
			case b[i] != '[':
				return errors.New("its findings are no list")
			}
			if i, err = findings(b, i); err != nil {
				return err
			}
		} else {
			end, err := extent(b, i)
			if err != nil {
				return err
			}
			if err := h.set(string(key), b[i:end]); err != nil {
				return err
			}
			i = end
		}
		i = space(b, i)
	}
	if i = space(b, i+1); i < len(b) {
		why := ""
		if b[i] == '{' {
			why = "; reports of one line each end with a newline"
		}
		return fmt.Errorf("more follows after its end: %q%s", clip(b[i:], 30), why)
	}
	return h.judge(seen, &p)
}

// howElse says how reports are given of which only the wrapping is known, such as
// a list of them; "" where b is nothing that is known.
func howElse(b []byte) string {
	for _, w := range []struct{ begins, how string }{
		{"[", `; for a list of reports, give what jq -c '.[]' makes of it`},
		{"\xff\xfe", "; for UTF-16, give what iconv -f UTF-16 -t UTF-8 makes of it"},
		{"\xfe\xff", "; for UTF-16, give what iconv -f UTF-16 -t UTF-8 makes of it"},
		{"-----", "; what clush -b and dshbak fold is not taken apart: collect without them"},
	} {
		if bytes.HasPrefix(b, []byte(w.begins)) {
			return w.how
		}
	}
	if b = b[:min(len(b), 100)]; bytes.Contains(b, []byte("FIT   ")) || bytes.Contains(b, []byte("INCOMPLETE   ")) { // a verdict
		return "; that is text for a person: collect with -f jsonl"
	}
	return ""
}

// set decodes one key of a report; keys that are not known only have to be
// valid, for later versions may have more.
func (h *head) set(key string, b []byte) error {
	var into any
	switch key {
	case `"schema"`:
		into = &h.Schema
	case `"tool"`:
		into = &h.Tool
	case `"host"`:
		into = &h.Host
	case `"profile"`:
		into = &h.Profile
	case `"summary"`:
		into = &h.Summary
	default:
		if !json.Valid(b) {
			return fmt.Errorf("its key %s is no valid JSON", clip([]byte(key), 40))
		}
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("its %s cannot be decoded: %w", strings.Trim(key, `"`), err)
	}
	return nil
}

// judge refuses what is no usable report of the host that p came from.
func (h *head) judge(seen int, p *piece) error {
	switch {
	case h.Schema == Schema:
		return errors.New(`it is a merge, not a report: give the reports that it was made from, or the merge alone to "hostcheck fleet report" or to --since`)
	case h.Schema == "":
		return errors.New("it is no report: it has no schema")
	case h.Schema != reportSchema:
		return fmt.Errorf("its format %q is not known: this hostcheck reads %s", clip([]byte(h.Schema), 60), reportSchema)
	}
	for n, key := range topKeys {
		if seen&(1<<n) == 0 {
			return fmt.Errorf("it has no %s", strings.Trim(key, `"`))
		}
	}
	switch {
	case h.Host.Name == nil || *h.Host.Name == "":
		return errors.New("it does not name its host")
	case !hostName(*h.Host.Name):
		return fmt.Errorf("its host has a name that no host can have: %q", clip([]byte(*h.Host.Name), 60))
	case p.known != "" && p.known != *h.Host.Name:
		return fmt.Errorf("it came from %s, which called itself %s before, and says that it is of %s", p.label, p.known, *h.Host.Name)
	case !sameHost(p.label, *h.Host.Name):
		return fmt.Errorf("it came from %s and says that it is of %s: another host's report; where hosts are only called otherwise than they call themselves, collect without labels (clush -N, pdsh -N)", p.label, *h.Host.Name)
	case h.Host.BootID != nil && len(*h.Host.BootID) > maxStamp, h.Host.CapturedAt != nil && len(*h.Host.CapturedAt) > maxStamp:
		return fmt.Errorf("its host has a boot_id or a captured_at of more than %d bytes, which none has", maxStamp)
	case len(text(h.Host.Kernel)) > maxWord, len(text(h.Host.Arch)) > maxWord, len(h.Profile.Hash) > maxWord, len(h.Profile.Intent) > maxWord:
		return fmt.Errorf("its kernel, arch, profile hash or intent has more than %d bytes, which none has", maxWord)
	case h.Summary.Exit == nil:
		return errors.New("its summary has no exit code")
	}
	return nil
}

// name is the host's, if it can be read.
func (h *head) name() string {
	if n := h.Host.Name; n != nil && hostName(*n) {
		return *n
	}
	return ""
}

// sameHost reports whether a label of clush, pdsh or srun may stand for a host
// of that name. An address and the number of a task say nothing of it.
func sameHost(label, name string) bool {
	if !tells(label) || strings.EqualFold(label, name) {
		return true
	}
	// one with its domain, the other without
	short, long := label, name
	if len(short) > len(long) {
		short, long = long, short
	}
	return !strings.Contains(short, ".") && len(long) > len(short) && long[len(short)] == '.' && strings.EqualFold(short, long[:len(short)])
}

// tells reports whether a label says which host it stands for.
func tells(label string) bool {
	_, err := netip.ParseAddr(label)
	return err != nil && label != "localhost" && strings.Trim(label, "0123456789") != ""
}

// maxName is the longest name of a host, in bytes.
const maxName = 253

// hostName: at most 253 letters, digits, and "-", "_", ".", ":"; what is more
// would break lists of hosts.
func hostName(s string) bool {
	ok := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.:", r)
	}
	return s != "" && len(s) <= maxName && s[0] != '-' && strings.IndexFunc(s, func(r rune) bool { return !ok(r) }) < 0
}

// count refuses a summary that does not count the letters of the findings.
func (c *counts) count(letters *[256]int) error {
	n := letters
	if n['o'] != c.Pass || n['w'] != c.Warn || n['f'] != c.Fail || n['s'] != c.Skip || n['u'] != c.Unknown || n['e'] != c.Error || n['v'] != c.Waived || n['p'] != c.Pending {
		return errors.New("its summary does not count what its findings say: it was changed after it was written")
	}
	return nil
}

// unjudged says why a run is no verdict on its host; "" where it is one.
func (c *counts) unjudged() string {
	switch exit := *c.Exit; {
	case exit > 128:
		return "its run was interrupted"
	case c.Pass+c.Warn+c.Fail+c.Waived+c.Pending == 0:
		return "nothing on it could be judged"
	case exit == 3:
		return "what its profile requires could not be judged"
	case exit != 0 && exit != 1 && exit != 10:
		return fmt.Sprintf("its run ended with exit code %d", exit)
	case exit != 1 && c.Fail == 0 && check.Hardly(c.Pass, c.Unknown+c.Error):
		return "more on it could not be judged than passes"
	}
	return ""
}

// waits: the host is fit, or will be, after its next boot.
func (c *counts) waits() bool { return c.Pending > 0 || *c.Exit == 10 }

// verdict is the host's. The findings decide: an exit code that is better than
// they are does not count.
func (c *counts) verdict(failOn check.Status) string {
	switch {
	case c.Fail > 0, failOn == check.Warn && c.Warn > 0, *c.Exit == 1:
		return Failing
	case c.unjudged() != "":
		return Incomplete
	case c.waits():
		return Pending
	}
	return Compliant
}

// letterOf is the letter of a finding's verdict; 0 for none.
func letterOf(s check.Status, pending, waived bool) byte {
	switch {
	case waived:
		return 'v'
	case pending && (s == check.Fail || s == check.Warn):
		return 'p'
	}
	return Letter(string(s))
}

// stamp is a time as reports have it; zero where there is none.
func stamp(s *string) time.Time {
	if s == nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, *s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// toCome says why a time is not believed that is after now; "" where it is not,
// or now is not known. It would be newer than all that the host can say.
func toCome(at, now time.Time) string {
	if now.IsZero() || !at.After(now.Add(ahead)) {
		return ""
	}
	return fmt.Sprintf("it says that it was made at %s, which is to come: set the clock of the host, or of this machine, and collect it again", at.UTC().Format(time.RFC3339))
}
