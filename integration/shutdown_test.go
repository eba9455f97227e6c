// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestCommandGetsItsTerm: the command ends as it wants to, and its code is
// ours.
func TestCommandGetsItsTerm(t *testing.T) {
	t.Parallel()
	eachInit(t, func(t *testing.T, name string, run func(*testing.T, Options) *Instance) {
		in := run(t, Options{Args: do("trap", "-on", "TERM=17", "-delay", "500ms", "-write", "/tmp/clean")})
		in.WaitStdout("ready")
		settle()
		in.Signal(syscall.SIGTERM)
		assert.Equal(t, 17, in.Wait())
		assert.NotEmpty(t, in.File("/tmp/clean"))
	})
}

func TestCommandKilledByTermIs143(t *testing.T) {
	t.Parallel()
	// sleep is not written in Go: TERM kills it.
	eachInit(t, func(t *testing.T, name string, run func(*testing.T, Options) *Instance) {
		in := run(t, Options{Args: []string{"/usr/bin/sleep", "60"}})
		in.eventually("the command", func() bool { return has(in, "sleep") })
		settle()
		in.Signal(syscall.SIGTERM)
		assert.Equal(t, 143, in.Wait())
	})
}

// has says that a process of that name runs.
func has(in *Instance, name string) bool {
	for _, p := range in.Processes() {
		if p.Name == name && p.State != "Z" {
			return true
		}
	}
	return false
}

// worker is a command that leaves a worker behind, which needs a second to
// clean up after TERM, and ends at once when it is told to.
func worker(how string) []string {
	return do(how, "trap", "-ready", "/tmp/worker", "-quiet", "-on", "TERM=0", "-delay", "1s", "-write", "/tmp/cleaned-up", ";",
		"await", "/tmp/worker", ";", "trap", "-on", "TERM=17")
}

// TestWorkersGetTheirTime is what the small inits do not have: whoever the
// command leaves behind is told to end, and waited for.
func TestWorkersGetTheirTime(t *testing.T) {
	t.Parallel()
	eachInit(t, func(t *testing.T, name string, run func(*testing.T, Options) *Instance) {
		for _, how := range []string{"bg", "setsid", "daemon"} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				in := run(t, Options{Args: worker(how)})
				in.WaitStdout("ready")
				settle()
				in.Signal(syscall.SIGTERM)
				assert.Equal(t, 17, in.Wait())
				if name != "cleanimg-init" {
					assert.Empty(t, in.File("/tmp/cleaned-up"), "%s has learned to wait: the comparison in the README is wrong", name)
					return
				}
				assert.NotEmpty(t, in.File("/tmp/cleaned-up"), "%s", in.Stderr)
			})
		}
	})
}

func TestWorkersGetTheirTimeWhenTheCommandEnds(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"bg", "daemon"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: do(how, "trap", "-ready", "/tmp/worker", "-quiet", "-on", "TERM=0", "-delay", "1s", "-write", "/tmp/cleaned-up", ";",
				"await", "/tmp/worker", ";", "exit", "18")})
			assert.Equal(t, 18, in.Wait())
			assert.NotEmpty(t, in.File("/tmp/cleaned-up"), "%s", in.Stderr)
		})
	}
}

func TestWorkersThatIgnoreTermAreKilled(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("daemon", "trap", "-quiet", "-ready", "/tmp/worker", "-file", "/tmp/got", ";", "await", "/tmp/worker", ";", "exit", "18"),
		Env:  env("CLEANIMG_INIT_KILL_GRACE=1s"),
	})
	assert.Equal(t, 18, in.Wait())
	assert.Greater(t, in.Lived(), time.Second)
	assert.Less(t, in.Lived(), soon)
	assert.Contains(t, in.File("/tmp/got"), "got TERM")
	assert.Contains(t, in.Stderr.String(), "testprog", "who is killed is named before")
}

func TestGracePeriod(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap"), Env: env("CLEANIMG_INIT_GRACE_PERIOD=4s"), Files: []File{StopHook("10-stop", ran("stop"), "env /tmp/env")}})
	in.WaitStdout("ready")
	settle()
	begin := time.Now()
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 137, in.Wait())
	took := time.Since(begin)
	assert.Greater(t, took, 1500*time.Millisecond, "the command has most of the time")
	assert.Less(t, took, soon, "everything fits in the grace period")
	assert.Equal(t, []string{"stop"}, order(in))
	assert.Contains(t, in.File("/tmp/env"), "CLEANIMG_INIT_EXIT_CODE=137\n")
	assert.NotEmpty(t, in.Message(), "our KILL is a reason that only we know")
	assert.Regexp(t, `level=WARN msg="command ended" .* code=137 .* reason="did not end in its part of CLEANIMG_INIT_GRACE_PERIOD=4s, so it was killed"`, in.Stderr.String())
	assert.Contains(t, in.Stderr.String(), "testprog")
}

