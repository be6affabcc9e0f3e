// SPDX-License-Identifier: Apache-2.0

package facts

// Token is one word of the kernel command line, in order. Name has its dashes
// as written; compare names with [SameParam].
type Token struct {
	Name  string  `json:"name"`
	Value *string `json:"value"` // without the outer quotes; nil when there was no "="
	Raw   string  `json:"raw"`
}

// HugepageRequest is one pool that the command line asks for.
type HugepageRequest struct {
	SizeKB int64 `json:"size_kb"`
	Node   int   `json:"node"`  // -1: spread over the nodes by the kernel
	Count  int64 `json:"count"` // pages
}

// IOMMURequest is what the command line does to the IOMMU.
type IOMMURequest struct {
	Disabled    bool     `json:"disabled"`    // iommu=off, intel_iommu=off on Intel, amd_iommu=off on AMD
	Enabled     *bool    `json:"enabled"`     // asked on or off by intel_iommu=; nil when the text and configuration do not say
	Passthrough *bool    `json:"passthrough"` // default domain identity (true) or translated (false); nil when left to the kernel's default and that is not known
	Default     string   `json:"default"`     // "identity", "DMA-FQ", "DMA" or "" (not known): what the default domain type will be, if an IOMMU is active
	Strict      *bool    `json:"strict"`
	Notes       []string `json:"notes,omitempty"` // what the kernel ignores or only half accepts, one sentence each
}

// Effects is what the kernel will do with the text, computed from the text,
// the CPUs and nodes and the kernel configuration alone.
type Effects struct {
	Hugepages         []HugepageRequest `json:"hugepages"`
	DefaultHugepageKB *int64            `json:"default_hugepage_kb"`
	Isolated          *string           `json:"isolated"`    // domain-isolated CPUs as the kernel prints them, "" for none
	ManagedIRQ        *string           `json:"managed_irq"` // CPUs that isolcpus=managed_irq protects
	NohzFull          *string           `json:"nohz_full"`
	RcuNocbs          *string           `json:"rcu_nocbs"`
	IOMMU             IOMMURequest      `json:"iommu"`
	ACS               string            `json:"acs"` // what pci=config_acs= / disable_acs_redir= asks, "" for nothing
	Unknown           Unknown           `json:"unknown,omitempty"`
}

// Problem is a token that the kernel ignores, refuses or reads otherwise than
// its writer meant.
type Problem struct {
	Token string `json:"token"` // raw
	Kind  string `json:"kind"`  // "ignored", "refused", "overridden", "redundant", "not-a-value"
	Why   string `json:"why"`
}

// Cmdline is the kernel command line: what was given and what it does.
type Cmdline struct {
	Text          *string   `json:"text"` // /proc/cmdline, without the final newline
	Tokens        []Token   `json:"tokens"`
	InitArgs      []string  `json:"init_args"`      // words after "--"
	Bootconfig    *string   `json:"bootconfig"`     // /proc/bootconfig when there is one
	UnknownParams []string  `json:"unknown_params"` // raw tokens that the kernel passes to init and logs as unknown
	Effects       Effects   `json:"effects"`
	Problems      []Problem `json:"problems"`
	Unknown       Unknown   `json:"unknown,omitempty"`
}

// Cmdline gives the kernel command line of the running kernel.
func (f *Facts) Cmdline() *Cmdline { return f.cmdline.get(f, decodeCmdline) }

func decodeCmdline(f *Facts) *Cmdline { panic("not written yet") }
