// SPDX-License-Identifier: Apache-2.0

package probes_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/probes"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// running is the report of a container in which all is well.
func running() *report.Report {
	return &report.Report{Version: report.Version, Phase: report.Running, Started: true}
}

// start serves h on a free port until the test ends, and returns the address.
func start(t testing.TB, h probes.Handler) (addr string) {
	t.Helper()
	l, err := probes.Listen("127.0.0.1:0")
	require.NoError(t, err)
	return serve(t, l, h)
}

func serve(t testing.TB, l net.Listener, h probes.Handler) (addr string) {
	t.Helper()
	s := probes.New(l, h, nil)
	s.Instance = "4026532001"
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	t.Cleanup(func() {
		s.Close()
		assert.NoError(t, <-ended)
	})
	return l.Addr().String()
}

// kubelet is a client set up as the kubelet's.
func kubelet(t testing.TB) *http.Client {
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, Proxy: nil}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Timeout: time.Second, Transport: transport}
}

func probe(t testing.TB, client *http.Client, method, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	req.Header.Set("User-Agent", "kube-probe/1.33")
	req.Header.Set("Accept", "*/*")
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(body)
}

// send writes text to a new connection and returns all that comes back. It
// leaves its own side open, as a client does that waits for the answer.
func send(t testing.TB, addr, text string) (got string) {
	t.Helper()
	c := dial(t, addr)
	_, err := io.WriteString(c, text)
	require.NoError(t, err)
	b, err := io.ReadAll(c)
	require.NoError(t, err, "after %q", b)
	return string(b)
}

func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	return c
}

func TestKubeletProbes(t *testing.T) {
	var now atomic.Pointer[report.Report]
	addr := start(t, probes.Endpoints(now.Load))
	client := kubelet(t)

	for _, phase := range []struct {
		name                 string
		report               *report.Report
		startup, live, ready int
	}{
		{"hooks", &report.Report{Phase: report.Hooks}, 503, 200, 503},
		{"running", running(), 200, 200, 200},
		{"stopping", &report.Report{Phase: report.Stopping, Started: true}, 200, 200, 503},
	} {
		now.Store(phase.report)
		for path, want := range map[string]int{"/health/startup": phase.startup, "/health/live": phase.live, "/health/ready": phase.ready} {
			resp, body := probe(t, client, http.MethodGet, "http://"+addr+path)
			assert.Equal(t, want, resp.StatusCode, "%s %s: %s", phase.name, path, body)
		}
	}
}

func TestAnswer(t *testing.T) {
	const body = `{"status":"ok","phase":"running","check":"none"}` + "\n"
	addr := start(t, probes.Endpoints(running))
	want := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 49\r\nConnection: close\r\nCache-Control: no-store\r\n" +
		"X-Content-Type-Options: nosniff\r\nCleanimg-Init-Instance: 4026532001\r\n\r\n"

	assert.Equal(t, want+body, send(t, addr, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"))
	assert.Equal(t, want+body, send(t, addr, "GET /livez HTTP/1.0\n\n"))
	assert.Equal(t, want, send(t, addr, "HEAD /livez HTTP/1.1\r\nHost: a\r\n\r\n"))

	resp, got := probe(t, kubelet(t), http.MethodHead, "http://"+addr+"/readyz")
	assert.Empty(t, got)
	assert.Equal(t, int64(len(body)), resp.ContentLength)
	assert.True(t, resp.Close)
}

func TestStatusLines(t *testing.T) {
	addr := start(t, probes.Endpoints(running))
	tests := []struct{ name, text, want string }{
		{"unknown path", "GET /x HTTP/1.1\r\n\r\n", "404 Not Found"},
		{"no redirect", "GET //livez HTTP/1.1\r\n\r\n", "404 Not Found"},
		{"another method", "DELETE /livez HTTP/1.1\r\n\r\n", "405 Method Not Allowed"},
		{"garbage", "\x00\x01\x02", "400 Bad Request"},
		{"words", "hello\r\n\r\n", "400 Bad Request"},
		{"huge header", "GET / HTTP/1.1\r\nCookie: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", "431 Request Header Fields Too Large"},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\x00", 100), "505 HTTP Version Not Supported"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := send(t, addr, tt.text)
			assert.Truef(t, strings.HasPrefix(got, "HTTP/1.1 "+tt.want+"\r\n"), "%q", got)
			assert.Contains(t, got, `{"status":"error","reason":"`)
		})
	}
}

