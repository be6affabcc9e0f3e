// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/xml"
	"fmt"
	"strings"
	"text/tabwriter"
)

// title says what was measured.
func (r *RX) title() string {
	if r.Interface == "" {
		return "Received packets and their memory, between two network namespaces of one host"
	}
	return fmt.Sprintf("Received packets and their memory: %s (%s)", r.Interface, r.Driver)
}

// summarise says what the runs tell.
func (r *RX) summarise() {
	r.Summary = []string{}
	say := func(format string, args ...any) { r.Summary = append(r.Summary, fmt.Sprintf(format, args...)) }
	if r.Interface == "" {
		say("no interface here has receive buffers that hostcheck knows (mana, mlx5, mlx4), so this is of a veth: with an XDP program the kernel copies each packet into a page pool, by the same rule of sharing a page where two buffers fit")
	}
	for i := range r.Runs {
		run := &r.Runs[i]
		switch {
		case r.Interface != "" && run.Packets == 0:
			say("%s: no packet arrived; measure under load", run.Name)
		case r.Interface != "" && run.How != HowGiven && run.PacketBytes != nil:
			say("%s: the kernel does not count pages (CONFIG_PAGE_POOL_STATS), or too few packets came: the memory is that of the rings, for each entry", run.Name)
		case run.PacketBytes == nil:
			say("%s: the memory of a packet is not known: the driver has no page pool that this kernel lists", run.Name)
		}
	}
	if len(r.Runs) > 0 && r.Runs[0].How == HowCharged {
		say("the kernel lists no page pool of a veth: memory is what it charges a socket for packets that nobody read, 256 bytes of struct sk_buff included")
	}
	if r.Background >= noisy {
		say("other programs kept the CPUs %.0f%% busy before the runs: packets each second are of what they leave, and vary with them", r.Background)
	}
	if len(r.Runs) != 2 {
		return
	}
	a, b := &r.Runs[0], &r.Runs[1]
	if a.PacketBytes != nil && b.PacketBytes != nil && *a.PacketBytes > 0 {
		say("memory of a packet: %.0f bytes instead of %.0f (%+.0f %%)", *b.PacketBytes, *a.PacketBytes, 100*(*b.PacketBytes / *a.PacketBytes - 1))
	}
	if a.PacketsPerSec > 0 {
		say("packets: %.0f instead of %.0f each second (%+.0f %%); they depend on what else runs", b.PacketsPerSec, a.PacketsPerSec, 100*(b.PacketsPerSec/a.PacketsPerSec-1))
	}
}

func memoryOf(run *RXRun) string {
	if run.PacketBytes == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f", *run.PacketBytes)
}

// Text is the result as a table and what it tells.
func (r *RX) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, pages of %dK, %d CPUs\n\n", r.title(), r.PageSize>>10, r.CPUs)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "run\tframe\tmemory/packet\tpredicted\tpackets/s\tGb/s\tCPU ns/packet\tseconds\tmemory by")
	for i := range r.Runs {
		run := &r.Runs[i]
		predicted := "-"
		if run.Predicted > 0 {
			predicted = fmt.Sprint(run.Predicted)
		}
		_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%.0f\t%.2f\t%.0f\t%.1f\t%s\n", run.Name, run.Frame, memoryOf(run), predicted, run.PacketsPerSec, run.Gbps, run.CPUPerPacket, run.Seconds, run.How)
	}
	_ = w.Flush() // a strings.Builder takes everything
	b.WriteString("\n")
	for _, s := range r.Summary {
		b.WriteString("- " + s + "\n")
	}
	return b.String()
}

// Colours of the two figures (Okabe, Ito).
const (
	rxMemoryColour  = "#0072B2"
	rxPacketsColour = "#E69F00"
)

// SVG draws two bars for each run: the memory of a packet, and packets each
// second; each kind is scaled to its largest.
func (r *RX) SVG() string {
	const (
		width, left, right = 860, 170, 190
		row, head          = 62, 72
	)
	memory, packets := 0.0, 0.0
	for i := range r.Runs {
		if v := r.Runs[i].PacketBytes; v != nil {
			memory = max(memory, *v)
		}
		packets = max(packets, r.Runs[i].PacketsPerSec)
	}
	scale := func(x, of float64) float64 {
		if of <= 0 {
			return 0
		}
		return min(1, x/of) * (width - left - right)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="13" role="img">`+"\n", width, head+row*len(r.Runs)+34)
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	fmt.Fprintf(&b, `<text x="16" y="24" font-size="16">%s</text>`+"\n", escaped(r.title()))
	fmt.Fprintf(&b, `<text x="16" y="46" fill="#555">pages of %dK, %d CPUs</text>`+"\n", r.PageSize>>10, r.CPUs)
	for i := range r.Runs {
		run := &r.Runs[i]
		y := head + row*i
		fmt.Fprintf(&b, `<text x="16" y="%d">%s</text>`+"\n", y+16, escaped(run.Name))
		fmt.Fprintf(&b, `<text x="16" y="%d" font-size="11" fill="#555">frames of %d bytes</text>`+"\n", y+34, run.Frame)
		if run.PacketBytes == nil {
			fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#555">memory of a packet: not known</text>`+"\n", left, y+16)
		} else {
			at := scale(*run.PacketBytes, memory)
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="18" fill="%s"/>`+"\n", left, y+2, at, rxMemoryColour)
			fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.0f bytes</text>`+"\n", left+at+8, y+16, *run.PacketBytes)
			if p := float64(run.Predicted); p > 0 && p <= memory {
				x := left + scale(p, memory)
				fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="black" stroke-width="2"/>`+"\n", x, y-1, x, y+23)
			}
		}
		at := scale(run.PacketsPerSec, packets)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="12" fill="%s"/>`+"\n", left, y+26, at, rxPacketsColour)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" font-size="12">%.0f packets/s</text>`+"\n", left+at+8, y+37, run.PacketsPerSec)
	}
	fmt.Fprintf(&b, `<text x="16" y="%d" font-size="11" fill="#555">blue: memory of a packet, less is better (black line: the driver's rule); orange: packets each second</text>`+"\n", head+row*len(r.Runs)+18)
	b.WriteString("</svg>\n")
	return b.String()
}

// escaped is a text within XML: an interface may have any name.
func escaped(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}
