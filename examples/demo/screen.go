// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A screen prints the demonstration: plain text, and on a terminal with a
// little color.
type screen struct {
	out   *os.File
	color bool
	begin time.Time // what the times count from
}

func newScreen(out *os.File) *screen {
	_, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS)
	return &screen{out: out, color: err == nil && os.Getenv("NO_COLOR") == "", begin: time.Now()}
}

// start sets the clock to zero.
func (s *screen) start() { s.begin = time.Now() }

func (s *screen) title(text string) { fmt.Fprintf(s.out, "\n%s\n", s.paint("1", text)) }

func (s *screen) text(format string, args ...any) { fmt.Fprintf(s.out, "  "+format+"\n", args...) }

// line prints what has happened, and when.
func (s *screen) line(format string, args ...any) {
	at := s.paint("2", fmt.Sprintf("%5.2fs", time.Since(s.begin).Seconds()))
	fmt.Fprintf(s.out, "  %s  %s\n", at, fmt.Sprintf(format, args...))
}

// probes prints what the three probes answer.
func (s *screen) probes(when string, startup, live, ready int) {
	s.line("startup %s  live %s  ready %s  %s", s.code(startup), s.code(live), s.code(ready), when)
}

func (s *screen) code(code int) string {
	if code == 200 {
		return s.paint("32", "200")
	}
	return s.paint("33", fmt.Sprint(code))
}

// row prints a line of the last table.
func (s *screen) row(name string, took time.Duration, result string) {
	fmt.Fprintf(s.out, "  %-12s %8s  %s\n", name, took.Round(time.Millisecond), result)
}

func (s *screen) paint(color, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// A lockedBuffer may be written and read at the same time.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
