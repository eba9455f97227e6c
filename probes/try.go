// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// Try runs the check once and returns nil when it succeeds, or why it does not,
// without anything secret. It is to return when ctx ends, but the kernel can
// hold it up, as a file on a server that has gone does. An exec check needs e.
func (c Check) Try(ctx context.Context, e *Exec) error {
	switch c.Type {
	case "tcp":
		conn, err := dialTCP(ctx, c.address)
		if err == nil {
			_ = conn.Close()
		}
		return err
	case "http":
		return c.tryHTTP(ctx)
	case "unix":
		return dialUnix(ctx, c.address)
	case "file":
		if _, err := os.Stat(c.address); err != nil {
			return bare(err)
		}
		return nil
	default:
		return e.run(ctx, c.address, c.args)
	}
}

// tryHTTP takes a status from 200 to 399 for success, as the kubelet does, and
// follows no redirection.
func (c Check) tryHTTP(ctx context.Context) error {
	conn, err := dialTCP(ctx, c.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	headers := ""
	if c.user != "" {
		headers = "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(c.user)) + "\r\n"
	}
	x := exchange{c: conn}
	a, err := x.get(c.host, c.target, headers)
	if err != nil {
		return fmt.Errorf("no answer: %w", bare(err))
	}
	// Taken, so that the server does not see its answer refused.
	_, _ = x.body(a)
	if a.status >= 400 {
		return fmt.Errorf("status %d", a.status)
	}
	return nil
}

// dialTCP connects. localhost needs no /etc/hosts, which an image from scratch
// does not have.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	host, port, _ := net.SplitHostPort(address)
	hosts := []string{host}
	if host == "localhost" {
		hosts = []string{"127.0.0.1", "::1"}
	}
	var first error
	for _, host := range hosts {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		if err == nil {
			return conn, nil
		}
		if first == nil || unreachable(first) && !unreachable(err) {
			first = bare(err)
		}
	}
	return nil, first
}

// dialUnix connects to a socket of whichever type it is.
func dialUnix(ctx context.Context, path string) (err error) {
	for _, network := range [...]string{"unix", "unixpacket", "unixgram"} {
		var d net.Dialer
		var conn net.Conn
		if conn, err = d.DialContext(ctx, network, path); err == nil {
			_ = conn.Close()
			return nil
		}
		if !errors.Is(err, syscall.EPROTOTYPE) {
			break
		}
	}
	return bare(err)
}

// bare returns an error without the operation and the address that package net
// and package os put before it, which whoever reads it knows.
func bare(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}
