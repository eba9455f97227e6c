// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestRunCodes(t *testing.T) {
	tests := []struct {
		name   string
		step   Step
		cause  Cause
		code   int
		reason string
	}{
		{"its own code", roleStep(t, "s", "exit", "3"), Exited, 3, "exit code 3"},
		{"124 of its own", roleStep(t, "s", "exit", "124"), Exited, 124, "exit code 124"},
		{"signal", roleStep(t, "s", "die", "9"), Killed, 137, "killed by SIGKILL"},
		{"not found", Step{Name: "s", program: []string{"/no/such/program"}}, NotStarted, 127, "not found: /no/such/program"},
		{"not in PATH", Step{Name: "s", program: []string{"no-such"}}, NotStarted, 127, `"no-such" is in no directory of PATH (/nowhere)`},
		{"directory", Step{Name: "s", program: []string{"/proc"}}, NotStarted, 126, "/proc is a directory"},
		{"too long", roleStep(t, "s", "exit", strings.Repeat("x", 200<<10)), NotStarted, 126, "argument list too long"},
		{"working directory", Step{Name: "s", program: []string{"/x"}, dir: "/no/such"}, NotStarted, 126, "dir /no/such: no such file or directory"},
		{"variable", Step{Name: "s", program: []string{"/x", "${NOT_SET}"}}, BadStep, 125, "run[1]: ${NOT_SET} is not set"},
		{"environment file", roleStep(t, "s", "export", "A=1", "secret text"), BadExport, 125, "environment file: line 2: neither KEY=value"},
		{"reserved name", roleStep(t, "s", "export", "CLEANIMG_INIT_MODE=exec"), BadExport, 125, "CLEANIMG_INIT_MODE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec := newRecorder(t)
			exported, err := rec.Run(t.Context(), each(tt.step), []string{"PATH=/nowhere"})
			var failure *Failure
			require.ErrorAs(t, err, &failure)
			assert.Empty(t, exported)
			assert.Equal(t, tt.cause, failure.Result.Cause)
			assert.Equal(t, tt.code, failure.Result.Code())
			assert.Contains(t, failure.Result.Reason(), tt.reason)
			assert.Equal(t, `hook "s": `+failure.Result.Reason(), err.Error())
			assert.NotContains(t, err.Error(), "secret text")
			assert.Len(t, rec.story(), 2, "a start and an end")
		})
	}
}

func TestRunInOrderAndEnvironment(t *testing.T) {
	rec := newRecorder(t)
	started := 0
	rec.Started = func() { started++ }
	exported, err := rec.Run(t.Context(), each(
		roleStep(t, "10-a", "export", "URL=first", "OTHER=x", "TEXT<<END", "one", "two", "END", "URL=second"),
		roleStep(t, "20-b", "print", "URL"),
		roleStep(t, "30-c", "print", "CLEANIMG_INIT_STEP"),
		roleStep(t, "40-d", "print", "LISTEN_FDS"),
		roleStep(t, "50-e", "print", "NOTIFY_SOCKET"),
	), []string{"URL=given", "LISTEN_FDS=1", "NOTIFY_SOCKET=/x"})
	require.NoError(t, err)
	assert.Equal(t, []string{"URL=second", "OTHER=x", "TEXT=one\ntwo"}, exported)
	rec.Flush(time.Second)
	await(t, "output", func() bool {
		return rec.output.String() == "URL=second set=true\nCLEANIMG_INIT_STEP=30-c set=true\nLISTEN_FDS= set=false\nNOTIFY_SOCKET= set=false\n"
	})
	assert.Equal(t, 1, started)
	assert.Equal(t, []string{"10-a/1 start", "10-a/1 succeeded", "20-b/1 start", "20-b/1 succeeded"}, rec.story()[:4])
}

