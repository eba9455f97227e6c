// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"bufio"
	"bytes"
	"net/http"
	"net/textproto"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

func TestReadRequest(t *testing.T) {
	const ok, more = 0, true
	tests := []struct {
		name, text string
		status     int
		path       string
		more       bool
	}{
		{"plain", "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", ok, "/livez", false},
		{"HTTP/1.0 without a host", "GET /livez HTTP/1.0\r\n\r\n", ok, "/livez", false},
		{"bare LF", "GET /livez HTTP/1.1\nHost: a\n\n", ok, "/livez", false},
		{"both", "GET /livez HTTP/1.1\nHost: a\r\n\n", ok, "/livez", false},
		{"query", "GET /livez?verbose=1?&x HTTP/1.1\r\n\r\n", ok, "/livez", false},
		{"absolute", "GET http://pod:10101/livez?x HTTP/1.1\r\n\r\n", ok, "/livez", false},
		{"absolute IPv6", "GET HTTP://[fe80::1]:80/livez HTTP/1.1\r\n\r\n", ok, "/livez", false},
		{"absolute without a path", "GET http://pod HTTP/1.1\r\n\r\n", ok, "", false},
		{"nothing is decoded", "GET /%6civez HTTP/1.1\r\n\r\n", ok, "/%6civez", false},
		{"nor cleaned", "GET //a/../livez HTTP/1.1\r\n\r\n", ok, "//a/../livez", false},
		{"the server as a whole", "GET * HTTP/1.1\r\n\r\n", ok, "*", false},
		{"no body", "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", ok, "/", false},
		{"a body", "GET / HTTP/1.1\r\nContent-length: 2\r\n\r\n{}", ok, "/", more},
		{"a body to come", "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", ok, "/", more},
		{"pipelined", "GET / HTTP/1.1\r\n\r\nGET /livez HTTP/1.1\r\n\r\n", ok, "/", more},
		{"another method", "POST /livez HTTP/1.1\r\n\r\n", 405, "", false},
		{"a proxy's method", "CONNECT pod:80 HTTP/1.1\r\n\r\n", 405, "", false},
		{"methods have a case", "get / HTTP/1.1\r\n\r\n", 405, "", false},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "", true},
		{"HTTP/1.2", "GET / HTTP/1.2\r\n\r\n", 505, "", false},
		{"HTTP/0.9", "GET /\r\n\r\n", 400, "", false},
		{"half a request", "GET / HTTP/1.1\r\n", 400, "", false},
		{"nothing", "", hungUp, "", false},
		{"an empty line first", "\r\nGET / HTTP/1.1\r\n\r\n", 400, "", false},
		{"two spaces", "GET  / HTTP/1.1\r\n\r\n", 400, "", false},
		{"a space too many", "GET / x HTTP/1.1\r\n\r\n", 400, "", false},
		{"a space at the end", "GET / HTTP/1.1 \r\n\r\n", 400, "", false},
		{"no such version", "GET / HTTP/1.x\r\n\r\n", 400, "", false},
		{"a control character", "GET /\x01 HTTP/1.1\r\n\r\n", 400, "", false},
		{"a relative target", "GET livez HTTP/1.1\r\n\r\n", 400, "", false},
		{"another scheme", "GET ftp://pod/livez HTTP/1.1\r\n\r\n", 400, "", false},
		{"no host", "GET http:///livez HTTP/1.1\r\n\r\n", 400, "", false},
		{"a user", "GET http://u@pod/livez HTTP/1.1\r\n\r\n", 400, "", false},
		{"half an address", "GET http://[::1/livez HTTP/1.1\r\n\r\n", 400, "", false},
		{"a header without a colon", "GET / HTTP/1.1\r\nHost\r\n\r\n", 400, "", false},
		{"a header without a name", "GET / HTTP/1.1\r\n: x\r\n\r\n", 400, "", false},
		{"a header with a space", "GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, "", false},
		{"a folded header", "GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n", 400, "", false},
		{"a header with a NUL", "GET / HTTP/1.1\r\nHost: x\x00\r\n\r\n", 400, "", false},
		{"TLS", "\x16\x03\x01\x02\x00", 400, "", false},
		{"the longest head", "GET / HTTP/1.1\r\nA: " + strings.Repeat("x", maxHead-23) + "\r\n\r\n", ok, "/", false},
		{"a longer one", "GET / HTTP/1.1\r\nA: " + strings.Repeat("x", maxHead-22) + "\r\n\r\n", 431, "", false},
		{"one line without end", "GET /" + strings.Repeat("x", 2*maxHead), 431, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var buf buffer
			req, status := readRequest(strings.NewReader(tt.text), buf[:])
			assert.Equal(t, tt.status, status)
			assert.Equal(t, tt.path, req.path)
			assert.Equal(t, tt.more, req.more)

			slow, status := readRequest(iotest.OneByteReader(strings.NewReader(tt.text)), buf[:])
			assert.Equal(t, tt.status, status, "byte by byte")
			assert.Equal(t, tt.path, slow.path, "byte by byte")
		})
	}
}

