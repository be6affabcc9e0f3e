// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"slices"
	"strings"
)

// Platform is what the choice of layers and the scopes of values look at.
// A field that is not known has its zero value; [Detect] fills it in.
type Platform struct {
	Arch       string  `json:"arch"`       // amd64, arm64
	CPU        string  `json:"cpu"`        // intel, amd, arm; "other" for a maker without a layer
	PageSize   int     `json:"page_size"`  // bytes
	Release    string  `json:"release"`    // of the kernel
	Hypervisor *string `json:"hypervisor"` // "" on bare metal; nil when not known
	Cloud      string  `json:"cloud"`      // "azure", or "" elsewhere

	Functions    []Function `json:"functions"` // network and GPU functions
	FunctionsWhy string     `json:"-"`         // why the list is not known

	Layers    []LayerMatch `json:"layers"`     // every embedded layer, in the order of merging
	Intent    string       `json:"intent"`     // assumed from what runs; "" when nothing fits
	IntentWhy string       `json:"intent_why"` // what it was assumed from
}

// Function is one PCI function that a layer may be chosen by.
type Function struct {
	BDF    string `json:"bdf"`
	ID     string `json:"id"`     // vendor:device, "15b3:1021"
	Class  string `json:"class"`  // 6 hex digits
	Driver string `json:"driver"` // "" when none is bound or that is not known
	VF     bool   `json:"vf"`     // a virtual function of a function seen here
	Speed  int    `json:"speed_mbps,omitempty"`
}

// LayerMatch says whether an embedded layer is for this host, and why.
type LayerMatch struct {
	Name    string `json:"name"`
	Layer   string `json:"layer"` // base, platform, device, role
	Matches bool   `json:"matches"`
	Why     string `json:"why"`
}

var pageSizes = map[string]int{"4K": 4 << 10, "16K": 16 << 10, "64K": 64 << 10}

// verdict is whether a condition holds: a condition on what is not known is
// neither true nor false.
type verdict struct {
	ok      bool
	unknown bool
	why     string
}

func oneOf(what string, wanted []string, got string) verdict {
	switch {
	case got == "":
		return verdict{unknown: true, why: what + " is not known"}
	case slices.Contains(wanted, got):
		return verdict{ok: true, why: what + " is " + got}
	}
	return verdict{why: fmt.Sprintf("%s is %s, not %s", what, got, strings.Join(wanted, " or "))}
}

// scope judges each part of a scope that is given.
func (p *Platform) scope(arch, cpu, pageSize []string, kernel string) (vs []verdict) {
	if len(arch) > 0 {
		vs = append(vs, oneOf("the architecture", arch, p.Arch))
	}
	if len(cpu) > 0 {
		vs = append(vs, oneOf("the processor", cpu, p.CPU))
	}
	if len(pageSize) > 0 {
		vs = append(vs, oneOf("the page size", pageSize, sizeName(p.PageSize)))
	}
	if kernel != "" {
		r, err := parseKernelRange(kernel)
		v, ok := releaseVersion(p.Release)
		switch {
		case err != nil:
			vs = append(vs, verdict{why: err.Error()})
		case !ok:
			vs = append(vs, verdict{unknown: true, why: "the kernel release is not known"})
		case r.covers(v):
			vs = append(vs, verdict{ok: true, why: fmt.Sprintf("kernel %s is %s", p.Release, kernel)})
		default:
			vs = append(vs, verdict{why: fmt.Sprintf("kernel %s is not %s", p.Release, kernel)})
		}
	}
	return vs
}

func sizeName(bytes int) string {
	for name, n := range pageSizes {
		if n == bytes {
			return name
		}
	}
	if bytes > 0 {
		return fmt.Sprintf("%d bytes", bytes)
	}
	return ""
}

// all joins verdicts: false if one is false, else unknown if one is unknown.
func all(vs []verdict) verdict {
	r := verdict{ok: true}
	var yes, unknown, no []string
	for _, v := range vs {
		switch {
		case v.ok:
			yes = append(yes, v.why)
		case v.unknown:
			unknown = append(unknown, v.why)
		default:
			no = append(no, v.why)
		}
	}
	switch {
	case len(no) > 0:
		r, yes = verdict{}, no
	case len(unknown) > 0:
		r, yes = verdict{unknown: true}, unknown
	}
	r.why = strings.Join(yes, "; ")
	return r
}

// covers reports whether a value applies here. What cannot be judged is kept,
// since a dropped value would hide a finding; why then says so. A value for
// certain intents needs one: assumed tells that it is an assumed one.
func (p *Platform) covers(o Origin, intent string, assumed bool) (ok, byAssumption bool, why string) {
	v := all(p.scope(o.Arch, o.CPU, o.PageSize, o.Kernel))
	if !v.ok && !v.unknown {
		return false, false, v.why
	}
	if v.unknown {
		why = "kept, although its scope cannot be judged: " + v.why
	}
	if len(o.Intents) == 0 {
		return true, false, why
	}
	if !slices.Contains(o.Intents, intent) {
		return false, false, fmt.Sprintf("for the intent %s; the intent is %s", strings.Join(o.Intents, " or "), first(intent, "not known"))
	}
	if assumed && why == "" {
		why = "the intent " + intent + " is assumed"
	}
	return true, assumed, why
}
