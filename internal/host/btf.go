// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/cilium/ebpf/btf"
)

// btfDir has a file for vmlinux and one for each loaded module, readable by all
// (CONFIG_DEBUG_INFO_BTF_MODULES).
const btfDir = "/sys/kernel/btf"

// maxBTF bounds the type information of a kernel; distributions' have 4 to 12 MiB.
const maxBTF = 64 << 20

// btfMembers are the members of structures that tell what a driver can do,
// whatever release the kernel calls itself: distributions port fixes back.
var btfMembers = map[string][]string{
	"mana": {
		"mana_rxq.frag_count",               // several receive buffers in a page (730ff06d3f5c)
		"mana_port_context.priv_flags",      // the private flag full-page-rx (5b5cb75fb86a)
		"mana_recv_buf_oob.dma_sync_offset", // the CPU sees what was received into a bounce buffer (c72a0f09c57f)
	},
	"mlx4_en": {
		"mlx4_en_rx_ring.pp", // receive buffers of a page pool (82b023c97f60)
	},
}

// BTFModules are the modules of which [Host.BTF] knows a question, in order.
func BTFModules() []string { return []string{"mana", "mlx4_en"} }

// BTFKey is the query key of [Host.BTF].
func BTFKey(module string) string { return "btf " + module }

// BTF tells which of the members that matter the structures of a driver have
// in the running kernel, by "struct.member", from the kernel's own type
// information. The answers are recorded, not the information, which is
// megabytes. It needs no privilege; the error is ENOENT where the kernel has no
// such information or the module is not there.
func (h *Host) BTF(module string) (map[string]bool, error) {
	return Ask(h, BTFKey(module), func() (map[string]bool, error) { return h.askBTF(module) })
}

func (h *Host) askBTF(module string) (map[string]bool, error) {
	wanted := btfMembers[module]
	if wanted == nil {
		return nil, fmt.Errorf("nothing is asked of the types of %s", module)
	}
	kernel, err := h.readWhole(btfDir+"/vmlinux", maxBTF)
	if err != nil {
		return nil, err
	}
	own, err := h.readWhole(btfDir+"/"+module, maxBTF)
	if errors.Is(err, syscall.ENOENT) {
		own, err = nil, nil // built in, or not there: the kernel's own types tell
	}
	if err != nil {
		return nil, err
	}
	has, err := members(kernel, own, wanted)
	if err == nil && own == nil && !slices.ContainsFunc(wanted, func(w string) bool { return has.structs[structOf(w)] }) {
		return nil, syscall.ENOENT // not built in
	}
	return has.members, err
}

// typed is what types say of wanted members.
type typed struct {
	structs map[string]bool // those that there are
	members map[string]bool // of all that were asked
}

func structOf(member string) string {
	name, _, _ := strings.Cut(member, ".")
	return name
}

// members looks the members up in the types of a module, or of the kernel
// where own is nil.
func members(kernel, own []byte, wanted []string) (typed, error) {
	has := typed{map[string]bool{}, map[string]bool{}}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(kernel))
	if err == nil && own != nil {
		spec, err = btf.LoadSplitSpecFromReader(bytes.NewReader(own), spec)
	}
	if err != nil {
		return has, fmt.Errorf("the kernel's type information cannot be decoded: %w", err)
	}
	for _, w := range wanted {
		name, member, _ := strings.Cut(w, ".")
		has.members[w] = false
		all, err := spec.AnyTypesByName(name)
		if err != nil && !errors.Is(err, btf.ErrNotFound) {
			return has, fmt.Errorf("the kernel's type information cannot be decoded: %w", err)
		}
		for _, t := range all {
			s, ok := t.(*btf.Struct)
			if !ok {
				continue
			}
			has.structs[name] = true
			if slices.ContainsFunc(s.Members, func(m btf.Member) bool { return m.Name == member }) {
				has.members[w] = true
			}
		}
	}
	return has, nil
}

// readWhole reads a file that is too large for [Host.Read], which keeps what it
// reads.
func (h *Host) readWhole(p string, limit int64) ([]byte, error) {
	fd, err := h.open(p, openFlags)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("not a regular file"))
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = ErrTooLarge
	}
	return b, err
}
