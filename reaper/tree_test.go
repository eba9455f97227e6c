// SPDX-License-Identifier: Apache-2.0

package reaper_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

const (
	aLongTime  = 30 * time.Second       // a grace that no test waits for
	aShortTime = 300 * time.Millisecond // one that all of it is waited for
)

// pids are the numbers in "ready N" lines.
func pids(t *testing.T, lines []string) (pids []int) {
	t.Helper()
	for _, line := range lines {
		pid, err := strconv.Atoi(strings.TrimPrefix(line, "ready "))
		require.NoError(t, err)
		pids = append(pids, pid)
	}
	return pids
}

func requireDead(t *testing.T, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		require.False(t, alive(pid), "pid %d lives", pid)
	}
}

// everyPlace runs a test where the reaper is a subreaper, where it is PID 1,
// where pidfds are refused, and where it has cgroups. All are pid namespaces, so that nothing can
// survive a test that fails.
func everyPlace(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	for _, where := range []string{"sub", "pid1", "sub filter=pidfd", "pid1 cgroup"} {
		t.Run(where, func(t *testing.T) {
			if rerun(t, where) {
				endAll(t)
				test(t)
				checkMethod(t)
			}
		})
	}
}

// checkMethod makes sure that the place was what it was meant to be.
func checkMethod(t *testing.T) {
	t.Helper()
	if _, boxed := parsePlace(os.Getenv(envPlace))["cgroup"]; boxed {
		require.Equal(t, reaper.KillByCgroup, shared.KillMethod())
	} else {
		require.NotEqual(t, reaper.KillByCgroup, shared.KillMethod())
	}
}

func TestEndByTERM(t *testing.T) {
	everyPlace(t, func(t *testing.T) {
		begun := time.Now()
		child, lines := startReady(t, program(t, "pause", ""), 1)
		assert.Empty(t, shared.End(reaper.Ending{Of: child, Grace: aLongTime}))
		assert.Equal(t, unix.SIGTERM, exitOf(t, child).Signal())
		requireDead(t, pids(t, lines)...)
		assert.Less(t, time.Since(begun), aLongTime/2)
	})
}

func TestEndByKILL(t *testing.T) {
	everyPlace(t, func(t *testing.T) {
		child := ready(t, "stubborn", "")
		var told []reaper.Proc
		begun := time.Now()
		assert.Empty(t, shared.End(reaper.Ending{
			Of: child, Grace: aShortTime,
			HoldOut: func(left []reaper.Proc) { told = append(told, left...) },
		}))
		assert.GreaterOrEqual(t, time.Since(begun), aShortTime)
		assert.Equal(t, unix.SIGKILL, exitOf(t, child).Signal())
		require.Len(t, told, 1, "who held out")
		assert.Equal(t, child.PID(), told[0].PID)
		assert.Contains(t, told[0].String(), fmt.Sprintf("%d (", child.PID()))
	})
}

func TestEndWithoutGrace(t *testing.T) {
	endAll(t)
	child := ready(t, "pause", "")
	assert.Empty(t, shared.End(reaper.Ending{Of: child}))
	assert.Equal(t, unix.SIGKILL, exitOf(t, child).Signal())
}

func TestEndInAHurry(t *testing.T) {
	endAll(t)
	child := ready(t, "stubborn", "")
	hurry := make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() { close(hurry) })
	begun := time.Now()
	assert.Empty(t, shared.End(reaper.Ending{Of: child, Grace: aLongTime, Hurry: hurry}))
	assert.Equal(t, unix.SIGKILL, exitOf(t, child).Signal())
	assert.Less(t, time.Since(begun), aLongTime/2)
}

// What is stopped gets its TERM, too.
func TestEndOfStopped(t *testing.T) {
	everyPlace(t, func(t *testing.T) {
		child := ready(t, "stopped", "pause")
		assert.Empty(t, shared.End(reaper.Ending{Of: child, Grace: aLongTime}))
		assert.Equal(t, unix.SIGTERM, exitOf(t, child).Signal())
	})
}

func TestEndOfStoppedWithoutGrace(t *testing.T) {
	endAll(t)
	child := ready(t, "stopped", "pause")
	assert.Empty(t, shared.End(reaper.Ending{Of: child}))
	assert.Equal(t, unix.SIGKILL, exitOf(t, child).Signal())
	requireEmpty(t)
}

func TestEndOfSessionsAndDoubleForks(t *testing.T) {
	everyPlace(t, func(t *testing.T) {
		c := program(t, "hermits", "")
		c.Env = append(c.Env, "TEST_MARK=mine")
		child, lines := startReady(t, c, 13)
		stranger := ready(t, "stubborn", "")
		members := pids(t, lines)
		for _, pid := range members {
			require.True(t, alive(pid))
		}
		var told int
		assert.Empty(t, shared.End(reaper.Ending{
			Of: child, Mark: "TEST_MARK=mine", Grace: aShortTime,
			HoldOut: func(left []reaper.Proc) { told = len(left) },
		}))
		assert.Equal(t, 13, told)
		requireDead(t, members...)
		assert.True(t, alive(stranger.PID()), "another child of ours")
	})
}

