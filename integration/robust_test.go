// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// brokenPipe is a pipe whose reader is gone.
func brokenPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, r.Close())
	t.Cleanup(func() { w.Close() })
	return w
}

// fullPipe is a pipe that nobody reads, filled to the last byte.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	var fds [2]int
	require.NoError(t, syscall.Pipe2(fds[:], syscall.O_CLOEXEC))
	require.NoError(t, syscall.SetNonblock(fds[1], true))
	for size := 65536; size > 0; size /= 2 {
		for {
			if _, err := syscall.Write(fds[1], make([]byte, size)); errors.Is(err, syscall.EAGAIN) {
				break
			}
		}
	}
	require.NoError(t, syscall.SetNonblock(fds[1], false)) // a blocking one, as engines make them
	t.Cleanup(func() { syscall.Close(fds[0]) })
	w := os.NewFile(uintptr(fds[1]), "full pipe")
	t.Cleanup(func() { w.Close() })
	return w
}

// TestStderrIsNoDanger: PID 1 lives when its log goes nowhere, and signals,
// reaping, probes and the exit go on.
func TestStderrIsNoDanger(t *testing.T) {
	t.Parallel()
	null, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { null.Close() })
	for name, stderr := range map[string]*os.File{"broken": brokenPipe(t), "stalled": fullPipe(t), "full disk": null} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{
				Stderr: stderr,
				Env:    env("CLEANIMG_INIT_LOG_LEVEL=debug", "CLEANIMG_INIT_NOT_A_SETTING=1", "CLEANIMG_INIT_KILL_GRACE=1s"),
				Args:   do("storm", "200", ";", "touch", "/tmp/stormed", ";", "daemon", "trap", "-quiet", ";", "trap", "-on", "TERM=9"),
				Files:  []File{Hook("10-a", ran("a")), Step("20-b.yaml", runs("exit", "1"), "onFailure: continue", "retries: 2", "backoff: 1ms"), StopHook("10-stop", ran("stop"))},
			})
			in.WaitStdout("ready")
			in.WaitStatus("/health/ready", 200)
			in.eventually("all orphans to be reaped", func() bool { return in.Zombies() == 0 })
			for range 200 { // more log lines than any buffer holds
				in.Signal(syscall.SIGUSR1)
				time.Sleep(time.Millisecond)
			}
			in.WaitStdout("got USR1")
			begin := time.Now()
			in.Signal(syscall.SIGTERM)
			assert.Equal(t, 9, in.Wait())
			assert.Less(t, time.Since(begin), soon)
			assert.Equal(t, []string{"a", "stop"}, order(in))
		})
	}
}

// TestStdoutIsTheCommandsAffair: a broken or stalled stdout reaches only who
// writes to it.
func TestStdoutIsTheCommandsAffair(t *testing.T) {
	t.Parallel()
	for name, stdout := range map[string]*os.File{"broken": brokenPipe(t), "stalled": fullPipe(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{
				Stdout: stdout, Args: do("bg", "print", "into the void", ";", "trap", "-quiet", "-ready", "/tmp/ready", "-on", "TERM=9"),
				Env: env("CLEANIMG_INIT_KILL_GRACE=1s"),
			})
			in.WaitFile("/tmp/ready")
			in.WaitStatus("/health/ready", 200)
			in.Signal(syscall.SIGTERM)
			assert.Equal(t, 9, in.Wait())
		})
	}
}

func TestWithoutProc(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		NoProc: true, Args: do("daemon", "trap", "-quiet", "-ready", "/tmp/worker", "-on", "TERM=0", "-write", "/tmp/told", ";", "await", "/tmp/worker", ";", "trap", "-on", "TERM=9"),
		Files: []File{
			Hook("10-a", "export BY_FD=1", ran("a")),
			Step("20-b.yaml", runs("sleep", "1h"), "timeout: 300ms", "onFailure: continue"),
			StopHook("10-stop", ran("stop")),
		},
		Env: env("CLEANIMG_INIT_KILL_GRACE=2s"),
	})
	in.WaitStdout("ready")
	in.WaitStatus("/health/ready", 200)
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 9, in.Wait(), "%s", in.Stderr)
	assert.Equal(t, []string{"a", "stop"}, order(in))
	assert.NotEmpty(t, in.File("/tmp/told"), "%s", in.Stderr)
}

func TestWithoutDev(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		NoDev: true, NoMessage: true, Args: do("trap", "-on", "TERM=9"),
		Files: []File{Hook("10-a", ran("a")), StopHook("10-stop", ran("stop"))},
	})
	in.WaitStdout("ready")
	in.WaitStatus("/health/ready", 200)
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 9, in.Wait(), "%s", in.Stderr)
	assert.Equal(t, []string{"a", "stop"}, order(in))
}

