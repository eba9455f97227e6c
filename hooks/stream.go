// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"sync"

	"golang.org/x/sys/unix"
)

// A Stream is a descriptor that several write to: what hooks write there is
// passed on as it is, and a log has lines of its own between. It does not close
// the descriptor.
type Stream struct {
	FD int

	mu      sync.Mutex // held while writing: a destination that stalls blocks one thread
	midLine bool       // what was passed on last does not end a line
}

var (
	standardOutput = &Stream{FD: 1}
	standardError  = &Stream{FD: 2}
)

// WriteLine writes a line, which ends with its newline, and before it one for
// the line of a hook that has none. It waits as [WriteAll] does.
func (s *Stream) WriteLine(line []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.midLine {
		line = append([]byte("\n"), line...)
	}
	return s.pass(line)
}

// pass writes b as it is. The lock is held.
func (s *Stream) pass(b []byte) error {
	if len(b) > 0 {
		s.midLine = b[len(b)-1] != '\n'
	}
	return WriteAll(s.FD, b)
}

// WriteAll writes b to the descriptor, waiting where it is full, and gives up
// where nobody can read it any more. Unlike [os.File] it never ends the program
// because standard error is a broken pipe. It returns why it gave up.
func WriteAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch {
		case n > 0:
			b = b[n:]
		case err == unix.EAGAIN:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		case err != unix.EINTR:
			return err
		}
	}
	return nil
}
