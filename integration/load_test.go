// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a crowd of clients may make of PID 1. It idles at 4 MB.
const (
	crowdMemory  = 48_000 // kB
	crowdThreads = 64
)

// TestProbesInACrowd: half a thousand clients that say nothing, a hundred that
// say it slowly, some that ask for everything and take none of it, and those
// that really want to know. How fast that goes is for "make bench".
func TestProbesInACrowd(t *testing.T) {
	h := host(t, map[string][]string{"10-a.yaml": {"run: [" + testprogPath + ", exit, '0']"}}, nil, testprogPath, "trap", "-on", "TERM=0")
	h.waitStatus("/health/ready", 200)
	before := h.descriptors()

	var crowd sync.WaitGroup
	over := make(chan struct{})
	client := func(act func(net.Conn)) {
		crowd.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				c, err := net.Dial("tcp", h.Addr)
				if err != nil {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				gone := make(chan struct{})
				go func() {
					defer close(gone)
					select {
					case <-over:
					case <-time.After(5 * time.Second): // as long as it was not sent away
					}
					c.Close()
				}()
				act(c)
				<-gone
			}
		})
	}
	wait := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for range 500 {
		client(wait)
	}
	for range 100 {
		client(func(c net.Conn) {
			for _, b := range []byte("GET /health/ready HTTP/1.1\r\nX: " + strings.Repeat("x", 1000)) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	for range 50 {
		client(func(c net.Conn) {
			// Pipelined, and never read.
			_, _ = io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 50))
		})
	}
	for _, text := range []string{"POST / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n", "GET /metrics HTTP/1.1\r\nX: ", "\x16\x03\x01"} {
		for range 5 {
			client(func(c net.Conn) {
				_, _ = io.WriteString(c, text)
				_, _ = c.Write(make([]byte, 1<<20))
			})
		}
	}

	require.Eventually(t, func() bool { return h.descriptors() > before+500 }, patience, 20*time.Millisecond, "the crowd to be there")
	var asked, again atomic.Int32
	var probes sync.WaitGroup
	for range 8 {
		probes.Go(func() {
			for range 50 {
				for _, path := range []string{"/health/startup", "/health/live", "/health/ready", "/status", "/metrics", "/"} {
					asked.Add(1)
					status, body := h.get(path)
					// As the kubelet does it: a client that gets no CPU for two
					// seconds is taken for one that says nothing.
					for try := 1; status == 0 && try < 3; try++ {
						again.Add(1)
						status, body = h.get(path)
					}
					assert.Equal(t, 200, status, "%s: %s", path, body)
				}
			}
		})
	}
	probes.Wait()
	t.Logf("%d probes, %d of them again; %d kB, %d threads, %d descriptors", asked.Load(), again.Load(), h.resident(), h.threads(), h.descriptors())
	assert.Less(t, h.resident(), crowdMemory, "kB")
	assert.Less(t, h.threads(), crowdThreads)

	close(over)
	crowd.Wait()
	require.Eventually(t, func() bool { return h.descriptors() <= before }, patience, 20*time.Millisecond, "connections are left open")
	assert.Empty(t, warnings(h.Stderr.String()))
}

// TestWrk is a client that others wrote: it wants nothing but speed.
func TestWrk(t *testing.T) {
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		t.Skip("wrk is not installed")
	}
	h := host(t, nil, nil, testprogPath, "trap", "-on", "TERM=0")
	h.waitStatus("/health/ready", 200)
	for _, path := range []string{"/health/ready", "/status", "/metrics", "/"} {
		out, err := exec.Command(wrk, "-t2", "-c50", "-d1s", "--timeout", "30s", "http://"+h.Addr+path).CombinedOutput()
		require.NoError(t, err, "%s", out)
		assert.Regexp(t, `[1-9]\d* requests in`, string(out), path)
		assert.NotContains(t, string(out), "Non-2xx", path)
	}
	assert.Less(t, h.resident(), crowdMemory, "kB")
	assert.Empty(t, warnings(h.Stderr.String()))
}

// warnings are the lines of a log that tell of something wrong.
func warnings(log string) (lines []string) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") || strings.Contains(line, "panic") {
			lines = append(lines, line)
		}
	}
	return lines
}
