// SPDX-License-Identifier: Apache-2.0

// Package chromium is test support: a headless browser that looks at pages as
// a reader's does.
package chromium

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// Browser is spoken to over a pipe in its DevTools protocol: messages of JSON
// that end with NUL.
type Browser struct {
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

// New starts the browser with one empty page, or skips the test.
func New(t *testing.T) *Browser {
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
	c := &Browser{t: t, to: inW, from: bufio.NewReaderSize(outR, 1<<20)}
	hung := time.AfterFunc(5*time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		hung.Stop()
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

func (c *Browser) send(method string, params any) error {
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
func (c *Browser) read() (id int, result json.RawMessage, err error) {
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
func (c *Browser) call(method string, params, result any) {
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

// Open loads an address and waits until it is shown.
func (c *Browser) Open(url string) {
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

// As shows the page in a colour scheme and a width.
func (c *Browser) As(scheme string, width int) {
	c.t.Helper()
	c.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	c.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// Eval gives the value of an expression in the page; nil: it has none.
func (c *Browser) Eval(expression string, value any) {
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

// Shoot writes a picture of what lies between the tops of two elements, or to
// the end of the page; the picture is as wide as the window.
func (c *Browser) Shoot(name, from, to string, scale float64) {
	c.t.Helper()
	var y struct{ From, To, Width float64 }
	c.Eval(fmt.Sprintf(`(() => {
const top = s => { const e = s && document.querySelector(s); return e ? e.getBoundingClientRect().top + scrollY : document.documentElement.scrollHeight }
return {From: top(%q), To: top(%q), Width: innerWidth} })()`, from, to), &y)
	var shot struct {
		Data string `json:"data"`
	}
	clip := map[string]float64{"x": 0, "y": y.From, "width": y.Width, "height": y.To - y.From, "scale": scale}
	c.call("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true, "clip": clip}, &shot)
	b, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		b, err = fewColours(b)
	}
	if err == nil {
		err = os.WriteFile(name, b, 0o644)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// fewColours makes a PNG small: of at most 256 colours, of those that look
// alike the one that most pixels have.
func fewColours(b []byte) ([]byte, error) {
	from, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	type group struct {
		n, most int
		best    color.Color
	}
	count := map[color.Color]int{}
	groups := map[[3]uint32]*group{}
	bounds := from.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			c := from.At(x, y)
			count[c]++
			r, g, b, _ := c.RGBA()
			key := [3]uint32{r >> 11, g >> 11, b >> 11}
			if groups[key] == nil {
				groups[key] = &group{}
			}
			k := groups[key]
			k.n++
			if count[c] > k.most {
				k.most, k.best = count[c], c
			}
		}
	}
	byUse := slices.SortedFunc(maps.Values(groups), func(a, b *group) int {
		return cmp.Or(b.n-a.n, strings.Compare(fmt.Sprint(a.best), fmt.Sprint(b.best)))
	})
	var colours color.Palette
	for _, k := range byUse[:min(256, len(byUse))] {
		colours = append(colours, k.best)
	}
	to := image.NewPaletted(bounds, colours)
	draw.Draw(to, bounds, from, bounds.Min, draw.Src)
	var out bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, to)
	return out.Bytes(), err
}
