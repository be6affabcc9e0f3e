// SPDX-License-Identifier: Apache-2.0

package bench

func (m *Migration) SVG() string  { return "" }
func (m *Migration) HTML() string { return "" }
