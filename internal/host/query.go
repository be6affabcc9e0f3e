// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"
	"errors"
	"syscall"
	"time"
)

type query struct {
	done   chan struct{}
	answer any
	err    error
}

// Ask gives the kernel's answer to a query that is not a file: an ioctl, a
// netlink request, the kernel log. Each key is asked once. On the live machine
// ask runs under the read deadline; in a tree the recorded answer is decoded,
// and a key that was not recorded is ErrNotCaptured. T must survive JSON.
//
// Keys read "ethtool eth0 rings": the family, the object, the question.
func Ask[T any](h *Host, key string, ask func() (T, error)) (T, error) {
	h.queryMu.Lock()
	q := h.queries[key]
	fresh := q == nil
	if fresh {
		q = &query{done: make(chan struct{})}
		h.queries[key] = q
	}
	h.queryMu.Unlock()
	if fresh {
		v, err := answer(h, key, ask)
		q.answer = v
		if err != nil {
			q.err = &Error{"query", key, err}
		}
		close(q.done)
	}
	<-q.done
	v, _ := q.answer.(T)
	return v, q.err
}

func answer[T any](h *Host, key string, ask func() (T, error)) (zero T, err error) {
	if !h.live {
		return recorded[T](h.capture, key)
	}
	if h.stuck.Load() >= maxStuck {
		return zero, ErrBlocked
	}
	if err := h.rtnl.refuses(key); err != nil {
		return zero, err
	}
	type result struct {
		v   T
		err error
	}
	ch := make(chan result, 1)
	h.rtnl.begin(key, time.Now())
	go func() {
		v, err := ask()
		h.rtnl.end(key)
		ch <- result{v, err}
	}()
	timer := time.NewTimer(h.deadline)
	defer timer.Stop()
	select {
	case r := <-ch:
		return r.v, r.err
	case <-timer.C:
		h.leftBehind("/query/" + key)
		return zero, h.rtnl.late(key)
	}
}

func recorded[T any](c *Capture, key string) (zero T, err error) {
	if c == nil || c.Queries[key] == nil {
		return zero, c.missing()
	}
	var r Recorded
	if err := json.Unmarshal(c.Queries[key], &r); err != nil {
		return zero, errors.New("the recorded answer cannot be decoded")
	}
	switch {
	case r.Errno != 0:
		return zero, syscall.Errno(r.Errno)
	case r.Error != "":
		return zero, reason(r.Error)
	case r.Empty:
		return zero, nil
	}
	var v T
	if err := json.Unmarshal(r.Answer, &v); err != nil || string(r.Answer) == "null" { // null is nobody's answer, and would pass for zeros
		return zero, errors.New("the recorded answer cannot be decoded")
	}
	return v, nil
}