func TestTerminationLog(t *testing.T) {
	t.Parallel()
	t.Run("missing is fine and it is not created", func(t *testing.T) {
		t.Parallel()
		in := Run(t, Options{NoMessage: true, Writable: true, Files: []File{Hook("10-a", "exit 4")}})
		assert.Equal(t, 4, in.Wait())
		assert.NoFileExists(t, in.Path(messagePath))
	})
	t.Run("read-only is fine", func(t *testing.T) {
		t.Parallel()
		in := Run(t, Options{NoMessage: true, Files: []File{{Path: messagePath, Mode: 0o444}, Hook("10-a", "exit 4")}})
		assert.Equal(t, 4, in.Wait())
		assert.Empty(t, in.File(messagePath))
	})
	t.Run("on a read-only file system is fine", func(t *testing.T) {
		t.Parallel()
		log := filepath.Join(t.TempDir(), "log")
		require.NoError(t, os.WriteFile(log, nil, 0o666))
		require.NoError(t, os.Chmod(log, 0o666))
		in := Run(t, Options{
			NoMessage: true, Mounts: []Mount{{Host: log, Inside: "/tmp/log", ReadOnly: true}},
			Env: env("CLEANIMG_INIT_TERMINATION_LOG=/tmp/log"), Files: []File{Hook("10-a", "write /tmp/log x")},
		})
		assert.Equal(t, 99, in.Wait(), "the hook's own")
		assert.Contains(t, in.Stderr.String(), "testprog: write: open /tmp/log: read-only file system")
		info, err := os.Stat(log)
		require.NoError(t, err)
		assert.Zero(t, info.Size())
	})
	t.Run("a breadcrumb while a step runs, nothing while the command does", func(t *testing.T) {
		t.Parallel()
		in := Run(t, Options{Args: do("trap", "-on", "TERM=0"), Files: []File{
			Hook("10-first", "touch /tmp/first", "await /tmp/go"), Hook("20-second", "touch /tmp/second", "await /tmp/go2"),
		}})
		in.WaitFile("/tmp/first")
		assert.Contains(t, in.Message(), "10-first")
		in.touch("/tmp/go")
		in.WaitFile("/tmp/second")
		assert.Contains(t, in.Message(), "20-second")
		assert.NotContains(t, in.Message(), "10-first")
		assert.LessOrEqual(t, strings.Count(in.Message(), "\n"), 1)
		in.touch("/tmp/go2")
		in.WaitStdout("ready")
		in.WaitStatus("/health/ready", 200)
		in.eventually("the message to be emptied", func() bool { return in.Message() == "" })
		in.Signal(syscall.SIGTERM)
		assert.Zero(t, in.Wait())
		assert.Empty(t, in.Message())
	})
	t.Run("the command's own message stays", func(t *testing.T) {
		t.Parallel()
		in := Run(t, Options{Args: do("write", messagePath, "mine", ";", "exit", "5"), Files: []File{Hook("10-a", ran("a"))}})
		assert.Equal(t, 5, in.Wait())
		assert.Equal(t, "mine\n", in.Message())
	})
	t.Run("what an earlier run has left goes when the command starts", func(t *testing.T) {
		t.Parallel()
		options := func(command []string) Options {
			return Options{
				Args: command, Env: env("CLEANIMG_INIT_TERMINATION_LOG=/tmp/message", "CLEANIMG_INIT_COMMAND_TIMEOUT=3s"),
				Files: []File{{Path: "/tmp/message", Content: "what was wrong then\n", Mode: 0o666}},
			}
		}
		in := Run(t, options(do("trap", "-on", "TERM=0")))
		in.WaitStdout("ready")
		in.Signal(syscall.SIGTERM)
		assert.Zero(t, in.Wait())
		assert.Empty(t, in.File("/tmp/message"))
		in = Run(t, options(do("sleep", "1h")))
		assert.Equal(t, 124, in.Wait())
		assert.Contains(t, in.File("/tmp/message"), "COMMAND_TIMEOUT")
	})
	t.Run("another path", func(t *testing.T) {
		t.Parallel()
		in := Run(t, Options{Env: env("CLEANIMG_INIT_TERMINATION_LOG=/tmp/message"), Files: []File{
			{Path: "/tmp/message", Mode: 0o666}, Hook("10-a", "errlines 2000", "exit 4"),
		}})
		assert.Equal(t, 4, in.Wait())
		assert.Contains(t, in.File("/tmp/message"), "line 2000 of stderr")
		assert.LessOrEqual(t, len(in.File("/tmp/message")), 1000)
		assert.Empty(t, in.Message())
	})
}

