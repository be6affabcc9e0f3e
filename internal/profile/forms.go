// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/pattern"
)

// form is a kind of text that a key takes: one of enum, or what matches
// pattern and passes check. The JSON schema says enum and pattern.
type form struct {
	enum    []string
	pattern func() *regexp.Regexp
	say     string // what a text is that matches pattern
	check   func(string) error
}

// forms are those that the tag "form" of a field names.
var forms = map[string]form{
	"id":       {pattern: pattern.Late(`^[A-Za-z0-9_-]{1,64}$`), say: "an id has 1 to 64 letters, digits, _ and -"},
	"intent":   {enum: Intents},
	"token":    {pattern: pattern.Late(`^[^\s"=]+(=[^\s"]*)?$`), say: "a token is a name or name=value, without blanks and quotes"},
	"pagesize": {pattern: pattern.Late(`^[1-9][0-9]{0,6}[KMG]$`), say: sizeForm, check: func(s string) error { _, err := ParseSize(s); return err }},
	"memlock":  {pattern: pattern.Late(`^(unlimited|[1-9][0-9]{0,5}[KMGT])$`), say: "a limit is unlimited, or a number with K, M, G or T: 64G"},
	"module":   {pattern: pattern.Late(`^[A-Za-z0-9_-]{1,55}$`), say: "a module name has 1 to 55 letters, digits, _ and -"},
	"glob":     {pattern: pattern.Late(`.`), say: "a glob that is empty matches nothing", check: checkGlob},
	"pciid": {pattern: pattern.Late(`^[0-9a-f?*\[\]^-]+:[0-9a-f?*\[\]^-]+$`),
		say: `a PCI id is vendor:device in lower-case hex ("15b3:1021"), or a glob of that ("15b3:*")`, check: checkGlob},
	"version":   {pattern: pattern.Late(`^[0-9]{1,9}(\.[0-9]{1,9})*$`), say: "a version is numbers with dots between them, 28.39.1002"},
	"kernel":    {pattern: pattern.Late(`^(>=|<) ?[0-9.]+( (>=|<) ?[0-9.]+)?$`), say: kernelForm, check: func(s string) error { _, err := parseKernelRange(s); return err }},
	"checkglob": {pattern: pattern.Late(`^[a-z0-9_?*]+(\.[a-z0-9_?*]+)?$`), say: `a check is area.name, where ? and * stand for other letters: "link.*"`},
	"ccparam":   {pattern: pattern.Late(`^(np|rp|rtt)_[a-z_]+=[0-9]{1,10}$`), say: "a DCQCN parameter is written np_min_time_between_cnps=4"},
	"channels":  {pattern: pattern.Late(`^(local|[1-9][0-9]{0,3})$`), say: `channels is a number from 1 to 9999, or "local"`},
	"feature":   {pattern: pattern.Late(`^[a-z][a-z0-9_-]*=(on|off)$`), say: "an offload is written rx-gro=on or rx-lro=off"},
	"sysctl": {pattern: pattern.Late(`^[A-Za-z0-9_@:,+~-]+(\.[A-Za-z0-9_@:,+~/-]+)+$`),
		say: "a kernel parameter is written with dots: net.core.rmem_max; a dot within an interface's name is a slash"},
	"sysctlvalue": {pattern: pattern.Late(`^[!-~]+( [!-~]+)*$`), say: "a value is words with single blanks between them"},
	"role":        {check: checkRole},
	"schema":      {check: checkSchema},
}

const (
	kernelForm = `a kernel range is ">=5.8", "<6.11" or ">=5.8 <6.11"`
	sizeForm   = "a hugepage size is a power of two from 64K to 16G, such as 2M or 1G"
)

// valid says what is wrong with a text, or nil.
func (f form) valid(s string) error {
	switch {
	case f.enum != nil && !slices.Contains(f.enum, s):
		return fmt.Errorf("want one of %s", strings.Join(f.enum, ", "))
	case f.pattern != nil && !f.pattern().MatchString(s):
		return errors.New(f.say)
	case f.check != nil:
		return f.check(s)
	}
	return nil
}