func TestRunStepFile(t *testing.T) {
	dir := t.TempDir()
	work := t.TempDir()
	write(t, filepath.Join(dir, "10-a.yaml"), `
run: ["${SELF}", role, print, "${WHAT}"]
env: {WHAT: "${PREFIX:-NA}ME", NAME: "a $$1 ${WHAT}"}
dir: ${WORK}
`, 0o644)
	write(t, filepath.Join(dir, "20-b.yaml"), "run: [\"${SELF}\", role, workdir]\ndir: ${WORK}\n", 0o644)
	plan, err := Load(Options{Dirs: []string{dir}, DirsNamed: true})
	require.NoError(t, err)
	rec := newRecorder(t)
	_, err = rec.Run(t.Context(), plan.Stages, []string{"SELF=" + self(t), "WORK=" + work})
	require.NoError(t, err)
	await(t, "output", func() bool { return rec.output.String() == "NAME=a $1 NAME set=true\n"+work+"\n" })
	assert.NotContains(t, rec.log.String(), work, "a value is not logged")
}

func TestRunExecutable(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Symlink(self(t), filepath.Join(dir, "10-role-exit-0")))
	require.NoError(t, os.Symlink(self(t), filepath.Join(dir, "20-role-exit-4")))
	require.NoError(t, os.Symlink(self(t), filepath.Join(dir, "30-role-exit-0")))
	plan, err := Load(Options{Dirs: []string{dir}})
	require.NoError(t, err)
	rec := newRecorder(t)
	_, err = rec.Run(t.Context(), plan.Stages, nil)
	require.EqualError(t, err, `hook "20-role-exit-4": exit code 4`)
	assert.Len(t, rec.story(), 4, "the third hook does not run")
}

func TestRunStartsNothingMissing(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "10-a")
	write(t, file, "#!/bin/sh\n", 0o755)
	plan, err := Load(Options{Dirs: []string{dir}})
	require.NoError(t, err)
	require.NoError(t, os.Remove(file))
	_, err = newRecorder(t).Run(t.Context(), plan.Stages, nil)
	var failure *Failure
	require.ErrorAs(t, err, &failure)
	assert.Equal(t, 127, failure.Result.Code())
	assert.Equal(t, "not found: "+file, failure.Result.Reason())
}

func TestRetries(t *testing.T) {
	count := filepath.Join(t.TempDir(), "count")
	flaky := roleStep(t, "10-a", "flaky", "2", count)
	flaky.retries = 5
	rec := newRecorder(t)
	exported, err := rec.Run(t.Context(), each(flaky), nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"TRY_3=yes"}, exported, "a failed try exports nothing")
	tries, err := os.ReadFile(count)
	require.NoError(t, err)
	assert.Equal(t, "123", string(tries))
	assert.True(t, rec.events[1].Result.Retry)
	assert.Equal(t, 2, strings.Count(rec.log.String(), "will be tried again"))
}

func TestRetriesUsedUpAndCarriedOn(t *testing.T) {
	failing := roleStep(t, "10-a", "exit", "7")
	failing.retries = 1
	failing.carryOn = true
	rec := newRecorder(t)
	_, err := rec.Run(t.Context(), each(failing, roleStep(t, "20-b", "exit", "0")), nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"10-a/1 start", "10-a/1 exit code 7", "10-a/2 start", "10-a/2 exit code 7", "20-b/1 start", "20-b/1 succeeded"}, rec.story())
	assert.True(t, rec.events[3].Result.Continued)
	await(t, "a warning", func() bool {
		return strings.Contains(rec.log.String(), `level=WARN msg="hook failed, going on" step=10-a`)
	})
}

