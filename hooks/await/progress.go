// SPDX-License-Identifier: Apache-2.0

package await

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Progress shows on a terminal what is being waited for: a line for each
// service, which changes in place. Where there are more services than lines,
// those that are ready are only counted.
type Progress struct {
	w     io.Writer
	size  func() (columns, rows int)
	start time.Time

	mu      sync.Mutex
	results []Result
	drawn   int // lines on the screen
	stop    chan struct{}
	stopped chan struct{}
}

// redrawEvery is often enough for a clock with tenths.
const redrawEvery = 200 * time.Millisecond

// NewProgress returns a display that is drawn until Close. size tells how large
// the terminal is now; 0 is unknown.
func NewProgress(w io.Writer, size func() (columns, rows int), services []Service) *Progress {
	p := &Progress{w: w, size: size, start: time.Now(), stop: make(chan struct{}), stopped: make(chan struct{})}
	for _, s := range services {
		p.results = append(p.results, Result{Service: s.name, State: NotReady})
	}
	go p.loop()
	return p
}

// Event is for [Options.Event].
func (p *Progress) Event(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.results[e.Index] = e.Result
}

// Close removes the display: what came of the services is the report's to say.
func (p *Progress) Close() {
	close(p.stop)
	<-p.stopped
	p.mu.Lock()
	defer p.mu.Unlock()
	p.show(nil)
}

func (p *Progress) loop() {
	defer close(p.stopped)
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for {
		p.mu.Lock()
		p.show(p.lines())
		p.mu.Unlock()
		select {
		case <-tick.C:
		case <-p.stop:
			return
		}
	}
}

// lines is what is to be seen now.
func (p *Progress) lines() (lines []string) {
	columns, rows := p.size()
	if columns <= 0 {
		columns = 80
	}
	if rows <= 0 {
		rows = 24
	}
	all := len(p.results) < rows
	width, ready, hidden := 0, 0, 0
	for _, r := range p.results {
		width = max(width, len([]rune(r.Service)))
	}
	width = min(width, columns/2)
	elapsed := rounded(time.Since(p.start).Truncate(100 * time.Millisecond))
	for _, r := range p.results {
		if r.State == Ready {
			ready++
		}
		switch {
		case !all && r.State == Ready:
			continue
		case len(lines) >= rows-2:
			hidden++
			continue
		}
		lines = append(lines, cut(line(r, width, elapsed), columns-1))
	}
	if !all {
		more := ""
		if hidden > 0 {
			more = fmt.Sprintf(", %d more not shown", hidden)
		}
		lines = append(lines, cut(fmt.Sprintf("  %d of %d ready%s", ready, len(p.results), more), columns-1))
	}
	return lines
}

// line is one service: a mark, its name, the time, and why it is not ready.
func line(r Result, width int, elapsed time.Duration) string {
	name := cut(r.Service, width)
	name += strings.Repeat(" ", width-len([]rune(name)))
	switch r.State {
	case Ready:
		return fmt.Sprintf("+ %s  ready after %v", name, rounded(r.After))
	case Failed:
		return fmt.Sprintf("x %s  %s", name, r.LastError)
	}
	reason := r.LastError
	if reason == "" {
		reason = "waiting"
	}
	return fmt.Sprintf("- %s  %v, %s: %s", name, elapsed, plural(r.Attempts, "attempt"), reason)
}

// show replaces the lines on the screen by others, in one write.
func (p *Progress) show(lines []string) {
	const (
		up         = "\x1b[%dA"
		clearBelow = "\x1b[J"
		clearLine  = "\x1b[K"
	)
	var b bytes.Buffer
	if p.drawn > 0 {
		fmt.Fprintf(&b, up, p.drawn)
	}
	for _, l := range lines {
		b.WriteString(strings.Map(printable, l) + clearLine + "\n")
	}
	b.WriteString(clearBelow)
	p.drawn = len(lines)
	_, _ = p.w.Write(b.Bytes()) // a terminal that is gone is no reason to stop
}

// printable keeps what servers say from moving the cursor.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}