// TestGracePeriodHoldsForEverything: a command, a worker, and a stop hook
// that all refuse to end.
func TestGracePeriodHoldsForEverything(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args:  do("daemon", "trap", "-quiet", "-ready", "/tmp/worker", ";", "await", "/tmp/worker", ";", "trap"),
		Env:   env("CLEANIMG_INIT_GRACE_PERIOD=8s"),
		Files: []File{StopHook("10-stop", "touch /tmp/stop", "trap -quiet")},
	})
	in.WaitStdout("ready")
	settle()
	begin := time.Now()
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 137, in.Wait())
	assert.Less(t, time.Since(begin), soon)
	assert.FileExists(t, in.Path("/tmp/stop"), "stop hooks have their share")
}

func TestWithoutGracePeriodTheCommandIsNeverKilled(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "USR1=5")})
	in.WaitStdout("ready")
	settle()
	in.Signal(syscall.SIGTERM)
	in.WaitStdout("got TERM")
	// After 8 s it is named, not killed.
	in.WaitStderr("state S")
	assert.True(t, in.Running())
	in.Signal(syscall.SIGUSR1)
	assert.Equal(t, 5, in.Wait())
	assert.Greater(t, in.Lived(), 7*time.Second)
}

func TestASecondTermIsForwarded(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "USR1=5")})
	in.WaitStdout("ready")
	settle()
	in.Signal(syscall.SIGTERM)
	in.WaitStdout("got TERM")
	in.Signal(syscall.SIGTERM)
	in.eventually("the second", func() bool { return strings.Count(in.Stdout.String(), "got TERM") == 2 })
	in.Signal(syscall.SIGINT)
	in.WaitStdout("got INT")
	in.Signal(syscall.SIGUSR1)
	assert.Equal(t, 5, in.Wait())
}

// TestTermWhileTheRestEnds: a stop signal after the main has ended means KILL
// for the rest at once.
func TestTermWhileTheRestEnds(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("daemon", "trap", "-quiet", "-ready", "/tmp/worker", "-file", "/tmp/got", ";", "await", "/tmp/worker", ";", "exit", "18"),
		Env:  env("CLEANIMG_INIT_KILL_GRACE=1m"),
	})
	in.eventually("the worker to be told", func() bool { return strings.Contains(in.File("/tmp/got"), "TERM") })
	settle()
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 18, in.Wait())
	assert.Less(t, in.Lived(), soon)
}

func TestDrainDelay(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "TERM=0"), Env: env("CLEANIMG_INIT_DRAIN_DELAY=5s")})
	in.WaitStdout("ready")
	in.WaitStatus("/health/ready", 200)
	begin := time.Now()
	in.Signal(syscall.SIGTERM)
	in.WaitStatus("/health/ready", 503)
	assert.Equal(t, 200, in.Status("/health/live"))
	assert.Equal(t, 200, in.Status("/health/startup"))
	assert.NotContains(t, in.Stdout.String(), "got TERM", "the command works on while it drains")
	assert.Zero(t, in.Wait())
	assert.Greater(t, time.Since(begin), 2*time.Second)
}

func TestSecondTermSkipsTheDrain(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "TERM=0"), Env: env("CLEANIMG_INIT_DRAIN_DELAY=1m")})
	in.WaitStdout("ready")
	in.WaitStatus("/health/ready", 200)
	in.Signal(syscall.SIGTERM)
	in.WaitStatus("/health/ready", 503)
	in.Signal(syscall.SIGTERM)
	assert.Zero(t, in.Wait())
	assert.Less(t, in.Lived(), soon)
}

func TestTheCommandMayEndWhileItDrains(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "USR1=6"), Env: env("CLEANIMG_INIT_DRAIN_DELAY=1m")})
	in.WaitStdout("ready")
	in.WaitStatus("/health/ready", 200)
	in.Signal(syscall.SIGTERM)
	in.WaitStatus("/health/ready", 503)
	in.Signal(syscall.SIGUSR1) // other signals are forwarded at once
	assert.Equal(t, 6, in.Wait())
}

