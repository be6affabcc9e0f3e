// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"maps"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// blob marshals structures, each a name with its members.
func blob(t testing.TB, structs map[string][]string) []byte {
	t.Helper()
	number := &btf.Int{Name: "unsigned int", Size: 4}
	var types []btf.Type
	for _, name := range slices.Sorted(maps.Keys(structs)) {
		s := &btf.Struct{Name: name, Size: 64}
		for i, m := range structs[name] {
			s.Members = append(s.Members, btf.Member{Name: m, Type: number, Offset: btf.Bits(i * 32)})
		}
		types = append(types, s)
	}
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestBTFMembers(t *testing.T) {
	old := blob(t, map[string][]string{"mana_rxq": {"datasize", "headroom"}, "mana_port_context": {"ac"}, "mana_recv_buf_oob": {"sgl"}, "other": {"frag_count"}})
	frags := blob(t, map[string][]string{"mana_rxq": {"datasize", "frag_count"}, "mana_port_context": {"ac"}, "mana_recv_buf_oob": {"sgl"}})
	full := blob(t, map[string][]string{"mana_rxq": {"frag_count"}, "mana_port_context": {"ac", "priv_flags"}, "mana_recv_buf_oob": {"dma_sync_offset"}})
	for name, tt := range map[string]struct {
		kernel []byte
		want   [3]bool // frag_count, priv_flags, dma_sync_offset
	}{
		"before fragments": {old, [3]bool{}},
		"fragments":        {frags, [3]bool{true, false, false}},
		"all":              {full, [3]bool{true, true, true}},
	} {
		has, err := members(tt.kernel, nil, btfMembers["mana"])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for i, w := range btfMembers["mana"] {
			if has.members[w] != tt.want[i] {
				t.Errorf("%s: %s is %t", name, w, has.members[w])
			}
		}
		if !has.structs["mana_rxq"] {
			t.Errorf("%s: mana_rxq was not found", name)
		}
	}
	none, err := members(blob(t, map[string][]string{"task_struct": {"pid"}}), nil, btfMembers["mana"])
	if err != nil || len(none.structs) != 0 || none.members["mana_rxq.frag_count"] {
		t.Errorf("types without the driver: %+v, %v", none, err)
	}
	if _, err := members([]byte("no types"), nil, btfMembers["mana"]); err == nil {
		t.Error("what is no type information was decoded")
	}
}

// The kernel's own types have what every kernel has; a driver that is not there
// is ENOENT.
func TestBTFOfThisKernel(t *testing.T) {
	b, err := os.ReadFile(btfDir + "/vmlinux")
	if err != nil {
		t.Skip("this kernel has no type information")
	}
	has, err := members(b, nil, []string{"task_struct.pid", "task_struct.no_such_member"})
	if err != nil || !has.members["task_struct.pid"] || has.members["task_struct.no_such_member"] {
		t.Errorf("%+v, %v", has, err)
	}
	if _, err := os.Stat(btfDir + "/mlx4_en"); err == nil {
		t.Skip("this machine has the driver")
	}
	h, err := Open("/", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if got, err := h.BTF("mlx4_en"); !errors.Is(err, syscall.ENOENT) && got["mlx4_en_rx_ring.pp"] {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := h.BTF("../vmlinux"); err == nil {
		t.Error("a question that nobody put has an answer")
	}
}

func FuzzBTF(f *testing.F) {
	f.Add(blob(f, map[string][]string{"mana_rxq": {"frag_count"}}), []byte(nil))
	f.Add(blob(f, map[string][]string{"task_struct": {"pid"}}), blob(f, map[string][]string{"mana_rxq": {"frag_count"}}))
	f.Fuzz(func(t *testing.T, kernel, own []byte) {
		if has, err := members(kernel, own, btfMembers["mana"]); err == nil && len(has.members) != len(btfMembers["mana"]) {
			t.Errorf("%v", has)
		}
	})
}