func TestBackoffIsCutShort(t *testing.T) {
	failing := roleStep(t, "10-a", "exit", "7")
	failing.retries, failing.backoff = 3, time.Hour
	rec := newRecorder(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	rec.Event = func(e Event) {
		if e.Result != nil {
			cancel(Stop{Signal: syscall.SIGINT})
		}
	}
	_, err := rec.Run(ctx, each(failing), nil)
	var failure *Failure
	require.ErrorAs(t, err, &failure)
	assert.Equal(t, Stopped, failure.Result.Cause)
	assert.Equal(t, 130, failure.Result.Code())
}

func TestTimeoutLeavesNothing(t *testing.T) {
	t.Parallel() // it has to give the hook the time to get into trouble
	pids := filepath.Join(t.TempDir(), "pids")
	hook := roleStep(t, "10-a", "spill", pids, "stubborn")
	hook.Timeout = 8 * time.Second
	rec := newRecorder(t)
	rec.KillGrace = 200 * time.Millisecond
	var held []reaper.Proc
	rec.HoldOut = func(step string, left []reaper.Proc) { held = left }
	_, err := rec.Run(t.Context(), each(hook), nil)
	require.EqualError(t, err, `hook "10-a": timed out after 8s`)
	var failure *Failure
	require.ErrorAs(t, err, &failure)
	assert.Equal(t, 124, failure.Result.Code())
	assert.Empty(t, failure.Result.Left)
	assert.Equal(t, "ready\n", string(failure.Result.Stderr))
	assert.NotEmpty(t, held, "told before KILL")
	assertGone(t, pids, 3)
}

func TestFailedTryIsCleanedUpBeforeTheNext(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	hook := roleStep(t, "10-a", "spill", pids, "exit", "1")
	hook.retries = 1
	hook.carryOn = true
	_, err := newRecorder(t).Run(t.Context(), each(hook), nil)
	require.NoError(t, err)
	assertGone(t, pids, 6)
}

// assertGone checks that none of the processes whose pids are in the file lives.
func assertGone(t *testing.T, file string, want int) {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	pids := strings.Fields(string(data))
	require.Len(t, pids, want)
	for _, pid := range pids {
		await(t, "end of "+pid, func() bool { return errors.Is(syscall.Kill(number(pid), 0), syscall.ESRCH) })
	}
}

func TestStopAndDeadline(t *testing.T) {
	deadlineIn := func(d time.Duration) func(context.Context, *recorder) (context.Context, func()) {
		return func(ctx context.Context, _ *recorder) (context.Context, func()) {
			ctx, cancel := context.WithDeadlineCause(ctx, time.Now().Add(d), ErrDeadline)
			return ctx, cancel
		}
	}
	stopWith := func(s error) func(context.Context, *recorder) (context.Context, func()) {
		return func(ctx context.Context, rec *recorder) (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(ctx)
			go func() {
				for !strings.Contains(rec.output.String(), "ready") && ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
				cancel(s)
			}()
			return ctx, func() { cancel(nil) }
		}
	}
	tests := []struct {
		name, role string
		end        func(context.Context, *recorder) (context.Context, func())
		cause      Cause
		code       int
		reason     string
	}{
		{"TERM that it obeys with 0", "graceful", stopWith(Stop{Signal: syscall.SIGTERM}), Stopped, 143, "stopped by SIGTERM"},
		{"TERM that it ignores", "stubborn", stopWith(Stop{Signal: syscall.SIGTERM, Grace: 50 * time.Millisecond}), Stopped, 143, "stopped by SIGTERM"},
		{"QUIT", "graceful", stopWith(Stop{Signal: syscall.SIGQUIT}), Stopped, 131, "stopped by SIGQUIT"},
		{"no signal named", "graceful", stopWith(Stop{}), Stopped, 143, "stopped by SIGTERM"},
		{"another cause", "graceful", stopWith(errors.New("because")), Stopped, 143, "stopped: because"},
		{"deadline", "hang", deadlineIn(100 * time.Millisecond), Deadline, 124, ErrDeadline.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec := newRecorder(t)
			ctx, cancel := tt.end(t.Context(), rec)
			defer cancel()
			hook := roleStep(t, "10-a", tt.role)
			hook.retries, hook.carryOn = 3, true // must not matter
			start := time.Now()
			_, err := rec.Run(ctx, each(hook, roleStep(t, "20-b", "exit", "0")), nil)
			var failure *Failure
			require.ErrorAs(t, err, &failure)
			assert.Equal(t, tt.cause, failure.Result.Cause)
			assert.Equal(t, tt.code, failure.Result.Code())
			assert.Equal(t, tt.reason, failure.Result.Reason())
			assert.Len(t, rec.story(), 2)
			assert.Less(t, time.Since(start), 10*time.Second)
		})
	}
}