func TestStopHooks(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "TERM=3"), Files: []File{
		StopHook("20-b", ran("b"), "env /tmp/env"), StopHook("10-a", ran("a"), "exit 9"),
		{Path: stopDir + "30-c.yaml", Content: runs("append", "/tmp/order", "c${CLEANIMG_INIT_EXIT_CODE}")},
	}})
	in.WaitStdout("ready")
	settle()
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 3, in.Wait(), "a stop hook's failure does not change the code")
	assert.Equal(t, []string{"a", "b", "c3"}, order(in))
	assert.Contains(t, in.Stderr.String(), "10-a", "but it is logged")
}

// TestTermDuringHooks: an init step that was interrupted must not count as
// done.
func TestTermDuringHooks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sig  syscall.Signal
		code int
	}{{syscall.SIGTERM, 143}, {syscall.SIGINT, 130}, {syscall.SIGQUIT, 131}} {
		t.Run(tt.sig.String(), func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: mainRan, Files: []File{
				Hook("10-a", "trap -ready /tmp/hook -file /tmp/got -on TERM=0 -delay 500ms -write /tmp/clean"),
				Hook("20-b", ran("b")),
				StopHook("10-stop", ran("stop"), "env /tmp/env"),
			}})
			in.WaitFile("/tmp/hook")
			settle()
			in.Signal(tt.sig)
			assert.Equal(t, tt.code, in.Wait())
			assert.Equal(t, []string{"stop"}, order(in))
			// And by CONT, or a stopped one would not hear of it.
			assert.Equal(t, "got TERM\n", strings.ReplaceAll(in.File("/tmp/got"), "got CONT\n", ""), "a step is told by TERM")
			assert.NotEmpty(t, in.File("/tmp/clean"), "a step may end as it wants to")
			assert.Contains(t, in.File("/tmp/env"), "CLEANIMG_INIT_EXIT_CODE=")
			assert.Contains(t, in.Message(), "10-a")
		})
	}
}

func TestOtherSignalsDuringHooksAreDropped(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "TERM=0"), Files: []File{Hook("10-a", "bg trap -quiet -ready /tmp/hook -file /tmp/got", "await /tmp/go")}})
	in.WaitFile("/tmp/hook")
	settle()
	in.Signal(syscall.SIGHUP)
	in.Signal(syscall.SIGUSR1)
	in.WaitStderr("USR1")
	in.touch("/tmp/go")
	in.WaitStdout("ready")
	settle()
	assert.Empty(t, in.File("/tmp/got"))
	assert.NotContains(t, in.Stdout.String(), "got")
	in.Signal(syscall.SIGTERM)
	assert.Zero(t, in.Wait())
}

// TestStepTimeoutEndsTheTree: with onFailure: continue the next hook sees what
// is left.
func TestStepTimeoutEndsTheTree(t *testing.T) {
	t.Parallel()
	stubborn := "trap -quiet -file /tmp/got"
	in := Run(t, Options{
		Env: env("CLEANIMG_INIT_KILL_GRACE=500ms"),
		Files: []File{
			Script("/etc/tree", "daemon "+stubborn, "setsid "+stubborn, "bg "+stubborn, "daemon daemon sleep 1h", "touch /tmp/made", stubborn),
			Step("10-a.yaml", "run: [/etc/tree]", "timeout: 1s", "onFailure: continue"),
			Hook("20-b", "ps /tmp/left"),
		},
	})
	require.Zero(t, in.Wait(), "%s", in.Stderr)
	assert.FileExists(t, in.Path("/tmp/made"))
	assert.Empty(t, in.File("/tmp/left"))
	assert.Contains(t, in.File("/tmp/got"), "got TERM")
	assert.Greater(t, in.Lived(), 1500*time.Millisecond)
	assert.Less(t, in.Lived(), soon)
}

