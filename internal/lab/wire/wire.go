// SPDX-License-Identifier: Apache-2.0

// Package wire is what the lab and the agent inside a guest say to each other
// over a virtio-serial port: one JSON object a line, both ways. A request
// carries an id of its own and so does its answer, so that an answer left over
// from before a reboot or a deadline cannot be taken for another.
package wire

// Port is the name of the virtio-serial port.
const Port = "hostcheck.lab"

// Message is a request or its answer. Bytes travel as base64.
type Message struct {
	ID string `json:"id"`

	// A request.
	Op      string `json:"op,omitempty"`      // ping, exec, push, pull
	Command string `json:"command,omitempty"` // exec: for /bin/sh -c
	Stdin   []byte `json:"stdin,omitempty"`   // exec
	Millis  int64  `json:"millis,omitempty"`  // exec: how long it may take
	Path    string `json:"path,omitempty"`    // push, pull
	Mode    uint32 `json:"mode,omitempty"`    // push
	Data    []byte `json:"data,omitempty"`    // push; the answer to pull

	// An answer.
	Boot  string `json:"boot,omitempty"` // ping: /proc/sys/kernel/random/boot_id
	Out   []byte `json:"out,omitempty"`  // exec
	Err   []byte `json:"err,omitempty"`  // exec
	Code  int    `json:"code"`           // exec: the exit code, 128+N for signal N
	Late  bool   `json:"late,omitempty"` // exec: it did not end in its time; it was killed, but one that hangs in the kernel stays
	Fault string `json:"fault,omitempty"`
}
