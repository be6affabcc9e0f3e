// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// Kubelet is the agent of Kubernetes as it is configured: defaults, then the
// file of --config, then the drop-ins of --config-dir, then flags
// (kubernetes cmd/kubelet/app/server.go).
type Kubelet struct {
	Present  bool              `json:"present"`  // a trace of it is on this host
	Running  *bool             `json:"running"`  // a process of this name is there; nil when processes are not seen
	Command  string            `json:"command"`  // what its flags come from: /proc/N/cmdline, or the unit; "" for none
	Files    []string          `json:"files"`    // configuration files in the order of reading
	Settings []KubeletSetting  `json:"settings"` // effective values, by name; nil when they are not known
	Reserved []KubeletReserved `json:"reserved_memory"`
	CPUState *KubeletState     `json:"cpu_state"`    // cpu_manager_state; nil without a reason where there is none
	MemState *KubeletState     `json:"memory_state"` // memory_manager_state, likewise
	Limits   []KubeletLimit    `json:"pod_hugepages"`
	Unknown  Unknown           `json:"unknown,omitempty"`
}

// KubeletSetting is one effective value. The entries of a mapping are settings
// of their own: "kubeReserved.cpu".
type KubeletSetting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"` // "FILE:LINE", "--flag of FILE", or KubeletDefault
}

// KubeletDefault is the source of a value that nobody sets.
const KubeletDefault = "default of the kubelet"

// KubeletReserved is one limit of reservedMemory.
type KubeletReserved struct {
	Node   int    `json:"node"`
	Type   string `json:"type"`  // "memory", "hugepages-1Gi"
	Value  string `json:"value"` // as it is written
	Source string `json:"source"`
}

// KubeletState is what a manager of the kubelet keeps over a restart.
type KubeletState struct {
	Source string  `json:"source"`
	Policy *string `json:"policy"`
	Shared *string `json:"shared_cpus"` // CPU list of pods that own no CPU; of the CPU manager alone
}

// KubeletLimit is how many bytes of a hugepage size all pods may have: what
// the kubelet counted when it started, and gave to the kernel.
type KubeletLimit struct {
	SizeKB int64  `json:"size_kb"`
	Bytes  int64  `json:"bytes"`
	Source string `json:"source"`
}

// Get gives a setting; one that has neither value nor default is not there.
func (k *Kubelet) Get(name string) (s KubeletSetting, ok bool) {
	i := slices.IndexFunc(k.Settings, func(s KubeletSetting) bool { return s.Name == name })
	if i < 0 {
		return s, false
	}
	return k.Settings[i], true
}

// Kubelet gives the kubelet of this host.
func (f *Facts) Kubelet() *Kubelet { return f.kubelet.get(f, decodeKubelet) }

// KubeletRootDir is where the kubelet keeps its files unless --root-dir says otherwise.
const KubeletRootDir = "/var/lib/kubelet"

// Hosts of these run the kubelet as a part of another program.
var kubeletInside = [...]struct{ trace, name string }{
	{"/var/lib/rancher/k3s", "k3s"},
	{"/var/snap/microk8s", "MicroK8s"},
}

// kubeletDefaults are the values of a kubelet that is told nothing
// (kubernetes pkg/kubelet/apis/config/v1beta1/defaults.go).
var kubeletDefaults = [...][2]string{
	{"cpuManagerPolicy", "none"},
	{"evictionHard.memory.available", "100Mi"},
	{"memoryManagerPolicy", "None"},
	{"topologyManagerPolicy", "none"},
	{"topologyManagerScope", "container"},
}

func decodeKubelet(f *Facts) *Kubelet {
	h := f.host
	k := &Kubelet{Files: []string{}}
	var ops []host.Op
	for _, dir := range unitDirs {
		ops = append(ops, host.Op{Kind: host.ReadFile, Path: dir + "/" + kubeletUnit}, host.Op{Kind: host.ListDir, Path: dir + "/" + kubeletUnit + ".d"})
	}
	for _, p := range []string{KubeletRootDir, "/var/lib/rancher/k3s", "/var/lib/rancher/rke2", "/var/snap/microk8s"} {
		ops = append(ops, host.Op{Kind: host.ListDir, Path: p})
	}
	h.Prefetch(ops)

	command := unitCommand(h, kubeletUnit)
	inside := ""
	for _, in := range kubeletInside {
		if trace(h, in.trace) {
			inside = in.name
		}
	}
	if k.Present = command.found || inside != "" || trace(h, KubeletRootDir) || trace(h, "/var/lib/rancher/rke2"); !k.Present {
		k.Running = new(false)
		return k
	}
	running := k.process(h)
	if why := unseen(h); why != "" && len(command.args) == 0 && running == nil { // somebody else's collection, without these
		k.Unknown.say("settings", why)
		k.Unknown.say("pod_hugepages", why)
		return k
	}
	switch {
	case running != nil:
		command = *running
	case k.Unknown["running"] != "" && len(command.args) == 0:
		command.why = k.Unknown["running"]
	case inside != "":
		command = kubeletCommand{why: inside + " runs the kubelet inside itself, and gives it settings that no file of its own shows"}
	}
	k.Command = command.source
	if command.why != "" {
		k.Unknown.say("settings", command.why)
		return k
	}
	flags := parseKubeletFlags(command.args)
	k.readSettings(h, flags, command)
	root := KubeletRootDir
	if dir := flags.last("root-dir"); dir != "" {
		root = path.Join("/", dir)
	}
	k.CPUState = k.readState(h, "cpu_state", root+"/cpu_manager_state")
	k.MemState = k.readState(h, "memory_state", root+"/memory_manager_state")
	k.readLimits(h)
	return k
}

