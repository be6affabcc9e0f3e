// SPDX-License-Identifier: Apache-2.0

// Command write makes a fleet's reports, one a line, and says what was planted
// in them:
//
//	go run ./internal/densefleet/write -hosts 1000 -labels racks.txt -truth truth.json -o fleet.jsonl
//	go run . fleet report --labels racks.txt fleet.jsonl
package main

import (
	"encoding/json"
	"flag"
	"log"
	"os"

	"github.com/hostcheck/hostcheck/internal/densefleet"
)

func main() {
	log.SetFlags(0)
	f := densefleet.Usual(1000)
	flag.IntVar(&f.Hosts, "hosts", f.Hosts, "how many hosts")
	flag.Uint64Var(&f.Seed, "seed", f.Seed, "another seed is another fleet")
	flag.Float64Var(&f.Odd, "odd", f.Odd, "part of the hosts that are odd")
	out := flag.String("o", "", "write the reports to this file instead of standard output")
	labels := flag.String("labels", "", "write the rack of each host to this file")
	truth := flag.String("truth", "", "write what was planted to this file")
	flag.Parse()
	if err := write(f, *out, *labels, *truth); err != nil {
		log.Fatal(err)
	}
}

func write(f densefleet.Fleet, out, labels, truth string) error {
	m, err := densefleet.New(f)
	if err != nil {
		return err
	}
	if labels != "" {
		if err := os.WriteFile(labels, []byte(f.Labels()), 0o644); err != nil { //nolint:gosec // made up
			return err
		}
	}
	if truth != "" {
		odd, group := m.Truth()
		b, err := json.MarshalIndent(map[string]any{"odd": odd, "group": group}, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(truth, append(b, '\n'), 0o644); err != nil { //nolint:gosec // made up
			return err
		}
	}
	if out == "" {
		_, err = m.Write(os.Stdout)
		return err
	}
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	if _, err = m.Write(file); err != nil {
		_ = file.Close()
		return err
	}
	return file.Close()
}