func TestRunAfterStop(t *testing.T) {
	rec := newRecorder(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(Stop{Signal: syscall.SIGTERM})
	_, err := rec.Run(ctx, each(roleStep(t, "10-a", "exit", "0")), nil)
	require.EqualError(t, err, `hook "10-a": not begun: stopped by SIGTERM`)
	var failure *Failure
	require.ErrorAs(t, err, &failure)
	assert.Equal(t, 143, failure.Result.Code())
	assert.Zero(t, failure.Attempt)
	assert.Empty(t, rec.story())
}

func TestParallel(t *testing.T) {
	rec := newRecorder(t)
	rec.Parallel = true
	stage := []Step{
		roleStep(t, "10-a", "export", "X=a", "A=1"),
		roleStep(t, "10-b", "export", "X=b", "B=1"),
		roleStep(t, "10-c", "export", "C=1"),
	}
	exported, err := rec.Run(t.Context(), [][]Step{stage}, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"X=b", "A=1", "B=1", "C=1"}, exported, "in the order of the names")
	await(t, "a warning", func() bool { return strings.Contains(rec.log.String(), "variable=X step=10-b over=10-a") })
}

func TestParallelFailureEndsSiblings(t *testing.T) {
	rec := newRecorder(t)
	rec.Parallel = true
	stage := []Step{roleStep(t, "10-a", "hang"), roleStep(t, "10-b", "exit", "6"), roleStep(t, "10-c", "hang")}
	start := time.Now()
	_, err := rec.Run(t.Context(), [][]Step{stage, each(roleStep(t, "20-d", "exit", "0"))[0]}, nil)
	require.EqualError(t, err, `hook "10-b": exit code 6`)
	assert.Less(t, time.Since(start), 15*time.Second)
	assert.NotContains(t, strings.Join(rec.story(), "\n"), "20-d")
	for _, e := range rec.events {
		if e.Result != nil && e.Step != "10-b" {
			assert.Equal(t, `ended because hook "10-b" failed`, e.Result.Reason())
		}
	}
}

func TestAtOnce(t *testing.T) {
	rec := newRecorder(t)
	rec.Parallel, rec.AtOnce = true, 2
	var stage []Step
	for i := range 6 {
		stage = append(stage, roleStep(t, fmt.Sprintf("10-%d", i), "exit", "0"))
	}
	_, err := rec.Run(t.Context(), [][]Step{stage}, nil)
	require.NoError(t, err)
	running, most := 0, 0
	for _, e := range rec.events {
		if e.Result == nil {
			running++
		} else {
			running--
		}
		most = max(most, running)
	}
	assert.LessOrEqual(t, most, 2)
}

func TestRunStop(t *testing.T) {
	rec := newRecorder(t)
	hang := roleStep(t, "20-b", "hang")
	hang.Timeout = 500 * time.Millisecond
	rec.RunStop(t.Context(), []Step{roleStep(t, "10-a", "exit", "1"), hang, roleStep(t, "30-c", "print", "CLEANIMG_INIT_EXIT_CODE")},
		[]string{"A=b"}, 42)
	assert.Equal(t, []string{
		"10-a/1 start", "10-a/1 exit code 1",
		"20-b/1 start", "20-b/1 timed out after 500ms",
		"30-c/1 start", "30-c/1 succeeded",
	}, rec.story())
	assert.True(t, rec.events[0].Stop)
	await(t, "the code", func() bool { return strings.Contains(rec.output.String(), "CLEANIMG_INIT_EXIT_CODE=42") })
	await(t, "the log", func() bool { return strings.Contains(rec.log.String(), "stop hook ended") })
}