func TestPipelinedRequestsGetOneAnswer(t *testing.T) {
	addr := start(t, probes.Endpoints(running))
	got := send(t, addr, strings.Repeat("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", 3))
	assert.Equal(t, 1, strings.Count(got, "HTTP/1.1 200 OK"))
}

func TestHTTPSClientIsTold(t *testing.T) {
	addr := start(t, probes.Endpoints(running))
	_, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) // there is nothing to verify
	var header tls.RecordHeaderError
	require.ErrorAs(t, err, &header)
	assert.True(t, strings.HasPrefix("HTTP/1.1 400", string(header.RecordHeader[:])))
}

// The answer must be readable although the client is still sending and we
// don't take all of it.
func TestLargeBodyGetsItsAnswer(t *testing.T) {
	addr := start(t, probes.Endpoints(running))

	t.Run("net/http", func(t *testing.T) {
		client := kubelet(t)
		for range 20 {
			resp, err := client.Post("http://"+addr+"/livez", "text/plain", bytes.NewReader(make([]byte, 1<<20)))
			require.NoError(t, err)
			resp.Body.Close()
			assert.Equal(t, 405, resp.StatusCode)
			assert.Equal(t, "GET, HEAD", resp.Header.Get("Allow"))
		}
	})
	for name, header := range map[string]string{"length": "Content-Length: 1048576", "chunked": "Transfer-Encoding: chunked"} {
		t.Run("socket, "+name, func(t *testing.T) {
			c := dial(t, addr)
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				_, _ = io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: a\r\n"+header+"\r\n\r\n")
				_, _ = c.Write(make([]byte, 1<<20)) // ends when the other side goes
			}()
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			require.NoError(t, err)
			resp.Body.Close()
			assert.Equal(t, 200, resp.StatusCode)
			c.Close()
			<-sent
		})
	}
}

// A client that sends a body and never reads or hangs up is waited for, but
// neither for long nor busily.
func TestLingeringEnds(t *testing.T) {
	addr := start(t, probes.Endpoints(running))
	c := dial(t, addr)
	text := append([]byte("POST / HTTP/1.1\r\n\r\n"), make([]byte, 16<<20)...) // takes a second under -race
	before, begin := cpuTime(t), time.Now()
	go func() { _, _ = c.Write(text) }()

	got, err := io.ReadAll(c)
	if err != nil {
		require.ErrorIs(t, err, syscall.ECONNRESET)
	}
	assert.Contains(t, string(got), "405 Method Not Allowed")
	require.Eventually(t, func() bool {
		_, err := c.Write([]byte("x"))
		return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
	}, 5*time.Second, 50*time.Millisecond)
	assert.Less(t, time.Since(begin), 3*time.Second)
	assert.Less(t, cpuTime(t)-before, time.Second, "processor time")
}

func cpuTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestSlowRequestsEnd(t *testing.T) {
	addr := start(t, probes.Endpoints(running))
	tests := []struct{ name, text, want string }{
		{"silent", "", ""},
		{"half a line", "GET /li", "HTTP/1.1 408 Request Timeout"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			got := send(t, addr, tt.text)
			line, _, _ := strings.Cut(got, "\r\n")
			assert.Equal(t, tt.want, line)
			assert.InDelta(t, 2, time.Since(begin).Seconds(), 1.9)
		})
	}
	t.Run("a byte now and then", func(t *testing.T) {
		t.Parallel()
		c := dial(t, addr)
		begin := time.Now()
		require.Eventually(t, func() bool {
			_, err := c.Write([]byte("G"))
			return err != nil
		}, 6*time.Second, 100*time.Millisecond)
		assert.Less(t, time.Since(begin), 5*time.Second)
	})
}

