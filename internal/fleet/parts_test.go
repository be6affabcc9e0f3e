// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// cut is what "srun -l" makes of a line of each task: a part of each in turn.
func cut(lines []string) string {
	var b strings.Builder
	for more := true; more; {
		more = false
		for i, l := range lines {
			if l == "" {
				continue
			}
			part := l[:min(len(l), srunPart)]
			lines[i] = l[len(part):]
			more = true
			fmt.Fprintf(&b, "%2d: %s", i, part)
			if !strings.HasSuffix(part, "\n") {
				b.WriteString("\n")
			}
		}
	}
	return b.String()
}

func joined(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	for _, p := range piecesOf(t, text) {
		if p.why != "" {
			p.b = []byte(p.why)
		}
		if strings.Trim(p.label, "0123456789") != "" {
			b.WriteString(p.label + "> ")
		}
		b.WriteString(string(p.b) + "\n")
	}
	return b.String()
}

// piecesOf reads a stream to its end.
func piecesOf(t *testing.T, texts ...string) (all []piece) {
	t.Helper()
	readers := make([]io.Reader, len(texts))
	for i := range texts {
		readers[i] = strings.NewReader(texts[i])
	}
	s, err := newStream(io.MultiReader(readers...))
	if err != nil {
		t.Fatal(err)
	}
	for p, ok := s.next(); ok; p, ok = s.next() {
		p.b = bytes.Clone(p.b)
		all = append(all, p)
	}
	if !errors.Is(s.err, io.EOF) {
		t.Fatal(s.err)
	}
	return all
}

func sortedLines(text string) []string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return slices.DeleteFunc(lines, func(l string) bool { return l == "" })
}

