// SPDX-License-Identifier: Apache-2.0

package host

import "golang.org/x/sys/unix"

// Uname is what uname(2) says of the kernel.
type Uname struct {
	Release string `json:"release"` // "6.12.107+deb13-amd64"
	Machine string `json:"machine"` // "x86_64"
}

// Uname gives the kernel's answer to uname(2), recorded as "uname".
func (h *Host) Uname() (Uname, error) {
	return Ask(h, "uname", func() (Uname, error) {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return Uname{}, err
		}
		return Uname{unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])}, nil
	})
}

// PageSize gives the kernel's page size in bytes, recorded as "pagesize".
func (h *Host) PageSize() (int, error) {
	return Ask(h, "pagesize", func() (int, error) { return pageSize(), nil })
}
