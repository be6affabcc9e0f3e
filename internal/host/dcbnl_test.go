// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// attr writes a netlink attribute, padded.
func attr(kind uint16, v ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(v)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, v...)
	return append(b, make([]byte, align4(len(v))-len(v))...)
}

func message(kind uint16, seq uint32, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	return append(b, body...)
}

func cat(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func u16(v uint16) []byte { return binary.NativeEndian.AppendUint16(nil, v) }

const nested = 0x8000 // NLA_F_NESTED

// roceReply is what mlx5 answers with PFC on priority 3, ETS, DSCP trust and
// DCBX on the host, as struct ieee_pfc and ieee_ets lay it out.
func roceReply() []byte {
	pfc := make([]byte, 136)
	copy(pfc, []byte{8, 1 << 3, 0, 0})
	copy(pfc[4:], u16(7))
	pfc[8] = 99 // a counter
	ets := make([]byte, 59)
	copy(ets, []byte{0, 8, 0})
	copy(ets[3:], []byte{10, 0, 0, 50, 0, 0, 0, 40})
	copy(ets[11:], []byte{1, 1, 1, 1, 1, 1, 1, 1})
	copy(ets[19:], []byte{2, 0, 0, 2, 0, 0, 255, 2})
	copy(ets[27:], []byte{0, 1, 2, 3, 4, 5, 6, 7})
	apps := cat(
		attr(ieeeAttrApp, append([]byte{5, 3}, u16(26)...)...),
		attr(9, 1, 2, 3, 4), // an attribute of a later kernel
		attr(ieeeAttrApp, append([]byte{5, 6}, u16(48)...)...),
	)
	ieee := cat(attr(ieeeAttrETS, ets...), attr(7, make([]byte, 64)...), attr(ieeeAttrPFC, pfc...), attr(ieeeAttrApps|nested, apps...))
	return message(rtmGetDCB, 1, cat(
		[]byte{0, dcbCmdIEEEGet, 0, 0},
		attr(dcbAttrIfname, []byte("ens1np0\x00")...),
		attr(dcbAttrIEEE|nested, ieee...),
		attr(dcbAttrDCBX, DCBXHost|DCBXIEEE),
	))
}

func TestParseDCBReply(t *testing.T) {
	got, err := parseDCBReply(roceReply(), 1)
	if err != nil {
		t.Fatal(err)
	}
	dcbx := uint8(DCBXHost | DCBXIEEE)
	want := &DCB{
		DCBX: &dcbx,
		PFC:  &DCBPFC{Cap: 8, Enable: 8, Delay: 7},
		ETS: &DCBETS{
			Cap: 8, BW: [8]uint8{10, 0, 0, 50, 0, 0, 0, 40},
			TSA: [8]uint8{2, 0, 0, 2, 0, 0, 255, 2}, PrioTC: [8]uint8{0, 1, 2, 3, 4, 5, 6, 7},
		},
		Apps: []DCBApp{{DCBSelDSCP, 3, 26}, {DCBSelDSCP, 6, 48}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("wrong answer (-want +got):\n%s", d)
	}
	// a recorded answer is replayed through JSON
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	again := new(DCB)
	if err := json.Unmarshal(b, again); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(got, again); d != "" {
		t.Errorf("JSON changed the answer:\n%s\n%s", b, d)
	}
}

func TestParseDCBReplyParts(t *testing.T) {
	head := []byte{0, dcbCmdIEEEGet, 0, 0}
	tests := []struct {
		name string
		in   []byte
		want *DCB
		err  error // nil with a nil want: any error
	}{
		{"a driver that tells nothing", message(rtmGetDCB, 1, cat(head, attr(dcbAttrIEEE))), &DCB{}, nil},
		{"an empty application table is no missing one", message(rtmGetDCB, 1, cat(head, attr(dcbAttrIEEE, attr(ieeeAttrApps)...))), &DCB{Apps: []DCBApp{}}, nil},
		{"a short PFC is not read beyond its end", message(rtmGetDCB, 1, cat(head, attr(dcbAttrIEEE, attr(ieeeAttrPFC, 8, 8)...))), &DCB{}, nil},
		{"no DCB operations", message(unix.NLMSG_ERROR, 1, cat(errno(unix.EOPNOTSUPP), make([]byte, 16))), nil, syscall.EOPNOTSUPP},
		{"no such interface", message(unix.NLMSG_ERROR, 1, errno(unix.ENODEV)), nil, syscall.ENODEV},
		{"an acknowledgement", message(unix.NLMSG_ERROR, 1, errno(0)), nil, nil},
		{"another request's reply", message(rtmGetDCB, 2, head), nil, nil},
		{"another message", message(16, 1, head), nil, nil},
		{"cut short", roceReply()[:40], nil, nil},
		{"empty", nil, nil, nil},
		{"a length beyond the end", message(rtmGetDCB, 1, cat(head, []byte{200, 0, 13, 0})), nil, nil},
		{"a length below its own header", message(rtmGetDCB, 1, cat(head, []byte{2, 0, 13, 0})), nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseDCBReply(tt.in, 1)
			if tt.want == nil {
				if err == nil || tt.err != nil && !errors.Is(err, tt.err) {
					t.Errorf("got %+v, %v; want the error %v", got, err, tt.err)
				}
				return
			}
			if d := cmp.Diff(tt.want, got); err != nil || d != "" {
				t.Errorf("%v\n%s", err, d)
			}
		})
	}
}

func errno(e syscall.Errno) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(-int32(e))) }

func TestDCBRequest(t *testing.T) {
	got := dcbRequest("eth0", 7)
	want := message(rtmGetDCB, 7, cat([]byte{0, dcbCmdIEEEGet, 0, 0}, attr(dcbAttrIfname, []byte("eth0\x00")...)))
	binary.NativeEndian.PutUint16(want[6:], unix.NLM_F_REQUEST)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func FuzzParseDCBReply(f *testing.F) {
	f.Add(roceReply())
	f.Add(message(unix.NLMSG_ERROR, 1, errno(unix.EOPNOTSUPP)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseDCBReply(b, 1)
		if (d == nil) == (err == nil) {
			t.Fatalf("got %v and %v", d, err)
		}
		if d != nil && len(d.Apps) > len(b)/8 {
			t.Fatalf("%d entries out of %d bytes", len(d.Apps), len(b))
		}
	})
}
