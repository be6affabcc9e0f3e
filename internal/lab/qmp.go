// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// monitor is QEMU's machine protocol, docs/interop/qmp-spec.rst: one JSON
// object a line; a command is answered in order, events come at any time.
type monitor struct {
	c       net.Conn
	mu      sync.Mutex // one command at a time
	id      int        // of the latest command: an answer that came too late has another
	answers chan answer
	emu     sync.Mutex
	events  map[string]chan struct{} // closed when the event comes
	gone    chan struct{}
}

type answer struct {
	ID     int             `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
}

func newMonitor(c net.Conn) (*monitor, error) {
	m := &monitor{c: c, answers: make(chan answer, 64), events: map[string]chan struct{}{}, gone: make(chan struct{})}
	go m.read()
	_, err := m.do(context.Background(), "qmp_capabilities", nil)
	return m, err
}

func (m *monitor) read() {
	defer close(m.gone)
	r := bufio.NewReaderSize(m.c, 1<<16)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		var a answer
		if json.Unmarshal(line, &a) != nil {
			continue
		}
		switch {
		case a.Event != "":
			m.emu.Lock()
			if ch := m.events[a.Event]; ch != nil {
				close(ch)
				delete(m.events, a.Event)
			}
			m.emu.Unlock()
		case a.Return != nil || a.Error != nil:
			m.answers <- a
		}
	}
}

// event gives what is closed at the next event of that name.
func (m *monitor) event(name string) <-chan struct{} {
	m.emu.Lock()
	defer m.emu.Unlock()
	if m.events[name] == nil {
		m.events[name] = make(chan struct{})
	}
	return m.events[name]
}

var errGone = errors.New("QEMU has ended")

func (m *monitor) do(ctx context.Context, command string, args map[string]any) (json.RawMessage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.id++
	b, err := json.Marshal(struct {
		Execute   string         `json:"execute"`
		Arguments map[string]any `json:"arguments,omitempty"`
		ID        int            `json:"id"`
	}{command, args, m.id})
	if err != nil {
		return nil, err
	}
	if _, err := m.c.Write(append(b, '\n')); err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	for {
		select {
		case a := <-m.answers:
			if a.ID != m.id {
				continue
			}
			if a.Error != nil {
				return nil, fmt.Errorf("%s: %s", command, a.Error.Desc)
			}
			return a.Return, nil
		case <-m.gone:
			return nil, fmt.Errorf("%s: %w", command, errGone)
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w", command, ctx.Err())
		}
	}
}
