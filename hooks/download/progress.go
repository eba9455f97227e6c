// SPDX-License-Identifier: Apache-2.0

package download

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	drawEvery = 200 * time.Millisecond // on a terminal
	logEvery  = 10 * time.Second
)

// progress tells now and then how far the files are: in one living line on a
// terminal, else in the log.
type progress struct {
	mu    sync.Mutex
	files []*state
	quit  chan struct{}
	ended chan struct{}
}

// A state is how far one file is.
type state struct {
	name   string
	active atomic.Bool
	bytes  atomic.Int64
	total  atomic.Int64 // -1: not known
	since  atomic.Int64 // the bytes that were there at the start
	began  atomic.Pointer[time.Time]
}

func newProgress(o Options) *progress {
	p := &progress{quit: make(chan struct{}), ended: make(chan struct{})}
	go p.loop(o.Terminal, o.Log)
	return p
}

func (p *progress) add(name string) *state {
	s := &state{name: name}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files = append(p.files, s)
	return s
}

func (p *progress) stop() {
	close(p.quit)
	<-p.ended
}

func (p *progress) loop(terminal io.Writer, log *slog.Logger) {
	defer close(p.ended)
	every := logEvery
	if terminal != nil {
		every = drawEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-p.quit:
			if terminal != nil {
				fmt.Fprint(terminal, "\x1b[K")
			}
			return
		case <-tick.C:
		}
		p.mu.Lock()
		files := p.files
		p.mu.Unlock()
		if terminal != nil {
			draw(terminal, files)
			continue
		}
		for _, s := range files {
			if s.active.Load() {
				log.Info("fetching", "output", s.name, "progress", s.text())
			}
		}
	}
}

// draw writes the line and goes back to its beginning, so that a line of the log
// which comes between takes its place.
func draw(w io.Writer, files []*state) {
	var parts []string
	for _, s := range files {
		if s.active.Load() {
			parts = append(parts, s.name+" "+s.text())
		}
	}
	line := strings.Join(parts, "  ")
	if runes := []rune(line); len(runes) > 78 { // a longer line would not be overwritten
		line = string(runes[:77]) + "…"
	}
	fmt.Fprint(w, line, "\x1b[K\r")
}

// begin says that bytes are about to come.
func (s *state) begin(have, total int64) {
	now := time.Now()
	s.bytes.Store(have)
	s.since.Store(have)
	s.total.Store(total)
	s.began.Store(&now)
	s.active.Store(true)
}

func (s *state) advance(bytes int64) { s.bytes.Store(bytes) }

func (s *state) finish() { s.active.Store(false) }

// text is how far it is, and how fast.
func (s *state) text() string {
	bytes, total := s.bytes.Load(), s.total.Load()
	text := mib(bytes)
	if total > 0 {
		text += fmt.Sprintf(" of %s (%d%%)", mib(total), bytes*100/total)
	}
	if took := time.Since(*s.began.Load()).Seconds(); took > 0 {
		text += fmt.Sprintf(", %s/s", mib(int64(float64(bytes-s.since.Load())/took)))
	}
	return text
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