func checkRole(s string) error {
	if !slices.Contains(order, s) {
		return errors.New(unknownWord("profile", s, order))
	}
	return nil
}

func checkGlob(s string) error {
	if _, err := path.Match(s, ""); err != nil {
		return errors.New(`not a glob: "[" needs its "]", and "\" something to quote`)
	}
	return nil
}

// SchemaV1 is the format that this version reads.
const SchemaV1 = "hostcheck.profile/v1"

func checkSchema(s string) error {
	rest, ok := strings.CutPrefix(s, "hostcheck.profile/v")
	n, err := strconv.Atoi(rest)
	switch {
	case s == SchemaV1:
		return nil
	case ok && err == nil && n > 1:
		return fmt.Errorf("version %d of the format is newer than this hostcheck, which reads %s; update hostcheck", n, SchemaV1)
	}
	return fmt.Errorf("not a profile of hostcheck, which starts with schema: %s", SchemaV1)
}

// ParseSize reads a hugepage size in the form that profiles use, "2M" or "1G",
// and gives kB. Sizes are powers of two from 64K to 16G, as those of every
// architecture (Documentation/admin-guide/mm/hugetlbpage.rst).
func ParseSize(s string) (kb int64, err error) {
	if len(s) >= 2 && len(s) <= 9 {
		n, err := strconv.ParseUint(s[:len(s)-1], 10, 31)
		shift := strings.IndexByte("KMG", s[len(s)-1])
		kb := int64(n) << (10 * max(0, shift))
		if err == nil && shift >= 0 && s[0] != '0' && kb&(kb-1) == 0 && kb >= 64 && kb <= 16<<20 {
			return kb, nil
		}
	}
	return 0, errors.New(sizeForm)
}

// version is a dotted number.
type version []int

func parseVersion(s string) (version, error) {
	var v version
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%.40q is not a version", s)
		}
		v = append(v, int(n))
	}
	return v, nil
}

// releaseVersion takes the leading numbers of a kernel release:
// "6.8.0-1014-azure" is 6.8.0, "6.12.107+deb13-amd64" is 6.12.107.
func releaseVersion(release string) (version, bool) {
	end := strings.IndexFunc(release, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end < 0 {
		end = len(release)
	}
	v, err := parseVersion(strings.TrimRight(release[:end], "."))
	return v, err == nil && len(v) >= 2
}

// compare treats missing parts as 0.
func (v version) compare(o version) int {
	for i := range max(len(v), len(o)) {
		var a, b int
		if i < len(v) {
			a = v[i]
		}
		if i < len(o) {
			b = o[i]
		}
		if a != b {
			return a - b
		}
	}
	return 0
}

// kernelRange is a half-open range of kernel releases; an end that is nil is open.
type kernelRange struct{ from, below version }

// parseKernelRange reads ">=5.8", "<6.11" or ">=5.8 <6.11".
func parseKernelRange(s string) (r kernelRange, err error) {
	bad := errors.New(kernelForm)
	text := strings.NewReplacer(">= ", ">=", "< ", "<").Replace(s)
	for word := range strings.FieldsSeq(text) {
		to, num := &r.from, strings.TrimPrefix(word, ">=")
		if num == word {
			to, num = &r.below, strings.TrimPrefix(word, "<")
		}
		if num == word || *to != nil {
			return r, bad
		}
		if *to, err = parseVersion(num); err != nil {
			return r, bad
		}
	}
	switch {
	case r.from == nil && r.below == nil:
		return r, bad
	case r.from != nil && r.below != nil && r.from.compare(r.below) >= 0:
		return r, errors.New("no kernel is in this range: its start is not below its end")
	}
	return r, nil
}

func (r kernelRange) covers(v version) bool {
	return (r.from == nil || v.compare(r.from) >= 0) && (r.below == nil || v.compare(r.below) < 0)
}
