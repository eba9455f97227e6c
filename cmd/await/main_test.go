// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// patience bounds every wait for something that should happen soon.
const patience = time.Minute

// roleVariable makes the test binary another program.
const roleVariable = "TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "await":
		os.Unsetenv(roleVariable)
		main()
	case "show": // what a command sees of itself
		in := make([]byte, 100)
		n, _ := os.Stdin.Read(in)
		fmt.Printf("pid %d args %q stdin %q\n", os.Getpid(), os.Args[1:], in[:n])
		os.Exit(42)
	}
	os.Exit(m.Run())
}

type result struct {
	code           int
	stdout, stderr string
}

// output may be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start starts the tool as a process of its own. The first of args may be
// another name for it.
func start(t *testing.T, env []string, args ...string) (*exec.Cmd, *output, *output) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	var stdout, stderr output
	cmd := exec.Command(self)
	cmd.Args = args
	cmd.Env = append(env, roleVariable+"=await")
	cmd.Stdin = strings.NewReader("typed")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, &stdout, &stderr
}

func finish(cmd *exec.Cmd, stdout, stderr *output) result {
	_ = cmd.Wait() // its error is the code
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	code := status.ExitStatus()
	if status.Signaled() {
		code = 128 + int(status.Signal())
	}
	return result{code, stdout.String(), stderr.String()}
}

func run(t *testing.T, env []string, args ...string) result {
	t.Helper()
	cmd, stdout, stderr := start(t, env, append([]string{"await"}, args...)...)
	return finish(cmd, stdout, stderr)
}

// listen accepts connections, and closes them.
func listen(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	return l.Addr().String()
}

func TestAwait(t *testing.T) {
	t.Parallel()
	open := listen(t)
	const closed = "127.0.0.1:1"
	tests := []struct {
		name   string
		env    []string
		args   []string
		code   int
		stderr string
	}{
		{"ready", nil, []string{"--service", open, "--service=tcp://" + open, open}, 0, "tcp://" + open + "  ready  1"},
		{"variable", []string{"AWAIT_SERVICE=" + open + " file:///"}, nil, 0, "file:///"},
		{"timeout", nil, []string{"--service", closed, open, "--timeout", "300ms"}, 124, "1 of 2 services not ready after"},
		{"timeout by variable", []string{"AWAIT_TIMEOUT=300ms"}, []string{closed}, 124, "connection refused"},
		{"once", nil, []string{"--once", closed}, 124, "1 attempt)"},
		{"any", nil, []string{"--any", closed, open}, 0, "not ready"},
		{"invert", nil, []string{"--invert", closed}, 0, "service is gone"},
		{"stable", nil, []string{"--stable", "2", open}, 0, "ready  2 "},
		{"nothing", nil, nil, 125, "nothing to wait for"},
		{"all mistakes", nil, []string{"--stable", "0", "--max-interval", "0", "ftp://x", "tcp://y"}, 125, "--max-interval"},
		{"bad timeout", []string{"AWAIT_TIMEOUT=soon"}, []string{open}, 125, "AWAIT_TIMEOUT"},
		{"bad URL", nil, []string{"redis://:hunter22#@cache"}, 125, "%23"},
		{"a service of that name", []string{"AWAIT_PORT=tcp://10.0.0.1:80", "AWAIT_SERVICE_HOST=10.0.0.1"}, []string{open}, 0, "ready"},
		{"command that is not there", nil, []string{open, "--", "/nowhere/app"}, 127, "not found: /nowhere/app"},
		{"command that can't run", nil, []string{open, "--", "/etc/passwd"}, 126, "not executable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := run(t, tt.env, tt.args...)
			assert.Equal(t, tt.code, r.code, "%s", r.stderr)
			assert.Contains(t, r.stderr, tt.stderr)
			assert.NotContains(t, r.stderr, "hunter22")
			assert.Empty(t, r.stdout)
		})
	}
}

func TestAwaitReportsAllMistakes(t *testing.T) {
	t.Parallel()
	r := run(t, nil, "--stable", "0", "ftp://x", "tcp://y", "--", "/nowhere")
	for _, want := range []string{"--stable 0", `unknown scheme "ftp"`, "the port is missing"} {
		assert.Contains(t, r.stderr, want)
	}
}

func TestCheckDeps(t *testing.T) {
	t.Parallel()
	cmd, stdout, stderr := start(t, nil, "/usr/local/bin/check-deps", "127.0.0.1:1", listen(t))
	r := finish(cmd, stdout, stderr)
	assert.Equal(t, 124, r.code)
	assert.Contains(t, r.stderr, "connection refused, 1 attempt")
}