// The environment is gone, and so is the parent, but nobody gets into a session
// by other ways than birth.
func TestEndFindsTheSession(t *testing.T) {
	everyPlace(t, func(t *testing.T) {
		c := program(t, "cleared", "")
		child, lines := startReady(t, c, 3)
		assert.Empty(t, shared.End(reaper.Ending{Of: child, Grace: aShortTime}))
		requireDead(t, pids(t, lines)...)
	})
}

// The child has ended before anybody looked; only the mark tells what was its.
func TestEndFindsTheMark(t *testing.T) {
	everyPlace(t, func(t *testing.T) {
		c := program(t, "daemon", "leave")
		c.Env = append(c.Env, "TEST_MARK=gone")
		child, lines := startReady(t, c, 1)
		exitOf(t, child)
		daemon := pids(t, lines)[0]
		if shared.KillMethod() == reaper.KillByCgroup { // its group tells, whatever the mark
			assert.Empty(t, shared.End(reaper.Ending{Of: child, Grace: aShortTime}))
			requireDead(t, daemon)
			return
		}
		assert.Empty(t, shared.End(reaper.Ending{Of: child, Grace: aShortTime}))
		assert.True(t, alive(daemon), "nothing tells whose it is")
		assert.Empty(t, shared.End(reaper.Ending{Of: child, Mark: "TEST_MARK=other", Grace: aShortTime}))
		assert.True(t, alive(daemon), "it is another's")
		assert.Empty(t, shared.End(reaper.Ending{Of: child, Mark: "TEST_MARK=gone", Grace: aShortTime}))
		requireDead(t, daemon)
	})
}

// The leader obeys, its group does not.
func TestEndOfAGroupWhoseLeaderHasEnded(t *testing.T) {
	everyPlace(t, func(t *testing.T) {
		child, lines := startReady(t, program(t, "group", 3), 4)
		require.NoError(t, child.Signal(unix.SIGTERM))
		exitOf(t, child)
		assert.Empty(t, shared.End(reaper.Ending{Of: child, Grace: aShortTime}))
		requireDead(t, pids(t, lines)...)
	})
}

// Daemons that fork themselves again every two milliseconds, in sessions of
// their own.
func TestEndOfRespawning(t *testing.T) {
	everyPlace(t, func(t *testing.T) {
		child := ready(t, "respawn", 8)
		time.Sleep(50 * time.Millisecond)
		assert.Empty(t, shared.End(reaper.Ending{Of: child, Grace: 20 * time.Millisecond}))
		assert.Empty(t, shared.End(reaper.Ending{Grace: 20 * time.Millisecond}))
		requireEmpty(t)
	})
}

func TestEndOfAll(t *testing.T) {
	everyPlace(t, func(t *testing.T) {
		_, lines := startReady(t, program(t, "hermits", ""), 13)
		_, more := startReady(t, program(t, "pause", ""), 1)
		assert.Empty(t, shared.End(reaper.Ending{Grace: aShortTime}))
		requireDead(t, append(pids(t, lines), pids(t, more)...)...)
		requireEmpty(t)
	})
}

func TestEndOfNothing(t *testing.T) {
	requireEmpty(t)
	child := start(t, "exit", 0)
	exitOf(t, child)
	begun := time.Now()
	assert.Empty(t, shared.End(reaper.Ending{Of: child, Grace: aLongTime}))
	assert.Empty(t, shared.End(reaper.Ending{Grace: aLongTime}))
	assert.Less(t, time.Since(begun), aLongTime/2)
}

// A parent that does not wait for its children is no reason to hold out.
func TestZombiesOfOthersAreNotLeft(t *testing.T) {
	endAll(t)
	child := ready(t, "zombies", 5)
	var procs []reaper.Proc
	eventually(t, "only the parent lives", func() (one bool) {
		var err error
		procs, err = reaper.Descendants()
		require.NoError(t, err)
		return len(procs) == 1
	})
	assert.Equal(t, child.PID(), procs[0].PID)
	assert.Equal(t, filepath.Base(self()), procs[0].Name)
	assert.Equal(t, os.Getpid(), procs[0].PPID)
	assert.Empty(t, shared.End(reaper.Ending{Of: child, Grace: aShortTime}))
	requireEmpty(t)
}

// /proc calls it a zombie, but its other threads run.
func TestEndOfAProcessWithoutItsFirstThread(t *testing.T) {
	everyPlace(t, func(t *testing.T) {
		child := ready(t, "thread", "")
		eventually(t, "the first thread has ended", func() bool { return !alive(child.PID()) })
		procs, err := reaper.Descendants()
		require.NoError(t, err)
		require.Len(t, procs, 1)
		assert.Empty(t, shared.End(reaper.Ending{Of: child, Grace: aShortTime}))
		assert.Equal(t, unix.SIGKILL, exitOf(t, child).Signal())
	})
}

