// SPDX-License-Identifier: Apache-2.0

package lab

// Alike reports whether power cuts after n and after m writes leave the same
// with seed 0: nothing became durable between them, by a flush or by itself.
func (r *Recording) Alike(n, m int) bool {
	for _, e := range r.entries[min(n, m, len(r.entries)):min(max(n, m), len(r.entries))] {
		if e.flags&(flagFlush|flagFUA) != 0 {
			return false
		}
	}
	return true
}
