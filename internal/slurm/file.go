// SPDX-License-Identifier: Apache-2.0

package slurm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Path is where the verdict is kept: in memory, so that a reboot takes it away.
const Path = "/run/hostcheck/verdict.json"

// maxVerdict bounds the file, in bytes.
const maxVerdict = 64 << 10

// Stamp notes when and in which boot a host was judged: now.
func (v *Verdict) Stamp(now time.Time) error {
	up, err := uptime()
	if err != nil {
		return err
	}
	v.BootID, err = bootID()
	v.Uptime, v.JudgedAt = up.Seconds(), now.UTC().Format(time.RFC3339)
	return err
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot tell this boot from others: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Age is how long ago the host was judged; an error says why that is not known
// or does not count.
func (v *Verdict) Age() (time.Duration, error) {
	up, err := uptime()
	if err != nil {
		return 0, err
	}
	id, err := bootID()
	if err != nil {
		return 0, err
	}
	return v.age(id, up)
}

func (v *Verdict) age(bootID string, up time.Duration) (time.Duration, error) {
	age := up - time.Duration(v.Uptime*float64(time.Second))
	switch {
	case v.BootID != bootID:
		return 0, errors.New("the verdict is of another boot")
	case age < 0:
		return 0, errors.New("the verdict is of the future of this boot")
	}
	return age, nil
}

// Read gives the verdict of a file. One that others than root and ourselves
// could have written counts for nothing.
func Read(name string) (*Verdict, error) {
	b, err := contents(name)
	if err != nil {
		return nil, err
	}
	return Parse(b)
}

// Usable says why a verdict that is written to the file would count for
// nothing: somebody else could write there. A file that is missing is usable.
func Usable(name string) error {
	if _, err := contents(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// contents of a file that nobody but root and ourselves could have written.
func contents(name string) ([]byte, error) {
	name, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	if err := trusted(name); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.Mode().IsRegular() || sys.Uid != 0 && int(sys.Uid) != os.Geteuid() || st.Mode()&0o022 != 0 {
		return nil, fmt.Errorf("%s is not a file that only root can write", name)
	}
	return io.ReadAll(io.LimitReader(f, maxVerdict+1))
}

// Parse reads a verdict. One of another format is none.
func Parse(b []byte) (*Verdict, error) {
	var v Verdict
	if len(b) > maxVerdict {
		return nil, fmt.Errorf("a verdict of more than %d bytes is none of hostcheck's", maxVerdict)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("not a verdict of hostcheck: %w", err)
	}
	switch {
	case d.More():
		return nil, errors.New("not a verdict of hostcheck: there is more behind it")
	case v.Schema != VerdictSchema:
		return nil, fmt.Errorf("not a verdict that this hostcheck knows: its format is %.40q, not %q", v.Schema, VerdictSchema)
	case !slices.Contains([]Outcome{Fit, Unfit, Unknown}, v.Outcome):
		return nil, fmt.Errorf("not a verdict of hostcheck: %.40q", v.Outcome)
	case v.Uptime < 0 || v.Uptime > 1e9:
		return nil, errors.New("not a verdict of hostcheck: it was judged at no time of a boot")
	case v.Outcome == Unfit && len(v.Failed) == 0:
		return nil, errors.New("not a verdict of hostcheck: unfit for no reason")
	}
	return &v, nil
}

// Gate is whether a job may start, or a node go on, by a verdict.
type Gate struct {
	Schema  string   `json:"schema" doc:"name and version of this format"`
	Open    bool     `json:"open" doc:"the job may start, or the node go on"`
	Age     *float64 `json:"age_s" doc:"of the verdict, in seconds; null where there is none that counts"`
	Why     string   `json:"why"`
	Verdict *Verdict `json:"verdict" doc:"null where there is none that counts"`
}

// GateSchema names the format of [Gate].
const GateSchema = "hostcheck.gate/v1"

// Decide opens or shuts the gate. v is nil where there is no verdict, and err
// says why. An unfit host stays unfit however old that verdict of this boot is;
// a fit one counts for maxAge. Where nothing is known, unjudged decides.
func (g *Gate) Decide(v *Verdict, err error, maxAge time.Duration, unjudged bool) {
	g.Schema = GateSchema
	var age time.Duration
	if v != nil {
		age, err = v.Age()
	}
	if err != nil {
		g.Open, g.Why = unjudged, "not judged: "+err.Error()
		return
	}
	seconds := age.Seconds()
	g.Age, g.Verdict = &seconds, v
	said := fmt.Sprintf("%s, judged %s ago", v.Outcome, Age(age))
	if v.Why != "" {
		said += ": " + v.Why
	}
	switch {
	case v.Outcome == Unfit:
		g.Open, g.Why = false, said
	case v.Outcome == Fit && age <= maxAge:
		g.Open, g.Why = true, said
	case v.Outcome == Fit:
		g.Open, g.Why = unjudged, fmt.Sprintf("not judged: the last verdict, fit, is %s old, more than %v", Age(age), maxAge)
	default:
		g.Open, g.Why = unjudged, said
	}
}
