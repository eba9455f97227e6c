// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A stalledProgram is testprog on a file system that does not answer: to
// execute it takes until the test lets it go on.
type stalledProgram struct {
	Mount
	group int
}

// stalled makes one. The kernel asks us whether it may be executed (see
// fanotify(7)), and we do not answer.
func stalled(t *testing.T) *stalledProgram {
	t.Helper()
	needsRoot(t)
	p := &stalledProgram{Mount: Mount{Host: filepath.Join(t.TempDir(), "stalled"), Inside: "/roles/stalled", ReadOnly: true}}
	text, err := os.ReadFile(testprogPath)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(p.Host, text, 0o755))
	p.group, err = unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		t.Skipf("needs fanotify: %v", err)
	}
	t.Cleanup(p.goOn)
	if err := unix.FanotifyMark(p.group, unix.FAN_MARK_ADD, unix.FAN_OPEN_EXEC_PERM, unix.AT_FDCWD, p.Host); err != nil {
		t.Skipf("needs fanotify permission events: %v", err)
	}
	return p
}

// goOn lets it be executed: that is what the kernel does when nobody asks to be
// asked any more.
func (p *stalledProgram) goOn() {
	if p.group >= 0 {
		unix.Close(p.group)
		p.group = -1
	}
}

// TestProbesWhileTheCommandIsExecuted: however long that takes, they are
// answered, and it is then as it always is.
func TestProbesWhileTheCommandIsExecuted(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"CLEANIMG_INIT_GRACE_PERIOD=0", "CLEANIMG_INIT_GRACE_PERIOD=1m", "GOMAXPROCS=1"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			slow := stalled(t)
			in := Run(t, Options{Env: env(setting), Mounts: []Mount{slow.Mount}, Args: []string{"/roles/stalled", "trap", "-on", "TERM=3"}})
			in.WaitStatus("/health/live", 200)
			in.WaitStatus("/health/startup", 503)
			in.WaitStatus("/health/ready", 503)
			in.WaitStderr("hangs")
			slow.goOn()
			in.WaitStdout("ready")
			in.WaitStatus("/health/startup", 200)
			in.Signal(syscall.SIGTERM)
			assert.Equal(t, 3, in.Wait())
			assert.Equal(t, 1, strings.Count(in.Stderr.String(), "msg=started"))
		})
	}
}

// TestTermWhileTheCommandIsExecuted ends it, as it ends whatever does not handle
// TERM.
func TestTermWhileTheCommandIsExecuted(t *testing.T) {
	t.Parallel()
	for name, files := range map[string][]File{"alone": nil, "after a hook": {Hook("10-a", ran("a"))}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			slow := stalled(t)
			in := Run(t, Options{Mounts: []Mount{slow.Mount}, Args: []string{"/roles/stalled", "touch", "/tmp/ran"}, Files: append(files, StopHook("10-stop", ran("stop")))})
			in.WaitStatus("/health/live", 200)
			in.eventually("the command to be executed", func() bool { return has(in, "cleanimg-init") && len(in.Processes()) == 2 })
			in.Signal(syscall.SIGTERM)
			assert.Equal(t, 143, in.Wait())
			assert.Less(t, in.Lived(), soon)
			assert.FileExists(t, in.Path("/tmp/order"))
			assert.Equal(t, "stop", order(in)[len(order(in))-1])
			assert.False(t, in.ran("/tmp/ran"))
		})
	}
}

// TestTermWhileTheCommandReplacesUs: in exec mode nobody else is there to be
// told.
func TestTermWhileTheCommandReplacesUs(t *testing.T) {
	t.Parallel()
	slow := stalled(t)
	in := Run(t, Options{
		Mounts: []Mount{slow.Mount}, Args: []string{"/roles/stalled", "touch", "/tmp/ran"},
		Env: env("CLEANIMG_INIT_MODE=exec"), Files: []File{Hook("10-a", ran("a"))},
	})
	in.WaitStderr("replaced by the command")
	in.WaitStderr("start of command hangs")
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 143, in.Wait())
	assert.Contains(t, in.Message(), "terminated by SIGTERM before the command was started")
	slow.goOn()
	assert.False(t, in.ran("/tmp/ran"))
}

