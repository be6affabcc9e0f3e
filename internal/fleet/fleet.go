// SPDX-License-Identifier: Apache-2.0

// Package fleet merges the reports of many hosts into one document: the verdict
// of every check over all hosts, the hosts that are alike, and what sets a few
// of them apart. It reads a stream once, in memory that does not grow with the
// bytes read, and no broken report changes the verdict of another host.
package fleet

import (
	"bytes"
	"encoding/json"
	"reflect"

	"github.com/hostcheck/hostcheck/internal/check"
)

// Schema names the format of [Fleet].
const Schema = "hostcheck.fleet/v1"

// Fleet is what "hostcheck fleet merge" writes.
//
// Hosts x checks is coded by a dictionary: a host names its cluster, and a
// cluster has one letter for each check (see [Word]). Lists of hosts are
// folded, "node[01-07,12]", as Slurm, clush and pdsh read them.
type Fleet struct {
	Schema       string    `json:"schema" doc:"name and version of this format"`
	Tool         Tool      `json:"tool" doc:"the hostcheck that merged"`
	FailOn       string    `json:"fail_on" enum:"fail,warn" doc:"from which status on a host fails"`
	Summary      Summary   `json:"summary"`
	Checks       []Check   `json:"checks" doc:"in the order of the check list, as the reports have it"`
	Clusters     []Cluster `json:"clusters" doc:"hosts with equal verdicts on every check, the largest first"`
	Hosts        []Host    `json:"hosts" doc:"in the order of their names"`
	MoreHosts    int       `json:"more_hosts" doc:"hosts that are counted in the summary and, for want of memory, nowhere else"`
	Outliers     []Outlier `json:"outliers" doc:"what differs from a clear majority, the rarest first"`
	MoreOutliers int       `json:"more_outliers" doc:"outliers beyond those listed"`
	Scattered    int       `json:"scattered" doc:"values that hosts differ in without a clear majority, such as counters and addresses: nothing can stand out there"`
	Problems     []Problem `json:"problems" doc:"what is no usable report; then what else there is to know, such as of several reports of a host"`
	MoreProblems int       `json:"more_problems" doc:"problems beyond those listed"`
	Expected     *Expected `json:"expected" doc:"the hosts of --expect; null without"`
	Since        *Since    `json:"since" doc:"the earlier merge that this one is compared with"`
	Changed      []Changed `json:"changed" doc:"verdicts that differ from the earlier merge, the worst first"`
}

// Tool is a hostcheck.
type Tool struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
}

// Summary counts hosts; each once, by the first that holds of failing,
// incomplete, pending, compliant.
type Summary struct {
	Hosts      int `json:"hosts" doc:"hosts with a usable report"`
	Failing    int `json:"failing" doc:"at least one finding at or above the threshold"`
	Incomplete int `json:"incomplete" doc:"not judged to the end: required checks are open, more is unknown than passes, or the run was interrupted"`
	Pending    int `json:"pending" doc:"fit after the next boot"`
	Compliant  int `json:"compliant"`
	Warning    int `json:"warning" doc:"of the compliant ones, those with a warning"`
	Problems   int `json:"problems" doc:"reports that could not be used; a host is missing for each"`
	Missing    int `json:"missing" doc:"hosts that --expect names and of which there is no usable report"`
	Repeated   int `json:"repeated" doc:"reports that were left out for a newer one of the same host"`
	Lines      int `json:"lines" doc:"reports read, usable or not"`
	Exit       int `json:"exit" doc:"exit code of the merge: 1 a host fails, 3 a host could not be judged, 10 a host is pending, 0"`
}

// Verdicts of a host.
const (
	Failing    = "failing"
	Incomplete = "incomplete"
	Pending    = "pending"
	Compliant  = "compliant"
)

// byWorst is the verdicts of a host, the worst first.
var byWorst = []string{Failing, Incomplete, Pending, Compliant}

