// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxFile bounds a file that hostcheck replaces: configuration, not data.
const maxFile = 1 << 20

// tree is the only way to what gets written: all below one root, every system
// call that changes something made through do.
type tree struct {
	root  string // "/" is the live machine
	fault func(point string) error
}

func (t tree) live() bool { return t.root == "/" }

// do makes one changing system call. The fault hook sees the moment before it
// and the moment after it, and may refuse either.
func (t tree) do(what string, f func() error) error {
	err := t.at("before " + what)
	if err == nil {
		err = f()
	}
	if err == nil {
		err = t.at("after " + what)
	}
	if err != nil {
		return fmt.Errorf("cannot %s: %w", what, cause(err))
	}
	return nil
}

func (t tree) at(point string) error {
	if t.fault == nil {
		return nil
	}
	return t.fault(point)
}

// cause drops the system call and path that os adds; the caller names them.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	return err
}

// clean reports whether p is an absolute path that says where it leads.
func clean(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && p != "/" && !strings.ContainsRune(p, 0)
}

// dir opens directory p. On the live machine links lead where they lead; in a
// tree none leads out of it.
func (t tree) dir(p string) (*os.Root, error) {
	if t.live() {
		return os.OpenRoot(p)
	}
	r, err := os.OpenRoot(t.root)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.OpenRoot("." + p)
}

// parent opens the directory of p and gives p's last element.
func (t tree) parent(p string) (*os.Root, string, error) {
	d, err := t.dir(path.Dir(p))
	if err != nil {
		return nil, "", fmt.Errorf("cannot open %s: %w", path.Dir(p), cause(err))
	}
	return d, path.Base(p), nil
}

// makeDir makes p and its missing parents. announce is called with each before
// it is made.
func (t tree) makeDir(p string, mode fs.FileMode, announce func(p string) error) error {
	if d, err := t.dir(p); err == nil {
		return d.Close()
	} else if !errors.Is(err, fs.ErrNotExist) || p == "/" {
		return fmt.Errorf("cannot open %s: %w", p, cause(err))
	}
	if err := t.makeDir(path.Dir(p), 0o755, announce); err != nil {
		return err
	}
	d, base, err := t.parent(p)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := announce(p); err != nil {
		return err
	}
	if err := t.do("mkdir "+p, func() error { return d.Mkdir(base, mode) }); err != nil {
		return err
	}
	if err := t.do("chmod "+p, func() error { return d.Chmod(base, mode) }); err != nil { // whatever the umask
		return err
	}
	return t.syncDir(d, path.Dir(p))
}

