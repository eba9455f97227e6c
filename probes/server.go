// SPDX-License-Identifier: Apache-2.0

// Package probes answers the startup, liveness and readiness probes of
// Kubernetes, and asks for the answer where the probe is a command.
//
// [Listen] binds the address, [New] makes a [Server] for it, [Endpoints] is
// what it serves: answers that follow from the last published
// [report.Report]. [Ask] is the other side. What the answers can follow from,
// besides the phases of a run, is a [Check] of the command, which a [Monitor]
// runs on a clock of its own, and what the command says of itself through a
// [NotifySocket] to a [Service].
//
// The server is a small HTTP/1.1 responder of our own. It is in every
// container as a part of PID 1, where net/http would cost more than all the
// rest, and it can do less on purpose: GET and HEAD of a fixed set of paths,
// one request a connection, everything bounded. While nobody connects it has
// one goroutine, blocked in accept(2), and no timer.
package probes

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// The bounds of a connection. A connection that waits for its request gives
// way to a new one when there are too many, so that no number of idle or slow
// clients keeps a probe out.
const (
	maxConns      = 1024
	maxHead       = 8 << 10 // bytes of request line and headers
	readTimeout   = 2 * time.Second
	writeTimeout  = 5 * time.Second
	lingerTimeout = time.Second
	maxLinger     = 64 << 10 // bytes of a body that are taken before the end
	drainTimeout  = time.Second
)

// Waits after accept(2) failed, as it does when descriptors run out.
const (
	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second

	complaintEvery = 10 * time.Second
)

// Response is the answer to a request.
type Response struct {
	Status      int
	ContentType string // application/json when empty
	Body        []byte

	allow  string // the header, for 405
	policy string // Content-Security-Policy, for the page
}

// Handler answers a GET of path, which comes as the client wrote it, without
// the query and with nothing decoded. Handlers run concurrently and must not
// block. The server drops the body where a HEAD asks for none.
type Handler func(path string) Response

// Server answers HTTP requests on a listener.
type Server struct {
	// Instance is sent as the header Cleanimg-Init-Instance, by which [Ask]
	// knows us ("unknown" when it is empty). It is set before Serve or not at
	// all.
	Instance string

	listener net.Listener
	handler  Handler
	log      *slog.Logger
	done     chan struct{} // closed by Close
	drained  chan struct{} // closed when no connection has a goroutine any more
	closing  sync.Once
	buffers  sync.Pool // of *buffer

	complained time.Time // about accept(2); Serve's alone

	mu       sync.Mutex
	max      int   // connections in both queues
	waiting  queue // for their request
	replying queue // or lingering
	active   int   // goroutines
	draining bool
}

// buffer holds a request's head, and afterwards the answer, if it fits.
type buffer [1 << 10]byte

// New returns a server that answers with h on l, which it owns from now on.
// A nil log discards.
func New(l net.Listener, h Handler, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{
		listener: l, handler: h, log: log,
		done: make(chan struct{}), drained: make(chan struct{}),
		buffers: sync.Pool{New: func() any { return new(buffer) }},
		max:     connLimit(),
	}
}

// connLimit leaves half of our descriptors to the hooks' pipes and files.
func connLimit() int {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err == nil && lim.Cur/2 < maxConns {
		return max(1, int(lim.Cur/2))
	}
	return maxConns
}

// Serve answers until Close and then returns nil, after its connections have
// ended or a second has passed. It goes on when accepting fails, however
// often; it returns an error only when something else closed the listener. It
// is called once.
func (s *Server) Serve() error {
	defer s.drain()
	var wait time.Duration
	for {
		nc, err := s.listener.Accept()
		select {
		case <-s.done:
			if err == nil {
				_ = nc.Close()
			}
			return nil
		default:
		}
		switch {
		case err == nil:
			wait = 0
			s.admit(nc)
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept probes on %s: %w", s.listener.Addr(), err)
		default:
			wait = s.notAccepted(err, wait)
		}
	}
}

// Close ends Serve, or keeps it from starting. It does not wait for anything
// and may be called more than once.
func (s *Server) Close() {
	s.closing.Do(func() {
		close(s.done)
		_ = s.listener.Close()
	})
}

// notAccepted deals with an error of accept(2) and returns for how long Serve
// has waited since, last being the time before. Where descriptors have run out
// and a client can be sent away, that is not at all: a probe may be next.
func (s *Server) notAccepted(err error, last time.Duration) time.Duration {
	if time.Since(s.complained) > complaintEvery {
		s.complained = time.Now()
		s.log.Warn("probe connection not accepted", "err", err)
	}
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		s.mu.Lock()
		oldest := s.evict()
		s.mu.Unlock()
		if oldest != nil {
			oldest.hangUp()
			return 0
		}
	}
	wait := min(max(2*last, minBackoff), maxBackoff)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.done:
	}
	return wait
}

// admit starts to serve a connection. Where that makes too many, the oldest
// one goes.
func (s *Server) admit(nc net.Conn) {
	c := &conn{Conn: nc}
	var oldest *conn
	s.mu.Lock()
	if s.waiting.n+s.replying.n >= s.max {
		oldest = s.evict()
	}
	s.waiting.push(c)
	s.active++
	s.mu.Unlock()
	oldest.hangUp()
	go s.serve(c)
}

// evict takes the connection that has waited longest for its request out of
// the queues, or the one that has been answered longest ago. It returns nil
// when there is none. The caller holds the lock, and hangs up without it.
func (s *Server) evict() *conn {
	for _, q := range [...]*queue{&s.waiting, &s.replying} {
		if c := q.first; c != nil {
			q.remove(c)
			return c
		}
	}
	return nil
}

// reply marks that c's request has been read. It returns false if c has been
// evicted.
func (s *Server) reply(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.in == nil {
		return false
	}
	s.waiting.remove(c)
	s.replying.push(c)
	return true
}

// leave is the end of c's goroutine.
func (s *Server) leave(c *conn) {
	c.hangUp()
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.in != nil {
		c.in.remove(c)
	}
	s.active--
	if s.draining && s.active == 0 {
		close(s.drained)
	}
}

// drain hangs up on everybody and waits a moment for the goroutines.
func (s *Server) drain() {
	s.mu.Lock()
	s.draining = true
	idle := s.active == 0
	var open []*conn
	for c := s.evict(); c != nil; c = s.evict() {
		open = append(open, c)
	}
	s.mu.Unlock()
	if idle {
		return
	}
	for _, c := range open {
		c.hangUp()
	}
	timer := time.NewTimer(drainTimeout)
	defer timer.Stop()
	select {
	case <-s.drained:
	case <-timer.C:
		s.log.Warn("probe connections did not end in time")
	}
}