func TestMuchStderrOfAHook(t *testing.T) {
	t.Parallel()
	const lines = 100_000
	in := Run(t, Options{Args: mainRan, Files: []File{Hook("10-a", fmt.Sprintf("errlines %d", lines))}})
	require.Zero(t, in.Wait())
	// A log line of ours may come between two pieces of a line: nothing waits
	// for line feeds.
	own := regexp.MustCompile(`time=\S+ level=.*\n`)
	n := 0
	for line := range strings.Lines(own.ReplaceAllString(in.Stderr.String(), "")) {
		n++
		require.Equal(t, fmt.Sprintf("line %d of stderr\n", n), line, "in order")
	}
	assert.Equal(t, lines, n, "all of it arrives")
}

// TestReapStorm: statuses are never lost or mixed up, however many orphans
// die at the same time.
func TestReapStorm(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: a storm takes some ten seconds")
	}
	// Not parallel: on a machine with other work to do, 10,000 orphans a second
	// cannot be made, nor reaped.
	const steps = 500
	files := []File{Hook("00-storm", "daemon storm 30000 6s", "daemon storm 30000 6s")}
	for i := range steps {
		files = append(files, Step(fmt.Sprintf("10-%03d.yaml", i), fmt.Sprintf("run: [/bin/testprog, exit, %q]", fmt.Sprint(i%251)), "onFailure: continue"))
	}
	for _, tt := range []struct {
		name     string
		pidMax   int
		parallel int
		files    []File
	}{
		{"10,000 orphans a second", 0, 8, files},
		// With this few pids one is used again within milliseconds. A storm
		// at full speed would use them all up now and then, and a hook that
		// cannot be forked is another test.
		{"a tiny pid namespace", 450, 1, append([]File{Hook("00-storm", "daemon storm 9000 6s")}, files[1:]...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.pidMax > 0 {
				needsRoot(t)
				if !ownPIDMax() {
					t.Skip("needs Linux 6.14: pid_max is the whole machine's before")
				}
			}
			in := Run(t, Options{
				Root: tt.pidMax > 0, PIDMax: tt.pidMax, Files: tt.files,
				Env: env(fmt.Sprintf("CLEANIMG_INIT_HOOKS_PARALLEL=%d", tt.parallel), "CLEANIMG_INIT_REPORT_FILE=/tmp/report.json"),
			})
			assert.Zero(t, in.WaitFor(2*time.Minute), "%s", tail(in.Stderr.String()))
			r := report(t, in)
			require.Len(t, r.Steps, steps+1)
			unforked := 0
			for i, step := range r.Steps[1:] {
				require.NotNil(t, step.Code, step.Name)
				if strings.Contains(step.Reason, "cannot start") || strings.Contains(step.Reason, "pids limit") {
					unforked++ // the storm had them all; that is no status lost
					continue
				}
				assert.Equal(t, i%251, *step.Code, step.Name)
			}
			assert.LessOrEqual(t, unforked, steps/5, "too few had a pid to be tested with")
			assert.Greater(t, r.Reaped, 1000, "the storm was none")
		})
	}
}

// TestStormWhileACommandRuns: nothing is left, and the rate is no trouble.
func TestStormWhileACommandRuns(t *testing.T) {
	in := Run(t, Options{Args: do("bg", "storm", "10000", ",", "touch", "/tmp/one", ";", "storm", "10000", ";", "await", "/tmp/one", ";", "touch", "/tmp/two", ";", "trap", "-on", "TERM=5")})
	in.WaitFile("/tmp/two")
	in.eventually("all orphans to be reaped", func() bool { return in.Zombies() == 0 })
	in.WaitStdout("ready")
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 5, in.Wait())
}

// TestBadSettingIsExplainedThoughNobodyReads: with a stalled log the reason is
// still where the pod's status shows it.
func TestBadSettingIsExplainedThoughNobodyReads(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Stderr: fullPipe(t), Env: env("CLEANIMG_INIT_STEP_TIMEOUT=soon"), Args: mainRan})
	assert.Equal(t, 125, in.Wait())
	assert.Contains(t, in.Message(), "CLEANIMG_INIT_STEP_TIMEOUT")
}

// TestReportIntoStalledStderr: the report is not worth hanging for.
func TestReportIntoStalledStderr(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Stderr: fullPipe(t), Env: env("CLEANIMG_INIT_REPORT_FILE=/dev/stderr"), Args: do("exit", "4")})
	assert.Equal(t, 4, in.Wait())
}
