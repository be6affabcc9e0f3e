// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Parts of procfs answer for the namespaces of whoever reads, whatever procfs
// was mounted: /proc/sys/net and /proc/net of a pod are the pod's, also in the
// node's /proc. In a tree the first process stands for the host. Of what the
// reader shares no namespace with, or may not, the tree shows nothing.

// ErrNetNamespace and the like are the reasons for that.
var (
	ErrNetNamespace = errors.New("shows the network namespace of this process, which is not known to be the host's; run hostcheck in that one (hostNetwork: true of a pod)")
	ErrUTSNamespace = errors.New("shows the host name of this process, which is not known to share the host's")
	ErrIPCNamespace = errors.New("shows the IPC namespace of this process, which is not known to be the host's")
)

const (
	procNet    = "/proc/net"
	procNetOf1 = "/proc/1/net"
)

// namespaced gives the kind of namespace that decides what is at p, with the
// reason to give where it is another one; "" for none.
func namespaced(p string) (kind string, why error) {
	sys, ok := strings.CutPrefix(p, "/proc/sys/")
	switch {
	case p == procNet, strings.HasPrefix(p, procNet+"/"):
		return "net", ErrNetNamespace
	case !ok && strings.HasPrefix(p, "/proc/sysvipc/"):
		return "ipc", ErrIPCNamespace
	case !ok:
		return "", nil
	}
	top, name, _ := strings.Cut(sys, "/")
	switch {
	case top == "net":
		return "net", ErrNetNamespace
	case top == "fs" && strings.HasPrefix(name, "mqueue"):
		return "ipc", ErrIPCNamespace
	case top != "kernel":
	case name == "hostname", name == "domainname":
		return "uts", ErrUTSNamespace
	case strings.HasPrefix(name, "shm"), strings.HasPrefix(name, "msg"), strings.HasPrefix(name, "sem"), name == "auto_msgmni":
		return "ipc", ErrIPCNamespace
	}
	return "", nil
}

// ofHost gives the path at which the host's own answer for p is. On the
// running machine and in what was captured that is p.
func (h *Host) ofHost(p string) (string, error) {
	if h.live || h.capture != nil || !strings.HasPrefix(p, "/proc/") {
		return p, nil
	}
	kind, why := namespaced(p)
	if kind == "" || !h.onKernelFS("/proc") {
		return p, nil
	}
	h.kernelMu.Lock()
	shared, known := h.shared[kind]
	h.kernelMu.Unlock()
	if !known {
		shared = h.sharesNamespace(kind)
		h.kernelMu.Lock()
		h.shared[kind] = shared
		h.kernelMu.Unlock()
	}
	if shared {
		return p, nil
	}
	var st unix.Stat_t
	if rest, ok := strings.CutPrefix(p, procNet); ok && h.lstat(path.Join(procNetOf1, "dev"), &st) == nil {
		return procNetOf1 + rest, nil
	}
	return "", why
}

// sharesNamespace reports whether this process is known to be in the namespace
// of the first process of the tree's procfs. The links in /proc/1/ns say so to
// those who may trace it. Anybody may see whether two processes have the same
// network: each network has files of its own in procfs.
func (h *Host) sharesNamespace(kind string) bool {
	if kind == "net" {
		var first, self unix.Stat_t
		return h.lstat("/proc/1/net/dev", &first) == nil && h.lstat("/proc/self/net/dev", &self) == nil &&
			first.Ino == self.Ino && first.Dev == self.Dev
	}
	at := placePool.Get().(*place)
	defer at.put()
	at.left = 0
	first, err := h.readLink("/proc/1/ns/"+kind, at)
	if err != nil {
		return false
	}
	self, err := h.readLink("/proc/self/ns/"+kind, at)
	return err == nil && first == self
}