// Host is one host; what is not known is nil.
type Host struct {
	Name       string            `json:"name"`
	Verdict    string            `json:"verdict" enum:"failing,incomplete,pending,compliant"`
	Exit       int               `json:"exit" doc:"exit code of its own run"`
	Kernel     *string           `json:"kernel" doc:"kernel release"`
	Arch       *string           `json:"arch"`
	BootID     *string           `json:"boot_id"`
	CapturedAt *string           `json:"captured_at" doc:"when the host was sampled, RFC 3339"`
	Profile    string            `json:"profile" doc:"hash of the profile that it was judged by"`
	Version    string            `json:"version" doc:"of the hostcheck that judged it"`
	Labels     map[string]string `json:"labels" doc:"what --labels says of it; null where it says nothing"`
	Cluster    int               `json:"cluster" doc:"index in clusters"`
}

// Counts is how many hosts have which verdict on a check: of a host with
// several subjects the worst one counts.
type Counts struct {
	Fail    int `json:"fail"`
	Error   int `json:"error"`
	Warn    int `json:"warn"`
	Pending int `json:"pending"`
	Unknown int `json:"unknown"`
	Waived  int `json:"waived"`
	Pass    int `json:"pass"`
	Skip    int `json:"skip"`
	Absent  int `json:"absent" doc:"hosts whose report says nothing about the check"`
}

// Check is the verdict of one check over all hosts.
type Check struct {
	ID        string         `json:"check" doc:"ID of the check, area.name"`
	Title     string         `json:"title"`
	Severity  check.Severity `json:"severity" enum:"info,low,medium,high"`
	Counts    Counts         `json:"counts"`
	Cases     []Case         `json:"cases" doc:"what was found where it does not pass, the worst first, then by number of hosts"`
	MoreCases int            `json:"more_cases" doc:"cases beyond those listed"`
}

// Case is one finding as several hosts have it.
type Case struct {
	Status  check.Status `json:"status" enum:"warn,fail,unknown,error"`
	Pending bool         `json:"pending"`
	Waived  bool         `json:"waived"`
	Subject string       `json:"subject" doc:"device or pool; empty is the whole host"`
	Want    string       `json:"want"`
	Got     string       `json:"got"`
	Why     string       `json:"why"`
	Next    string       `json:"next"`
	N       int          `json:"n" doc:"number of hosts"`
	Hosts   string       `json:"hosts" doc:"folded; empty: too long to be kept, which the problems say"`
}

// Cluster is hosts that have the same verdict on every check.
type Cluster struct {
	N        int       `json:"n" doc:"number of hosts"`
	Hosts    string    `json:"hosts" doc:"folded"`
	Verdict  string    `json:"verdict" enum:"failing,incomplete,pending,compliant" doc:"the worst of its hosts"`
	Verdicts string    `json:"verdicts" doc:"a letter for each of checks: f fail, e error, w warn, p pending, u unknown, v waived, o pass, s skip, . absent"`
	Differs  []Differs `json:"differs" doc:"from the first cluster, the largest; empty for that one"`
}

// Differs is a check on which a cluster has another verdict than the largest.
type Differs struct {
	Check string `json:"check"`
	Here  string `json:"here" enum:"fail,error,warn,pending,unknown,waived,pass,skip,absent"`
	Usual string `json:"usual" enum:"fail,error,warn,pending,unknown,waived,pass,skip,absent"`
}

// Outlier is a value that few hosts have where a clear majority has another.
type Outlier struct {
	Check   string  `json:"check" doc:"ID of the check; empty for what is said of the host itself"`
	Subject string  `json:"subject" doc:"device or pool; empty is the whole host"`
	What    string  `json:"what" doc:"what differs: got, status, the source of a piece of evidence, or kernel, arch, profile, version"`
	Value   string  `json:"value" doc:"here; empty where the hosts do not have it at all"`
	Usual   string  `json:"usual" doc:"what the majority has; empty where it does not have it at all"`
	N       int     `json:"n" doc:"hosts with this value"`
	Of      int     `json:"of" doc:"hosts compared: those of the group"`
	Share   float64 `json:"share" doc:"n / of"`
	Group   string  `json:"group" doc:"among which hosts it is rare, such as kernel=6.1.0-31-amd64 or rack=r07; empty is all"`
	Norm    string  `json:"norm" doc:"a group that explains it: nearly all of its hosts have this value, and hardly any other; empty: none does"`
	Hosts   string  `json:"hosts" doc:"folded"`
	Also    int     `json:"also" doc:"further outliers of exactly these hosts that follow from this one: evidence of the same finding, the same source in other checks, other subjects that they have or lack"`
}

