// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"io"
	"log/slog"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

// A sink writes log lines to a stream from a goroutine of its own, so that
// whoever logs never waits: a reader that has stalled, or has gone, delays
// neither signals nor reaping. Lines that do not fit in the queue are counted,
// and the count is written when there is room again.
type sink struct {
	to      *hooks.Stream
	redact  func([]byte) []byte
	start   sync.Once
	lines   chan []byte
	pending atomic.Int64
	dropped atomic.Int64
	idle    chan struct{} // a token whenever nothing is pending
}

const sinkLines = 512

func newSink(to *hooks.Stream, redact func([]byte) []byte) *sink {
	return &sink{to: to, redact: redact}
}

// Write takes one line. It never blocks and never fails.
func (s *sink) Write(line []byte) (int, error) {
	s.start.Do(func() {
		s.lines, s.idle = make(chan []byte, sinkLines), make(chan struct{}, 1)
		go s.loop()
	})
	s.pending.Add(1)
	select {
	case s.lines <- append([]byte(nil), line...): // slog uses its buffer again
	default:
		s.pending.Add(-1)
		s.dropped.Add(1)
	}
	return len(line), nil
}

func (s *sink) loop() {
	if _, err := unix.IoctlGetInt(s.to.FD, unix.TIOCGPGRP); err == nil {
		blockTTOU()
	}
	for line := range s.lines {
		if n := s.dropped.Swap(0); n > 0 {
			_ = s.to.WriteLine([]byte("cleanimg-init: " + strconv.FormatInt(n, 10) + " log lines dropped: nobody read them\n"))
		}
		_ = s.to.WriteLine(s.redact(line))
		if s.pending.Add(-1) == 0 {
			select {
			case s.idle <- struct{}{}:
			default:
			}
		}
	}
}

// flush waits until all lines are written, but not longer than timeout.
func (s *sink) flush(timeout time.Duration) {
	if s.pending.Load() == 0 {
		return
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for s.pending.Load() > 0 {
		select {
		case <-s.idle:
		case <-timer.C:
			return
		}
	}
}

// blockTTOU keeps the calling goroutine's thread from being stopped, or sent
// round in circles, when it writes to a terminal that has `stty tostop` set and
// whose foreground is the command's.
func blockTTOU() {
	runtime.LockOSThread()
	var set unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGTTOU - 1)
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil)
}

func newLogger(w io.Writer, format LogFormat, level slog.Level) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == LogJSON {
		o.ReplaceAttr = readable
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// readable makes JSON say 10m0s, as the text form does, and not nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}
