// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A hosted is a cleanimg-init without a container around it, for tests whose
// clients are programs of the host: it listens on 127.0.0.1. It is not PID 1.
type hosted struct {
	Addr   string
	PID    int
	Dir    string // for files of the test
	Stderr *Output

	t    *testing.T
	done chan struct{}
	cmd  *exec.Cmd
}

// host starts it with step files NAME: LINES as hooks. It gets a TERM at the
// end of the test, if it has not ended before.
func host(t *testing.T, steps map[string][]string, env []string, command ...string) *hosted {
	t.Helper()
	dir := t.TempDir()
	hooks := filepath.Join(dir, "hooks.d")
	require.NoError(t, os.Mkdir(hooks, 0o755))
	for name, lines := range steps {
		require.NoError(t, os.WriteFile(filepath.Join(hooks, name), []byte(strings.Join(lines, "\n")+"\n"), 0o644))
	}
	h := &hosted{Addr: freeAddr(t), Dir: dir, Stderr: &Output{}, t: t, done: make(chan struct{})}
	h.cmd = exec.Command(Binary(t, "cleanimg-init"), command...)
	h.cmd.Env = append([]string{
		"PATH=/usr/bin:/bin", "CLEANIMG_INIT_HTTP_LISTEN=" + h.Addr, "CLEANIMG_INIT_HOOKS_DIR=" + hooks,
		"CLEANIMG_INIT_STOP_HOOKS_DIR=" + t.TempDir(), "CLEANIMG_INIT_TERMINATION_LOG=" + filepath.Join(dir, "message"),
	}, env...)
	h.cmd.Stderr = h.Stderr
	require.NoError(t, h.cmd.Start())
	h.PID = h.cmd.Process.Pid
	go func() {
		defer close(h.done)
		_ = h.cmd.Wait() // its error is the state
	}()
	t.Cleanup(func() {
		_ = h.cmd.Process.Signal(syscall.SIGTERM)
		h.wait()
		if t.Failed() {
			t.Logf("stderr:\n%s", tail(h.Stderr.String()))
		}
	})
	return h
}

// wait returns the exit code.
func (h *hosted) wait() int {
	h.t.Helper()
	select {
	case <-h.done:
	case <-time.After(patience):
		_ = h.cmd.Process.Kill()
		<-h.done
		h.t.Error("cleanimg-init did not end")
	}
	return h.cmd.ProcessState.ExitCode()
}

// get asks for a path; the status is 0 without an answer.
func (h *hosted) get(path string) (status int, body string) {
	status, body, err := getHere(h.Addr, path)
	if err != nil {
		return 0, err.Error()
	}
	return status, body
}

// waitStatus waits until a path is answered with a status.
func (h *hosted) waitStatus(path string, want int) {
	h.t.Helper()
	require.Eventually(h.t, func() bool { status, _ := h.get(path); return status == want }, patience, 10*time.Millisecond, "%s to be %d", path, want)
}

// resident is the most memory that it ever had, in kB.
func (h *hosted) resident() (kb int) {
	h.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.PID))
	require.NoError(h.t, err)
	_, rest, ok := strings.Cut(string(text), "VmHWM:")
	require.True(h.t, ok)
	_, err = fmt.Sscan(rest, &kb)
	require.NoError(h.t, err)
	return kb
}

// descriptors is how many files it has open.
func (h *hosted) descriptors() int {
	h.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", h.PID))
	require.NoError(h.t, err)
	return len(entries)
}

// threads is how many threads it has.
func (h *hosted) threads() int {
	h.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", h.PID))
	require.NoError(h.t, err)
	return len(entries)
}

// freeAddr is an address of this machine that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}