func TestStepTimeoutIs124(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		file File
		env  string
	}{
		{"STEP_TIMEOUT", Hook("10-a", "sleep 1h"), "CLEANIMG_INIT_STEP_TIMEOUT=500ms"},
		{"STEP_TIMEOUTS by name", Hook("10-a", "sleep 1h"), "CLEANIMG_INIT_STEP_TIMEOUTS=10-a:500ms,20-b:1h"},
		{"the step's own", Step("10-a.yaml", runs("sleep", "1h"), "timeout: 500ms"), ""},
		{"the operator wins over the image", Step("10-a.yaml", runs("sleep", "1h"), "timeout: 1h"), "CLEANIMG_INIT_STEP_TIMEOUTS=10-a:500ms"},
		{"HOOKS_DEADLINE", Hook("10-a", "sleep 1h"), "CLEANIMG_INIT_HOOKS_DEADLINE=500ms"},
		{"a bare number is seconds", Hook("10-a", "sleep 1h"), "CLEANIMG_INIT_STEP_TIMEOUT=1"},
		{"it ends by itself when told, with 0", Hook("10-a", "trap -on TERM=0"), "CLEANIMG_INIT_STEP_TIMEOUT=500ms"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: mainRan, Env: env(tt.env), Files: []File{tt.file, Hook("20-b", ran("b")), StopHook("10-stop", ran("stop"))}})
			assert.Equal(t, 124, in.Wait(), "%s", in.Stderr)
			assert.Equal(t, []string{"stop"}, order(in))
			assert.Contains(t, in.Message(), "10-a")
			assert.Contains(t, in.Message(), "timed out")
			assert.Greater(t, in.Lived(), 500*time.Millisecond)
			assert.Less(t, in.Lived(), soon)
		})
	}
}

func TestZeroIsNoTimeout(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Env: env("CLEANIMG_INIT_STEP_TIMEOUT=0", "CLEANIMG_INIT_HOOKS_DEADLINE=0", "CLEANIMG_INIT_COMMAND_TIMEOUT=0"), Args: mainRan, Files: []File{Hook("10-a", "sleep 300ms")}})
	assert.Zero(t, in.Wait())
	assert.Equal(t, []string{"main"}, order(in))
}

// TestExecShellDoesNotDelayAStop: what an operator runs by kubectl exec is no
// descendant of ours.
func TestExecShellDoesNotDelayAStop(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "TERM=4"), Env: env("CLEANIMG_INIT_KILL_GRACE=1m")})
	in.WaitStdout("ready")
	in.ExecStart("/bin/testprog", "trap", "-quiet", "-ready", "/tmp/shell")
	in.WaitFile("/tmp/shell")
	begin := time.Now()
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 4, in.Wait())
	assert.Less(t, time.Since(begin), soon)
}

func TestSignalRewrite(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rewrite string
		send    syscall.Signal
		gets    string
	}{
		{"USR1:USR2", syscall.SIGUSR1, "USR2"},
		{"HUP:TERM,USR2:USR1", syscall.SIGUSR2, "USR1"},
		{"TERM:QUIT", syscall.SIGTERM, "QUIT"},
		{"TERM:USR1", syscall.SIGTERM, "USR1"},
	}
	for _, tt := range tests {
		t.Run(tt.rewrite, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: do("trap", "-on", tt.gets+"=3"), Env: env("CLEANIMG_INIT_SIGNAL_REWRITE=" + tt.rewrite)})
			in.WaitStdout("ready")
			settle()
			in.Signal(tt.send)
			assert.Equal(t, 3, in.Wait())
			assert.Equal(t, []string{"ready", "got " + tt.gets}, in.Stdout.Lines())
		})
	}
}

func TestSignalRewriteDrops(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "TERM=3"), Env: env("CLEANIMG_INIT_SIGNAL_REWRITE=USR1:")})
	in.WaitStdout("ready")
	settle()
	in.Signal(syscall.SIGUSR1)
	in.Signal(syscall.SIGUSR2)
	in.WaitStdout("got USR2")
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 3, in.Wait())
	assert.NotContains(t, in.Stdout.String(), "USR1")
}

func TestStopSignals(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "HUP=3"), Env: env("CLEANIMG_INIT_STOP_SIGNALS=HUP")})
	in.WaitStdout("ready")
	in.WaitStatus("/health/ready", 200)
	in.Signal(syscall.SIGTERM)
	in.WaitStdout("got TERM")
	assert.Equal(t, 200, in.Status("/health/ready"), "TERM is just a signal now")
	in.Signal(syscall.SIGHUP)
	assert.Equal(t, 3, in.Wait())
}

func TestQuitIsNoStopSignal(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "TERM=3")})
	in.WaitStdout("ready")
	in.WaitStatus("/health/ready", 200)
	in.Signal(syscall.SIGQUIT)
	in.WaitStdout("got QUIT")
	assert.Equal(t, 200, in.Status("/health/ready"), "a JVM answers QUIT with a thread dump and lives on")
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 3, in.Wait())
}

