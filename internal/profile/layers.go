// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"embed"
	"fmt"
	"slices"
	"sync"
)

//go:embed embedded/*.yaml
var embeddedFS embed.FS

// order is the embedded layers as they are merged: within one kind, the more
// general first.
var order = []string{
	"base",
	"intel", "amd", "arm64", "arm64-64k", "grace", "azure",
	"mlx4", "mlx5", "irdma", "mana",
	"rdma-400g", "azure-mana", "vxlan-overlay", "page-migration", "k8s-gpu",
}

// embeddedFiles decodes the embedded layers once. They are part of the
// program, and a test lints them, so a mistake here is a bug.
var embeddedFiles = sync.OnceValue(func() []*file {
	fs := make([]*file, len(order))
	probs := make([]Problems, len(order))
	var wg sync.WaitGroup
	for i, name := range order {
		wg.Go(func() {
			data, err := Text(name)
			if err != nil {
				probs[i] = Problems{{File: name, Msg: err.Error()}}
				return
			}
			fs[i], probs[i] = parseFile(name, data)
		})
	}
	wg.Wait()
	if all := slices.Concat(probs...); len(all) > 0 {
		panic(fmt.Sprintf("embedded profile: %v", all))
	}
	return fs
})

// embeddedFile gives a layer by name, or nil.
func embeddedFile(name string) *file {
	for _, f := range embeddedFiles() {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// Info is one embedded layer.
type Info struct {
	Name  string `json:"name"`
	Layer string `json:"layer"` // base, platform, device, role
	Title string `json:"title"`
	Doc   string `json:"doc"`
}

// List gives the embedded layers in the order of merging.
func List() []Info {
	var l []Info
	for _, f := range embeddedFiles() {
		l = append(l, Info{f.Name, f.Layer, f.Title, f.Doc})
	}
	return l
}

// Text gives an embedded layer as it was written, to read or to copy from.
func Text(name string) ([]byte, error) {
	if !slices.Contains(order, name) {
		return nil, fmt.Errorf("%s", unknownWord("profile", name, order))
	}
	return embeddedFS.ReadFile("embedded/" + name + ".yaml")
}