func TestJSON(t *testing.T) {
	t.Parallel()
	open := listen(t)
	r := run(t, nil, "--json", "--once", open, "127.0.0.1:1")
	assert.Equal(t, 124, r.code)
	var rep struct {
		Ready    bool
		Services []struct {
			Service, State, LastError string
			Attempts                  int
		}
	}
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &rep), "%s", r.stdout)
	require.Len(t, rep.Services, 2)
	assert.Equal(t, "ready", rep.Services[0].State)
	assert.Equal(t, "not ready", rep.Services[1].State)
	assert.Contains(t, rep.Services[1].LastError, "connection refused")

	r = run(t, []string{"AWAIT_LOG_FORMAT=json"}, open)
	for line := range strings.Lines(r.stderr) {
		assert.True(t, json.Valid([]byte(line)), "%s", line)
	}
}

// The command takes our place: pid, standard input and exit code are its own.
func TestCommand(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	program := filepath.Join(t.TempDir(), "app")
	require.NoError(t, os.Symlink(self, program))
	open := listen(t)
	// The variable that makes it the tool is taken away by then; this one is not.
	cmd, stdout, stderr := start(t, []string{"PATH=" + filepath.Dir(program)}, "await", open, "--", "/usr/bin/env", roleVariable+"=show", "app", "--timeout", "a b", "")
	r := finish(cmd, stdout, stderr)
	assert.Equal(t, 42, r.code, "%s", r.stderr)
	assert.Equal(t, fmt.Sprintf("pid %d args [\"--timeout\" \"a b\" \"\"] stdin \"typed\"\n", cmd.Process.Pid), r.stdout)
}

// Whatever a service does not answer, TERM is not kept waiting by it.
func TestTermEndsAtOnce(t *testing.T) {
	t.Parallel()
	hole := listenWithoutAnswer(t)
	args := []string{"await", "127.0.0.1:1", "file:///nowhere", "exec:/bin/sleep?arg=1000", "mongodb://" + hole + "/?tls=true"}
	for _, scheme := range []string{"postgres", "mysql", "redis", "rediss", "kafka", "kafkas", "amqp", "amqps", "nats", "mongodb", "http", "https", "h2c", "grpc", "grpcs"} {
		args = append(args, scheme+"://"+hole)
	}
	cmd, stdout, stderr := start(t, nil, append(args, "--try-timeout", "1h", "--timeout", "0", "--heartbeat", "500ms", "--", "/bin/true")...)
	cleanup := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer cleanup.Stop()
	waitFor(t, func() bool { return strings.Contains(stderr.String(), "still waiting") })
	require.NoError(t, cmd.Process.Signal(unix.SIGTERM))
	r := finish(cmd, stdout, stderr)
	assert.Equal(t, 143, r.code, "%s", r.stderr)
	assert.Contains(t, r.stderr, "SIGTERM")
}

// listenWithoutAnswer accepts in the kernel only.
func listenWithoutAnswer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), "it does not come")
	}
}

// Everybody may look at the list of processes.
func TestArgumentsHideSecrets(t *testing.T) {
	t.Parallel()
	hole := listenWithoutAnswer(t)
	cmd, stdout, stderr := start(t, []string{"AWAIT_SERVICE=redis://:hunter23@" + hole}, "await", "--service=redis://app:hunter22@"+hole,
		"nats://hunter24@"+hole, "--log-level=debug", "--try-timeout", "100ms", "--", "/bin/echo", "http://u:p@x")
	var line string
	waitFor(t, func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		line = string(b)
		return strings.Contains(line, "xxx")
	})
	assert.NotContains(t, line, "hunter")
	assert.Contains(t, line, "redis://xxxxxxxxxxxx@"+hole)
	assert.Contains(t, line, "http://u:p@x", "the command's arguments are its own")
	waitFor(t, func() bool { return strings.Contains(stderr.String(), "no answer within") })
	require.NoError(t, cmd.Process.Signal(unix.SIGTERM))
	r := finish(cmd, stdout, stderr)
	assert.NotContains(t, r.stderr+r.stdout, "hunter")
	assert.Contains(t, r.stderr, "redis://"+hole)
}

func TestHint(t *testing.T) {
	t.Parallel()
	r := run(t, nil, "--once", "127.0.0.1:5432", "redis://127.0.0.1:1", "--timeout", "100ms")
	assert.Contains(t, r.stderr, "postgres://127.0.0.1:5432")
	assert.NotContains(t, r.stderr, "redis://127.0.0.1:6379")
}

func TestHelpNamesEveryScheme(t *testing.T) {
	t.Parallel()
	r := run(t, nil, "--help")
	assert.Equal(t, 0, r.code)
	for _, want := range []string{"tcp://", "unix://", "https://", "h2c://", "grpcs://", "postgres://", "mysql://", "mariadb://", "rediss://", "kafkas://", "amqps://", "nats://", "mongodb+srv://", "dns://", "file://", "exec:/"} {
		assert.Contains(t, r.stdout, want)
	}
	for line := range strings.Lines(about + "\n" + notes) {
		assert.LessOrEqual(t, len(line), 100, "%s", line)
	}
}
