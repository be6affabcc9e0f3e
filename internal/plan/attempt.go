// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"
)

// attemptFile is there while settings are being set at boot. Where it is found
// later, that attempt did not complete: it may have been what stopped the host.
const attemptFile = "settings-attempt"

// Attempt is one that did not complete, or that is under way.
type Attempt struct {
	BootID  string    `json:"boot_id"`
	Started time.Time `json:"started"`
}

// Attempt gives the attempt that did not complete, nil when there is none. One
// whose record nobody can read counts.
func (e *Engine) Attempt() (*Attempt, error) {
	j, err := openJournal(e.tree(), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer j.dir.Close()
	if _, err := j.dir.Lstat(attemptFile); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var a Attempt
	b, err := trustedFile(j.dir, attemptFile)
	if err == nil {
		err = strict(b, &a)
	}
	if err != nil {
		return &Attempt{}, nil //nolint:nilerr // it is there, which is what counts
	}
	return &a, nil
}

// BeginAttempt records durably that an attempt begins; end that it is over,
// however it went.
func (e *Engine) BeginAttempt() (end func() error, err error) {
	j, err := openJournal(e.tree(), true)
	if err != nil {
		return nil, err
	}
	defer j.dir.Close()
	h, err := e.open()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	b, err := json.Marshal(Attempt{bootID(h), time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return nil, err
	}
	p := path.Join(Dir, attemptFile)
	if err := j.tree.store(j.dir, p, "."+attemptFile+".new", string(b)+"\n", meta{Mode: 0o600, UID: os.Geteuid(), GID: os.Getegid()}); err != nil {
		return nil, fmt.Errorf("cannot record the attempt: %w", err)
	}
	return func() error { return e.tree().removeFile(p) }, nil
}
