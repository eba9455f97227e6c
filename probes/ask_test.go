// SPDX-License-Identifier: Apache-2.0

package probes_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/probes"
)

func portOf(t *testing.T, addr string) string {
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	return port
}

func TestAsk(t *testing.T) {
	addr := start(t, probes.Endpoints(running))
	port := portOf(t, addr)
	for _, to := range []string{addr, ":" + port, "0.0.0.0:" + port, "[::]:" + port, "*:" + port, "localhost:" + port} {
		status, body, err := probes.Ask(t.Context(), to, "/readyz", "4026532001")
		require.NoError(t, err, to)
		assert.Equal(t, 200, status)
		assert.Equal(t, `{"status":"ok","phase":"running","check":"none"}`+"\n", body)
	}
	status, _, err := probes.Ask(t.Context(), addr, "/x", "")
	require.NoError(t, err)
	assert.Equal(t, 404, status)
}

func TestAskIPv6Only(t *testing.T) {
	l, err := probes.Listen("[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	addr := serve(t, l, probes.Endpoints(running))
	status, _, err := probes.Ask(t.Context(), ":"+portOf(t, addr), "/readyz", "")
	require.NoError(t, err)
	assert.Equal(t, 200, status)
}

func TestAskTakesTheBeginningOfALongBody(t *testing.T) {
	addr := start(t, func(string) probes.Response {
		return probes.Response{Status: 200, Body: []byte(strings.Repeat("x", 1<<20))}
	})
	_, body, err := probes.Ask(t.Context(), addr, "/status", "")
	require.NoError(t, err)
	assert.InDelta(t, 10<<10, len(body), 500)
}

func TestAskTheWrongOne(t *testing.T) {
	ours := start(t, probes.Endpoints(running))
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	free, err := probes.Listen("127.0.0.1:0")
	require.NoError(t, err)
	free.Close()

	tests := []struct{ name, addr, want string }{
		{"a neighbour's", ours, "ask " + ours + ": the answer comes from another container of this pod: give each container a port of its own in CLEANIMG_INIT_HTTP_LISTEN"},
		{"another program", other.Listener.Addr().String(), "ask " + other.Listener.Addr().String() + ": the answer is not one of cleanimg-init: something else listens there"},
		{"a program that says nothing", script(t, ""), "no complete answer: EOF"},
		{"one that speaks something else", script(t, "SSH-2.0-OpenSSH\r\n\r\n"), "something else listens there"},
		{"one that speaks for ever", script(t, strings.Repeat("x", 1<<16)), "something else listens there"},
		{"half an answer", script(t, "HTTP/1.1 200 OK\r\nCleanimg-Init-Instance: 1\r\nContent-Length: 10\r\n\r\nabc"), "no complete answer: EOF"},
		{"nobody", free.Addr().String(), "connection refused: nothing listens there: is CLEANIMG_INIT_HTTP_LISTEN the same"},
		{"nowhere", "10101", "set it to :PORT, IP:PORT or off"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := probes.Ask(t.Context(), tt.addr, "/readyz", "1")
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// script is a server that reads some bytes of a request, says text, and hangs up.
func script(t *testing.T, text string) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, text)
			c.Close()
		}
	}()
	return l.Addr().String()
}

func TestAskEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // connects, and never answers
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, _, err = probes.Ask(ctx, l.Addr().String(), "/readyz", "")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorContains(t, err, "no answer in time")
	assert.Less(t, time.Since(begin), 2*time.Second)
}

func TestListenErrors(t *testing.T) {
	l, err := probes.Listen("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	taken := l.Addr().String()
	tests := []struct{ addr, want string }{
		{taken, `CLEANIMG_INIT_HTTP_LISTEN="` + taken + `": address already in use: the containers of a pod share their ports, so another container of this pod may have it: give each container a port of its own, or switch the probes off with CLEANIMG_INIT_HTTP_LISTEN=off`},
		{"192.0.2.1:10101", `CLEANIMG_INIT_HTTP_LISTEN="192.0.2.1:10101": cannot assign requested address: no interface here has that address: leave it out to listen on all, as in :10101`},
		{"10101", `CLEANIMG_INIT_HTTP_LISTEN="10101": not an address with a port: set it to :PORT, IP:PORT or off`},
		{":http", `CLEANIMG_INIT_HTTP_LISTEN=":http": the port is not a number from 1 to 65535: set it to :PORT, IP:PORT or off`},
		{":65536", `CLEANIMG_INIT_HTTP_LISTEN=":65536": the port is not a number from 1 to 65535: set it to :PORT, IP:PORT or off`},
		{":+1", `CLEANIMG_INIT_HTTP_LISTEN=":+1": the port is not a number from 1 to 65535: set it to :PORT, IP:PORT or off`},
		{"db:10101", `CLEANIMG_INIT_HTTP_LISTEN="db:10101": the host is not an IP address: set it to :PORT, IP:PORT or off`},
		{"tcp://10.0.0.1:80", `CLEANIMG_INIT_HTTP_LISTEN="tcp://10.0.0.1:80": not an address with a port: set it to :PORT, IP:PORT or off`},
	}
	for _, tt := range tests {
		t.Run(tt.addr, func(t *testing.T) {
			_, err := probes.Listen(tt.addr)
			assert.EqualError(t, err, tt.want)
		})
	}
	_, err = probes.Listen(taken)
	assert.ErrorIs(t, err, syscall.EADDRINUSE)
}

func TestListenOnAllAddresses(t *testing.T) {
	l, err := probes.Listen(":0")
	require.NoError(t, err)
	serve(t, l, probes.Endpoints(running))
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	got := send(t, "127.0.0.1:"+port, "GET /livez HTTP/1.1\r\n\r\n")
	assert.Contains(t, got, "200 OK")
}
