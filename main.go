// SPDX-License-Identifier: Apache-2.0

// Command hostcheck tells whether a Linux host is fit for RDMA, GPU and cloud
// networking work.
package main

import (
	"os"

	"github.com/hostcheck/hostcheck/internal/cli"
)

//go:generate go run . man --markdown -o docs/cli.md

func main() { os.Exit(cli.Main()) }
