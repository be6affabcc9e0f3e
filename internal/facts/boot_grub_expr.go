// SPDX-License-Identifier: Apache-2.0

package facts

import "strconv"

// grubTest evaluates GRUB's test command (grub-core/commands/test.c).
type grubTest struct {
	m     *grubMenu
	args  []grubArg
	depth int
}

func (t *grubTest) at(i int) string {
	if i < len(t.args) {
		return t.args[i].text
	}
	return ""
}

func (t *grubTest) take() (a grubArg) {
	if len(t.args) > 0 {
		a, t.args = t.args[0], t.args[1:]
	}
	return a
}

func (t *grubTest) or() grubStatus {
	v := t.and()
	for t.at(0) == "-o" {
		t.take()
		v = grubOr(v, t.and())
	}
	return v
}

func (t *grubTest) and() grubStatus {
	v := t.not()
	for t.at(0) == "-a" {
		t.take()
		v = grubNot(grubOr(grubNot(v), grubNot(t.not())))
	}
	return v
}

func (t *grubTest) not() grubStatus {
	negated := false
	for t.at(0) == "!" && len(t.args) > 1 {
		t.take()
		negated = !negated
	}
	v := t.primary()
	if negated {
		v = grubNot(v)
	}
	return v
}

func grubNot(v grubStatus) grubStatus {
	switch v {
	case grubTrue:
		return grubFalse
	case grubFalse:
		return grubTrue
	case grubMaybe:
	}
	return grubMaybe
}

func grubOr(a, b grubStatus) grubStatus {
	switch {
	case a == grubTrue || b == grubTrue:
		return grubTrue
	case a == grubMaybe || b == grubMaybe:
		return grubMaybe
	}
	return grubFalse
}

func grubBool(v, unknown bool) grubStatus {
	switch {
	case unknown:
		return grubMaybe
	case v:
		return grubTrue
	}
	return grubFalse
}

func (t *grubTest) primary() grubStatus {
	if len(t.args) == 0 {
		return grubFalse
	}
	if t.at(0) == "(" && t.depth < maxGrubDepth {
		t.take()
		t.depth++
		v := t.or()
		if t.at(0) == ")" {
			t.take()
		}
		return v
	}
	if len(t.args) > 2 {
		if v, ok := t.binary(t.args[0], t.args[1].text, t.args[2]); ok {
			t.args = t.args[3:]
			return v
		}
	}
	if len(t.args) > 1 {
		switch op := t.at(0); op {
		case "-z", "-n":
			t.take()
			a := t.take()
			return grubBool((a.text == "") == (op == "-z"), a.unknown)
		case "-e", "-f", "-d", "-s":
			t.take()
			a := t.take()
			if a.unknown || t.m.isset == nil {
				return grubMaybe
			}
			return t.m.isset(op, a.text)
		}
	}
	a := t.take()
	return grubBool(a.text != "", a.unknown)
}

func (t *grubTest) binary(a grubArg, op string, b grubArg) (v grubStatus, ok bool) {
	unknown := a.unknown || b.unknown
	switch op {
	case "=", "==":
		return grubBool(a.text == b.text, unknown), true
	case "!=":
		return grubBool(a.text != b.text, unknown), true
	case "<", "<=", ">", ">=", "-nt", "-ot":
		return grubMaybe, true
	case "-eq", "-ne", "-lt", "-le", "-gt", "-ge":
		x, err := strconv.ParseInt(a.text, 0, 64)
		y, err2 := strconv.ParseInt(b.text, 0, 64)
		unknown = unknown || err != nil || err2 != nil
		is := map[string]bool{"-eq": x == y, "-ne": x != y, "-lt": x < y, "-le": x <= y, "-gt": x > y, "-ge": x >= y}[op]
		return grubBool(is, unknown), true
	}
	return grubFalse, false
}