// A stop signal that comes while what a failed try has left is ended finds a
// hook that was going to be tried again.
func TestStopBeforeTheNextTry(t *testing.T) {
	for _, tt := range []struct {
		cause error
		code  int
	}{{Stop{Signal: syscall.SIGTERM}, 143}, {ErrDeadline, 124}} {
		rec := newRecorder(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		rec.KillGrace = time.Minute
		rec.Exported = func([]string) { // the try has ended, its end was not told yet
			cancel(tt.cause)
		}
		step := roleStep(t, "10-a", "flaky", "9", filepath.Join(t.TempDir(), "count"))
		step.retries = 3
		_, err := rec.Run(ctx, each(step), nil)
		var failure *Failure
		require.ErrorAs(t, err, &failure)
		assert.Equal(t, tt.code, failure.Result.Code())
		assert.Len(t, rec.story(), 2, "one start, one end")
	}
}

// What is told is what messages are freed of.
func TestEntriesAreTold(t *testing.T) {
	rec := newRecorder(t)
	var mu sync.Mutex
	var told []string
	rec.Exported = func(entries []string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, entries...)
	}
	failing := roleStep(t, "20-b", "flaky", "9", filepath.Join(t.TempDir(), "count"))
	failing.env = []envEntry{{"DB_PASSWORD", "${BASE}22"}}
	_, err := rec.Run(t.Context(), each(roleStep(t, "10-a", "export", "URL=x"), failing), []string{"BASE=hunter"})
	require.Error(t, err)
	assert.Equal(t, []string{"URL=x", "DB_PASSWORD=hunter22", "TRY_1=yes"}, told)
}

func TestEndOfStderr(t *testing.T) {
	long := strings.Repeat("x", tailSize)
	for text, want := range map[string]string{
		"":                        "",
		"short":                   "short",
		"one\ntwo":                "one\ntwo",
		long + "\none\ntwo\n":     "one\ntwo\n",
		long + "SECRET a b":       "a b",
		long + "SECRET a b\n":     "a b\n",
		long + "SECRET\n":         "",
		long + "half of a secret": "of a secret",
		long + "SECRET":           "",
	} {
		l := &relay{}
		for rest := []byte(text); len(rest) > 0; {
			n := min(len(rest), 1000)
			l.remember(rest[:n])
			rest = rest[n:]
		}
		assert.Equal(t, want, string(l.last()), "%.40q", strings.TrimLeft(text, "x"))
	}
}

func TestStderrIsRemembered(t *testing.T) {
	rec := newRecorder(t)
	_, err := rec.Run(t.Context(), each(roleStep(t, "10-a", "lines", "5000", "1")), nil)
	var failure *Failure
	require.ErrorAs(t, err, &failure)
	tail := string(failure.Result.Stderr)
	assert.LessOrEqual(t, len(tail), tailSize)
	assert.True(t, strings.HasPrefix(tail, "line "), "begins with a whole line: %q", tail[:10])
	assert.True(t, strings.HasSuffix(tail, "line 4999\n"), "is complete")
	await(t, "all lines", func() bool { return strings.HasSuffix(rec.output.String(), "line 4999\n") })
	assert.Equal(t, 5000, strings.Count(rec.output.String(), "\n"))
}

func TestOneFileKeepsItsOrder(t *testing.T) {
	rec := newRecorder(t)
	rec.out = rec.Stderr
	_, err := rec.Run(t.Context(), each(roleStep(t, "10-a", "alternate", "2000")), nil)
	require.NoError(t, err)
	rec.Flush(time.Second)
	var want bytes.Buffer
	for i := range 2000 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	await(t, "all lines", func() bool { return len(rec.output.String()) >= want.Len() })
	assert.Equal(t, want.String(), rec.output.String())
}

func TestStdoutIsUntouched(t *testing.T) {
	rec := newRecorder(t)
	stdout := newCapture(t)
	rec.out = &Stream{FD: int(stdout.file.Fd())}
	var out outputs
	require.NoError(t, out.open(rec.out, rec.Stderr, Plain, "", -1))
	defer out.closeEnds()
	assert.Equal(t, rec.out.FD, out.stdout, "the descriptor itself")
	assert.Len(t, out.relays, 1)
	out.start()
}

func TestTerminalIsPassedOn(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal to be had: %v", err)
	}
	defer terminal.Close()
	fd := int(terminal.Fd())
	for _, mode := range []Output{Plain, Prefix, Inherit} {
		var out outputs
		require.NoError(t, out.open(&Stream{FD: fd}, &Stream{FD: fd}, mode, "[x] ", -1))
		assert.Equal(t, outputs{stdout: fd, stderr: fd}, out)
	}
}