// TestACheckThatIsNotExecuted keeps neither the end nor what is started there.
func TestACheckThatIsNotExecuted(t *testing.T) {
	t.Parallel()
	slow := stalled(t)
	in := Run(t, Options{
		Mounts: []Mount{slow.Mount}, Args: do("trap", "-on", "TERM=3"), Files: []File{StopHook("10-stop", ran("stop"))},
		Env: env("CLEANIMG_INIT_READINESS_CHECK=exec:/roles/stalled?arg=exit&arg=0#timeout=1h"),
	})
	in.WaitStdout("ready")
	in.eventually("the check to be executed", func() bool { return len(in.Processes()) == 3 })
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 3, in.Wait())
	assert.Equal(t, []string{"stop"}, order(in))
}

// TestAStepThatIsNotExecuted: its time runs, it can be stopped, and whoever looks
// sees what it is that hangs.
func TestAStepThatIsNotExecuted(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, setting, timeout string
		signal                 syscall.Signal
		code                   int
		reason                 string
	}{
		{"timeout", "A=b", "1s", 0, 124, "timed out after 1s; its program was still being executed"},
		{"timeout, on one processor", "GOMAXPROCS=1", "1s", 0, 124, "timed out after 1s"},
		{"deadline", "CLEANIMG_INIT_HOOKS_DEADLINE=1s", "10m", 0, 124, "HOOKS_DEADLINE"},
		{"signal", "A=b", "10m", syscall.SIGTERM, 143, "SIGTERM"},
		{"signal, with a grace period", "CLEANIMG_INIT_GRACE_PERIOD=8s", "10m", syscall.SIGTERM, 143, "SIGTERM"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			slow := stalled(t)
			in := Run(t, Options{
				Mounts: []Mount{slow.Mount}, Args: mainRan, Env: env(tt.setting),
				Files: []File{
					Step("10-slow.yaml", "run: [/roles/stalled, touch, /tmp/slow]", "timeout: "+tt.timeout),
					StopHook("10-stop", ran("stop")),
				},
			})
			in.WaitStatus("/health/startup", 503)
			if tt.signal != 0 {
				in.WaitStderr("hangs")
				assert.Contains(t, in.Stderr.String(), "step=10-slow")
				in.Signal(tt.signal)
			}
			assert.Equal(t, tt.code, in.Wait())
			assert.Less(t, in.Lived(), 2*soon)
			assert.Equal(t, []string{"stop"}, order(in))
			assert.Contains(t, in.Message(), "10-slow")
			assert.Contains(t, in.Message(), tt.reason)
			slow.goOn()
			assert.False(t, in.ran("/tmp/slow"))
		})
	}
}

// TestAStepThatIsExecutedAgain: what hung is gone before the next try, and
// before what comes after it.
func TestAStepThatIsExecutedAgain(t *testing.T) {
	t.Parallel()
	slow := stalled(t)
	in := Run(t, Options{
		Mounts: []Mount{slow.Mount}, Args: mainRan,
		Files: []File{
			Step("10-slow.yaml", "run: [/roles/stalled, touch, /tmp/slow]", "timeout: 300ms", "retries: 1", "backoff: 1ms", "onFailure: continue"),
			Hook("20-next", "ps /tmp/left", ran("next")),
		},
	})
	require.Zero(t, in.Wait(), "%s", in.Stderr)
	assert.Equal(t, []string{"next", "main"}, order(in))
	assert.Equal(t, 2, strings.Count(in.Stderr.String(), "timed out after 300ms"))
	assert.Empty(t, in.File("/tmp/left"))
}
