// SPDX-License-Identifier: Apache-2.0

package host

import (
	"runtime"
	"testing"
	"unsafe"
)

// The stack that the ethtool library's structures lie on stays where it is,
// whether the frames below are deep or the garbage collector would halve it.
func TestStillStack(t *testing.T) {
	moved := func(on func(func())) bool {
		c := make(chan bool)
		go on(func() {
			var here int
			before := uintptr(unsafe.Pointer(&here))
			for range 4 {
				runtime.GC() // waits, which is when stacks are halved
			}
			deep(24 << 10 / 256)
			c <- uintptr(unsafe.Pointer(&here)) != before
		})
		return <-c
	}
	if !moved(func(do func()) { growStack(0); do() }) {
		t.Error("room alone keeps the stack still: the runtime does not halve stacks any more")
	}
	if moved(func(do func()) { stillStack(0, do) }) {
		t.Error("the stack moved")
	}
}

//go:noinline
func deep(n int) byte {
	var frame [256]byte
	if n > 0 {
		frame[n%256] = deep(n - 1)
	}
	return frame[n/2%256]
}
