// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tailSize    = 2 << 10  // of standard error, remembered
	longestLine = 16 << 10 // of a line with a prefix; longer ones are split
)

// A relay passes on what is written to a pipe, at once and unchanged or line by
// line with a prefix, for as long as anybody holds the pipe's other end. A
// destination that is broken is written to in vain; the pipe never fills
// because of that.
type relay struct {
	file   *os.File
	raw    syscall.RawConn
	to     *Stream
	prefix string
	ended  chan struct{} // closed when the last holder of the pipe has gone

	mu      sync.Mutex // never held while writing
	taken   int64      // bytes read from the pipe
	passed  int64      // and written, or dropped
	tail    []byte
	cut     bool // the tail is not all there was
	waiters []waiter

	partial []byte // of a line, in prefix mode; the lock of the stream guards it
}

// waiter wants to know when so much has been passed on.
type waiter struct {
	want    int64
	reached chan struct{}
}

// newRelay makes a pipe and returns the end to write to, which the caller
// closes. Nothing is read before start is called.
func newRelay(to *Stream, prefix string) (l *relay, write int, err error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, fmt.Errorf("make a pipe: %w", err)
	}
	// A nonblocking file waits in the poller, without a thread. The other end
	// must block: programs do not expect EAGAIN there.
	if err = unix.SetNonblock(ends[0], true); err == nil {
		file := os.NewFile(uintptr(ends[0]), "pipe")
		var raw syscall.RawConn
		if raw, err = file.SyscallConn(); err == nil {
			return &relay{file: file, raw: raw, to: to, prefix: prefix, ended: make(chan struct{})}, ends[1], nil
		}
	}
	_ = unix.Close(ends[0])
	_ = unix.Close(ends[1])
	return nil, -1, fmt.Errorf("prepare a pipe: %w", err)
}

// start begins to pass things on. The goroutine ends with the pipe.
func (l *relay) start() {
	go func() {
		defer close(l.ended)
		defer l.file.Close()
		buffer := make([]byte, longestLine)
		for {
			n := l.read(buffer)
			if n == 0 {
				l.flush()
				return
			}
			l.write(buffer[:n])
			l.count(n)
		}
	}()
}

// read returns 0 at the end of the pipe.
func (l *relay) read(buffer []byte) (n int) {
	err := l.raw.Read(func(fd uintptr) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		var err error
		for {
			if n, err = unix.Read(int(fd), buffer); err != unix.EINTR {
				break
			}
		}
		if err == unix.EAGAIN {
			return false
		}
		n = max(n, 0)
		l.taken += int64(n)
		l.remember(buffer[:n])
		return true
	})
	if err != nil {
		return 0
	}
	return n
}

func (l *relay) remember(b []byte) {
	l.tail = append(l.tail, b[max(0, len(b)-tailSize):]...)
	if over := max(len(b), len(l.tail)) - tailSize; over > 0 {
		l.cut = true
		l.tail = slices.Delete(l.tail, 0, max(0, len(l.tail)-tailSize))
	}
}

// last returns the end of what was read so far. A line whose beginning is gone
// is left out or, when there is no other, its first word: half of a secret is
// not recognised as one.
func (l *relay) last() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.cut {
		return bytes.Clone(l.tail)
	}
	if _, rest, ok := bytes.Cut(l.tail, []byte("\n")); ok && len(rest) > 0 {
		return bytes.Clone(rest)
	}
	word := bytes.IndexAny(l.tail, " \t\r\n")
	if word < 0 {
		return []byte{}
	}
	return bytes.Clone(l.tail[word+1:])
}

func (l *relay) count(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passed += int64(n)
	l.waiters = slices.DeleteFunc(l.waiters, func(w waiter) bool {
		if l.passed < w.want {
			return false
		}
		close(w.reached)
		return true
	})
}

// drain waits until everything that is in the pipe now has been passed on, but
// no longer than the limit: the destination may be stalled. What a daemon
// writes into the pipe later does not matter.
func (l *relay) drain(limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	reached := make(chan struct{})
	err := l.raw.Control(func(fd uintptr) {
		l.mu.Lock() // so that what is in the pipe is not being read now
		defer l.mu.Unlock()
		waiting, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		want := l.taken + int64(waiting)
		if err != nil || l.passed >= want {
			close(reached)
			return
		}
		l.waiters = append(l.waiters, waiter{want, reached})
	})
	if err == nil { // else the pipe has ended
		select {
		case <-reached:
		case <-l.ended:
		case <-timer.C:
			return
		}
	}
	if l.prefix == "" {
		return
	}
	flushed := make(chan struct{})
	go func() {
		defer close(flushed)
		l.flush()
	}()
	select {
	case <-flushed:
	case <-timer.C:
	}
}

// over tells whether nothing will come any more.
func (l *relay) over() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

func (l *relay) write(b []byte) {
	l.to.mu.Lock()
	defer l.to.mu.Unlock()
	if l.prefix == "" {
		_ = l.to.pass(b)
		return
	}
	l.partial = append(l.partial, b...)
	var out []byte
	for {
		end := bytes.IndexByte(l.partial[:min(len(l.partial), longestLine)], '\n')
		if end < 0 && len(l.partial) < longestLine {
			break
		}
		skip := end + 1
		if end < 0 {
			end, skip = longestLine, longestLine
		}
		out = fmt.Appendf(out, "%s%s\n", l.prefix, l.partial[:end])
		l.partial = slices.Delete(l.partial, 0, skip)
	}
	_ = l.to.pass(out)
}

// flush writes what has no line end yet as a line.
func (l *relay) flush() {
	l.to.mu.Lock()
	defer l.to.mu.Unlock()
	if len(l.partial) > 0 {
		_ = l.to.pass(fmt.Appendf(nil, "%s%s\n", l.prefix, l.partial))
		l.partial = l.partial[:0]
	}
}