func TestSignalDescendants(t *testing.T) {
	everyPlace(t, func(t *testing.T) {
		_, lines := startReady(t, program(t, "hermits", ""), 13)
		shared.SignalDescendants(unix.SIGKILL)
		for _, pid := range pids(t, lines) {
			eventually(t, "it is dead", func() bool { return !alive(pid) })
		}
	})
}

// What has entered our pid namespace is not ours, whatever we end.
func TestNeighboursAreNeverHit(t *testing.T) {
	for _, where := range []string{"pid1", "pid1 filter=pidfd", "sub", "sub proc=none", "sub proc=outer"} {
		t.Run(where, func(t *testing.T) {
			if !rerun(t, where) {
				return
			}
			endAll(t)
			next := neighbour(t, "pause", "")
			for _, of := range []bool{true, false} {
				child := ready(t, "stubborn", "")
				e := reaper.Ending{Grace: aShortTime}
				if of {
					e.Of = child
				}
				assert.Empty(t, shared.End(e))
				assert.Equal(t, unix.SIGKILL, exitOf(t, child).Signal())
				shared.SignalDescendants(unix.SIGKILL)
				require.NoError(t, unix.Kill(next, 0), "the neighbour lives")
			}
		})
	}
}

// Without a /proc of ours PID 1 knows process groups, and everything.
func TestEndWithoutProc(t *testing.T) {
	for _, proc := range []string{"none", "outer"} {
		t.Run(proc, func(t *testing.T) {
			if !rerun(t, "pid1 proc="+proc) {
				return
			}
			endAll(t)
			_, err := reaper.Descendants()
			require.Error(t, err)
			group, members := startReady(t, program(t, "group", 2), 3)
			_, hermits := startReady(t, program(t, "hermits", ""), 13)
			next := neighbour(t, "pause", "")

			require.NoError(t, group.Signal(0))
			assert.Empty(t, shared.End(reaper.Ending{Of: group}))
			assert.Equal(t, unix.SIGKILL, exitOf(t, group).Signal())
			for _, pid := range pids(t, members) {
				eventually(t, "the group has gone", func() bool { return unix.Kill(pid, 0) != nil })
			}
			shared.SignalDescendants(unix.SIGCONT)
			for _, pid := range append(pids(t, hermits), next) {
				require.NoError(t, unix.Kill(pid, 0), "not in the group")
			}

			begun := time.Now()
			assert.Empty(t, shared.End(reaper.Ending{Grace: aShortTime}))
			requireEmpty(t)
			assert.Less(t, time.Since(begun), aLongTime/2)
			for _, pid := range pids(t, hermits) {
				require.ErrorIs(t, unix.Kill(pid, 0), unix.ESRCH)
			}
		})
	}
}

// With nothing left that could be found there is nothing to wait for.
func TestEndWithoutProcDoesNotWaitInVain(t *testing.T) {
	if !rerun(t, "sub proc=none") {
		return
	}
	child := ready(t, "pause", "")
	_, lines := startReady(t, program(t, "daemon", "leave"), 1)
	begun := time.Now()
	assert.Empty(t, shared.End(reaper.Ending{Of: child, Grace: aLongTime}))
	assert.Equal(t, unix.SIGTERM, exitOf(t, child).Signal())
	assert.Empty(t, shared.End(reaper.Ending{Of: child, Grace: aLongTime}))
	assert.Empty(t, shared.End(reaper.Ending{Grace: aLongTime}))
	assert.Less(t, time.Since(begun), aLongTime/2)
	require.NoError(t, unix.Kill(pids(t, lines)[0], unix.SIGKILL))
	requireEmpty(t)
}

// The number of a child that has been reaped can belong to another group now.
func TestEndSparesTheNextOwnerOfTheGroup(t *testing.T) {
	if !rerun(t, "pid1 pid_max=400") {
		return
	}
	endAll(t)
	exitOf(t, start(t, "chains", "1 400")) // the kernel gives pids under 300 only once
	requireEmpty(t)
	child := ready(t, "pause", "")
	require.NoError(t, child.Signal(unix.SIGKILL))
	exitOf(t, child)
	var next *reaper.Child
	programs := writePrograms(t)
	for range 2000 {
		if next = startAnyway(t, programs.pause()); next.PID() == child.PID() {
			break
		}
		require.NoError(t, next.Signal(unix.SIGKILL))
		exitOf(t, next)
	}
	require.Equal(t, child.PID(), next.PID())
	assert.Empty(t, shared.End(reaper.Ending{Of: child, Grace: aShortTime}))
	assert.True(t, alive(next.PID()))
	require.NoError(t, next.Signal(0))
	require.ErrorIs(t, child.Signal(0), unix.ESRCH)
}
