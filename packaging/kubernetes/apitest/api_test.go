// SPDX-License-Identifier: Apache-2.0

// Package apitest decodes the manifests with the types of the Kubernetes API,
// as strictly as the API server does when it is asked to. It is a module of its
// own: the product needs none of these types.
package apitest

import (
	"bytes"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// documents are the parts of a file.
func documents(t *testing.T, name string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(path.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Split(b, []byte("\n---\n"))
}

func strict(t *testing.T, name string, doc []byte, to any) {
	t.Helper()
	if err := yaml.UnmarshalStrict(doc, to); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// daemonSet is the whole of a file without patches, and what a patch names.
func daemonSet(t *testing.T) (d appsv1.DaemonSet, ns corev1.Namespace, profile corev1.ConfigMap) {
	t.Helper()
	docs := documents(t, "daemonset.yaml")
	if len(docs) != 3 {
		t.Fatalf("%d documents", len(docs))
	}
	strict(t, "Namespace", docs[0], &ns)
	strict(t, "ConfigMap", docs[1], &profile)
	strict(t, "DaemonSet", docs[2], &d)
	return d, ns, profile
}

func patch(t *testing.T, name string) (d appsv1.DaemonSet) {
	t.Helper()
	docs := documents(t, name)
	if len(docs) != 1 {
		t.Fatalf("%s: %d documents", name, len(docs))
	}
	strict(t, name, docs[0], &d)
	return d
}

func TestDaemonSet(t *testing.T) {
	d, ns, profile := daemonSet(t)
	if d.APIVersion != "apps/v1" || d.Kind != "DaemonSet" || ns.Kind != "Namespace" || profile.Kind != "ConfigMap" || d.Namespace != ns.Name || profile.Namespace != ns.Name {
		t.Errorf("%v %v %v", d.TypeMeta, ns.TypeMeta, profile.TypeMeta)
	}
	for k, v := range d.Spec.Selector.MatchLabels {
		if d.Spec.Template.Labels[k] != v {
			t.Errorf("the selector wants %s=%s of its pods", k, v)
		}
	}
	pod := d.Spec.Template.Spec
	if pod.HostPID || pod.HostIPC || pod.ServiceAccountName != "" || pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken ||
		pod.SecurityContext.SeccompProfile == nil || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod has more than it needs: %+v", pod)
	}
	if !slices.ContainsFunc(pod.Tolerations, func(o corev1.Toleration) bool { return o.Operator == corev1.TolerationOpExists && o.Key == "" && o.Effect == "" }) {
		t.Error("nodes with a taint are not judged")
	}
	if len(pod.Containers) != 1 || len(pod.InitContainers) != 0 {
		t.Fatalf("%d containers", len(pod.Containers))
	}
	least(t, &pod.Containers[0], pod.Volumes)
	for _, name := range []string{"features.yaml", "textfile.yaml"} {
		p := patch(t, name).Spec.Template.Spec
		if len(p.Containers) != 1 || len(p.Volumes) != 1 || p.Volumes[0].HostPath == nil {
			t.Fatalf("%s: %+v", name, p)
		}
		c := &p.Containers[0]
		if c.Name == pod.Containers[0].Name || c.Image != pod.Containers[0].Image {
			t.Errorf("%s: the container %s of %s", name, c.Name, c.Image)
		}
		least(t, c, append(slices.Clone(pod.Volumes), p.Volumes...))
		// it may write to one directory, and the file is in that
		m := c.VolumeMounts[slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == p.Volumes[0].Name })]
		if i := slices.Index(c.Args, "-o"); i < 0 || path.Dir(c.Args[i+1]) != m.MountPath {
			t.Errorf("%s: writes %v, and may write to %s", name, c.Args, m.MountPath)
		}
	}
}

// least: no privilege, nothing of the node to write to but what writable holds,
// no change ever, and room for what hostcheck takes.
func least(t *testing.T, c *corev1.Container, volumes []corev1.Volume) {
	t.Helper()
	s := c.SecurityContext
	if s == nil || s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 ||
		s.Privileged == nil || *s.Privileged || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
		s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
		t.Errorf("%s has a privilege: %+v", c.Name, s)
	}
	if len(c.Ports) > 0 || len(c.Command) > 0 || c.Args[0] != "check" || strings.Contains(strings.Join(c.Args, " "), "--fix") {
		t.Errorf("%s: %v %v", c.Name, c.Ports, c.Args)
	}
	if most := c.Resources.Limits.Memory(); most.Value() < 300<<20 { // the collector's limit is 256 MiB
		t.Errorf("%s may take %v", c.Name, most)
	}
	host := false
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		if i < 0 {
			t.Errorf("%s mounts %s, which is no volume", c.Name, m.Name)
			continue
		}
		p := volumes[i].HostPath
		switch {
		case p == nil && volumes[i].ConfigMap != nil && m.ReadOnly:
		case p != nil && p.Path == "/":
			host = m.MountPath == "/host" && m.ReadOnly && m.RecursiveReadOnly != nil && *m.RecursiveReadOnly == corev1.RecursiveReadOnlyIfPossible &&
				m.MountPropagation != nil && *m.MountPropagation == corev1.MountPropagationNone
		case p != nil && !m.ReadOnly && strings.Count(p.Path, "/") >= 3:
		default:
			t.Errorf("%s: %+v of %+v", c.Name, m, volumes[i])
		}
	}
	if !host {
		t.Errorf("%s: the node's root is not mounted, or not read-only all the way", c.Name)
	}
}

// The patch of node-problem-detector mounts what the rules name.
func TestNodeProblemDetector(t *testing.T) {
	pod := patch(t, "node-problem-detector/patch.yaml").Spec.Template.Spec
	for _, c := range pod.Containers {
		for _, m := range c.VolumeMounts {
			if !m.ReadOnly || !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
				t.Errorf("%+v", m)
			}
		}
	}
	if len(pod.Containers) != 1 || pod.Containers[0].Name != "node-problem-detector" {
		t.Errorf("%+v", pod.Containers)
	}
}

// What the API does not know is found.
func TestStrict(t *testing.T) {
	d := documents(t, "daemonset.yaml")[2]
	for _, wrong := range []string{"hostNetwork: true", "readOnlyRootFilesystem: true", "mountPath: /host"} {
		bad := bytes.Replace(d, []byte(wrong), []byte("x"+wrong), 1)
		if bytes.Equal(d, bad) || yaml.UnmarshalStrict(bad, new(appsv1.DaemonSet)) == nil {
			t.Errorf("x%s goes unnoticed", wrong)
		}
	}
}
