// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"
)

// The picture: wall time to the right, what is charged of it upwards.
const (
	width, height         = 760, 400
	left, right           = 64, 24
	top, bottom           = 72, 56
	wallMost, chargedMost = 10.5, 2.4 // seconds
	timeoutSeconds        = 2.0
)

const figureHead = `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" role="img" aria-labelledby="title what">
<!-- made by: make figures -->
<title id="title">What a timeout of 2 s charges in a container that is limited to 250m</title>
<desc id="what">Measured. A step that only waits is charged all of its time, and ended after 2 s. A second of work is charged as one second, and is done after four. Work without end is ended when 2 s are charged, after eight.</desc>
<style>
  svg { --paper: #ffffff; --ink: #1f2328; --quiet: #59636e; --line: #d1d9e0; --waits: #bc4c00; --works: #1a7f37; --endless: #0969da; }
  @media (prefers-color-scheme: dark) { svg { --paper: #0d1117; --ink: #f0f6fc; --quiet: #9198a1; --line: #3d444d; --waits: #f0883e; --works: #3fb950; --endless: #58a6ff; } }
  .paper { fill: var(--paper); }
  text { font: 14px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: var(--ink); }
  .title { font-size: 17px; font-weight: 600; }
  .quiet { fill: var(--quiet); font-size: 13px; }
  .grid { stroke: var(--line); }
  .limit { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 6 4; }
  .curve { fill: none; stroke-width: 3; stroke-linejoin: round; stroke-linecap: round; }
  .waits { stroke: var(--waits); } .works { stroke: var(--works); } .endless { stroke: var(--endless); }
  .name { font-weight: 600; stroke: none; }
  .name.waits { fill: var(--waits); } .name.works { fill: var(--works); } .name.endless { fill: var(--endless); }
  .done { fill: var(--paper); stroke-width: 3; }
</style>
<rect class="paper" width="100%%" height="100%%" rx="8"/>
`

// figure draws the curves, in the order of [curves].
func figure(curves []observed) string {
	var b strings.Builder
	fmt.Fprintf(&b, figureHead, width, height)
	fmt.Fprintf(&b, `<text class="title" x="24" y="34">In a container limited to 250m, a timeout of 2 s means 2 s of work</text>`+"\n")
	axes(&b)
	styles := []string{"waits", "works", "endless"}
	for i := len(styles) - 1; i >= 0; i-- { // the shorter above the longer
		curve(&b, curves[i], styles[i])
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func x(wall float64) float64    { return left + wall/wallMost*(width-left-right) }
func y(charged float64) float64 { return height - bottom - charged/chargedMost*(height-top-bottom) }

func axes(b *strings.Builder) {
	for s := 0.0; s <= wallMost; s++ {
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/><text class="quiet" x="%.1f" y="%.1f" text-anchor="middle">%g s</text>`+"\n",
			x(s), y(0), x(s), y(chargedMost), x(s), y(0)+19, s)
	}
	for s := 0.0; s <= timeoutSeconds; s++ {
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/><text class="quiet" x="%.1f" y="%.1f" text-anchor="end">%g s</text>`+"\n",
			x(0), y(s), x(wallMost), y(s), x(0)-8, y(s)+4, s)
	}
	fmt.Fprintf(b, `<line class="limit" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", x(0), y(timeoutSeconds), x(wallMost), y(timeoutSeconds))
	fmt.Fprintf(b, `<text class="quiet" x="%.1f" y="%.1f">the timeout</text>`+"\n", x(0)+6, y(timeoutSeconds)-8)
	fmt.Fprintf(b, `<text class="quiet" x="%.1f" y="%d" text-anchor="middle">time on the wall clock</text>`+"\n", x(wallMost/2), height-14)
	fmt.Fprintf(b, `<text class="quiet" x="24" y="%.1f">charged</text>`+"\n", y(chargedMost)-6)
}

// curve draws one, up to the timeout, with what becomes of the step at its end.
func curve(b *strings.Builder, o observed, style string) {
	var line []string
	var end point
	timedOut := false
	for _, p := range o.Points {
		if timedOut {
			break
		}
		timedOut = p.Charged.Seconds() >= timeoutSeconds
		end = p
		line = append(line, fmt.Sprintf("%.1f,%.1f", x(p.Wall.Seconds()), y(min(p.Charged.Seconds(), timeoutSeconds))))
	}
	fmt.Fprintf(b, `<polyline class="curve %s" points="%s"/>`+"\n", style, strings.Join(line, " "))
	ex, ey := x(end.Wall.Seconds()), y(min(end.Charged.Seconds(), timeoutSeconds))
	about := end.Wall.Round(time.Second).Seconds()
	const r = 6
	if timedOut {
		fmt.Fprintf(b, `<path class="curve %s" d="M%.1f %.1fl%d %dm0 %dl%d %d"/>`+"\n", style, ex-r, ey-r, 2*r, 2*r, -2*r, -2*r, 2*r)
		label(b, style, ex+14, ey+24, o.What, fmt.Sprintf("ended after %g s", about))
		return
	}
	fmt.Fprintf(b, `<circle class="done %s" cx="%.1f" cy="%.1f" r="%d"/>`+"\n", style, ex, ey, r)
	label(b, style, ex+14, ey+20, o.What, fmt.Sprintf("done after %g s", about))
}

func label(b *strings.Builder, style string, x, y float64, name, fate string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f"><tspan class="name %s">%s</tspan><tspan x="%.1f" dy="18">%s</tspan></text>`+"\n", x, y, style, name, x, fate)
}
