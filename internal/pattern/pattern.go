// SPDX-License-Identifier: Apache-2.0

// Package pattern compiles regular expressions when they are first used: a
// program that starts for one check needs few of them.
package pattern

import (
	"regexp"
	"sync"
)

// Late gives a function that compiles the expression at its first call. It
// panics there where the expression is wrong, as [regexp.MustCompile] does.
func Late(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
