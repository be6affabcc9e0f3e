// SPDX-License-Identifier: Apache-2.0

package plan

import "fmt"

// WithMachine runs write in tx as if over m.
func WithMachine(tx *Tx, m *Machine, write func(tx *Tx) error) error {
	other := *tx
	other.machine = m
	return write(&other)
}

// ParseInvariants parses a journal and says what undo could not rely on.
func ParseInvariants(id string, planJSON, lines []byte) error {
	t, whole, err := parse(id, planJSON, lines)
	if err != nil {
		return nil
	}
	if whole < 0 || whole > int64(len(lines)) || whole > 0 && lines[whole-1] != '\n' {
		return fmt.Errorf("%d of %d bytes are whole", whole, len(lines))
	}
	again, same, err := parse(id, planJSON, lines[:whole])
	if err != nil || same != whole || again.State != t.State {
		return fmt.Errorf("what is whole does not parse alike: %w", err)
	}
	if err := t.Plan.check(); err != nil || t.State == "" || t.State == Unreadable {
		return fmt.Errorf("state %q: %w", t.State, err)
	}
	for i := range t.last {
		if i < 0 || i >= len(t.Plan.Changes) {
			return fmt.Errorf("change %d", i)
		}
	}
	for p := range t.images {
		if !clean(p) || !t.mine(p) {
			return fmt.Errorf("image of %q", p)
		}
	}
	for _, p := range t.made {
		if !clean(p) {
			return fmt.Errorf("directory %q", p)
		}
	}
	return nil
}
