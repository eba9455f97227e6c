// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// NotifySocket receives what programs say by sd_notify(3). It is an abstract
// socket: that needs no writable directory, but its name can be seen by all
// who share our network, so the kernel's word for who has sent a datagram is
// asked for.
type NotifySocket struct {
	conn *net.UnixConn
	name string
	log  *slog.Logger
	once sync.Once
	done chan struct{}
}

// ListenNotify makes the socket. What is sent to it waits for Serve.
func ListenNotify(log *slog.Logger) (*NotifySocket, error) {
	var random [16]byte
	if _, err := unix.Getrandom(random[:], 0); err != nil {
		return nil, fmt.Errorf("name a notify socket: %w", err)
	}
	name := fmt.Sprintf("@cleanimg-init/%x/notify", random)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("make a notify socket: %w", err)
	}
	s := &NotifySocket{conn: conn, name: name, log: log, done: make(chan struct{})}
	raw, err := conn.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		})
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("ask a notify socket for credentials: %w", err)
	}
	return s, nil
}

// Name is the value of NOTIFY_SOCKET.
func (s *NotifySocket) Name() string { return s.name }

// Limits of what is received. Datagrams that come faster wait, and with them
// those who send.
const (
	maxPassed   = 253 // descriptors in a datagram, the kernel's SCM_MAX_FD
	burst       = 100 // datagrams at once
	burstPeriod = 500 * time.Millisecond
)

// Serve gives the datagrams of those whom accept lets in to service, until
// Close. Descriptors that come with one are closed when it has been dealt with:
// that is the answer to BARRIER=1, and none is ever kept.
func (s *NotifySocket) Serve(accept func(unix.Ucred) bool, service *Service) {
	// One byte more, so that what is too long can be told from what just fits.
	buf := make([]byte, maxNotification+2)
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(maxPassed*4))
	begin, n := time.Now(), 0
	for {
		if n++; n > burst {
			if !s.wait(burstPeriod - time.Since(begin)) {
				return
			}
			begin, n = time.Now(), 0
		}
		size, oobn, flags, _, err := s.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if !s.wait(burstPeriod) {
				return
			}
			continue
		}
		s.receive(buf[:size], oob[:oobn], flags, accept, service)
	}
}

// wait waits, and returns false when the socket was closed.
func (s *NotifySocket) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.done:
		return false
	}
}

// receive deals with one datagram.
func (s *NotifySocket) receive(b, oob []byte, flags int, accept func(unix.Ucred) bool, service *Service) {
	sender, passed := control(oob)
	defer closeAll(passed)
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || sender == nil {
		s.log.Debug("notification dropped: it is too long, has too many descriptors or no sender")
		return
	}
	if !accept(*sender) {
		s.log.Debug("notification dropped: the sender is none of those that NOTIFY lets in", "pid", sender.Pid, "uid", sender.Uid)
		return
	}
	n, ok := parseNotification(b)
	if !ok {
		s.log.Debug("notification dropped: it is malformed", "pid", sender.Pid)
		return
	}
	if n.mainPID == int(sender.Pid) {
		n.mainPID = 0 // many say it of themselves
	}
	service.apply(n)
}

// control returns who has sent a datagram, and the descriptors that came along.
func control(oob []byte) (sender *unix.Ucred, passed []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, nil
	}
	for i := range messages {
		m := &messages[i]
		if m.Header.Level != unix.SOL_SOCKET {
			continue
		}
		switch m.Header.Type {
		case unix.SCM_CREDENTIALS:
			sender, _ = unix.ParseUnixCredentials(m)
		case unix.SCM_RIGHTS:
			fds, _ := unix.ParseUnixRights(m)
			passed = append(passed, fds...)
		}
	}
	return sender, passed
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// Close ends Serve. It may be called more than once.
func (s *NotifySocket) Close() {
	s.once.Do(func() {
		close(s.done)
		_ = s.conn.Close()
	})
}

// Send sends a notification to the socket of a service manager above us, as
// its client. It does not wait.
func Send(socket, text string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	return os.NewSyscallError("sendto", unix.Sendto(fd, []byte(text), unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: socket}))
}
