// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"strings"
	"testing"
)

func TestLinesOfThisMachine(t *testing.T) {
	lines := strings.Join(Lines("/"), "\n")
	if !strings.Contains(lines, "GiB of memory") {
		t.Errorf("no line about memory in %q", lines)
	}
	if strings.Contains(lines, "unknown") {
		t.Errorf("a name that is not known is shown: %q", lines)
	}
}

func TestLinesOfAnEmptyRoot(t *testing.T) {
	for _, l := range Lines(t.TempDir()) {
		if !strings.Contains(l, "×") && !strings.Contains(l, "GiB") {
			t.Errorf("an empty root is described as %q", l)
		}
	}
}
