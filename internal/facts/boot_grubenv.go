// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

const (
	grubenvHead = "# GRUB Environment Block\n"
	grubenvSize = 1024 // bytes; GRUB writes it in place and can never make it longer
)

// parseGrubenv reads GRUB's environment block (grub-core/lib/envblk.c): a head,
// then NAME=VALUE lines in which a backslash escapes the next byte, padded with
// "#". What GRUB would refuse is an error.
func parseGrubenv(b []byte) (map[string]string, error) {
	if !bytes.HasPrefix(b, []byte(grubenvHead)) {
		return nil, errors.New("it does not start with \"# GRUB Environment Block\", and GRUB refuses it")
	}
	vars := map[string]string{}
	text := string(b[len(grubenvHead):])
	for i := 0; i < len(text); {
		if text[i] == '#' {
			n := strings.IndexByte(text[i:], '\n')
			if n < 0 {
				break
			}
			i += n + 1
			continue
		}
		var line strings.Builder
		equals := -1
		for ; i < len(text) && text[i] != '\n'; i++ {
			c := text[i]
			if c == '\\' && i+1 < len(text) {
				i++
				c = text[i]
			} else if c == '=' && equals < 0 {
				equals = line.Len()
			}
			line.WriteByte(c)
		}
		i++ // the newline
		if equals > 0 {
			vars[line.String()[:equals]] = line.String()[equals+1:]
		}
	}
	if len(b) != grubenvSize {
		return vars, fmt.Errorf("it has %d bytes instead of %d, so that GRUB or grub-editenv may not be able to write it", len(b), grubenvSize)
	}
	return vars, nil
}

// FormatGrubenv writes an environment block with these variables, in this
// order, or says that they do not fit.
func FormatGrubenv(names []string, vars map[string]string) ([]byte, error) {
	var b strings.Builder
	b.WriteString(grubenvHead)
	for _, n := range names {
		b.WriteString(n + "=")
		for i := range len(vars[n]) {
			if c := vars[n][i]; c == '\\' || c == '\n' {
				b.WriteByte('\\')
			}
			b.WriteByte(vars[n][i])
		}
		b.WriteByte('\n')
	}
	if b.Len() > grubenvSize {
		return nil, fmt.Errorf("GRUB's environment block has room for %d bytes, and these variables take %d", grubenvSize, b.Len())
	}
	b.WriteString(strings.Repeat("#", grubenvSize-b.Len()))
	return []byte(b.String()), nil
}

// EditGrubenv sets a variable of an environment block, or for "" takes it away,
// and leaves every other byte, as grub-editenv(1) does. What GRUB would refuse
// is an error.
func EditGrubenv(block []byte, name, value string) ([]byte, error) {
	if _, err := parseGrubenv(block); err != nil {
		return nil, err
	}
	if bytes.Contains(block, []byte("\\\n")) {
		return nil, errors.New("GRUB's environment block holds a value of several lines")
	}
	if strings.ContainsAny(name+value, "\\\n=#") || name == "" {
		return nil, fmt.Errorf("%.40q=%.40q is not for GRUB's environment block", name, value)
	}
	var b strings.Builder
	for line := range strings.Lines(string(block)) {
		if strings.Trim(line, "#") != "" && !strings.HasPrefix(line, name+"=") { // the padding is made anew
			b.WriteString(line)
		}
	}
	if value != "" {
		b.WriteString(name + "=" + value + "\n")
	}
	if b.Len() > len(block) {
		return nil, errors.New("GRUB's environment block has no room left")
	}
	b.WriteString(strings.Repeat("#", len(block)-b.Len()))
	return []byte(b.String()), nil
}
