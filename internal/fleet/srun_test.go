// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// srunPart is what srun takes from a task at once, in bytes.
const srunPart = 1024

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
	b, err := io.ReadAll(unmixed(bufio.NewReaderSize(strings.NewReader(text), 4096)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
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
	want := []string{`{"b":1}`, broken, `{"schema":"hostcheck.report/v1"}`}
	slices.Sort(want)
	if got := joined(t, cut([]string{broken, `{"b":1}` + "\n"})+"0: "+`{"schema":"hostcheck.report/v1"}`+"\n"); !slices.Equal(sortedLines(got), want) {
		t.Errorf("%.100q", got)
	}
	if got := joined(t, "0: {\n1: {\n0:   \"a\": [{}\n1: }\n0:   ]\n0: }\n"); got != "{}\n{  \"a\": [{}  ]}\n" {
		t.Errorf("documents of many lines: %q", got)
	}
	// what is none of srun's is as it was: names, unlabelled and long lines
	for _, text := range []string{"node7: {\"a\":1}\n", "{\"a\":1}\n", "", "\n", "7: x\n", strings.Repeat("{", 9000) + "\n{}\n"} {
		if got := joined(t, text); got != text {
			t.Errorf("%.40q became %.40q", text, got)
		}
	}
	// clush of hosts whose names are numbers
	long := `{"a":"` + strings.Repeat("x", 20000) + `"}`
	if got, want := joined(t, "7: {\"b\":1}\n8: "+long+"\n9: {\"c\":1}\n"), "{\"b\":1}\n8: "+long+"\n{\"c\":1}\n"; got != want {
		t.Errorf("%.100q", got)
	}
}

func FuzzSrun(f *testing.F) {
	f.Add([]byte("0: {\"a\":1}\n1: {\"b\":2}\n"))
	f.Add([]byte(cut([]string{`{"a":"` + strings.Repeat("x", 2000) + "\"}\n", `{"b":"` + strings.Repeat("y", 1500) + "\"}\n"})))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(b), 4096)
		got, err := io.ReadAll(unmixed(r))
		if err != nil || len(got) > len(b)+1+len(b)/3 {
			t.Errorf("%d bytes became %d, %v", len(b), len(got), err)
		}
	})
}
