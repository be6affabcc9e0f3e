// SPDX-License-Identifier: Apache-2.0

package chromium

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
)

// Look opens a page and complains unless it is one that can be handed on: no
// script error, no violation of the page's own policy, no request beside the
// page, no sideways scrolling on a phone, and text that can be read in both
// colour schemes, all of it unfolded.
func (c *Browser) Look(name, page string) {
	t := c.t
	t.Helper()
	var mu sync.Mutex
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.URL.Path)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(page))
	}))
	defer server.Close()
	c.As("light", 1200)
	c.Open(server.URL + "/page")
	var grounds []string
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int{320, 375, 1200} {
			c.As(scheme, width)
			c.Eval("document.querySelectorAll('details').forEach(d => d.open = true)", nil)
			var wide int
			if c.Eval("document.documentElement.scrollWidth", &wide); wide > width {
				t.Errorf("%s, %s: %d pixels wide in a window of %d", name, scheme, wide, width)
			}
		}
		var ground string
		c.Eval("getComputedStyle(document.body).backgroundColor", &ground)
		grounds = append(grounds, ground)
		var faint []string
		c.Eval(contrast, &faint)
		for _, f := range faint {
			t.Errorf("%s, %s: too little contrast: %s", name, scheme, f)
		}
	}
	if grounds[0] == grounds[1] {
		t.Errorf("%s: light and dark have the same ground %s", name, grounds[0])
	}
	for _, e := range c.events {
		if slices.Contains([]string{"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Audits.issueAdded"}, e.Method) {
			t.Errorf("%s: the browser complains: %s", name, e.Params)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 1 || asked[0] != "/page" {
		t.Errorf("%s: the browser asked for %q", name, asked)
	}
}

// contrast gives the texts whose colour is less than 4.5 to 1 to their ground
// (WCAG 2, 1.4.3).
const contrast = `(() => {
const parse = c => { const m = c.match(/[\d.]+/g).map(Number); return {rgb: m.slice(0, 3), a: m.length > 3 ? m[3] : 1} }
const light = rgb => { const [r, g, b] = rgb.map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b }
const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.a > 0) return c.rgb } return [255, 255, 255] }
const boxOf = e => { let r = e.closest('a') || e; for (r = r.previousElementSibling; r; r = r.previousElementSibling) if (r.tagName === 'rect') return r }
const out = new Set()
for (const e of document.querySelectorAll('body *')) {
	if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue
	const inSVG = e.tagName === 'text'
	if (!inSVG && e.ownerSVGElement) continue
	const style = getComputedStyle(e)
	const box = inSVG && boxOf(e)
	const fg = light(parse(inSVG ? style.fill : style.color).rgb), bg = light(box ? parse(getComputedStyle(box).fill).rgb : ground(e))
	const ratio = (Math.max(fg, bg) + 0.05) / (Math.min(fg, bg) + 0.05)
	if (ratio < 4.5) out.add(ratio.toFixed(1) + ' ' + e.tagName + '.' + (e.getAttribute('class') || '') + ': ' + e.textContent.trim().slice(0, 30))
}
return [...out].slice(0, 10)
})()`
