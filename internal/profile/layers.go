// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
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

// embeddedFiles gives the embedded layers, decoded. They are part of the program,
// and a test lints them, so a mistake here is a bug.
var embeddedFiles = sync.OnceValue(func() []*file {
	if fs := decodedLayers(decoded); fs != nil {
		return fs
	}
	fs, problems := parseLayers()
	if len(problems) > 0 {
		panic(fmt.Sprintf("embedded profile: %v", problems))
	}
	return fs
})

// parseLayers decodes the text of the embedded layers.
func parseLayers() ([]*file, Problems) {
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
	return fs, slices.Concat(probs...)
}

// decodedText is the embedded layers as decoded, and of which text. YAML takes
// twenty milliseconds for what JSON does in one.
type decodedText struct {
	Text  string // hash, in hexadecimal digits
	Files []*file
}

//go:embed embedded/layers.json
var decoded []byte

// decodedLayers gives the layers from a [decodedText], or nil where it is not of
// the text that is embedded.
func decodedLayers(data []byte) []*file {
	var l decodedText
	if err := json.Unmarshal(data, &l); err != nil || l.Text != textHash() {
		return nil
	}
	for _, f := range l.Files {
		f.path = f.Name
	}
	return l.Files
}

// textHash is a hash of the embedded text, in the order of merging.
func textHash() string {
	h := sha256.New()
	for _, name := range order {
		data, _ := Text(name) // of a name in order: embedded
		fmt.Fprintf(h, "%s %d\n", name, len(data))
		h.Write(data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

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