func TestPrefix(t *testing.T) {
	rec := newRecorder(t)
	stdout := newCapture(t)
	rec.out, rec.Output = &Stream{FD: int(stdout.file.Fd())}, Prefix
	_, err := rec.Run(t.Context(), each(
		roleStep(t, "a", "alternate", "4"),
		roleStep(t, "b", "stderr", "no line end"),
		roleStep(t, "c", "stderr", strings.Repeat("x", longestLine+1)),
	), nil)
	require.NoError(t, err)
	long := "[c] " + strings.Repeat("x", longestLine) + "\n[c] x\n"
	await(t, "stderr", func() bool {
		return rec.output.String() == "[a] line 1\n[a] line 3\n[b] no line end\n"+long
	})
	await(t, "stdout", func() bool { return stdout.String() == "[a] line 0\n[a] line 2\n" })
}

func TestInherit(t *testing.T) {
	rec := newRecorder(t)
	rec.Output = Inherit
	_, err := rec.Run(t.Context(), each(roleStep(t, "a", "complain", "so")), nil)
	var failure *Failure
	require.ErrorAs(t, err, &failure)
	assert.Nil(t, failure.Result.Stderr)
	await(t, "output", func() bool { return rec.output.String() == "so\n" })
}

func TestDaemonDelaysNothing(t *testing.T) {
	late := filepath.Join(t.TempDir(), "late")
	rec := newRecorder(t)
	start := time.Now()
	_, err := rec.Run(t.Context(), each(roleStep(t, "10-a", "daemonize", late)), nil)
	require.NoError(t, err)
	assert.Less(t, time.Since(start), 10*time.Second)
	assert.Contains(t, string(rec.events[1].Result.Stderr), "daemon started")
	write(t, late, "", 0o644)
	await(t, "the daemon's output", func() bool { return strings.Contains(rec.output.String(), "from the daemon") })
}

func TestBrokenStderr(t *testing.T) {
	rec := newRecorder(t)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	r.Close()
	defer w.Close()
	rec.Stderr = &Stream{FD: int(w.Fd())}
	_, err = rec.Run(t.Context(), each(roleStep(t, "a", "lines", "20000", "3")), nil)
	require.EqualError(t, err, `hook "a": exit code 3`, "it was not killed by SIGPIPE, nor were we")
	var failure *Failure
	require.ErrorAs(t, err, &failure)
	assert.True(t, strings.HasSuffix(string(failure.Result.Stderr), "line 19999\n"))
}

func TestStalledStderr(t *testing.T) {
	rec := newRecorder(t)
	r, w, err := os.Pipe() // nobody reads
	require.NoError(t, err)
	defer r.Close()
	rec.Stderr = &Stream{FD: int(w.Fd())}
	require.NoError(t, unix.SetNonblock(rec.Stderr.FD, true))
	for err == nil {
		_, err = unix.Write(rec.Stderr.FD, make([]byte, 4096))
	}
	require.NoError(t, unix.SetNonblock(rec.Stderr.FD, false))
	_, err = rec.Run(t.Context(), each(roleStep(t, "a", "complain", "unheard")), nil)
	var failure *Failure
	require.ErrorAs(t, err, &failure)
	assert.Equal(t, "unheard\n", string(failure.Result.Stderr))
	l := rec.relays[0]
	start := time.Now()
	l.drain(drainLimit)
	assert.Less(t, time.Since(start), 5*time.Second)
	w.Close()
	r.Close() // the relay's write ends with EPIPE
	<-l.ended
}

func TestNonblockingStderr(t *testing.T) {
	rec := newRecorder(t)
	require.NoError(t, unix.SetNonblock(rec.Stderr.FD, true))
	_, err := rec.Run(t.Context(), each(roleStep(t, "a", "lines", "50000", "0")), nil)
	require.NoError(t, err)
	rec.Flush(10 * time.Second)
	await(t, "all lines", func() bool { return strings.Count(rec.output.String(), "\n") == 50000 })
}

