// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/host"
)

// kubeletOf gives the kubelet of a tree of files.
func kubeletOf(t *testing.T, files map[string]string) *Kubelet {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o750); err != nil {
		t.Fatal(err)
	}
	for p, text := range files {
		p = filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h, err := host.Open(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return New(h).Kubelet()
}

const (
	kubeadmUnit = `[Unit]
Description=kubelet: The Kubernetes Node Agent

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
`
	kubeadmDropin = `[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
`
	kubeletYAMLText = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cpuManagerPolicy: static
kubeReserved:
  cpu: 500m
  memory: 1Gi
reservedMemory:
- numaNode: 0
  limits:
    memory: 1Gi
- numaNode: 1
  limits: {memory: 100Mi, hugepages-1Gi: "2Gi"}
topologyManagerPolicy: restricted
`
)

func kubeadm() map[string]string {
	return map[string]string{
		"usr/lib/systemd/system/kubelet.service":                      kubeadmUnit,
		"usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf":    kubeadmDropin,
		"var/lib/kubelet/kubeadm-flags.env":                           `KUBELET_KUBEADM_ARGS="--node-ip=10.0.0.1 --cpu-manager-policy-options=full-pcpus-only=true"` + "\n",
		"etc/default/kubelet":                                         "# none\nKUBELET_EXTRA_ARGS=--topology-manager-policy single-numa-node --kube_reserved=cpu=2,memory=2Gi\n",
		"var/lib/kubelet/config.yaml":                                 kubeletYAMLText,
		"etc/systemd/system/kubelet.service.d/00-ignored.conf.rpmnew": "[Service]\nExecStart=/bin/false\n",
	}
}

func TestKubeletOfKubeadm(t *testing.T) {
	k := kubeletOf(t, kubeadm())
	dropin := "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf"
	want := []KubeletSetting{
		{"cpuManagerPolicy", "static", "/var/lib/kubelet/config.yaml:3"},
		{"cpuManagerPolicyOptions.full-pcpus-only", "true", "--cpu-manager-policy-options of " + dropin},
		{"evictionHard.memory.available", "100Mi", KubeletDefault},
		{"kubeReserved.cpu", "2", "--kube-reserved of " + dropin},
		{"kubeReserved.memory", "2Gi", "--kube-reserved of " + dropin},
		{"memoryManagerPolicy", "None", KubeletDefault},
		{"topologyManagerPolicy", "single-numa-node", "--topology-manager-policy of " + dropin},
		{"topologyManagerScope", "container", KubeletDefault},
	}
	if d := cmp.Diff(want, k.Settings); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	reserved := []KubeletReserved{
		{0, "memory", "1Gi", "/var/lib/kubelet/config.yaml:10"},
		{1, "memory", "100Mi", "/var/lib/kubelet/config.yaml:12"},
		{1, "hugepages-1Gi", "2Gi", "/var/lib/kubelet/config.yaml:12"},
	}
	if d := cmp.Diff(reserved, k.Reserved); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if !k.Present || k.Command != dropin || k.Running != nil {
		t.Errorf("present %v, command %s, running %v", k.Present, k.Command, k.Running)
	}
}

// What runs wins over what the unit says now, and drop-ins of --config-dir
// are laid over the file by their names; null takes a value away.
func TestKubeletOfProcessWithDropins(t *testing.T) {
	tree := kubeadm()
	tree["proc/1/comm"], tree["proc/812/comm"] = "systemd\n", "kubelet\n"
	tree["proc/812/cmdline"] = "/usr/bin/kubelet\x00--config=/var/lib/kubelet/config.yaml\x00--config-dir\x00/etc/kubernetes/kubelet.conf.d\x00--reserved-memory=0:memory=3Gi;1:memory=1Gi\x00"
	tree["etc/kubernetes/kubelet.conf.d/20-b.conf"] = "kind: KubeletConfiguration\ntopologyManagerPolicy: best-effort\nkubeReserved: {cpu: null}\n"
	tree["etc/kubernetes/kubelet.conf.d/10-a.conf"] = "kind: KubeletConfiguration\ntopologyManagerPolicy: none\nsystemReserved:\n  cpu: \"1\"\nevictionHard: {nodefs.available: 5%}\n"
	tree["etc/kubernetes/kubelet.conf.d/30-c.yaml"] = "cpuManagerPolicy: none\n"
	k := kubeletOf(t, tree)
	if k.Settings == nil {
		t.Fatal(k.Unknown)
	}
	for name, want := range map[string]string{
		"topologyManagerPolicy":         "best-effort from /etc/kubernetes/kubelet.conf.d/20-b.conf:2",
		"systemReserved.cpu":            "1 from /etc/kubernetes/kubelet.conf.d/10-a.conf:4",
		"kubeReserved.memory":           "1Gi from /var/lib/kubelet/config.yaml:6",
		"kubeReserved.cpu":              " from ",
		"cpuManagerPolicy":              "static from /var/lib/kubelet/config.yaml:3",
		"evictionHard.memory.available": "100Mi from " + KubeletDefault, // the default came before the drop-in
	} {
		if s, _ := k.Get(name); s.Value+" from "+s.Source != want {
			t.Errorf("%s is %s from %s, want %s", name, s.Value, s.Source, want)
		}
	}
	if len(k.Reserved) != 2 || k.Reserved[0].Value != "3Gi" || k.Reserved[0].Source != "--reserved-memory of /proc/812/cmdline" {
		t.Errorf("reserved: %+v", k.Reserved)
	}
	if k.Running == nil || !*k.Running || len(k.Files) != 3 {
		t.Errorf("running %v, files %v", k.Running, k.Files)
	}
}

func TestKubeletUnknown(t *testing.T) {
	with := func(p, text string) map[string]string {
		tree := kubeadm()
		tree[p] = text
		return tree
	}
	for name, tt := range map[string]struct {
		tree map[string]string
		want string
	}{
		"broken":    {with("var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\ncpuManagerPolicy: [a\n"), "config.yaml:"},
		"kind":      {with("var/lib/kubelet/config.yaml", "\nkind: Pod\n"), "config.yaml:2: its kind is not KubeletConfiguration"},
		"alias":     {with("var/lib/kubelet/config.yaml", "a: &x [1]\nb: *x\n"), "config.yaml:1:"},
		"not text":  {with("var/lib/kubelet/config.yaml", "a: \xff\n"), "config.yaml:1: not UTF-8"},
		"wrapper":   {with("etc/systemd/system/kubelet.service.d/99.conf", "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exec kubelet'\n"), "99.conf starts"},
		"k3s":       {map[string]string{"var/lib/rancher/k3s/agent/x": ""}, "k3s runs the kubelet inside itself"},
		"bad flag":  {with("etc/default/kubelet", "KUBELET_EXTRA_ARGS=--kube-reserved=cpu\n"), "--kube-reserved"},
		"two":       {map[string]string{"var/lib/kubelet/x": "", "proc/1/comm": "init", "proc/7/comm": "kubelet", "proc/8/comm": "kubelet", "proc/7/cmdline": "kubelet\x00", "proc/8/cmdline": "kubelet\x00"}, "2 processes are kubelets"},
		"gone file": {map[string]string{"var/lib/kubelet/x": ""}, "/var/lib/kubelet/config.yaml"},
	} {
		k := kubeletOf(t, tt.tree)
		if k.Settings != nil || !strings.Contains(k.Unknown["settings"], tt.want) {
			t.Errorf("%s: settings %v, unknown %v; want %q", name, k.Settings, k.Unknown, tt.want)
		}
	}
	if k := kubeletOf(t, map[string]string{"etc/hostname": "x\n", "proc/7/comm": "kubelet"}); k.Present {
		t.Error("a host without a trace has a kubelet")
	}
}

func TestParseQuantity(t *testing.T) {
	for s, want := range map[string]int64{
		"1": 1000, "500m": 500, "0.5": 500, "1Gi": 1 << 30 * 1000, "100Mi": 100 << 20 * 1000, "1e3": 1e6, "1E3": 1e6, "2k": 2e6, "1n": 1, "0": 0, "1.5Ki": 1536000,
	} {
		if got, err := ParseQuantity(s); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "x", "10%", "1e99", "9Ei9", "1/2", "--1", "9000Ei", "1 Gi"} {
		if got, err := ParseQuantity(s); err == nil {
			t.Errorf("%q: %d", s, got)
		}
	}
}

func TestKubeletStateAndLimits(t *testing.T) {
	tree := kubeadm()
	tree["var/lib/kubelet/cpu_manager_state"] = `{"policyName":"static","defaultCpuSet":"0-1,4","entries":{"a":{"b":"2-3"}},"checksum":1}`
	tree["var/lib/kubelet/memory_manager_state"] = `{"checksum":1}`
	tree["sys/fs/cgroup/kubepods.slice/hugetlb.1GB.max"] = "8589934592\n"
	tree["sys/fs/cgroup/kubepods.slice/hugetlb.2MB.max"] = "max\n"
	tree["sys/fs/cgroup/kubepods.slice/hugetlb.1GB.rsvd.max"] = "5\n"
	k := kubeletOf(t, tree)
	if k.CPUState == nil || *k.CPUState.Policy != "static" || *k.CPUState.Shared != "0-1,4" {
		t.Errorf("cpu state %+v", k.CPUState)
	}
	if k.MemState != nil || !strings.Contains(k.Unknown["memory_state"], "names no policy") {
		t.Errorf("memory state %+v, %v", k.MemState, k.Unknown)
	}
	if d := cmp.Diff([]KubeletLimit{{1 << 20, 8 << 30, "/sys/fs/cgroup/kubepods.slice/hugetlb.1GB.max"}}, k.Limits); d != "" {
		t.Error(d)
	}
}

func FuzzKubeletConfig(f *testing.F) {
	f.Add([]byte(kubeletYAMLText))
	f.Add([]byte(`{"kind":"KubeletConfiguration","reservedMemory":[{"numaNode":1,"limits":{"memory":"1Gi"}}],"evictionHard":null}`))
	f.Add([]byte("reservedMemory: [{numaNode: -1}]\nkubeReserved: |\n  x\n? a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, line, err := parseKubeletConfig(text)
		if err != nil && (line < 1 || line > 1+strings.Count(string(text), "\n")+strings.Count(string(text), "\r")) {
			t.Errorf("line %d of %q: %v", line, text, err)
		}
		v := newKubeletValues()
		v.merge(c, "f")
		v.defaults()
		for _, s := range v.sorted() {
			_, _ = ParseQuantity(s.Value)
		}
	})
}

func FuzzKubeletCommand(f *testing.F) {
	f.Add(kubeadmDropin, `KUBELET_KUBEADM_ARGS="--reserved-memory 0:memory=1Gi"`)
	f.Add("[Service]\nExecStart=@kubelet ${A}${B} '$A' \\\n --eviction-hard=memory.available<5%\n", "A=${A}\nB='x")
	f.Fuzz(func(t *testing.T, unit, env string) {
		s := unitService{}
		s.add(unit)
		vars := map[string]string{}
		setVariables(vars, envLines(env))
		args, _ := afterKubelet(expandWords(splitWords(s.start), vars))
		_ = newKubeletValues().flags(parseKubeletFlags(args), "u")
	})
}

func FuzzKubeletState(f *testing.F) {
	f.Add([]byte(`{"policyName":"static","defaultCpuSet":"0-1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := parseKubeletState(text); err == nil && s.Policy == nil {
			t.Error("no policy and no error")
		}
	})
}
