// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcheck/hostcheck/internal/fixture"
)

// The examples in docs/facts are what hostcheck really writes.
func TestDocsExamples(t *testing.T) {
	for _, tt := range []struct {
		doc, host string
		entry     func(*Facts) any
	}{
		{"rdma", "hosts/rdma-intel", func(f *Facts) any { return f.RDMA().Devices[0] }},
		{"dcb", "checks/dcqcn.params/pass", func(f *Facts) any { return f.DCB().Of("ens1np0") }},
	} {
		t.Run(tt.doc, func(t *testing.T) {
			doc, err := os.ReadFile("../../docs/facts/" + tt.doc + ".md")
			if err != nil {
				t.Fatal(err)
			}
			_, example, ok := strings.Cut(string(doc), "```json\n")
			example, _, end := strings.Cut(example, "\n```")
			if !ok || !end {
				t.Fatal("no example")
			}
			var want bytes.Buffer
			e := json.NewEncoder(&want)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			if err := e.Encode(tt.entry(New(fixture.Load(t, "../../testdata/"+tt.host+".txtar").Host(t)))); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.TrimSpace(want.String()), example); d != "" {
				t.Errorf("the example is not what hostcheck writes (-it writes +example):\n%s", d)
			}
		})
	}
}
