// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// ruleMessage is one RTM_NEWRULE with its attributes.
func ruleMessage(seq uint32, srcLen, table, action byte, attrs ...[]byte) []byte {
	ne := binary.NativeEndian
	body := []byte{unix.AF_INET, 0, srcLen, 0, table, 0, 0, action, 0, 0, 0, 0}
	for _, a := range attrs {
		body = append(body, a...)
	}
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	ne.PutUint32(b[0:], uint32(len(b)+len(body)))
	ne.PutUint16(b[4:], unix.RTM_NEWRULE)
	ne.PutUint32(b[8:], seq)
	return append(b, body...)
}

func ruleAttr(kind uint16, v ...byte) []byte {
	b := make([]byte, 4)
	binary.NativeEndian.PutUint16(b, uint16(4+len(v)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	b = append(b, v...)
	return append(b, make([]byte, align4(len(b))-len(b))...)
}

func TestParseRules(t *testing.T) {
	b := slices.Concat(
		ruleMessage(1, 0, 255, 1, ruleAttr(unix.FRA_TABLE, u32(255)...)),
		ruleMessage(1, 32, 0, 1, ruleAttr(unix.FRA_SRC, 10, 0, 0, 5), ruleAttr(unix.FRA_PRIORITY, u32(100)...), ruleAttr(unix.FRA_TABLE, u32(1001)...)),
		ruleMessage(1, 0, 100, 1, ruleAttr(unix.FRA_OIFNAME, 'r', 'a', 'i', 'l', '1', 0), ruleAttr(unix.FRA_FWMASK, u32(255)...), ruleAttr(unix.FRA_L3MDEV, 1)),
		ruleMessage(1, 0, 0, 6, ruleAttr(unix.FRA_PRIORITY, u32(7)...)), // blackhole
	)
	got, done, err := parseRules(b, 1)
	want := []PolicyRule{
		{Table: 255},
		{Priority: 100, Src: "10.0.0.5/32", Table: 1001},
		{OIF: "rail1", Mark: true, VRF: true, Table: 100},
	}
	if err != nil || done || !slices.Equal(got, want) {
		t.Errorf("%+v, %v, %v", got, done, err)
	}
	end := make([]byte, unix.SizeofNlMsghdr)
	binary.NativeEndian.PutUint32(end, uint32(len(end)))
	binary.NativeEndian.PutUint16(end[4:], unix.NLMSG_DONE)
	binary.NativeEndian.PutUint32(end[8:], 1)
	if _, done, err := parseRules(end, 1); !done || err != nil {
		t.Errorf("the end of the dump: %v, %v", done, err)
	}
	if _, _, err := parseRules(b, 2); err == nil {
		t.Error("another's reply passes")
	}
	if _, _, err := parseRules(ruleMessage(1, 40, 0, 1, ruleAttr(unix.FRA_SRC, 10, 0, 0, 5)), 1); err == nil {
		t.Error("a prefix of 40 bits passes")
	}
}

// The kernel answers anybody: at least with its three rules, or none in a
// namespace where they were removed.
func TestPolicyRulesLive(t *testing.T) {
	rules, err := askPolicyRules()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if r.Table == 0 && !r.VRF {
			t.Errorf("a rule without a table: %+v", r)
		}
	}
}

func FuzzParseRules(f *testing.F) {
	f.Add(ruleMessage(1, 32, 0, 1, ruleAttr(unix.FRA_SRC, 10, 0, 0, 5), ruleAttr(unix.FRA_TABLE, u32(1001)...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		rules, done, err := parseRules(b, 1)
		if err != nil && (done || rules != nil) {
			t.Errorf("%v and %v with %v", rules, done, err)
		}
	})
}
