// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
)

// The elements and attributes of JUnit XML as Jenkins, GitLab and others read
// it (junit-10.xsd of Jenkins' xUnit plugin).
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name       string           `xml:"name,attr"`
		Tests      int              `xml:"tests,attr"`
		Failures   int              `xml:"failures,attr"`
		Errors     int              `xml:"errors,attr"`
		Skipped    int              `xml:"skipped,attr"`
		Timestamp  string           `xml:"timestamp,attr,omitempty"`
		Hostname   string           `xml:"hostname,attr"`
		Properties *junitProperties `xml:"properties"`
		Cases      []junitCase      `xml:"testcase"`
	}
	junitProperties struct {
		List []junitProperty `xml:"property"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Failure *junitOutcome `xml:"failure"`
		Error   *junitOutcome `xml:"error"`
		Skipped *junitOutcome `xml:"skipped"`
		Out     *junitText    `xml:"system-out"`
	}
	junitOutcome struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",cdata"`
	}
	junitText struct {
		Text string `xml:",cdata"`
	}
)

// JUnit gives the report as JUnit XML: a suite for each area, a case for each
// finding. A failure or an error is what makes the exit code 1 or 3, so that
// the file is red where the run is; a warning that does not count is a pass
// that says so, and all else that was not judged or not met is skipped.
func JUnit(r *Report) ([]byte, error) {
	r = cleaned(r)
	all := junitSuites{Name: "hostcheck"}
	host := "unnamed host"
	if r.Host.Name != nil {
		host = *r.Host.Name
	}
	properties := &junitProperties{[]junitProperty{
		{"hostcheck", r.Tool.Version}, {"profile", strings.Join(r.Profile.Layers, " + ")}, {"profile.hash", r.Profile.Hash},
		{"intent", r.Profile.Intent}, {"intent.source", r.Profile.IntentSource}, {"exit", fmt.Sprint(r.Summary.Exit)},
	}}
	for i := range r.Findings {
		f := &r.Findings[i]
		area, name, _ := strings.Cut(f.Check, ".")
		if n := len(all.Suites); n == 0 || all.Suites[n-1].Name != "hostcheck."+area {
			s := junitSuite{Name: "hostcheck." + area, Hostname: host, Properties: properties}
			if r.Host.CapturedAt != nil {
				s.Timestamp = strings.TrimSuffix(*r.Host.CapturedAt, "Z")
			}
			all.Suites = append(all.Suites, s)
		}
		s := &all.Suites[len(all.Suites)-1]
		c := junitCase{Class: "hostcheck." + area, Name: strings.Join(nonEmpty(name, f.Subject), " ")}
		_, _, word := badge(f)
		o := &junitOutcome{Message: f.message(), Type: strings.ToLower(word), Text: f.lines()}
		switch {
		case f.breaks && f.open():
			c.Error = o
			s.Errors++
		case f.breaks:
			c.Failure = o
			s.Failures++
		case f.Status == check.Pass:
		case f.Status == check.Warn && !f.Pending && f.Waiver == nil:
			c.Out = &junitText{"warning: " + o.Message + "\n" + o.Text}
		default:
			c.Skipped = o
			s.Skipped++
		}
		s.Tests++
		s.Cases = append(s.Cases, c)
	}
	for _, s := range all.Suites {
		all.Tests += s.Tests
		all.Failures += s.Failures
		all.Errors += s.Errors
	}
	b, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("cannot write JUnit XML: %w", err)
	}
	return visible(append([]byte(xml.Header), append(b, '\n')...)), nil
}

// message is a finding on one line.
func (f *Finding) message() string {
	m := strings.Join(nonEmpty(f.Title, f.Got), ": ")
	switch {
	case f.Waiver != nil:
		m = "waived by " + Clean(f.Waiver.Owner) + " until " + Clean(f.Waiver.Until) + ": " + Clean(f.Waiver.Reason)
	case f.open() || f.Status == check.Skip:
		m = f.Why
	case f.Pending:
		m = "right after the next boot: " + m
	}
	return m
}

// lines is the rest of a finding, a line for each part that it has.
func (f *Finding) lines() string {
	var b strings.Builder
	add := func(label, text string) {
		if text != "" {
			_, _ = fmt.Fprintf(&b, "%s: %s\n", label, text)
		}
	}
	add("want", f.Want)
	add("got", f.Got)
	add("why", f.Why)
	add("next", f.Next)
	add("from", f.Source)
	for _, c := range f.Fix {
		add("fix", fmt.Sprintf("%s: %s → %s (%s)", settingName(c.setting()), quoteEmpty(c.Before), quoteEmpty(c.After), c.Tier))
	}
	for _, e := range f.Evidence {
		add("seen", e.Source+": "+quoteEmpty(e.Value))
	}
	return b.String()
}