func TestSignalTarget(t *testing.T) {
	t.Parallel()
	tests := []struct {
		target                string
		group, session, grand bool
	}{
		{"", false, false, false},
		{"main", false, false, false},
		{"group", true, false, false},
		{"tree", true, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.target, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{
				Env: env("CLEANIMG_INIT_SIGNAL_TARGET=" + tt.target),
				Args: do("bg", "trap", "-quiet", "-ready", "/tmp/r1", "-file", "/tmp/group", "-on", "TERM=0", ";",
					"setsid", "trap", "-quiet", "-ready", "/tmp/r2", "-file", "/tmp/session", "-on", "TERM=0", ";",
					"daemon", "trap", "-quiet", "-ready", "/tmp/r3", "-file", "/tmp/grand", "-on", "TERM=0", ";",
					"await", "/tmp/r1", ";", "await", "/tmp/r2", ";", "await", "/tmp/r3", ";", "trap", "-on", "TERM=3"),
			})
			in.WaitStdout("ready")
			settle()
			in.Signal(syscall.SIGUSR1)
			in.WaitStdout("got USR1")
			settle()
			assert.Equal(t, tt.group, strings.Contains(in.File("/tmp/group"), "USR1"), "the command's group")
			assert.Equal(t, tt.session, strings.Contains(in.File("/tmp/session"), "USR1"), "another session")
			assert.Equal(t, tt.grand, strings.Contains(in.File("/tmp/grand"), "USR1"), "a daemon")
			in.Signal(syscall.SIGTERM)
			assert.Equal(t, 3, in.Wait())
		})
	}
}

// TestRuntimeSignalsAreNotForwarded keeps PID 1 busy with requests, so that
// its runtime collects garbage and preempts goroutines by SIGURG.
func TestRuntimeSignalsAreNotForwarded(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "TERM=3")})
	in.WaitStdout("ready")
	in.WaitStatus("/health/ready", 200)
	for _, sig := range []syscall.Signal{syscall.SIGURG, syscall.SIGCHLD, syscall.SIGPIPE} {
		in.Signal(sig)
	}
	done := make(chan int)
	for range 4 {
		go func() {
			answered := 0
			for range 500 {
				status, _, err := in.Get("/status")
				if assert.NoError(t, err) && status == 200 {
					answered++
				}
			}
			done <- answered
		}()
	}
	for range 4 {
		assert.Equal(t, 500, <-done)
	}
	in.Signal(syscall.SIGUSR1)
	in.WaitStdout("got USR1")
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 3, in.Wait())
	assert.Equal(t, []string{"ready", "got USR1", "got TERM"}, in.Stdout.Lines())
}

// TestTermAtAnyTime sends TERM at many moments of the start: the run never
// ends as done, and once something has run the end is an orderly one.
func TestTermAtAnyTime(t *testing.T) {
	t.Parallel()
	for i := range 60 {
		t.Run(strconv.Itoa(i)+"ms", func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{
				Args:  do("trap", "-on", "TERM=17"),
				Files: []File{Hook("10-a", "touch /tmp/hook", "sleep 10ms"), StopHook("10-stop", "touch /tmp/stop")},
			})
			// A TERM from before stage0's exec is lost: send again.
			for wait := time.Duration(i) * time.Millisecond; in.Running(); wait = 200 * time.Millisecond {
				select {
				case <-in.done:
				case <-time.After(wait):
					_ = in.process.Signal(syscall.SIGTERM)
				}
			}
			code := in.Wait()
			assert.NotZero(t, code)
			if in.ran("/tmp/hook") {
				assert.Contains(t, []int{143, 17}, code, "%s", in.Stderr)
				assert.FileExists(t, in.Path("/tmp/stop"))
			}
		})
	}
}

// stubborn leaves a process behind that does not end at TERM.
var stubborn = []string{"daemon", "trap", "-quiet", "-ready", "/tmp/worker", ";", "await", "/tmp/worker", ";"}

// TestTermWhileTheRestEndsBeginsTheGracePeriod: the command has ended by itself
// and left something; what comes after it fits in the grace period, too.
func TestTermWhileTheRestEndsBeginsTheGracePeriod(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args:  do(append(slices.Clone(stubborn), "exit", "6")...),
		Env:   env("CLEANIMG_INIT_GRACE_PERIOD=4s", "CLEANIMG_INIT_KILL_GRACE=1m"),
		Files: []File{StopHook("10-stop", "touch /tmp/stop", "sleep 1h")},
	})
	in.WaitFile("/tmp/worker")
	in.WaitStatus("/health/ready", 503)
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 6, in.Wait())
	assert.Less(t, in.Lived(), soon)
	assert.FileExists(t, in.Path("/tmp/stop"))
}