// One byte more or less at the end of a part changes nothing.
func TestSrun(t *testing.T) {
	for _, n := range []int{30, srunPart - 2, srunPart - 1, srunPart, srunPart + 1, 2*srunPart - 1, 2 * srunPart, 50000} {
		var whole []string
		for i := range 12 {
			whole = append(whole, fmt.Sprintf(`{"task":"%02d","pad":"%s"}`, i, strings.Repeat("x", max(0, n-22)))+"\n")
		}
		want := strings.Join(whole, "")
		if got := joined(t, cut(slices.Clone(whole))); !slices.Equal(sortedLines(got), sortedLines(want)) {
			t.Errorf("lines of %d bytes: %d bytes came back of %d", len(whole[0]), len(got), len(want))
		}
	}
	// a report that is cut off stays one, and spoils no other
	broken := `{"schema":"hostcheck.report/v1","a":"` + strings.Repeat("x", 3000)
	want := []string{`{"b":1}`, errCut.Error(), `{"schema":"hostcheck.report/v1"}`}
	slices.Sort(want)
	if got := joined(t, cut([]string{broken, `{"b":1}` + "\n"})+"0: "+`{"schema":"hostcheck.report/v1"}`+"\n"); !slices.Equal(sortedLines(got), want) {
		t.Errorf("%.100q", got)
	}
	if got := joined(t, "0: {\n1: {\n0:   \"a\": [{}\n1: }\n0:   ]\n0: }\n"); got != "{}\n{  \"a\": [{}  ]}\n" {
		t.Errorf("documents of many lines: %q", got)
	}
	if got := joined(t, `0: {"a":"\\\`+"\n"+`0: "}"}`+"\n"); got != `{"a":"\\\"}"}`+"\n" {
		t.Errorf("cut behind a backslash: %q", got)
	}
	// what is none of srun's is as it was: names and unlabelled lines
	for text, want := range map[string]string{
		"node7: {\"a\":1}\n": "node7> {\"a\":1}\n", "{\"a\":1}\n": "{\"a\":1}\n", "": "", "\n": "", "7: x\n": "7: x\n",
		"0: {}\nsrun: error: node7: task 3: Exited\n0: x\n": "{}\nsrun: error: node7: task 3: Exited\n0: x\n",
	} {
		if got := joined(t, text); got != want {
			t.Errorf("%.40q became %.40q", text, got)
		}
	}
	// clush of hosts whose names are numbers
	long := `{"a":"` + strings.Repeat("x", 20000) + `"}`
	if got, want := joined(t, "7: {\"b\":1}\n8: "+long+"\n9: {\"c\":1}\n"), "{\"b\":1}\n"+long+"\n{\"c\":1}\n"; got != want {
		t.Errorf("%.100q", got)
	}
	// clush of indented reports, mixed
	if got := joined(t, "n1: {\nn2: {\nn1:   \"a\": 1\nn2:   \"b\": {\nn2:   }\nn1: }\nn2: }\nn3: {\nn3:   \"c\"\nn3: {\nn3: }\n"); got != "n1> {  \"a\": 1}\nn2> {  \"b\": {  }}\n"+"n3> "+errCut.Error()+"\nn3> {}\n" {
		t.Errorf("%q", got)
	}
	// one that only begins hides no other
	if got := joined(t, "{\nn1: {}\nn9: {\nn2: {}\n{\"a\":1}\n"); got != errCut.Error()+"\nn1> {}\nn2> {}\n{\"a\":1}\nn9> "+errCut.Error()+"\n" {
		t.Errorf("%q", got)
	}
	// a report begins where its first part does
	if all := piecesOf(t, "0: {\n1: {\n1: }\n0: }\n2: {\n"); len(all) != 3 || all[0].line != 2 || all[1].line != 1 || all[2].line != 5 {
		t.Errorf("%+v", all)
	}
}

// The tasks that send too much are dropped, whatever they do then, and no other.
func TestSrunTooMuch(t *testing.T) {
	var texts []string
	flood := strings.Repeat("x", 1<<20) + "\n"
	for i := range 40 {
		for task := range 6 {
			start := fmt.Sprint(task, ": ")
			if i == 0 {
				start += reportStart + `report/v1","a":"`
			}
			texts = append(texts, start, flood)
		}
		if i == 0 {
			texts = append(texts, "90: {\"b\":\n")
		}
	}
	texts = append(texts, "90: 1}\n3: \"}\n3: {\"c\":1}\n91: {}\n")
	cut, good := 0, []string{}
	for _, p := range piecesOf(t, texts...) {
		switch p.why {
		case "":
			good = append(good, string(p.b))
		case errLong.Error(), errMixed.Error():
			cut++
		default:
			t.Errorf("line %d: %s", p.line, p.why)
		}
	}
	if want := []string{`{"b":1}`, `{"c":1}`, `{}`}; cut != 6 || !slices.Equal(good, want) {
		t.Errorf("%d dropped, and %q", cut, good)
	}
	// nor do many that only begin
	var b strings.Builder
	b.WriteString("0: {\"a\":\n")
	for i := range 3 * maxParts {
		fmt.Fprintf(&b, "%d: {\n", i+1)
	}
	b.WriteString("0: 1}\n")
	if all := piecesOf(t, b.String()); len(all) != 3*maxParts+1 || !slices.ContainsFunc(all, func(p piece) bool { return string(p.b) == `{"a":1}` }) {
		t.Errorf("%d pieces", len(all))
	}
}

// However many parts a report has, each is looked at once.
func TestSrunParts(t *testing.T) {
	const n = 300_000
	text := "0: {\"a\":[\n" + strings.Repeat("0: {},{}\n0: ,\n", n) + "0: {}]}\n"
	start := time.Now()
	all := piecesOf(t, text)
	if took := time.Since(start); len(all) != 1 || all[0].why != "" || !json.Valid(all[0].b) || took > 20*time.Second {
		t.Errorf("%d pieces after %s", len(all), took)
	}
}

func FuzzSrun(f *testing.F) {
	f.Add([]byte("0: {\"a\":1}\n1: {\"b\":2}\n"))
	f.Add([]byte(cut([]string{`{"a":"` + strings.Repeat("x", 2000) + "\"}\n", `{"b":"` + strings.Repeat("y", 1500) + "\"}\n"})))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		for _, p := range piecesOf(t, string(b)) {
			n += len(p.b) + 1
		}
		if n > len(b)+1 {
			t.Errorf("%d bytes became %d", len(b), n)
		}
	})
}
