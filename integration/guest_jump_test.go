// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// guestJump sets the guest's clock forward and back by a day while a step, a
// grace period and a drain run: no time that is promised depends on what time
// it is. It is alone: the clock is everybody's.
func guestJump(t *testing.T) {
	jump := func(t *testing.T, by time.Duration) {
		t.Helper()
		set := func(at time.Time) {
			now := unix.NsecToTimespec(at.UnixNano())
			require.NoError(t, unix.ClockSettime(unix.CLOCK_REALTIME, &now))
		}
		begin := time.Now()
		set(begin.Add(by))
		t.Cleanup(func() { set(begin.Round(0).Add(time.Since(begin))) })
		require.InDelta(t, by.Seconds(), time.Now().Round(0).Sub(begin.Round(0)).Seconds(), 60, "the clock has jumped")
	}
	for name, by := range map[string]time.Duration{"forward": 24 * time.Hour, "back": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			waits := Run(t, Options{
				Env:   env("CLEANIMG_INIT_STEP_TIMEOUT=2m", "CLEANIMG_INIT_HOOKS_DEADLINE=3m", "CLEANIMG_INIT_COMMAND_TIMEOUT=2m"),
				Files: []File{Hook("10-wait", "touch /tmp/begun", "await /tmp/go")},
				Args:  do("trap", "-on", "TERM=9"),
			})
			hangs := Run(t, Options{
				Env:   env("CLEANIMG_INIT_STEP_TIMEOUT=3s", "CLEANIMG_INIT_KILL_GRACE=1s"),
				Files: []File{Hook("10-hang", "ignore TERM", "touch /tmp/begun", "sleep 1h")},
			})
			drains := Run(t, Options{
				Env:  env("CLEANIMG_INIT_GRACE_PERIOD=5s", "CLEANIMG_INIT_DRAIN_DELAY=1s"),
				Args: do("trap", "-ready", "/tmp/begun"),
			})
			for _, in := range []*Instance{waits, hangs, drains} {
				in.WaitFile("/tmp/begun")
			}
			drains.Signal(syscall.SIGTERM)
			jump(t, by)

			waits.touch("/tmp/go")
			waits.WaitStdout("ready")
			waits.WaitStatus("/health/ready", 200)
			waits.Signal(syscall.SIGTERM)
			assert.Equal(t, 9, waits.Wait(), "no timeout came early: %s", waits.Stderr)
			assert.Equal(t, 124, hangs.Wait(), "the timeout came: %s", hangs.Stderr)
			assert.GreaterOrEqual(t, hangs.Lived(), 3*time.Second)
			assert.Equal(t, 137, drains.Wait(), "the grace period ended: %s", drains.Stderr)
		})
	}
}
