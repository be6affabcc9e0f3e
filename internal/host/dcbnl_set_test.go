// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// request is a message as the kernel wants it, put together by hand.
func request(cmd byte, ifname string, seq uint32, change []byte) []byte {
	m := message(rtmSetDCB, seq, cat([]byte{0, cmd, 0, 0}, attr(dcbAttrIfname, []byte(ifname+"\x00")...), change))
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST)
	return m
}

func TestDCBRequestBytes(t *testing.T) {
	pfc := make([]byte, 136)
	copy(pfc, []byte{8, 1<<3 | 1<<5, 1, 0})
	copy(pfc[4:], u16(7))
	mode := uint8(DCBXHost | DCBXIEEE)
	for name, c := range map[string]struct {
		in   DCBRequest
		want []byte
	}{
		"dcbx": {DCBRequest{DCBX: &mode}, request(23, "eth0", 7, attr(14, 0x09))},
		"pfc": {
			DCBRequest{PFC: &DCBPFC{Cap: 8, Enable: 1<<3 | 1<<5, MBC: 1, Delay: 7}},
			request(20, "eth0", 7, attr(13|nested, attr(2, pfc...)...)),
		},
		"add": {
			DCBRequest{Add: []DCBApp{{DCBSelDSCP, 3, 26}, {DCBSelDSCP, 6, 48}}},
			request(20, "eth0", 7, attr(13|nested, attr(3|nested, cat(attr(1, append([]byte{5, 3}, u16(26)...)...), attr(1, append([]byte{5, 6}, u16(48)...)...))...)...)),
		},
		"del": {
			DCBRequest{Del: []DCBApp{{DCBSelDSCP, 3, 26}}},
			request(27, "eth0", 7, attr(13|nested, attr(3|nested, attr(1, append([]byte{5, 3}, u16(26)...)...)...)...)),
		},
	} {
		got, err := c.in.Encode("eth0", 7)
		if d := cmp.Diff(c.want, got); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
	for _, ifname := range []string{"", "a-name-of-16-byt"} {
		if _, err := (DCBRequest{DCBX: &mode}).Encode(ifname, 1); err == nil {
			t.Errorf("%q is taken", ifname)
		}
	}
	if _, err := (DCBRequest{}).Encode("eth0", 1); err == nil {
		t.Error("an empty request is encoded")
	}
}

// What is encoded is what the decoder of the kernel's own messages reads.
func TestDCBRequestDecodes(t *testing.T) {
	want := &DCB{
		PFC:  &DCBPFC{Cap: 8, Enable: 0x28, MBC: 1, Delay: 40000},
		Apps: []DCBApp{{DCBSelDSCP, 3, 26}, {DCBSelEthertype, 4, 0x8915}},
	}
	for _, r := range []DCBRequest{{PFC: want.PFC}, {Add: want.Apps}, {Del: want.Apps}} {
		b, err := r.Encode("ens1np0", 3)
		if err != nil {
			t.Fatal(err)
		}
		binary.NativeEndian.PutUint16(b[4:], rtmGetDCB) // as in a reply
		got, err := parseDCBReply(b, 3)
		if err != nil {
			t.Fatal(err)
		}
		if r.PFC != nil {
			if d := cmp.Diff(want.PFC, got.PFC); d != "" {
				t.Error(d)
			}
		} else if d := cmp.Diff(want.Apps, got.Apps); d != "" {
			t.Error(d)
		}
	}
}

func TestDCBAnswer(t *testing.T) {
	reply := func(cmd byte, attrs ...[]byte) []byte {
		return message(rtmSetDCB, 1, cat([]byte{0, cmd, 0, 0}, cat(attrs...)))
	}
	said := func(e syscall.Errno) []byte { return attr(dcbAttrIEEE, byte(-int(e))) }
	for name, c := range map[string]struct {
		in   []byte
		want error
		says string
	}{
		"done":                 {reply(20, attr(dcbAttrIEEE, 0)), nil, ""},
		"mode taken":           {reply(23, attr(dcbAttrDCBX, 0)), nil, ""},
		"mode refused":         {reply(23, attr(dcbAttrDCBX, 1)), nil, "the driver turned it down (it answers 1)"},
		"entry not there":      {reply(27, said(syscall.ENOENT)), syscall.ENOENT, ""},
		"value refused":        {reply(20, said(syscall.EINVAL)), syscall.EINVAL, ""},
		"not supported":        {reply(20, said(syscall.EOPNOTSUPP)), syscall.EOPNOTSUPP, ""},
		"no DCB operations":    {message(unix.NLMSG_ERROR, 1, errno(unix.EOPNOTSUPP)), syscall.EOPNOTSUPP, ""},
		"no privilege":         {message(unix.NLMSG_ERROR, 1, errno(unix.EPERM)), syscall.EPERM, ""},
		"acknowledged":         {message(unix.NLMSG_ERROR, 1, errno(0)), nil, ""},
		"nothing said":         {reply(20), nil, "does not say what the driver did"},
		"another's":            {message(rtmSetDCB, 2, []byte{0, 20, 0, 0}), nil, "not the one asked for"},
		"another message":      {message(16, 1, []byte{0, 20, 0, 0}), nil, "unexpected type 16"},
		"cut short":            {[]byte{1, 2, 3}, nil, "too short"},
		"a length beyond that": {reply(20, []byte{200, 0, 13, 0}), nil, "damaged"},
	} {
		err := DCBAnswer(c.in, 1)
		switch {
		case c.want == nil && c.says == "":
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case c.want != nil && !errors.Is(err, c.want), c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDCBAnswer(f *testing.F) {
	f.Add(message(rtmSetDCB, 1, cat([]byte{0, 20, 0, 0}, attr(dcbAttrIEEE, 0))))
	f.Add(message(unix.NLMSG_ERROR, 1, errno(unix.EPERM)))
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, b []byte) { _ = DCBAnswer(b, 1) })
}
