// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/spf13/cobra"

	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/report"
)

func factAreas() []string {
	names := make([]string, len(facts.Areas))
	for i, a := range facts.Areas {
		names[i] = a.Name
	}
	return names
}

func (a *app) factsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "facts [AREA ...]",
		Short: "what hostcheck sees: decoded, not judged",
		Args:  cobra.ArbitraryArgs,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return factAreas(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			for _, w := range args {
				if !slices.Contains(factAreas(), w) {
					return unknown("area of facts", w, factAreas())
				}
			}
			h, err := a.openHost()
			if err != nil {
				return err
			}
			defer h.Close()
			doc, err := factsDocument(facts.New(h), args)
			if err != nil {
				return err
			}
			if a.json() {
				return a.write(doc)
			}
			s, err := a.text().Facts(doc)
			if err != nil {
				return err
			}
			return a.writeText(s)
		},
	}
}

// factsDocument is one JSON object with a key per wanted area (all when none
// is named), in the order of the areas. An area that could not be decoded is
// null, with the reason in "unknown".
func factsDocument(f *facts.Facts, wanted []string) ([]byte, error) {
	var b bytes.Buffer
	unknown := map[string]string{}
	b.WriteByte('{')
	for _, area := range facts.Areas {
		if len(wanted) > 0 && !slices.Contains(wanted, area.Name) {
			continue
		}
		v, why := decode(f, area)
		if why != "" {
			unknown[area.Name] = why
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		if err := member(&b, area.Name, v); err != nil {
			return nil, err
		}
	}
	if len(unknown) > 0 {
		b.WriteByte(',')
		if err := member(&b, "unknown", unknown); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return report.JSON(json.RawMessage(b.Bytes()))
}

func member(b *bytes.Buffer, name string, v any) error {
	if _, err := fmt.Fprintf(b, "%q:", name); err != nil {
		return err
	}
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("cannot write the facts of %s: %w", name, err)
	}
	return nil
}

// decode gives an area, and why it is nil where it is.
func decode(f *facts.Facts, area facts.Area) (v any, why string) {
	defer func() {
		if p := recover(); p != nil {
			v, why = nil, fmt.Sprintf("hostcheck failed here: %v", p)
		}
	}()
	v = area.Get(f)
	// lists say why they are nil beside themselves
	if r := reflect.Indirect(reflect.ValueOf(v)); r.IsValid() && r.Kind() == reflect.Struct {
		if w := r.FieldByName("Why"); w.IsValid() && w.Kind() == reflect.String {
			why = w.String()
		}
	}
	return v, why
}
