// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"bytes"
	"errors"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// pathSMBIOS is the firmware's table of the machine's parts; only root reads it.
const pathSMBIOS = "/sys/firmware/dmi/tables/DMI"

// readProcessor names the processor where that decides something: buffers of
// mana. Elsewhere it stays nil, without a reason.
func (r *RXFrag) readProcessor(f *Facts) {
	for _, n := range r.NICs {
		if n.Driver != "mana" {
			continue
		}
		b, err := f.host.Read(pathSMBIOS)
		if err != nil {
			r.Unknown.say("processor", whyNot(f.host, err))
			return
		}
		v, err := processorVersion(b)
		if err != nil {
			r.Unknown.say("processor", host.Reason(&host.Error{Op: "read", Path: pathSMBIOS, Err: err}))
			return
		}
		r.Processor = &v
		return
	}
}

// Structures of SMBIOS (DSP0134): a header of type, length and handle, fields
// up to that length, strings that end with 0 each, and another 0.
const (
	smbiosProcessor = 4
	smbiosEnd       = 127
	smbiosVersion   = 0x10 // number of the string with the processor's version
)

// processorVersion gives the version of the first processor in a table.
func processorVersion(b []byte) (string, error) {
	for len(b) >= 4 {
		kind, size := b[0], int(b[1])
		if size < 4 || size > len(b) {
			return "", errors.New("not a table of SMBIOS")
		}
		fields, rest := b[:size], b[size:]
		end := bytes.Index(rest, []byte{0, 0})
		if end < 0 {
			return "", errors.New("the table of SMBIOS ends in the middle of a structure")
		}
		if kind == smbiosProcessor && size > smbiosVersion {
			texts := bytes.Split(rest[:end], []byte{0})
			if i := int(fields[smbiosVersion]); i >= 1 && i <= len(texts) {
				return strings.TrimSpace(strings.ToValidUTF8(string(texts[i-1]), "?")), nil
			}
			return "", nil
		}
		if kind == smbiosEnd {
			break
		}
		b = rest[end+2:]
	}
	return "", errors.New("the table of SMBIOS names no processor")
}
