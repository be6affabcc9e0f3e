// SPDX-License-Identifier: Apache-2.0

//go:build race

package checks_test

const raced = true // by the race detector