// TestDeadlineDuringStopHooks: the command had ended by itself, which has set the
// deadline. It stays where it is, unless it is over.
func TestDeadlineDuringStopHooks(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, grace, wait time.Duration) *Instance {
		in := Run(t, Options{
			Args: do("exit", "6"), Env: env("CLEANIMG_INIT_GRACE_PERIOD=" + grace.String()),
			Files: []File{StopHook("10-stop", "touch /tmp/stop", "await /tmp/gate", ran("stop"))},
		})
		in.WaitFile("/tmp/stop")
		time.Sleep(wait)
		in.Signal(syscall.SIGTERM)
		return in
	}
	t.Run("before the deadline", func(t *testing.T) {
		t.Parallel()
		in := run(t, 20*time.Second, 8*time.Second)
		assert.Equal(t, 6, in.Wait())
		assert.Less(t, in.Lived(), 26*time.Second, "28 would be a new grace period")
		assert.Empty(t, order(in))
	})
	t.Run("after it", func(t *testing.T) {
		t.Parallel()
		in := run(t, 8*time.Second, 9*time.Second)
		time.Sleep(3 * time.Second)
		in.touch("/tmp/gate")
		assert.Equal(t, 6, in.Wait())
		assert.Equal(t, []string{"stop"}, order(in))
	})
}

// TestTermWhileLeftoversEndInExecMode: something that was interrupted is not
// done, so the command is not begun.
func TestTermWhileLeftoversEndInExecMode(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: mainRan, Env: env("CLEANIMG_INIT_MODE=exec", "CLEANIMG_INIT_KILL_GRACE=1m"),
		Files: []File{Hook("10-a", "daemon trap -quiet -ready /tmp/worker -file /tmp/got", "await /tmp/worker")},
	})
	in.eventually("the daemon to be told", func() bool { return strings.Contains(in.File("/tmp/got"), "TERM") })
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 143, in.Wait())
	assert.Empty(t, order(in), "the command ran")
}

// TestCommandTimeoutDoesNotDelayAStop: nor does it change the code of a command
// that ends because it was asked to.
func TestCommandTimeoutDoesNotDelayAStop(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("trap", "-on", "TERM=0", "-delay", "2s"), Env: env("CLEANIMG_INIT_COMMAND_TIMEOUT=2s"),
	})
	in.WaitStdout("ready")
	in.Signal(syscall.SIGTERM)
	assert.Zero(t, in.Wait(), "%s", in.Stderr)
}

// TestTermAfterTheCommandTimeout: whatever KILL_GRACE allows, the grace period
// that begins then holds, with the stop hooks in it.
func TestTermAfterTheCommandTimeout(t *testing.T) {
	t.Parallel()
	for _, drain := range []string{"0", "1s"} {
		t.Run("drain "+drain, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{
				Args:  do("trap"),
				Env:   env("CLEANIMG_INIT_COMMAND_TIMEOUT=3s", "CLEANIMG_INIT_KILL_GRACE=1m", "CLEANIMG_INIT_GRACE_PERIOD=4s", "CLEANIMG_INIT_DRAIN_DELAY="+drain),
				Files: []File{StopHook("10-stop", ran("stop"))},
			})
			in.WaitStderr("command timed out")
			in.Signal(syscall.SIGTERM)
			assert.Equal(t, 124, in.Wait())
			assert.Less(t, in.Lived(), soon)
			assert.Equal(t, []string{"stop"}, order(in))
		})
	}
}

// TestACommandThatTimedOutIsNamed long before it is killed.
func TestACommandThatTimedOutIsNamed(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "USR1=0"), Env: env("CLEANIMG_INIT_COMMAND_TIMEOUT=3s", "CLEANIMG_INIT_KILL_GRACE=5m")})
	in.WaitStderr("still running")
	in.Signal(syscall.SIGUSR1)
	assert.Equal(t, 124, in.Wait())
}

// TestRemapIsForTheCommandOnly: a hook that failed is not done because the
// command's code of that number would be.
func TestRemapIsForTheCommandOnly(t *testing.T) {
	t.Parallel()
	for code, files := range map[int][]File{0: nil, 3: {Hook("10-a", "exit 3")}} {
		in := Run(t, Options{Args: append([]string{"-e", "3"}, do("exit", "3")...), Files: files})
		assert.Equal(t, code, in.Wait())
	}
}
