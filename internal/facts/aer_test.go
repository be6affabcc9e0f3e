// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseAER(t *testing.T) {
	for _, tt := range []struct {
		text string
		want map[string]int64
	}{
		{"Undefined 0\nDLP 2\nTOTAL_ERR_FATAL 2\n", map[string]int64{"DLP": 2}},
		{"Data Link Protocol 1\nTLP 0\n", map[string]int64{"Data Link Protocol": 1}},
		{"RxErr 0\nTOTAL_ERR_COR 0\n", map[string]int64{}},
		{"", nil}, {"\n", nil}, {"DLP\n", nil}, {"DLP x\n", nil}, {"DLP -1\n", nil}, {" 1\n", nil},
	} {
		got, err := parseAER(tt.text)
		if diff := cmp.Diff(tt.want, got); diff != "" || (err == nil) != (tt.want != nil) {
			t.Errorf("%q: %v, %v", tt.text, got, err)
		}
	}
}

func FuzzParseAER(f *testing.F) {
	f.Add("Undefined 0\nData Link Protocol 18446744073709551615\nTOTAL_ERR_FATAL 2")
	f.Fuzz(func(t *testing.T, text string) {
		counts, err := parseAER(text)
		for name, n := range counts {
			if err != nil || n <= 0 || name == "" {
				t.Errorf("%q: %s %d, %v", text, name, n, err)
			}
		}
	})
}

// rebarSpace is a function's space with two resizable registers.
func rebarSpace() []byte {
	b := make([]byte, configExtended)
	copy(b, []byte{0xde, 0x10, 0x30, 0x23, 0, 0, 0x10})
	b[0x34] = 0x40
	copy(b[0x40:], []byte{capExpress, 0, 0x02, 0})
	copy(b[0x100:], []byte{0x15, 0, 1, 0, 0x00, 0xfc, 0x3f, 0x00, 0x41, 0x08, 0, 0, 0x00, 0x02, 0, 0, 0x02, 0x05, 0, 0})
	return b
}

func TestResizableBAR(t *testing.T) {
	b := rebarSpace()
	want := []ResizableBAR{{1, 256, 128 << 10}, {2, 32, 32}}
	if got := DecodePCISpace(b).Resizable; !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	b[0x10c], b[0x10d] = 0, 0 // offers no size at all
	if got := DecodePCISpace(b).Resizable; !slices.Equal(got, want[:1]) {
		t.Errorf("%+v", got)
	}
	if got := DecodePCISpace(b[:0x108]).Resizable; got != nil {
		t.Errorf("cut off: %+v", got)
	}
	if got := DecodePCISpace(b[:0x110]).Resizable; len(got) != 1 {
		t.Errorf("cut off after one: %+v", got)
	}
}