func TestHalfClosedClientIsAnswered(t *testing.T) {
	addr := start(t, probes.Endpoints(running))
	c := dial(t, addr)
	_, err := io.WriteString(c, "GET /livez HTTP/1.1\r\n\r\n")
	require.NoError(t, err)
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	assert.Contains(t, string(got), "200 OK")
}

func TestManySlowClientsDoNotKeepAProbeOut(t *testing.T) {
	addr := start(t, probes.Endpoints(running))
	for i := range 1100 {
		c := dial(t, addr)
		if i%2 == 0 {
			_, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nX: ")
			require.NoError(t, err)
		}
	}
	client := kubelet(t)
	for range 20 {
		resp, _ := probe(t, client, http.MethodGet, "http://"+addr+"/livez")
		assert.Equal(t, 200, resp.StatusCode)
	}
}

func TestManyProbesAtOnce(t *testing.T) {
	addr := start(t, probes.Endpoints(running))
	client := kubelet(t)
	client.Timeout = 10 * time.Second
	var wg sync.WaitGroup
	var good atomic.Int32
	for range 200 {
		wg.Go(func() {
			for range 10 {
				resp, err := client.Get("http://" + addr + "/readyz")
				if assert.NoError(t, err) {
					resp.Body.Close()
					if resp.StatusCode == 200 {
						good.Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	assert.Equal(t, int32(2000), good.Load())
}

func TestHandlerThatPanics(t *testing.T) {
	var log bytes.Buffer
	l, err := probes.Listen("127.0.0.1:0")
	require.NoError(t, err)
	s := probes.New(l, func(string) probes.Response { panic("a bug") }, slog.New(slog.NewTextHandler(&log, nil)))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	for range 2 {
		assert.Contains(t, send(t, l.Addr().String(), "GET / HTTP/1.1\r\n\r\n"), "HTTP/1.1 500 Internal Server Error")
	}
	s.Close()
	require.NoError(t, <-ended)
	assert.Contains(t, log.String(), "a bug")
}

func TestOddResponses(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	addr := start(t, func(path string) probes.Response {
		if path == "/large" {
			return probes.Response{Status: 200, ContentType: "text/plain; version=0.0.4", Body: []byte(large)}
		}
		return probes.Response{Status: 299}
	})
	client := kubelet(t)
	resp, body := probe(t, client, http.MethodGet, "http://"+addr+"/large")
	assert.Equal(t, large, body)
	assert.Equal(t, "text/plain; version=0.0.4", resp.Header.Get("Content-Type"))
	resp, body = probe(t, client, http.MethodGet, "http://"+addr+"/")
	assert.Equal(t, 299, resp.StatusCode)
	assert.Empty(t, body)
}

// The page and the metrics are answered as strictly as the probes.
func TestHostileRequestsForLargeAnswers(t *testing.T) {
	addr := start(t, probes.WithMetrics(probes.Endpoints(serving), serving, two))
	for _, path := range []string{"/", "/metrics", "/status"} {
		resp, body := probe(t, kubelet(t), http.MethodGet, "http://"+addr+path+"?refresh=1")
		require.Equal(t, 200, resp.StatusCode)
		length := strconv.Itoa(len(body))
		for name, tt := range map[string]struct{ text, want string }{
			"HEAD":        {"HEAD " + path + " HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n"},
			"POST":        {"POST " + path + " HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 405 "},
			"TRACE":       {"TRACE " + path + " HTTP/1.1\r\nCookie: x\r\n\r\n", "HTTP/1.1 405 "},
			"huge header": {"GET " + path + " HTTP/1.1\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n\r\n", "HTTP/1.1 431 "},
			"pipelined":   {strings.Repeat("GET "+path+" HTTP/1.1\r\n\r\n", 20), "HTTP/1.1 200 OK\r\n"},
			"encoded":     {"GET /%2e%2e" + path + " HTTP/1.1\r\n\r\n", "HTTP/1.1 404 "},
			"a body":      {"GET " + path + " HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", "HTTP/1.1 200 OK\r\n"},
		} {
			got := send(t, addr, tt.text)
			assert.Truef(t, strings.HasPrefix(got, tt.want), "%s %s: %.60q", name, path, got)
			assert.Equal(t, 1, strings.Count(got, "\r\nContent-Length: "), "%s %s: answers", name, path)
			if name == "HEAD" && path == "/" {
				assert.Contains(t, got, "\r\nContent-Length: "+length+"\r\n")
				assert.True(t, strings.HasSuffix(got, "\r\n\r\n"), "a body")
			}
		}
	}
}

// A client that asks for more than the kernel takes, and never reads, is given
// up after a while.
func TestAnswersThatNobodyReads(t *testing.T) {
	t.Parallel()
	large := make([]byte, 16<<20)
	left := make(chan struct{}, 10)
	l, err := probes.Listen("127.0.0.1:0")
	require.NoError(t, err)
	addr := serve(t, &watched{l, left}, func(string) probes.Response { return probes.Response{Status: 200, Body: large} })
	const clients = 10
	for range clients {
		c := dial(t, addr)
		_, err := io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
		require.NoError(t, err)
	}
	for range clients {
		select {
		case <-left:
		case <-time.After(time.Minute):
			require.FailNow(t, "a connection is kept for one that does not read")
		}
	}
}

// watched tells of connections that were closed.
type watched struct {
	net.Listener
	left chan<- struct{}
}

func (w *watched) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{Conn: c, left: w.left}, nil
}

type watchedConn struct {
	net.Conn
	left chan<- struct{}
	once sync.Once
}

func (c *watchedConn) Close() error {
	c.once.Do(func() { c.left <- struct{}{} })
	return c.Conn.Close()
}

func TestClose(t *testing.T) {
	l, err := probes.Listen("127.0.0.1:0")
	require.NoError(t, err)
	s := probes.New(l, probes.Endpoints(running), nil)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	silent := dial(t, l.Addr().String())
	_ = send(t, l.Addr().String(), "GET /livez HTTP/1.1\r\n\r\n") // now silent has been accepted

	begin := time.Now()
	s.Close()
	s.Close()
	require.NoError(t, <-ended)
	assert.Less(t, time.Since(begin), time.Second)
	_, err = silent.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = net.Dial("tcp", l.Addr().String())
	assert.ErrorIs(t, err, syscall.ECONNREFUSED)
}

func TestCloseBeforeServe(t *testing.T) {
	l, err := probes.Listen("127.0.0.1:0")
	require.NoError(t, err)
	s := probes.New(l, probes.Endpoints(running), nil)
	s.Close()
	assert.NoError(t, s.Serve())
}

func TestListenerClosedByOthers(t *testing.T) {
	l, err := probes.Listen("127.0.0.1:0")
	require.NoError(t, err)
	s := probes.New(l, probes.Endpoints(running), nil)
	l.Close()
	assert.ErrorIs(t, s.Serve(), net.ErrClosed)
}

// failing is a listener that runs out of descriptors for a while.
type failing struct {
	net.Listener
	left atomic.Int32
}

func (f *failing) Accept() (net.Conn, error) {
	if f.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return f.Listener.Accept()
}

func TestAcceptingGoesOnAfterErrors(t *testing.T) {
	l, err := probes.Listen("127.0.0.1:0")
	require.NoError(t, err)
	f := &failing{Listener: l}
	f.left.Store(5)
	addr := serve(t, f, probes.Endpoints(running))
	resp, _ := probe(t, kubelet(t), http.MethodGet, "http://"+addr+"/livez")
	assert.Equal(t, 200, resp.StatusCode)
}

// Idle clients use up our descriptors: those that are left are for the hooks,
// and a probe still gets in.
func TestFewDescriptors(t *testing.T) {
	for name, hold := range map[string]string{"a low limit": "0", "all but a few in use": "45"} {
		t.Run(name, func(t *testing.T) {
			exe, err := os.Executable()
			require.NoError(t, err)
			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Env = append(os.Environ(), "TEST_ROLE=server", "TEST_ARG="+hold)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			})
			line, err := bufio.NewReader(out).ReadString('\n')
			require.NoError(t, err)
			addr := strings.TrimSpace(line)

			client := kubelet(t)
			for range 300 {
				dial(t, addr)
			}
			for range 5 {
				resp, _ := probe(t, client, http.MethodGet, "http://"+addr+"/livez")
				assert.Equal(t, 200, resp.StatusCode)
			}
		})
	}
}

// TestMain is a server with 64 descriptors, of which $TEST_ARG are in use,
// when $TEST_ROLE says so, and the tests otherwise.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_ROLE") != "server" {
		os.Exit(m.Run())
	}
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	check(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: 64}))
	l, err := probes.Listen("127.0.0.1:0")
	check(err)
	hold, err := strconv.Atoi(os.Getenv("TEST_ARG"))
	check(err)
	for range hold {
		_, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		check(err)
	}
	s := probes.New(l, probes.Endpoints(running), nil)
	fmt.Println(l.Addr())
	check(s.Serve())
}