// FuzzRequest holds the parser against that of net/http: what is taken for a
// request for one of our paths is one to everybody else, too.
func FuzzRequest(f *testing.F) {
	f.Add([]byte("GET /livez?x HTTP/1.1\r\nHost: a\r\n\r\n"))
	f.Add([]byte("HEAD http://a:1/readyz HTTP/1.0\nContent-Length: 3\n\nabc"))
	f.Add([]byte("GET http://[::1]:80/startupz HTTP/1.1\r\nA:b\tc\r\nb: \xff\r\n\r\n"))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	f.Add([]byte("GET /%2e/livez HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n"))
	handler := Endpoints(func() *report.Report { return nil })
	f.Fuzz(func(t *testing.T, data []byte) {
		var buf buffer
		req, status := readRequest(bytes.NewReader(data), buf[:])
		slow, slowStatus := readRequest(iotest.HalfReader(bytes.NewReader(data)), buf[:])
		assert.Equal(t, status, slowStatus, "in pieces")
		assert.Equal(t, req.path, slow.path, "in pieces")
		if status != 0 {
			assert.Contains(t, []int{hungUp, 400, 405, 431, 505}, status)
			return
		}
		if handler(req.path).Status == 404 {
			return
		}
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(append(bytes.Clone(line), "\n\r\n"...))))
		require.NoError(t, err, "%q", line)
		assert.Equal(t, r.URL.Path, req.path)
		assert.Equal(t, r.Method == http.MethodHead, req.head)
		_, err = textproto.NewReader(bufio.NewReader(bytes.NewReader(rest))).ReadMIMEHeader()
		require.NoError(t, err, "%q", rest)
	})
}

// FuzzAnswer holds what Ask takes for an answer against net/http's reader.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nCleanimg-Init-Instance: 1\r\nContent-Length: 3\r\n\r\nok\n"))
	f.Add([]byte("HTTP/1.1 503 \nContent-Length: -1\n\n"))
	f.Add([]byte("HTTP/1.1 200 OK\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		end := headEnd(data, 0)
		if end == 0 {
			return
		}
		a, ok := parseAnswer(data[:end])
		if ok {
			assert.GreaterOrEqual(t, a.length, -1) // not said
			assert.GreaterOrEqual(t, a.status, 100)
			assert.Less(t, a.status, 1000)
		}
	})
}

func TestInstanceID(t *testing.T) {
	assert.Regexp(t, `^[0-9]+$`, InstanceID())
	assert.Equal(t, InstanceID(), InstanceID())
	assert.Empty(t, instanceID("/proc/self/ns/missing"))
	assert.Empty(t, instanceID("/proc/self/exe"))
}

func TestListenErrorOfALowPort(t *testing.T) {
	assert.EqualError(t, listenError(":80", 80, syscall.EACCES),
		`CLEANIMG_INIT_HTTP_LISTEN=":80": permission denied: a port below 1024 needs the capability NET_BIND_SERVICE: use a higher one, such as :10101`)
	assert.EqualError(t, listenError(":8080", 8080, syscall.EACCES), `CLEANIMG_INIT_HTTP_LISTEN=":8080": permission denied`)
	assert.EqualError(t, listenError("[::1]:8080", 8080, syscall.EAFNOSUPPORT),
		`CLEANIMG_INIT_HTTP_LISTEN="[::1]:8080": address family not supported by protocol: the kernel does not speak that family of addresses here: leave the address out, as in :8080`)
}
