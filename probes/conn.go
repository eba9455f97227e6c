// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

// conn is a connection and its place in the server's queues, which the
// server's lock guards.
type conn struct {
	net.Conn
	in         *queue // nil when it was evicted
	prev, next *conn
}

// hangUp closes the connection. On nil it does nothing.
func (c *conn) hangUp() {
	if c != nil {
		_ = c.Close()
	}
}

// queue is a list of connections, the oldest one first.
type queue struct {
	first, last *conn
	n           int
}

func (q *queue) push(c *conn) {
	c.in, c.prev, c.next = q, q.last, nil
	if q.last != nil {
		q.last.next = c
	} else {
		q.first = c
	}
	q.last = c
	q.n++
}

func (q *queue) remove(c *conn) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		q.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		q.last = c.prev
	}
	c.in, c.prev, c.next = nil, nil, nil
	q.n--
}

// serve is the life of a connection: one request, one answer.
func (s *Server) serve(c *conn) {
	buf := s.buffers.Get().(*buffer)
	defer func() {
		// A broken request must not end PID 1, and the container with it.
		if v := recover(); v != nil {
			s.log.Error("probe connection panicked", "panic", v)
		}
		s.buffers.Put(buf)
		s.leave(c)
	}()

	_ = c.SetReadDeadline(time.Now().Add(readTimeout))
	req, status := readRequest(c, buf[:])
	if status == hungUp || !s.reply(c) {
		return
	}
	var resp Response
	if status == 0 {
		resp = s.answer(req.path)
	} else {
		resp = errorResponse(status)
	}
	_ = c.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err := writeResponse(c.Conn, buf[:0], &resp, s.Instance, req.head); err != nil {
		return
	}
	if status != 0 || req.more {
		linger(c.Conn, buf[:])
	}
}

// answer asks the handler. Its panic is a 500.
func (s *Server) answer(path string) (resp Response) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("probe handler panicked", "path", path, "panic", v)
			resp = errorResponse(500)
		}
	}()
	return s.handler(path)
}

// hungUp is the status of a request for which nobody waits any more.
const hungUp = -1

// readRequest reads a request's head. The status is 0 when it is one, the
// status of the answer when it is not, or hungUp.
func readRequest(r io.Reader, buf []byte) (req request, status int) {
	for n := 0; ; {
		m, err := r.Read(buf[n:])
		n += m
		if n > 0 && !isToken(buf[0]) {
			return request{}, 400 // TLS, for one: don't wait for the end of its line
		}
		if end := headEnd(buf[:n], n-m); end > 0 {
			req, status = parseRequest(buf[:end])
			req.more = req.more || n > end
			return req, status
		}
		switch {
		case err == nil:
		case n == 0:
			return request{}, hungUp
		case errors.Is(err, os.ErrDeadlineExceeded):
			return request{}, 408
		case errors.Is(err, io.EOF):
			return request{}, 400
		default:
			return request{}, hungUp
		}
		if n == maxHead {
			return request{}, 431
		}
		if n == len(buf) {
			buf = append(make([]byte, 0, maxHead), buf...)[:maxHead]
		}
	}
}

// linger ends a connection on which the client may still be sending. Closing
// it at once would make the kernel answer what comes with a reset, and a reset
// can overtake the answer. So the client is told that nothing follows, some of
// what it sends is taken, and the rest is left where it is until the client
// hangs up or the time is over.
func linger(c net.Conn, buf []byte) {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(lingerTimeout))
	for taken := 0; taken < maxLinger; {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		taken += n
	}
	raw, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	if rc, err := raw.SyscallConn(); err == nil {
		// Waits without reading: "not ready yet" until deadline or Close.
		_ = rc.Read(func(uintptr) bool { return false })
	}
}

// errorResponse is the answer to what is not a request that we serve.
func errorResponse(status int) Response {
	r := Response{Status: status}
	reason := ""
	switch status {
	case 400:
		reason = "this is not an HTTP/1.1 request"
	case 405:
		reason, r.allow = "use GET or HEAD", "GET, HEAD"
	case 408:
		reason = "the request did not arrive in time"
	case 431:
		reason = "the request has more than 8 KiB of headers"
	case 505:
		reason = "use HTTP/1.1"
	default:
		reason = "internal error"
	}
	r.Body = appendError(nil, reason)
	return r
}

// writeResponse sends the answer. A body that does not fit into the room of buf
// is not copied: there may be as many answers as connections.
func writeResponse(w io.Writer, buf []byte, r *Response, instance string, head bool) error {
	b, body := appendHead(buf, r, instance), r.Body
	if head {
		body = nil
	}
	if len(body) <= cap(b)-len(b) {
		_, err := w.Write(append(b, body...))
		return err
	}
	_, err := (&net.Buffers{b, body}).WriteTo(w)
	return err
}

// appendHead adds status and headers as they go over the wire.
func appendHead(b []byte, r *Response, instance string) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = append(b, ' ')
	b = append(b, statusText(r.Status)...)
	b = append(b, "\r\nContent-Type: "...)
	if r.ContentType == "" {
		b = append(b, "application/json"...)
	} else {
		b = append(b, r.ContentType...)
	}
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(r.Body)), 10)
	b = append(b, "\r\nConnection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"...)
	if r.allow != "" {
		b = append(b, "Allow: "...)
		b = append(b, r.allow...)
		b = append(b, "\r\n"...)
	}
	if r.policy != "" {
		b = append(b, "Content-Security-Policy: "...)
		b = append(b, r.policy...)
		b = append(b, "\r\n"...)
	}
	if instance == "" {
		instance = unknownInstance
	}
	b = append(b, instanceHeader+": "...)
	b = append(b, instance...)
	return append(b, "\r\n\r\n"...)
}

func statusText(status int) string {
	switch status {
	case 200:
		return "OK"
	case 400:
		return "Bad Request"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 408:
		return "Request Timeout"
	case 410:
		return "Gone"
	case 431:
		return "Request Header Fields Too Large"
	case 500:
		return "Internal Server Error"
	case 503:
		return "Service Unavailable"
	case 504:
		return "Gateway Timeout"
	case 505:
		return "HTTP Version Not Supported"
	case 507:
		return "Insufficient Storage"
	default:
		return "Status"
	}
}