func TestCloseCutsABackoffShort(t *testing.T) {
	l, err := probes.Listen("127.0.0.1:0")
	require.NoError(t, err)
	f := &failing{Listener: l}
	f.left.Store(1 << 20)
	s := probes.New(f, probes.Endpoints(running), nil)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	require.Eventually(t, func() bool { return f.left.Load() <= 1<<20-9 }, 10*time.Second, 10*time.Millisecond) // waiting for 1 s now
	begin := time.Now()
	s.Close()
	require.NoError(t, <-ended)
	assert.Less(t, time.Since(begin), 500*time.Millisecond)
}

func TestNothingIsLeftBehind(t *testing.T) {
	addr := start(t, probes.Endpoints(running))
	before := runtime.NumGoroutine() // Serve's may not have started, but is counted
	for range 50 {
		_ = send(t, addr, "GET /livez HTTP/1.1\r\n\r\n")
	}
	deadline := time.Now().Add(3 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond) // Eventually has goroutines of its own
	}
	assert.LessOrEqual(t, runtime.NumGoroutine(), before, "goroutines while idle")
}

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	addr := start(t, probes.Endpoints(running))
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"get", nil, "200"},
		{"head", []string{"--head"}, "200"},
		{"post", []string{"--data", "x=y"}, "405"},
		{"a large post, which asks first", []string{"--data-binary", "@" + curl}, "405"},
		{"HTTP/1.0", []string{"--http1.0"}, "200"},
		{"HTTP/2 upgrade", []string{"--http2"}, "200"},
		{"proxied", []string{"--proxy", "http://" + addr}, "200"},
		{"two of them", []string{"http://" + addr + "/readyz", "-o", "/dev/null"}, "200200"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"-sS", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}", "http://" + addr + "/livez"}, tt.args...)
			out, err := exec.CommandContext(t.Context(), curl, args...).CombinedOutput()
			require.NoError(t, err, "%s", out)
			assert.Equal(t, tt.want, string(out))
		})
	}
}

func BenchmarkServe(b *testing.B) {
	addr := start(b, probes.Endpoints(running))
	b.ReportAllocs()
	for b.Loop() {
		_ = send(b, addr, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
	}
}
