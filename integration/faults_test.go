// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"
)

// refused is cleanimg-init where a seccomp filter answers system calls with an
// error, from its first instruction on.
func refused(failure, calls string, o Options) Options {
	o.Program = "/bin/testprog"
	words := append([]string{"refuse", failure}, strings.Fields(calls)...)
	o.Args = append(append(words, "--", "/bin/cleanimg-init"), o.Args...)
	return o
}

// TestSystemCallsRefused: seccomp profiles that are older than a system call
// answer it with EPERM, kernels with ENOSYS. Trees are ended, orphans are
// reaped, variables are handed on without them.
func TestSystemCallsRefused(t *testing.T) {
	t.Parallel()
	for _, failure := range []string{"EPERM", "ENOSYS"} {
		for _, calls := range []string{"pidfd_open", "pidfd_send_signal", "clone3", "pidfd_open pidfd_send_signal clone3"} {
			t.Run(failure+" "+calls, func(t *testing.T) {
				t.Parallel()
				in := Run(t, refused(failure, calls, Options{
					Args: do("daemon", "trap", "-quiet", "-ready", "/tmp/worker", "-on", "TERM=0", "-write", "/tmp/told", ";", "await", "/tmp/worker", ";", "storm", "100", ";", "trap", "-on", "TERM=9"),
					Files: []File{
						Hook("10-a", "export BY_FD=1", ran("a")),
						// Nothing of a step that timed out is left, other sessions included.
						Step("20-b.yaml", runs("daemon", "sleep", "1h", ";", "sleep", "1h"), "timeout: 300ms", "onFailure: continue"),
						StopHook("10-stop", ran("stop")),
					},
					Env: env("CLEANIMG_INIT_KILL_GRACE=1s"),
				}))
				in.WaitStdout("ready")
				in.WaitStatus("/health/ready", 200)
				in.eventually("all orphans to be reaped", func() bool { return in.Zombies() == 0 })
				for _, p := range in.Processes() {
					assert.NotContains(t, strings.Join(p.Args, " "), "sleep 1h", "left of the step")
				}
				in.Signal(syscall.SIGTERM)
				assert.Equal(t, 9, in.Wait(), "%s", in.Stderr)
				assert.Equal(t, []string{"a", "stop"}, order(in))
				assert.NotEmpty(t, in.File("/tmp/told"), "the daemon had its TERM")
			})
		}
	}
}

// TestNoProcessCanBeMade: fork fails. That ends the run with a message that
// names the step and the error, or the limit that is behind EAGAIN, and no hook
// counts as done.
func TestNoProcessCanBeMade(t *testing.T) {
	t.Parallel()
	for failure, words := range map[string]string{"EAGAIN": "hit the pids limit", "ENOMEM": unix.ENOMEM.Error()} {
		t.Run(failure+" for a hook", func(t *testing.T) {
			t.Parallel()
			in := Run(t, refused(failure, "fork", Options{Args: mainRan, Files: []File{Hook("10-a", ran("a")), StopHook("10-stop", ran("stop"))}}))
			assert.Equal(t, 125, in.Wait(), "%s", in.Stderr)
			assert.Contains(t, in.Message(), "10-a")
			assert.Contains(t, in.Message(), words)
			assert.Empty(t, in.File("/tmp/order"))
			assert.NotContains(t, in.Stderr.String(), "runtime:")
		})
		t.Run(failure+" for the command", func(t *testing.T) {
			t.Parallel()
			in := Run(t, refused(failure, "fork", Options{Args: mainRan}))
			assert.Equal(t, 125, in.Wait(), "%s", in.Stderr)
			assert.Contains(t, in.Message(), words)
		})
	}
}

// TestFullDisk: what we write besides, the report and the termination message,
// is not worth a failure of the run.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	settings := env("CLEANIMG_INIT_REPORT_FILE=/dev/full", "CLEANIMG_INIT_TERMINATION_LOG=/dev/full")
	t.Run("the command's code stays", func(t *testing.T) {
		t.Parallel()
		in := Run(t, Options{Env: settings, Args: do("exit", "4"), Files: []File{Hook("10-a", "export A=1")}})
		assert.Equal(t, 4, in.Wait())
		assert.Contains(t, in.Stderr.String(), unix.ENOSPC.Error(), "it is said")
	})
	t.Run("the hook's code stays", func(t *testing.T) {
		t.Parallel()
		in := Run(t, Options{Env: settings, Args: mainRan, Files: []File{Hook("10-a", "exit 5")}})
		assert.Equal(t, 5, in.Wait())
	})
}

// TestFewDescriptors: with no more descriptors than are open in quiet times,
// hooks run, signals arrive and orphans are reaped; a probe may have to wait.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Program: "/bin/testprog",
		Args:    append([]string{"nofile", "24", "24", ";", "exec", "/bin/cleanimg-init"}, do("storm", "100", ";", "trap", "-on", "TERM=9")...),
		Files:   []File{Hook("10-a", "export A=1", ran("a")), StopHook("10-stop", ran("stop"))},
	})
	in.WaitStdout("ready")
	in.WaitStatus("/health/ready", 200)
	in.eventually("all orphans to be reaped", func() bool { return in.Zombies() == 0 })
	begin := time.Now()
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 9, in.Wait(), "%s", in.Stderr)
	assert.Less(t, time.Since(begin), patience)
	assert.Equal(t, []string{"a", "stop"}, order(in))
}

// TestTooFewDescriptors: where there are not enough for a hook it fails, in words,
// and PID 1 lives; the Go runtime has its own before.
func TestTooFewDescriptors(t *testing.T) {
	t.Parallel()
	b := newLimitBox(t, 0, 100) // whose files are kept open
	for i := range 40 {
		n := strconv.Itoa(10 + i/2)
		in := Run(t, b.in(Options{
			Program: "/bin/testprog",
			Args:    append([]string{"nofile", n, n, ";", "exec", "/bin/cleanimg-init"}, do("exit", "7")...),
			Files:   []File{Hook("10-a", "exit 0")},
			Env:     env("CLEANIMG_INIT_HTTP_LISTEN=off"),
		}))
		assert.Contains(t, []int{7, 125}, in.Wait(), "%s: %s", n, in.Stderr)
	}
}
