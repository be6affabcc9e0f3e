// SPDX-License-Identifier: Apache-2.0

// Command changer runs inside the guests of the lab and makes changes that no
// check of hostcheck asks for, by hostcheck's own engine, verbs and journal:
// what it did, "hostcheck status" tells and "hostcheck undo" takes back.
//
//	changer [-break FILE=TEXT] [KIND|TARGET|NAME|VALUE ...]
//
// With -break the changes do not pass their verification, and before that TEXT
// is written to FILE: the device changes its mind between doing and putting
// back. It prints a [Done] and exits as "hostcheck --fix" does.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/hostcheck/hostcheck/fixes"
	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/report"
)

// Done is what was planned and what became of it.
type Done struct {
	Changes []plan.Change  `json:"changes"`
	Refused []plan.Refusal `json:"refused"`
	Result  report.Result  `json:"result"`
}

func main() {
	breaks := flag.String("break", "", "write `FILE=TEXT` once the changes are made, and fail")
	flag.Parse()
	code, err := run(*breaks, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "changer:", err)
		code = report.ExitUsage
	}
	os.Exit(code)
}

func run(breaks string, words []string) (int, error) {
	var wishes []plan.Wish
	for _, w := range words {
		f := strings.Split(w, "|")
		if len(f) != 4 {
			return 0, fmt.Errorf("%q is not KIND|TARGET|NAME|VALUE", w)
		}
		wishes = append(wishes, plan.Wish{
			Setting: plan.Setting{Kind: f[0], Target: f[1], Name: f[2]}, Want: f[3], Tier: plan.Link, Check: "lab.wish", Why: "the lab wants it",
		})
	}
	ctx := context.Background()
	e := &plan.Engine{Verbs: fixes.All(), Tool: "lab"}
	h, err := host.Open("/", host.Options{})
	if err != nil {
		return 0, err
	}
	p, err := e.Plan(ctx, h, "", wishes)
	h.Close()
	if err != nil {
		return 0, err
	}
	done := Done{Changes: p.Changes, Refused: p.Refused}
	opt := plan.Options{Allow: []plan.Tier{plan.Link}}
	if file, text, ok := strings.Cut(breaks, "="); ok {
		opt.Verify = func(context.Context) error {
			if err := os.WriteFile(file, []byte(text), 0); err != nil {
				return err
			}
			return errors.New("the lab broke it")
		}
	}
	var r plan.Result
	if len(p.Changes) > 0 {
		if r, err = e.Apply(ctx, p, opt); err != nil {
			return 0, err
		}
	} else {
		r.Outcome = report.OutcomeNothing
	}
	done.Result = report.NewResult(r, []string{"hostcheck"})
	b, err := json.MarshalIndent(done, "", "  ")
	if err != nil {
		return 0, err
	}
	_, err = fmt.Fprintln(os.Stdout, string(b))
	return r.Exit(), err
}