func TestStepUser(t *testing.T) {
	if !isRoot() {
		t.Skip("needs root to become another user")
	}
	rec := newRecorder(t)
	// The test binary may be where only root can go.
	copied := filepath.Join("/tmp", fmt.Sprintf("hooks-test-%d", os.Getpid()))
	data, err := os.ReadFile(self(t))
	require.NoError(t, err)
	write(t, copied, string(data), 0o755)
	t.Cleanup(func() { os.Remove(copied) })
	hook := Step{Name: "a", program: []string{copied, "role", "identity"}, identity: &Identity{UID: 65532, GID: 65532, Home: "/home/app"}}
	export := Step{Name: "b", program: []string{copied, "role", "export", "A=1", "B=2"}, identity: hook.identity}
	exported, err := rec.Run(t.Context(), each(hook, export), []string{"HOME=/root"})
	require.NoError(t, err)
	assert.Equal(t, []string{"A=1", "B=2"}, exported)
	await(t, "output", func() bool { return rec.output.String() == "65532 65532 [] /home/app <nil>\n" })
}

func TestPauseAfter(t *testing.T) {
	second := time.Second
	for _, tt := range []struct {
		base   time.Duration
		failed int
		want   time.Duration // the longest
	}{
		{second, 1, second},
		{second, 2, 2 * second},
		{second, 5, 16 * second},
		{second, 6, 30 * second},
		{second, 1000, 30 * second},
		{time.Minute, 3, time.Minute},
		{0, 3, 0},
	} {
		assert.Equal(t, tt.want, pauseAfter(tt.base, tt.failed, 1), "%v", tt)
		assert.Equal(t, tt.want/2, pauseAfter(tt.base, tt.failed, 0), "%v", tt)
	}
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		require.NoError(t, Pause(t.Context(), 30*time.Second))
		assert.Equal(t, 30*time.Second, time.Since(start))
		ctx, cancel := context.WithDeadlineCause(t.Context(), time.Now().Add(time.Second), ErrDeadline)
		defer cancel()
		require.ErrorIs(t, Pause(ctx, time.Hour), ErrDeadline)
		assert.Equal(t, 31*time.Second, time.Since(start))
	})
}

// fakeClock is over at once.
type fakeClock struct {
	timeout time.Duration
	stopped *atomic.Int32
}

func (fakeClock) Expired() <-chan struct{} {
	over := make(chan struct{})
	close(over)
	return over
}

func (c fakeClock) Stop() string {
	c.stopped.Add(1)
	return c.timeout.String() + " charged (112s wall)"
}

func TestTimeoutByAClock(t *testing.T) {
	var stopped atomic.Int32
	rec := newRecorder(t)
	rec.Clock = func(timeout time.Duration) Clock { return fakeClock{timeout, &stopped} }
	rec.AtMost = func(timeout time.Duration) time.Duration { return 4 * timeout }
	hook := roleStep(t, "10-a", "hang")
	hook.Timeout = time.Hour
	_, err := rec.Run(t.Context(), each(hook), nil)
	require.EqualError(t, err, `hook "10-a": timed out after 1h0m0s charged (112s wall)`)
	assert.EqualValues(t, 1, stopped.Load())
	await(t, "what the timeout can become is said", func() bool { return strings.Contains(rec.log.String(), "timeout=1h0m0s at_most=4h0m0s") })

	// A hook that ends by itself has its clock stopped as well.
	hook = roleStep(t, "20-b", "exit", "0")
	hook.Timeout = time.Hour
	rec.Clock = func(time.Duration) Clock { return &idleClock{stopped: &stopped} }
	_, err = rec.Run(t.Context(), each(hook), nil)
	require.NoError(t, err)
	assert.EqualValues(t, 2, stopped.Load())
}

// idleClock is never over.
type idleClock struct{ stopped *atomic.Int32 }

func (*idleClock) Expired() <-chan struct{} { return nil }

func (c *idleClock) Stop() string { c.stopped.Add(1); return "" }
