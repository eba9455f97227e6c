// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseCheck(t *testing.T) {
	t.Parallel()
	check := func(c Check) Check {
		if c.Period == 0 {
			c.Period = 3 * time.Second
		}
		if c.Timeout == 0 {
			c.Timeout = time.Second
		}
		c.Success, c.Failure = max(c.Success, 1), max(c.Failure, 3)
		return c
	}
	tests := []struct {
		url, shown string
		want       Check
	}{
		{"tcp://127.0.0.1:8080", "tcp://127.0.0.1:8080", Check{Type: "tcp", address: "127.0.0.1:8080"}},
		{"tcp://[::1]:8080", "tcp://[::1]:8080", Check{Type: "tcp", address: "[::1]:8080"}},
		{"TCP://db:5432#failure=5", "tcp://db:5432", Check{Type: "tcp", address: "db:5432", Failure: 5}},
		{"http://127.0.0.1:8080/healthz", "http://127.0.0.1:8080/healthz", Check{Type: "http", address: "127.0.0.1:8080", host: "127.0.0.1:8080", target: "/healthz"}},
		{"http://localhost", "http://localhost/", Check{Type: "http", address: "localhost:80", host: "localhost", target: "/"}},
		{"http://u:p%40ss@[::1]:81/a%20b?key=x", "http://[::1]:81/a%20b", Check{Type: "http", address: "[::1]:81", host: "[::1]:81", target: "/a%20b?key=x", user: "u:p@ss"}},
		{"unix:///run/app.sock", "unix:///run/app.sock", Check{Type: "unix", address: "/run/app.sock"}},
		{"unix:@app", "unix:@app", Check{Type: "unix", address: "@app"}},
		{"file:///tmp/ready#period=500ms&timeout=2&success=2", "file:///tmp/ready", Check{Type: "file", address: "/tmp/ready", Period: 500 * time.Millisecond, Timeout: 2 * time.Second, Success: 2}},
		{"file:/tmp/a%23b", "file:///tmp/a#b", Check{Type: "file", address: "/tmp/a#b"}},
		{"exec:/bin/x", "exec:/bin/x", Check{Type: "exec", address: "/bin/x", Period: 10 * time.Second}},
		{"exec:///bin/x?arg=", "exec:/bin/x", Check{Type: "exec", address: "/bin/x", Period: 10 * time.Second, args: []string{""}}},
		{
			"exec:/usr/local/bin/await?arg=--once&arg=redis://127.0.0.1&arg=a+b%26c%2B%23#period=5s", "exec:/usr/local/bin/await",
			Check{Type: "exec", address: "/usr/local/bin/await", Period: 5 * time.Second, args: []string{"--once", "redis://127.0.0.1", "a b&c+#"}},
		},
	}
	for _, tt := range tests {
		got, err := ParseCheck(tt.url)
		require.NoError(t, err, tt.url)
		assert.Equal(t, check(tt.want), got, tt.url)
		assert.Equal(t, tt.shown, got.String())
	}
}

// The errors say what is accepted and hold nothing of a URL that may be secret;
// nor does what is shown of the value.
func TestParseCheckErrors(t *testing.T) {
	t.Parallel()
	const all = "want tcp://HOST:PORT, http://HOST[:PORT]/PATH, unix:///PATH, file:///PATH or exec:/PATH"
	tests := []struct{ url, want string }{
		{"8080", all},
		{"127.0.0.1:8080", "not a URL"},
		{"redis://:secret@127.0.0.1", all},
		{"https://u:secret@127.0.0.1/x", "exec:/usr/local/bin/await"},
		{"tcp://127.0.0.1", "want tcp://HOST:PORT"},
		{"tcp://u:secret@127.0.0.1:1", "want tcp://HOST:PORT"},
		{"tcp://127.0.0.1:99999", "want tcp://HOST:PORT"},
		{"tcp://:8080", "want tcp://HOST:PORT"},
		{"http:///x", "want http://HOST"},
		{"http://h:0/x", "want http://HOST"},
		{"http://u:secret@h:x/", "not a URL"},
		{"http://u:sec%ret@h/", "not a URL"},
		{"unix://run/app.sock", "want unix:///PATH"},
		{"unix:app.sock", "want unix:///PATH"},
		{"unix:///" + strings.Repeat("x", 107), "at most 107 bytes"},
		{"file://ready", "want file:///PATH"},
		{"exec:await", "want exec:/PATH"},
		{"exec:/bin/x?--token=secret", "what follows the program's path is arg=A&arg=B"},
		{"exec:/bin/x?arg=http://h/?a=b&token=secret", "& is written %26"},
		{"exec:/bin/x?arg=%zzsecret", "write %25"},
		{"exec:/bin/x?arg=%00", "not escaped"},
		{"exec:/bin/x?arg=http://h#header=secret", "a # within a URL is written %23"},
		{"file:///x#period=1ms", "period after the #: want a duration from 100ms to 1h"},
		{"file:///x#timeout=-1", "timeout after the #: want a duration from 10ms"},
		{"file:///x#success=0", "success after the #: want a number from 1 to 1000"},
		{"file:///x#failure=many", "failure after the #"},
	}
	for _, tt := range tests {
		_, err := ParseCheck(tt.url)
		if assert.ErrorContains(t, err, tt.want, tt.url) {
			assert.NotContains(t, err.Error(), "secret", tt.url)
		}
		assert.NotContains(t, HideCheck(tt.url), "secret", tt.url)
	}
	assert.Equal(t, "file:///x#period=1ms", HideCheck("file:///x#period=1ms"), "what is wrong is still seen")
	assert.Equal(t, "http://***@h:x/?***", HideCheck("http://u:secret@h:x/?a=b"))
}