// trace reports whether a directory has something in it, or is closed to us.
func trace(h *host.Host, dir string) bool {
	names, err := h.List(dir)
	return err == nil && len(names) > 0 || err != nil && !host.Absent(err)
}

// unseen says why it is not known whether there is a kubelet at all: "" where
// somebody looked.
func unseen(h *host.Host) string {
	_, err := h.List(KubeletRootDir)
	if errors.Is(err, host.ErrNotCaptured) {
		return whyNot(h, err)
	}
	return ""
}

// process finds the kubelet that runs. The names of processes come first: to
// read a command line is to wait for the memory of that process.
func (k *Kubelet) process(h *host.Host) *kubeletCommand {
	const most = 1 << 16
	names, err := h.List("/proc")
	var ops []host.Op
	var pids []string
	for _, n := range names {
		if _, ok := numbered("p"+n, "p"); ok && len(pids) < most {
			pids = append(pids, n)
			ops = append(ops, host.Op{Kind: host.ReadFile, Path: "/proc/" + n + "/comm"})
		}
	}
	if err != nil || len(pids) == 0 {
		return nil // a tree without processes
	}
	h.Prefetch(ops)
	var found []kubeletCommand
	for _, pid := range pids {
		if name, err := h.Text("/proc/" + pid + "/comm"); err != nil || name != "kubelet" && name != "hyperkube" {
			continue
		}
		p := "/proc/" + pid + "/cmdline"
		b, err := h.Read(p)
		if err != nil {
			k.Unknown.say("running", whyNot(h, err))
			continue
		}
		args := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
		if rest, ok := afterKubelet(args); ok {
			found = append(found, kubeletCommand{found: true, source: p, args: rest})
		}
	}
	switch {
	case len(found) == 1:
		k.Running = new(true)
		delete(k.Unknown, "running")
		return &found[0]
	case len(found) > 1:
		k.Running = new(true)
		return &kubeletCommand{found: true, source: found[0].source,
			why: fmt.Sprintf("%d processes are kubelets here (%s, %s, …): nodes in containers", len(found), found[0].source, found[1].source)}
	case k.Unknown["running"] == "":
		k.Running = new(false)
	}
	return nil
}

// readSettings merges defaults, file, drop-ins and flags.
func (k *Kubelet) readSettings(h *host.Host, flags kubeletFlags, command kubeletCommand) {
	v := newKubeletValues()
	file, dir := flags.last("config"), flags.last("config-dir")
	if file == "" && len(command.args) == 0 && !command.found {
		file = KubeletRootDir + "/config.yaml" // kubeadm's place, where nothing shows the command
	}
	read := func(p string) bool {
		b, err := h.Read(p)
		if err != nil {
			k.Unknown.say("settings", whyNot(h, err))
			return false
		}
		k.Files = append(k.Files, p)
		c, line, err := parseKubeletConfig(b)
		if err != nil {
			k.Unknown.say("settings", fmt.Sprintf("%s:%d: %v", p, line, err))
			return false
		}
		v.merge(c, p)
		return true
	}
	if file != "" {
		if file = path.Join("/", file); !read(file) {
			return
		}
	}
	v.defaults()
	if dir != "" {
		dropins, err := kubeletDropins(h, path.Join("/", dir), 0)
		if err != nil {
			k.Unknown.say("settings", whyNot(h, err))
			return
		}
		for _, p := range dropins {
			if !read(p) {
				return
			}
		}
	}
	if err := v.flags(flags, command.source); err != nil {
		k.Unknown.say("settings", command.source+": "+err.Error())
		return
	}
	k.Settings, k.Reserved = v.sorted(), v.reserved
}

// kubeletDropins lists the files NAME.conf below a directory in the order of
// filepath.WalkDir.
func kubeletDropins(h *host.Host, dir string, depth int) (files []string, err error) {
	if depth > 8 {
		return nil, &host.Error{Op: "list", Path: dir, Err: errors.New("nested too deep")}
	}
	names, err := h.List(dir)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		p := path.Join(dir, n)
		if path.Ext(n) == ".conf" {
			if _, err := h.List(p); err != nil {
				files = append(files, p)
				continue
			}
		}
		if _, err := h.Link(p); err == nil { // WalkDir follows none
			continue
		}
		if below, err := kubeletDropins(h, p, depth+1); err == nil {
			files = append(files, below...)
		}
	}
	return files, nil
}
