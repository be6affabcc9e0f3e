// SPDX-License-Identifier: Apache-2.0

package fixes

// For tests of the format.
var (
	ParseSettings  = parseSettings
	RenderSettings = renderSettings
)
