// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unused is how long a layer is kept after it was last used.
const unused = 14 * 24 * time.Hour

// key is the name of what is made from these texts.
func key(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d %s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// tree is the text of all files below a directory, for [key].
func tree(dir string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		fmt.Fprintf(&b, "%s %d %s", rel, len(content), content)
		return err
	})
	return b.String(), err
}

// layer gives the directory cache/name-key, made by build where it is not
// there. build works in a directory that is renamed when it is whole, so a
// layer is there whole or not at all; a lock keeps others from making it too.
func (l *Lab) layer(name, key string, build func(dir string) error) (string, error) {
	dir := filepath.Join(l.cache, name+"-"+key)
	used := func() bool { now := time.Now(); return os.Chtimes(dir, now, now) == nil }
	if used() {
		return dir, nil
	}
	lock, err := os.OpenFile(filepath.Join(l.cache, name+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", fmt.Errorf("cannot lock the lab's cache: %w", err)
	}
	defer lock.Close()
	for {
		if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("cannot lock the lab's cache: %w", err)
	}
	if used() { // made by another meanwhile
		return dir, nil
	}
	began := time.Now()
	l.prune(name)
	l.say("%s: building", name)
	temp := dir + ".part"
	if err := os.RemoveAll(temp); err != nil {
		return "", err
	}
	if err := os.Mkdir(temp, 0o755); err != nil {
		return "", err
	}
	if err := build(temp); err != nil {
		return "", fmt.Errorf("lab: cannot build the layer %q: %w (what there is of it: %s)", name, err, temp)
	}
	if err := os.Rename(temp, dir); err != nil {
		return "", err
	}
	l.say("%s: built in %.0f s", name, time.Since(began).Seconds())
	return dir, nil
}

// prune removes layers of that name that nobody used for long.
func (l *Lab) prune(name string) {
	old, _ := filepath.Glob(filepath.Join(l.cache, name+"-*"))
	for _, dir := range old {
		if st, err := os.Stat(dir); err == nil && time.Since(st.ModTime()) > unused {
			os.RemoveAll(dir)
		}
	}
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
