// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// chromium is a headless browser, spoken to over a pipe in its DevTools
// protocol: messages of JSON that end with NUL.
type chromium struct {
	t       *testing.T
	to      *os.File
	from    *bufio.Reader
	session string
	id      int
	events  []event
}

type event struct {
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

// newChromium starts the browser with one empty page, or skips the test.
func newChromium(t *testing.T) *chromium {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "chromium") // it may still write there when it has ended
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
		"--no-first-run", "--disable-background-networking", "--remote-debugging-pipe", "--user-data-dir="+dir, "about:blank")
	cmd.ExtraFiles = []*os.File{inR, outW}
	cmd.Env = append(os.Environ(), "HOME="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatalf("cannot start %s: %v", path, err)
	}
	_ = inR.Close()
	_ = outW.Close()
	c := &chromium{t: t, to: inW, from: bufio.NewReaderSize(outR, 1<<20)}
	t.Cleanup(func() {
		_ = c.send("Browser.close", nil)
		_ = inW.Close()
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		_ = outR.Close()
		_ = os.RemoveAll(dir)
	})
	var target struct {
		ID string `json:"targetId"`
	}
	c.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct {
		ID string `json:"sessionId"`
	}
	c.call("Target.attachToTarget", map[string]any{"targetId": target.ID, "flatten": true}, &attached)
	c.session = attached.ID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network", "Audits"} {
		c.call(domain+".enable", nil, nil)
	}
	return c
}

func (c *chromium) send(method string, params any) error {
	c.id++
	m := map[string]any{"id": c.id, "method": method}
	if params != nil {
		m["params"] = params
	}
	if c.session != "" {
		m["sessionId"] = c.session
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = c.to.Write(append(b, 0))
	return err
}

// read gives the next message; it keeps events.
func (c *chromium) read() (id int, result json.RawMessage, err error) {
	b, err := c.from.ReadBytes(0)
	if err != nil {
		return 0, nil, fmt.Errorf("the browser ended: %w", err)
	}
	var m struct {
		event
		ID     int             `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  *struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(b[:len(b)-1], &m); err != nil {
		return 0, nil, err
	}
	if m.Method != "" {
		c.events = append(c.events, m.event)
	}
	if m.Error != nil {
		return m.ID, nil, errors.New(m.Error.Message)
	}
	return m.ID, m.Result, nil
}

// call sends a command and waits for its answer.
func (c *chromium) call(method string, params, result any) {
	c.t.Helper()
	if err := c.send(method, params); err != nil {
		c.t.Fatalf("%s: %v", method, err)
	}
	for {
		id, b, err := c.read()
		if id != c.id && err == nil {
			continue
		}
		if err == nil && result != nil {
			err = json.Unmarshal(b, result)
		}
		if err != nil {
			c.t.Fatalf("%s: %v", method, err)
		}
		return
	}
}

// open loads an address and waits until it is shown.
func (c *chromium) open(url string) {
	c.t.Helper()
	c.events = nil
	c.call("Page.navigate", map[string]any{"url": url}, nil)
	for {
		for _, e := range c.events {
			if e.Method == "Page.loadEventFired" {
				return
			}
		}
		if _, _, err := c.read(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// as shows the page in a colour scheme and a width.
func (c *chromium) as(scheme string, width int) {
	c.t.Helper()
	c.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	c.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// eval gives the value of an expression in the page; nil: it has none.
func (c *chromium) eval(expression string, value any) {
	c.t.Helper()
	var r struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Exception json.RawMessage `json:"exceptionDetails"`
	}
	c.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &r)
	if r.Exception != nil {
		c.t.Fatalf("%s: %s", expression, r.Exception)
	}
	if value == nil {
		return
	}
	if err := json.Unmarshal(r.Result.Value, value); err != nil {
		c.t.Fatalf("%s: %v in %s", expression, err, r.Result.Value)
	}
}

// shoot writes a picture of an element, or of the whole page for "html".
func (c *chromium) shoot(name, selector string, scale float64) {
	c.t.Helper()
	var box struct{ X, Y, Width, Height float64 }
	c.eval(fmt.Sprintf(`(()=>{const r=document.querySelector(%q).getBoundingClientRect();return{X:r.x+scrollX,Y:r.y+scrollY,Width:r.width,Height:r.height}})()`, selector), &box)
	c.clip(name, box.X, box.Y, box.Width, box.Height, scale)
}

func (c *chromium) clip(name string, x, y, width, height, scale float64) {
	c.t.Helper()
	var shot struct {
		Data string `json:"data"`
	}
	c.call("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true, "clip": map[string]float64{"x": x, "y": y, "width": width, "height": height, "scale": scale}}, &shot)
	b, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(name, b, 0o644)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}
