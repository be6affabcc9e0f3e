// SPDX-License-Identifier: Apache-2.0

package host

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// fecReply is a reply with the modes as a compact bitset of 128 bits.
func fecReply(auto byte, active uint32, words ...uint32) []byte {
	var value []byte
	for _, w := range words {
		value = append(value, u32(w)...)
	}
	modes := cat(attr(1), attr(2, u32(uint32(32*len(words)))...), attr(bitsetValue, value...))
	b := cat([]byte{unix.ETHTOOL_MSG_FEC_GET_REPLY, 1, 0, 0}, attr(fecHeader|nested, attr(2, text("ens1np0")...)...), attr(fecModes|nested, modes...), attr(fecAuto, auto))
	if active != 0 {
		b = cat(b, attr(fecActive, u32(active)...))
	}
	return b
}

func TestParseFEC(t *testing.T) {
	for name, tt := range map[string]struct {
		b    []byte
		want FEC
	}{
		"auto, RS in use":      {fecReply(1, 50), FEC{Auto: true, Configured: []string{}, Active: "rs"}},
		"RS alone":             {fecReply(0, 50, 0, 1<<18), FEC{Configured: []string{"rs"}, Active: "rs"}},
		"all, off in use":      {fecReply(1, 49, 0, 1<<17|1<<18|1<<19, 1<<10), FEC{Auto: true, Configured: []string{"off", "rs", "baser", "llrs"}, Active: "off"}},
		"no link":              {fecReply(0, 0, 0, 1<<19), FEC{Configured: []string{"baser"}}},
		"a mode of tomorrow":   {fecReply(1, 900), FEC{Auto: true, Configured: []string{}, Active: "unknown"}},
		"a bitset too short":   {fecReply(0, 0, 1<<18), FEC{Configured: []string{}}},
		"a header and no more": {[]byte{30, 1, 0, 0}, FEC{Configured: []string{}}},
	} {
		got, err := parseFEC(tt.b)
		if d := cmp.Diff(tt.want, got); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
	if _, err := parseFEC([]byte{30}); err == nil {
		t.Error("one byte is no reply")
	}
}

func TestFECRequest(t *testing.T) {
	header := cat(attr(2, text("ens1np0")...), attr(3, u32(1)...))
	want := flagged(message(21, netlinkSeq, cat([]byte{29, 1, 0, 0}, attr(1|nested, header...))), unix.NLM_F_REQUEST)
	if d := cmp.Diff(want, fecRequest(21, "ens1np0")); d != "" {
		t.Error(d)
	}
}

func FuzzFEC(f *testing.F) {
	f.Add(fecReply(1, 50, 0, 1<<18))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseFEC(b)
		if err == nil && got.Configured == nil {
			t.Error("no list of modes")
		}
	})
}
