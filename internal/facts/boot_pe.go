// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// ukiSections are the texts that a unified kernel image carries.
type ukiSections struct {
	cmdline, osrel, uname string
	hasCmdline            bool
	profiles              int // .profile sections: further command lines to choose from
}

// maxPESections is far above the 20 or so of a unified kernel image.
const maxPESections = 96

// parseUKI reads the sections .cmdline, .osrel and .uname of a PE image, of
// which head is the beginning. Those of further profiles are not looked at.
func parseUKI(head []byte) (*ukiSections, error) {
	le := binary.LittleEndian
	if len(head) < 64 || head[0] != 'M' || head[1] != 'Z' {
		return nil, errors.New("not a PE image")
	}
	pe := uint64(le.Uint32(head[0x3c:]))
	if pe+24 > uint64(len(head)) || string(head[pe:pe+4]) != "PE\x00\x00" {
		return nil, errors.New("not a PE image")
	}
	n := uint64(le.Uint16(head[pe+6:]))
	table := pe + 24 + uint64(le.Uint16(head[pe+20:]))
	if n > maxPESections {
		return nil, fmt.Errorf("a PE image with %d sections", n)
	}
	s := new(ukiSections)
	for i := range n {
		at := table + 40*i
		if at+40 > uint64(len(head)) {
			return nil, errors.New("the table of sections is cut off")
		}
		h := head[at : at+40]
		name := strings.TrimRight(string(h[:8]), "\x00")
		if name == ".profile" {
			s.profiles++
		}
		var to *string
		switch name {
		case ".cmdline":
			to = &s.cmdline
		case ".osrel":
			to = &s.osrel
		case ".uname":
			to = &s.uname
		default:
			continue
		}
		if s.profiles > 0 { // of another profile than the main one
			continue
		}
		start, size := uint64(le.Uint32(h[20:])), uint64(le.Uint32(h[16:]))
		if virtual := uint64(le.Uint32(h[8:])); virtual > 0 {
			size = min(size, virtual)
		}
		if start+size > uint64(len(head)) {
			return nil, fmt.Errorf("the section %s lies beyond the first %d bytes, which are all that is read", name, len(head))
		}
		*to = strings.Trim(string(head[start:start+size]), "\x00 \t\r\n")
		s.hasCmdline = s.hasCmdline || name == ".cmdline"
	}
	return s, nil
}

// osReleaseValue gives a value of an os-release text, without quotes.
func osReleaseValue(text, name string) string {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}