func FuzzParseCheck(f *testing.F) {
	for _, seed := range []string{
		"tcp://127.0.0.1:80#period=5s&timeout=2s&success=1&failure=3", "http://u:p@[::1]:80/a?b#success=2", "unix:///a", "unix:@a", "file:///a%20b",
		"exec:/a?arg=b&arg=%26", "https://x", "http://\x00", "tcp://[::1%25eth0]:1", "http://h\r\nX: y/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_ = HideCheck(text)
		c, err := ParseCheck(text)
		if err != nil {
			return
		}
		if c.Period < 100*time.Millisecond || c.Timeout < 10*time.Millisecond || c.Success < 1 || c.Failure < 1 {
			t.Fatalf("%q: %+v", text, c)
		}
		// What goes into a request is one line.
		if strings.ContainsAny(c.host+c.target, "\r\n \x00") {
			t.Fatalf("%q: host %q, target %q", text, c.host, c.target)
		}
		if c.String() == "" || strings.Contains(c.address, "\x00") {
			t.Fatalf("%q: %+v", text, c)
		}
	})
}

// try runs a check once.
func tryOnce(t *testing.T, url string) error {
	t.Helper()
	c, err := ParseCheck(url)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return c.Try(ctx, nil)
}

func TestTryTCPUnixAndFile(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	assert.NoError(t, tryOnce(t, "tcp://127.0.0.1:"+port))
	assert.NoError(t, tryOnce(t, "tcp://localhost:"+port), "without a name server")
	l.Close()
	assert.EqualError(t, tryOnce(t, "tcp://127.0.0.1:"+port), "connection refused")

	dir := t.TempDir()
	file := filepath.Join(dir, "ready")
	assert.EqualError(t, tryOnce(t, "file://"+file), "no such file or directory")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	assert.NoError(t, tryOnce(t, "file://"+file))

	assert.EqualError(t, tryOnce(t, "unix://"+dir+"/none"), "no such file or directory")
	for _, network := range []string{"unix", "unixpacket", "unixgram"} {
		path := filepath.Join(dir, network)
		address := &net.UnixAddr{Name: path, Net: network}
		var socket interface{ Close() error }
		if network == "unixgram" {
			socket, err = net.ListenUnixgram(network, address)
		} else {
			var u *net.UnixListener
			u, err = net.ListenUnix(network, address)
			u.SetUnlinkOnClose(false)
			socket = u
		}
		require.NoError(t, err)
		assert.NoError(t, tryOnce(t, "unix://"+path))
		socket.Close()
		assert.EqualError(t, tryOnce(t, "unix://"+path), "connection refused", "the file is there, but nobody listens")
	}
}

func TestTryHTTP(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/broken", http.StatusFound)
		case "/broken":
			w.WriteHeader(503)
		case "/early":
			w.WriteHeader(103)
			w.WriteHeader(204)
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		case "/auth":
			if user, password, _ := r.BasicAuth(); user != "u" || password != "p@ss" || r.URL.RawQuery != "a=b" {
				w.WriteHeader(401)
			}
		}
	}))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	for path, want := range map[string]string{
		"/": "", "/moved": "", "/broken": "status 503", "/early": "", "/endless": "", "/auth": "status 401",
	} {
		err := tryOnce(t, server.URL+path)
		if want == "" {
			assert.NoError(t, err, path)
		} else {
			assert.EqualError(t, err, want, path)
		}
	}
	assert.NoError(t, tryOnce(t, "http://u:p%40ss@"+host+"/auth?a=b"))
}

func TestTryHTTPOfSomethingElse(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]string{
		"":                               "no answer: EOF",
		"SSH-2.0-OpenSSH_9.2\r\n\r\n":    "no answer: the answer is not HTTP/1.1",
		strings.Repeat("x", 20<<10):      "no answer: the answer is not HTTP/1.1",
		"HTTP/1.1 200 OK\r\n":            "no answer: EOF",
		"HTTP/1.0 200 OK\r\n\r\nno size": "",
		"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nless": "",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte(said))
			c.Close()
		}()
		err = tryOnce(t, "http://"+l.Addr().String()+"/")
		if want == "" {
			assert.NoError(t, err, "%.40q", said)
		} else {
			assert.EqualError(t, err, want, "%.40q", said)
		}
		l.Close()
	}
}
