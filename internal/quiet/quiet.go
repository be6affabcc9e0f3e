// SPDX-License-Identifier: Apache-2.0

// Package quiet keeps a library from starting a process.
//
// The package initialiser of lipgloss v2 looks at the terminal behind stdout,
// and inside tmux it runs whatever "tmux" is first in PATH to ask for its
// colours. hostcheck starts no process for a check, least of all as root, and
// needs no answer: it uses the 16 ANSI colours. So TMUX leaves the environment
// first. The language specification initialises packages whose imports are
// ready in the order of their paths; this one imports only os and comes before
// modules that lipgloss waits for. A test runs the binary in a terminal and
// fails when a tmux is started all the same.
package quiet

import "os"

// TMUX is what the environment held.
var TMUX = take("TMUX")

func take(name string) string {
	v := os.Getenv(name)
	_ = os.Unsetenv(name)
	return v
}
