// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/hostcheck/hostcheck/internal/fixture"
	"github.com/hostcheck/hostcheck/internal/report"
)

// manifest is what the test needs of a manifest; packaging/kubernetes/apitest
// reads all of it.
type manifest struct {
	Kind string            `yaml:"kind"`
	Data map[string]string `yaml:"data"`
	Spec struct {
		Template struct {
			Spec struct {
				Containers []struct {
					Name string   `yaml:"name"`
					Args []string `yaml:"args"`
				} `yaml:"containers"`
			} `yaml:"spec"`
		} `yaml:"template"`
	} `yaml:"spec"`
}

func manifests(t *testing.T, name string) (all []manifest) {
	t.Helper()
	f, err := os.Open("packaging/kubernetes/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := yaml.NewDecoder(f)
	for {
		var m manifest
		err := d.Decode(&m)
		if err == io.EOF { //nolint:errorlint // never wrapped
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, m)
	}
}

// The command of each container is one that works, with the profile of the
// ConfigMap, and what it leaves is what the other side reads.
func TestKubernetesCommands(t *testing.T) {
	self, err := exec.LookPath("hostcheck")
	if err != nil {
		t.Fatal(err)
	}
	root := fixture.Load(t, "testdata/hosts/rdma-intel-sick.txtar").Root
	dir := t.TempDir()
	var args []string
	for _, file := range []string{"daemonset.yaml", "features.yaml", "textfile.yaml"} {
		for _, m := range manifests(t, file) {
			for name, text := range m.Data {
				if err := os.MkdirAll(filepath.Join(dir, "profile"), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, "profile", name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if m.Kind == "Namespace" || m.Kind == "ConfigMap" {
				continue
			}
			for _, c := range m.Spec.Template.Spec.Containers {
				args = slices.Clone(c.Args)
				i := slices.Index(args, "--every")
				if i < 0 {
					t.Fatalf("%s of %s ends after one report", c.Name, file)
				}
				args = slices.Delete(args, i, i+2)
				out := ""
				for i, a := range args {
					switch {
					case a == "/host":
						args[i] = root
					case strings.HasPrefix(a, "/"):
						args[i] = filepath.Join(dir, a)
						if args[i-1] == "-o" {
							out = args[i]
							if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
								t.Fatal(err)
							}
						}
					}
				}
				run := exec.Command(self, args...)
				stdout, err := run.Output()
				if run.ProcessState.ExitCode() != report.ExitFindings {
					t.Fatalf("%s of %s: %v: %v", c.Name, file, args, err)
				}
				if out == "" {
					var r report.Report
					if err := json.Unmarshal(stdout, &r); err != nil || r.Summary.Fail == 0 || !slices.Contains(r.Profile.Layers, filepath.Join(dir, "profile/site.yaml")) || strings.Count(string(stdout), "\n") != 1 {
						t.Errorf("%s of %s: %v: %.300s", c.Name, file, err, stdout)
					}
					continue
				}
				b, err := os.ReadFile(out)
				if err != nil || !strings.Contains(string(b), "hostcheck-fit=false\n") && !strings.Contains(string(b), "hostcheck_check_status{") {
					t.Errorf("%s of %s wrote %.300q, %v", c.Name, file, b, err)
				}
			}
		}
	}
	if args == nil {
		t.Fatal("no container was run")
	}
}