// removeDir removes p when it is an empty directory, else leaves it.
func (t tree) removeDir(p string) error {
	d, base, err := t.parent(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if fi, err := d.Lstat(base); err != nil || !fi.IsDir() {
		return nil
	}
	if sub, err := d.OpenRoot(base); err == nil {
		names, err := names(sub)
		sub.Close()
		if err != nil || len(names) > 0 {
			return err
		}
	}
	if err := t.do("rmdir "+p, func() error { return d.Remove(base) }); err != nil {
		return err
	}
	return t.syncDir(d, path.Dir(p))
}

func (t tree) removeFile(p string) error {
	d, base, err := t.parent(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if _, err := d.Lstat(base); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := t.do("unlink "+p, func() error { return d.Remove(base) }); err != nil {
		return err
	}
	return t.syncDir(d, path.Dir(p))
}

func (t tree) syncDir(d *os.Root, name string) error {
	f, err := d.Open(".")
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", name, cause(err))
	}
	defer f.Close()
	return t.do("fsync "+name, f.Sync)
}

func names(d *os.Root) ([]string, error) {
	f, err := d.Open(".")
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	list, err := f.Readdirnames(-1)
	slices.Sort(list)
	return list, err
}

// meta is what a file is besides its bytes.
type meta struct {
	Mode   uint32            `json:"mode"` // permission bits
	UID    int               `json:"uid"`
	GID    int               `json:"gid"`
	Xattrs map[string][]byte `json:"xattrs,omitempty"` // SELinux label, ACL and all others that can be set
}

// load reads a file that may be replaced. What cannot be put back as it was is
// refused here: links, special files, hard links, set-id bits, large files.
// A file that is not there is Absent.
func load(d *os.Root, base string) (Value, meta, error) {
	fi, err := d.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		return Absent, meta{}, nil
	}
	if err != nil {
		return Absent, meta{}, cause(err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		err = errors.New("its owner is not known")
	case fi.Mode()&fs.ModeSymlink != 0:
		err = errors.New("it is a symbolic link")
	case !fi.Mode().IsRegular():
		err = errors.New("it is not a regular file")
	case st.Nlink > 1:
		err = fmt.Errorf("it has %d hard links, and replacing it would part them", st.Nlink)
	case fi.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0:
		err = errors.New("it has set-id bits")
	case fi.Size() > maxFile:
		err = fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	if err != nil {
		return Absent, meta{}, err
	}
	f, err := d.OpenFile(base, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return Absent, meta{}, cause(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return Absent, meta{}, cause(err)
	}
	m := meta{Mode: st.Mode & 0o1777, UID: int(st.Uid), GID: int(st.Gid)}
	m.Xattrs, err = xattrs(int(f.Fd()))
	return Text(string(b)), m, err
}

// store puts text and metadata in place of d's base at once: a temporary file
// beside it, synced, renamed over it, the directory synced.
func (t tree) store(d *os.Root, p, temp, text string, m meta) error {
	tp := path.Join(path.Dir(p), temp)
	if _, err := d.Lstat(temp); err == nil {
		if err := t.do("unlink "+tp, func() error { return d.Remove(temp) }); err != nil {
			return err
		}
	}
	var f *os.File
	err := t.do("create "+tp, func() (err error) {
		f, err = d.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if f != nil {
		defer f.Close()
	}
	if err != nil {
		return err
	}
	if err := t.do("write "+tp, func() error { _, err := f.WriteString(text); return err }); err != nil {
		return err
	}
	if err := t.dress(f, tp, m); err != nil {
		return err
	}
	if err := t.do("fsync "+tp, f.Sync); err != nil {
		return err
	}
	if err := t.do("rename "+tp+" to "+p, func() error { return d.Rename(temp, path.Base(p)) }); err != nil {
		return err
	}
	return t.syncDir(d, path.Dir(p))
}

// dress gives a new file its owner, mode and extended attributes, in the order
// in which none undoes another. FAT keeps none of them: there the mount decides
// for every file, and what it cannot keep would be refused.
func (t tree) dress(f *os.File, p string, m meta) error {
	fd := int(f.Fd())
	var on unix.Statfs_t
	if err := unix.Fstatfs(fd, &on); err == nil && (on.Type == unix.MSDOS_SUPER_MAGIC || on.Type == unix.EXFAT_SUPER_MAGIC) {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("cannot stat %s: %w", p, err)
	}
	if int(st.Uid) != m.UID || int(st.Gid) != m.GID {
		if err := t.do("chown "+p, func() error { return unix.Fchown(fd, m.UID, m.GID) }); err != nil {
			return err
		}
	}
	if err := t.do("chmod "+p, func() error { return unix.Fchmod(fd, m.Mode) }); err != nil {
		return err
	}
	if m.Xattrs == nil {
		return nil // a new file: the directory and the security policy decide
	}
	have, err := xattrs(fd)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if _, ok := m.Xattrs[name]; !ok {
			if err := t.do("remove "+name+" of "+p, func() error { return unix.Fremovexattr(fd, name) }); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Xattrs)) {
		if v, ok := have[name]; ok && string(v) == string(m.Xattrs[name]) {
			continue
		}
		if err := t.do("set "+name+" of "+p, func() error { return unix.Fsetxattr(fd, name, m.Xattrs[name], 0) }); err != nil {
			return err
		}
	}
	return nil
}

// xattrs gives the extended attributes of an open file, never nil. IMA and EVM
// sums belong to the inode and are the kernel's to make.
func xattrs(fd int) (map[string][]byte, error) {
	out := map[string][]byte{}
	buf := make([]byte, 64<<10) // XATTR_LIST_MAX, XATTR_SIZE_MAX
	n, err := unix.Flistxattr(fd, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list extended attributes: %w", err)
	}
	for name := range strings.SplitSeq(strings.Trim(string(buf[:n]), "\x00"), "\x00") {
		if name == "" || name == "security.ima" || name == "security.evm" {
			continue
		}
		n, err := unix.Fgetxattr(fd, name, buf)
		if err != nil {
			return nil, fmt.Errorf("cannot read extended attribute %s: %w", name, err)
		}
		out[name] = slices.Clone(buf[:n])
	}
	return out, nil
}
