// SPDX-License-Identifier: Apache-2.0

package await

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// roles are the programs that the test binary can pretend to be.
var roles = map[string]func() int{
	"ok": func() int { return 0 },
	"fail": func() int {
		fmt.Fprintln(os.Stderr, "first line")
		fmt.Fprintln(os.Stderr, "not yet:", os.Args[1])
		return 3
	},
	"hang": func() int {
		time.Sleep(patience)
		return 0
	},
}

func TestTCPAndUnix(t *testing.T) {
	t.Parallel()
	address := listen(t, func(net.Conn) {})
	assert.NoError(t, ask(t, address))
	assert.NoError(t, ask(t, "tcp://"+address))
	assert.ErrorContains(t, ask(t, "127.0.0.1:1"), "connection refused")

	socket := filepath.Join(t.TempDir(), "sock")
	assert.ErrorContains(t, ask(t, "unix://"+socket), "no such file")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer l.Close()
	assert.NoError(t, ask(t, "unix://"+socket))
}

func TestFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ready")
	require.ErrorContains(t, ask(t, "file://"+path), path+" does not exist")
	require.NoError(t, os.WriteFile(path, []byte("a=1\nready=yes\n"), 0o600))
	assert.NoError(t, ask(t, "file://"+path))
	assert.NoError(t, ask(t, "file:"+filepath.Dir(path)))
	assert.NoError(t, ask(t, "file://"+path+"#contains=ready=yes"))
	assert.ErrorContains(t, ask(t, "file://"+path+"#contains=ready%3Dno"), `does not contain "ready=no"`)
}

// A look that hangs (an NFS server that is gone) is not repeated.
func TestFileThatHangs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, unix.Mkfifo(path, 0o600))
	f := &file{path: path, contains: []byte("x")}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		require.ErrorIs(t, f.check(ctx), context.DeadlineExceeded) // opening a pipe without a writer
		cancel()
	}
	pipe, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = pipe.WriteString("x")
	require.NoError(t, err)
	require.NoError(t, pipe.Close())
	assert.NoError(t, f.check(t.Context()), "the first look has its answer")
}

// serveDNS answers every question with one address, or that there is no such
// name.
func serveDNS(t *testing.T, exists bool) (address string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	go func() {
		q := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(q)
			if err != nil {
				return
			}
			end := 12 // of the question: labels, a zero, type and class
			for end < n && q[end] != 0 {
				end += int(q[end]) + 1
			}
			end += 5
			answer := append([]byte{q[0], q[1], 0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0}, q[12:end]...)
			if exists && q[end-3] == 1 { // an A record
				answer[3], answer[7] = 0x80, 1
				answer = append(answer, 0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 1, 2, 3)
			}
			_, _ = conn.WriteTo(answer, from)
		}
	}()
	return conn.LocalAddr().String()
}

func TestDNS(t *testing.T) {
	t.Parallel()
	here, gone := serveDNS(t, true), serveDNS(t, false)
	assert.NoError(t, ask(t, "dns://localhost"))
	assert.NoError(t, ask(t, "dns:localhost"))
	assert.NoError(t, ask(t, "dns://"+here+"/db.example.?type=a#expect=10.1.2.3"))
	assert.ErrorContains(t, ask(t, "dns://"+here+"/db.example.?type=A#expect=10.9.9.9"), "10.9.9.9 is not among 10.1.2.3")
	assert.ErrorContains(t, ask(t, "dns://"+here+"/db.example.?type=A#count=2"), "1 of 2 records")
	err := ask(t, "dns://"+gone+"/db.example.?type=A")
	require.ErrorIs(t, err, ErrNotReady, "a name may come")
	assert.ErrorContains(t, err, "lookup db.example.: no such host")
}

// TestExec runs in a process of its own: a reaper collects every child, those of
// other tests too.
func TestExec(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	const alone = "AWAIT_TEST_ALONE"
	if os.Getenv(alone) == "" {
		cmd := exec.Command(self, "-test.run=^TestExec$", "-test.timeout=5m", "-test.v")
		cmd.Env = append(os.Environ(), alone+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: TestExec")
		return
	}
	var programs reaper.Reaper
	run := func(role, query string, try time.Duration) error {
		s, err := Parse("exec:"+self+query, []string{"AWAIT_TEST_ROLE=" + role}, Schemes(&programs))
		require.NoError(t, err)
		return Run(t.Context(), []Service{s}, Options{Once: true, TryTimeout: try}).Err()
	}
	assert.NoError(t, run("ok", "", patience))
	err = run("fail", "?arg=a+b&arg=c", patience)
	require.ErrorIs(t, err, ErrNotReady)
	assert.ErrorContains(t, err, "exit code 3: not yet: a b")
	start := time.Now()
	assert.ErrorContains(t, run("hang", "", 100*time.Millisecond), "no answer within 100ms")
	assert.Less(t, time.Since(start), patience, "it was killed")
	<-programs.Empty()

	gone := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.Link(self, gone))
	s, err := Parse("exec:"+gone, nil, Schemes(&programs))
	require.NoError(t, err)
	require.NoError(t, os.Remove(gone))
	assert.ErrorIs(t, Run(t.Context(), []Service{s}, Options{}).Err(), ErrPermanent)
}

func TestNames(t *testing.T) {
	t.Parallel()
	names := strings.Join(Names(Schemes(nil)), " ")
	assert.True(t, strings.HasPrefix(names, "tcp unix file dns exec"), names)
}
