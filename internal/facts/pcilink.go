// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// PCILink is a PCIe link's state; speeds in GT/s, widths in lanes.
type PCILink struct {
	SpeedGTs    *float64 `json:"speed_gts"`
	Width       *int     `json:"width"`
	MaxSpeedGTs *float64 `json:"max_speed_gts"`
	MaxWidth    *int     `json:"max_width"`

	// Where SpeedGTs and Width come from: a path, with the register's name
	// behind that of config.
	SpeedSource, WidthSource string `json:"-"`
}

// readLink reads the four link attributes (pci-sysfs.c, current_link_speed_show
// and its kin). A function without a link (conventional PCI, integrated in the
// root complex) has none.
func (fn *PCIFunction) readLink(h *host.Host) {
	fn.Link.SpeedSource, fn.Link.WidthSource = fn.Attr("current_link_speed"), fn.Attr("current_link_width")
	fn.Link.SpeedGTs = linkAttr(fn, h, "current_link_speed", "link.speed_gts", parseGTs)
	fn.Link.Width = linkAttr(fn, h, "current_link_width", "link.width", parseLanes)
	fn.Link.MaxSpeedGTs = linkAttr(fn, h, "max_link_speed", "link.max_speed_gts", parseGTs)
	fn.Link.MaxWidth = linkAttr(fn, h, "max_link_width", "link.max_width", parseLanes)
}

func linkAttr[T any](fn *PCIFunction, h *host.Host, name, field string, parse func(string) (T, error)) *T {
	s, err := h.Text(fn.Attr(name))
	switch {
	case kernelLacks(h, err):
		fn.Unknown.say(field, "the function has no PCI Express link")
		return nil
	case err != nil:
		fn.Unknown.say(field, whyNot(h, err))
		return nil
	}
	v, err := parse(s)
	if err != nil {
		fn.Unknown.say(field, fmt.Sprintf("%s: %v", fn.Attr(name), err))
		return nil
	}
	return &v
}

// linkFromConfig fills in from configuration space what the attributes did not
// tell: a tree without them, such as one made from an lspci dump.
func (fn *PCIFunction) linkFromConfig(x *Express) {
	if !x.HasLink {
		return
	}
	fill := func(p **float64, v float64, field string) {
		if *p == nil && v > 0 {
			*p = &v
			delete(fn.Unknown, field)
		}
	}
	fillInt := func(p **int, v int, field string) {
		if *p == nil && v > 0 && v <= 32 {
			*p = &v
			delete(fn.Unknown, field)
		}
	}
	if fn.Link.SpeedGTs == nil {
		fn.Link.SpeedSource = fn.Attr("config") + " LnkSta"
	}
	if fn.Link.Width == nil {
		fn.Link.WidthSource = fn.Attr("config") + " LnkSta"
	}
	fill(&fn.Link.SpeedGTs, x.GTs, "link.speed_gts")
	fill(&fn.Link.MaxSpeedGTs, x.MaxGTs, "link.max_speed_gts")
	fillInt(&fn.Link.Width, x.Width, "link.width")
	fillInt(&fn.Link.MaxWidth, x.MaxWidth, "link.max_width")
}

// parseGTs reads "32.0 GT/s PCIe", and "16 GT/s" as kernels before 5.7 wrote it.
func parseGTs(s string) (float64, error) {
	num, rest, ok := strings.Cut(s, " ")
	v, err := strconv.ParseFloat(num, 64)
	if !ok || err != nil || !strings.HasPrefix(rest, "GT/s") || v <= 0 || v > 1024 {
		return 0, fmt.Errorf("%q is not a link speed", short(s))
	}
	return v, nil
}

// parseLanes reads a link width. 0 is no link, and 255 what a device that
// does not answer gives.
func parseLanes(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a link width", short(s))
	}
	if n == 0 || n > 32 {
		return 0, fmt.Errorf("%d lanes, so no link", n)
	}
	return n, nil
}

func short(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