// Problem is a report that is not counted, or something to know about one.
type Problem struct {
	Source string `json:"source" doc:"file, - is standard input"`
	Line   int    `json:"line" doc:"where the report begins, from 1"`
	Host   string `json:"host" doc:"if it could still be read"`
	Why    string `json:"why"`
	Lost   bool   `json:"lost" doc:"a host may be missing for it, so the merge is incomplete"`
}

// Expected is the hosts that should have reported.
type Expected struct {
	Source  string `json:"source" doc:"file"`
	Hosts   int    `json:"hosts" doc:"hosts in it"`
	Missing string `json:"missing" doc:"those of which there is no usable report, folded"`
}

// Since is the earlier merge.
type Since struct {
	Source    string `json:"source" doc:"file"`
	Hosts     int    `json:"hosts" doc:"hosts in it"`
	New       int    `json:"new" doc:"hosts that were not in it"`
	NewHosts  string `json:"new_hosts" doc:"folded"`
	Gone      int    `json:"gone" doc:"hosts that are no longer there"`
	GoneHosts string `json:"gone_hosts" doc:"folded"`
}

// Changed is a verdict that differs from the earlier merge.
type Changed struct {
	Check  string `json:"check"`
	Before string `json:"before" enum:"fail,error,warn,pending,unknown,waived,pass,skip,absent"`
	After  string `json:"after" enum:"fail,error,warn,pending,unknown,waived,pass,skip,absent"`
	N      int    `json:"n" doc:"number of hosts"`
	Hosts  string `json:"hosts" doc:"folded; empty: too long to be kept, which the problems say"`
}

// letters are the verdicts of a host on a check and their letters in
// [Cluster.Verdicts], the worst first.
var letters = []struct {
	letter byte
	word   string
}{
	{'f', "fail"},
	{'e', "error"},
	{'w', "warn"},
	{'p', "pending"},
	{'u', "unknown"},
	{'v', "waived"},
	{'o', "pass"},
	{'s', "skip"},
	{'.', "absent"},
}

// Word is what a letter of [Cluster.Verdicts] stands for; "" for none.
func Word(letter byte) string {
	for _, l := range letters {
		if l.letter == letter {
			return l.word
		}
	}
	return ""
}

// Letter is the letter of a word; 0 for none.
func Letter(word string) byte {
	for _, l := range letters {
		if l.word == word {
			return l.letter
		}
	}
	return 0
}

// Rank orders letters, the worst first: 0 is fail.
func Rank(letter byte) int {
	for i, l := range letters {
		if l.letter == letter {
			return i
		}
	}
	return len(letters)
}

// WriteJSON writes f with a line for each of its keys and for each entry of
// its lists: a fleet has thousands, and a line is what grep and diff show.
func (f *Fleet) WriteJSON(b *bytes.Buffer) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	b.Grow(256 * (len(f.Hosts) + 16))
	v := reflect.ValueOf(f).Elem()
	value := func(v reflect.Value) error {
		err := e.Encode(v.Interface())
		b.Truncate(b.Len() - 1) // the encoder's newline
		return err
	}
	for i := range v.NumField() {
		b.WriteString([]string{"{\n  \"", ",\n  \""}[min(i, 1)] + v.Type().Field(i).Tag.Get("json") + "\": ")
		field := v.Field(i)
		if field.Kind() != reflect.Slice {
			if err := value(field); err != nil {
				return err
			}
			continue
		}
		b.WriteByte('[')
		for j := range field.Len() {
			b.WriteString([]string{"\n    ", ",\n    "}[min(j, 1)])
			if err := value(field.Index(j)); err != nil {
				return err
			}
		}
		if field.Len() > 0 {
			b.WriteString("\n  ")
		}
		b.WriteByte(']')
	}
	b.WriteString("\n}\n")
	return nil
}
