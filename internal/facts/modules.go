// SPDX-License-Identifier: Apache-2.0

package facts

// Module is one loaded or built-in kernel module.
type Module struct {
	Name    string  `json:"name"`    // with underscores
	State   string  `json:"state"`   // Live, Loading, Unloading; "built-in"
	Version *string `json:"version"` // /sys/module/X/version; in-tree mlx5_core has none
	Taint   *string `json:"taint"`   // letters of /proc/modules, "OE" for an out-of-tree unsigned one; "" for none
}

// Modules is what the kernel has loaded.
type Modules struct {
	Loaded  []Module `json:"loaded"`   // /proc/modules, sorted by name
	BuiltIn []string `json:"built_in"` // /lib/modules/RELEASE/modules.builtin (names), nil when unknown
	Unknown Unknown  `json:"unknown,omitempty"`
}

// Modules gives the host's kernel modules.
func (f *Facts) Modules() *Modules { return f.modules.get(f, decodeModules) }

func decodeModules(f *Facts) *Modules { panic("not written yet") }
