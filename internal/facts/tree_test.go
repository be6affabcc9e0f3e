// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hostcheck/hostcheck/internal/fixture"
)

// treeOf gives the facts of an inline archive (see package fixture).
func treeOf(t testing.TB, archive string) *Facts {
	t.Helper()
	name := filepath.Join(t.TempDir(), "tree.txtar")
	if err := os.WriteFile(name, []byte(archive), 0o600); err != nil {
		t.Fatal(err)
	}
	return New(fixture.Load(t, name).Host(t))
}

// show writes an optional value for comparing: "<nil>" or the value.
func show[T any](p *T) any {
	if p == nil {
		return "<nil>"
	}
	return *p
}
