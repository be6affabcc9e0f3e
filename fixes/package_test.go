// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"os"
	"strings"
	"testing"
)

// The unit in the packages is the one that a fix writes, for the program of the
// packages.
func TestPackagedUnit(t *testing.T) {
	b, err := os.ReadFile("../packaging/hostcheck-settings.service")
	if err != nil {
		t.Fatal(err)
	}
	body := func(s string) string { return s[strings.Index(s, "[Unit]"):] }
	if got, want := body(string(b)), body(settingsServiceText("/usr/bin/hostcheck")); got != want {
		t.Errorf("packaging/hostcheck-settings.service has\n%s\na fix writes\n%s", got, want)
	}
}
