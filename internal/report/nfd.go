// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
)

// NFD gives the report as a feature file of Node Feature Discovery, which makes
// labels of the node of it: the verdict, the worst finding of each area, and
// what the host was judged by. It counts until the given time, so that a node
// whose file nobody writes any more has no label rather than an old one
// (https://kubernetes-sigs.github.io/node-feature-discovery, local feature source).
func NFD(r *Report, until time.Time) []byte {
	b := nfd(until)
	fit := "unknown"
	switch {
	case r.Summary.Exit == ExitFindings:
		fit = "false"
	case r.Summary.hardly():
	case r.Summary.Exit == ExitPending:
		fit = "after-reboot"
	case r.Summary.Exit == ExitOK:
		fit = "true"
	}
	label(b, "fit", fit)
	worst := map[string]int{}
	var areas []string
	for i := range r.Findings {
		f := &r.Findings[i]
		area, _, _ := strings.Cut(f.Check, ".")
		level := slices.Index(checkStates, f.state())
		if _, known := worst[area]; !known {
			areas = append(areas, area)
		}
		worst[area] = max(worst[area], level)
	}
	for _, area := range areas {
		label(b, area, checkStates[worst[area]])
	}
	label(b, "profile", r.Profile.Hash[:min(len(r.Profile.Hash), 12)])
	label(b, "intent", r.Profile.Intent)
	return b.Bytes()
}

// NFDUnjudged is the file of a host that was not judged at all.
func NFDUnjudged(until time.Time) []byte {
	b := nfd(until)
	label(b, "fit", "unknown")
	return b.Bytes()
}

func nfd(until time.Time) *bytes.Buffer {
	b := new(bytes.Buffer)
	_, _ = fmt.Fprintf(b, "# written by hostcheck\n# +expiry-time=%s\n", until.UTC().Format(time.RFC3339))
	return b
}

// maxLabel is how long a label's value may be in Kubernetes.
const maxLabel = 63

// label writes feature.node.kubernetes.io/hostcheck-NAME. A value begins and
// ends with a letter or a digit; others stand between, and no more than 63.
func label(b *bytes.Buffer, name, value string) {
	value = strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z' || strings.ContainsRune("-_.", r)) {
			return r
		}
		return '_'
	}, value)
	value = strings.Trim(value[:min(len(value), maxLabel)], "-_.")
	if value != "" {
		_, _ = fmt.Fprintf(b, "hostcheck-%s=%s\n", name, value)
	}
}
