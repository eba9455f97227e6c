// SPDX-License-Identifier: Apache-2.0

package await

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// TCP is tcp://host:port, and a bare host:port: the connection is accepted.
func TCP() Scheme {
	return Scheme{names: []string{"tcp"}, parse: func(t *target) (Check, error) {
		address, err := t.host()
		return connects("tcp", address), errors.Join(err, t.onlyHost())
	}}
}

// Unix is unix:///run/app.sock: the connection is accepted.
func Unix() Scheme {
	return Scheme{names: []string{"unix"}, parse: func(t *target) (Check, error) {
		const longest = 107 // bytes, for the kernel
		path, err := t.file()
		if len(path) > longest {
			err = fmt.Errorf("the path has %d bytes, that of a socket can have %d", len(path), longest)
		}
		return connects("unix", path), err
	}}
}

func connects(network, address string) Check {
	return func(ctx context.Context) error {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// onlyHost reports what a URL of a host and a port can't have.
func (t *target) onlyHost() error {
	if t.Path != "" && t.Path != "/" || t.RawQuery != "" || t.User != nil {
		return errors.New("only HOST:PORT is possible here, without user, path and query")
	}
	return nil
}

// file is the path of a URL that has one and no host.
func (t *target) file() (string, error) {
	switch {
	case t.Host != "":
		return "", errors.New("a path has three slashes: " + t.Scheme + ":///run/name")
	case t.Path != "":
		return t.Path, nil
	case t.Opaque != "":
		return t.Opaque, nil
	}
	return "", errors.New("the path is missing: " + t.Scheme + ":///run/name")
}

// dial connects. The connection's reads and writes fail when ctx ends.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	// No deadline of the connection's own: it could come a moment before that of
	// ctx, and some libraries hide that it was one.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return &boundConn{conn, stop}, nil
}

// boundConn is a connection that a context bounds. Who sets deadlines of its
// own does not lift that one.
type boundConn struct {
	net.Conn
	stop func() bool
}

func (c *boundConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

func (c *boundConn) SetDeadline(time.Time) error      { return nil }
func (c *boundConn) SetReadDeadline(time.Time) error  { return nil }
func (c *boundConn) SetWriteDeadline(time.Time) error { return nil }

// secure does the TLS handshake as a client; a nil conf is no TLS. It closes
// conn when it fails.
func secure(ctx context.Context, conn net.Conn, conf *tls.Config, hostport string) (net.Conn, error) {
	if conf == nil {
		return conn, nil
	}
	t := tls.Client(conn, serverTLS(conf, hostport))
	if err := t.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return t, nil
}

// firstGood asks several servers of one service at once: the first good answer
// counts, else the one that came furthest.
func firstGood[S any](ctx context.Context, servers []S, ask func(context.Context, S) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan error, len(servers))
	for _, s := range servers {
		go func() { answers <- ask(ctx, s) }()
	}
	best := errors.New("there is no server to ask")
	for i := range servers {
		err := <-answers
		if err == nil {
			return nil
		}
		if i == 0 || kindOf(err) > kindOf(best) {
			best = err
		}
	}
	return best
}

// mostOfLine bounds a line; the greeting of a large NATS cluster is long.
const mostOfLine = 256 << 10

// readLine reads a line of bounded length, without its end.
func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return strings.TrimRight(string(line), "\r\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", fmt.Errorf("connection closed: %w", err)
		case len(line) > mostOfLine:
			return "", errors.New("a line without an end")
		}
	}
}
