// SPDX-License-Identifier: Apache-2.0

package reaper_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// inGroups runs a test where we may make control groups, and makes sure that it
// leaves none.
func inGroups(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	for _, where := range []string{"pid1 cgroup", "sub cgroup filter=pidfd", "pid1 cgroup proc=hidden"} {
		t.Run(where, func(t *testing.T) {
			if rerun(t, where) {
				t.Cleanup(func() { assert.Empty(t, boxes(t), "groups that were left") })
				endAll(t)
				test(t)
			}
		})
	}
}

// boxes are the directories of the groups below ours.
func boxes(t *testing.T) (dirs []string) {
	t.Helper()
	entries, err := os.ReadDir(cgroup.Where{}.Unified())
	require.NoError(t, err)
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, e.Name())
		}
	}
	return dirs
}

// boxOf is the group that a process is in, and nothing else about it.
func boxOf(t *testing.T, pid any) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "cgroup"))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(rest)
		}
	}
	t.Fatal("no cgroup v2 hierarchy")
	return ""
}

// A child is in a group of its own from its first instruction on; we are not.
func TestEachChildHasItsGroup(t *testing.T) {
	inGroups(t, func(t *testing.T) {
		one, two := ready(t, "pause", ""), ready(t, "pause", "")
		own := boxOf(t, "self")
		assert.Equal(t, own, filepath.Dir(boxOf(t, one.PID())))
		assert.Equal(t, own, filepath.Dir(boxOf(t, two.PID())))
		assert.NotEqual(t, boxOf(t, one.PID()), boxOf(t, two.PID()))
		assert.Len(t, boxes(t), 2)

		plain := program(t, "pause", "")
		plain.Group = false
		command, _ := startReady(t, plain, 1)
		assert.Equal(t, own, boxOf(t, command.PID()))

		assert.Empty(t, shared.End(reaper.Ending{Of: one}))
		assert.Len(t, boxes(t), 1, "the group has gone with its tree")
		assert.True(t, alive(two.PID()))
		assert.True(t, alive(command.PID()))
	})
}

// What executes at the gate's end is the program as if there had been no gate.
func TestTheGateLeavesNoTrace(t *testing.T) {
	inGroups(t, func(t *testing.T) {
		want, got := program(t, "fds", ""), program(t, "fds", "")
		want.Group = false
		plain, _ := run(t, want)
		boxed, exit := run(t, got)
		assert.Zero(t, exit.Code())
		assert.Equal(t, plain, boxed, "descriptors")

		cat := reaper.Command{Path: "/bin/cat", Args: []string{"cat", "/proc/self/status", "/proc/self/limits", "/proc/self/environ"}, Env: []string{"A=1", "B="}, Files: got.Files}
		plain, _ = run(t, cat)
		cat.Group = true
		boxed, _ = run(t, cat)
		assert.Equal(t, lasting(plain), lasting(boxed))
	})
}

// lasting is the part of a status that tells of masks, dispositions, limits
// and environment, but not of numbers that differ from run to run.
func lasting(status string) (lines []string) {
	for line := range strings.Lines(status) {
		for _, name := range []string{"Sig", "Shd", "Cap", "Max", "A=1", "Seccomp", "NoNewPrivs", "Uid", "Gid"} {
			if strings.HasPrefix(line, name) && !strings.HasPrefix(line, "SigQ") {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// Why a program can't be executed is told as without the gate, and nothing is
// left.
func TestTheGateTellsWhy(t *testing.T) {
	inGroups(t, func(t *testing.T) {
		c := program(t, "exit", 0)
		c.Path = "/no/such/program"
		_, err := shared.Start(c)
		require.ErrorIs(t, err, syscall.ENOENT)
		c.Path = "/proc/self/status"
		_, err = shared.Start(c)
		require.ErrorIs(t, err, syscall.EACCES)
		assert.Empty(t, boxes(t))
		requireEmpty(t)
	})
}

// What a child's environment does to a Go runtime does not happen to the gate:
// the child is started once, at once, and in its group.
func TestTheGateHasNoEnvironment(t *testing.T) {
	for _, entry := range []string{"GODEBUG=schedtrace=1000", "GODEBUG=inittrace=1", "GOMEMLIMIT=most", ":", ""} {
		t.Run(entry, func(t *testing.T) {
			inGroups(t, func(t *testing.T) {
				c := program(t, "exit", 0)
				c.Path, c.Args, c.Env = "/bin/cat", []string{"cat", "/proc/self/environ", "/proc/self/cgroup"}, []string{"A=1", entry, "B=2"}
				out, exit := run(t, c)
				assert.Zero(t, exit.Code())
				environ, groups, _ := strings.Cut(out, "B=2\x00")
				assert.Equal(t, "A=1\x00"+entry+"\x00", environ)
				assert.NotContains(t, groups, "A=1", "it ran again")
				assert.Contains(t, groups, boxOf(t, "self")+"/cleanimg-init-")
			})
		})
	}
}

// Without a gate that works the child is started all the same.
func TestWithoutAGate(t *testing.T) {
	for _, gate := range []string{"/no/such/program", "/bin/true", "/bin/false"} {
		t.Run(filepath.Base(gate), func(t *testing.T) {
			if !rerun(t, "pid1 cgroup") {
				return
			}
			endAll(t)
			shared.Gate = gate
			child := ready(t, "stubborn", "")
			assert.Equal(t, reaper.KillByWalk, shared.KillMethod())
			assert.Empty(t, boxes(t))
			assert.Empty(t, shared.End(reaper.Ending{Of: child}))
			assert.Equal(t, unix.SIGKILL, exitOf(t, child).Signal())
		})
	}
}

// What no other sign leads to is found by its group, and so are groups in it.
func TestEndOfTheGroup(t *testing.T) {
	for role, lines := range map[string]int{"hermits": 13, "settle": 2} {
		t.Run(role, func(t *testing.T) {
			inGroups(t, func(t *testing.T) {
				child, members := startReady(t, program(t, role, ""), lines)
				require.NotEmpty(t, boxes(t))
				assert.Empty(t, shared.End(reaper.Ending{Of: child, Grace: 50 * time.Millisecond}))
				requireDead(t, pids(t, members)...)
				assert.Empty(t, boxes(t))
				requireEmpty(t)
			})
		})
	}
}

// A daemon that a child left lives on in its group, which goes at the end.
func TestADaemonLivesOnInItsGroup(t *testing.T) {
	inGroups(t, func(t *testing.T) {
		child, lines := startReady(t, program(t, "daemon", "leave"), 1)
		exitOf(t, child)
		child.Release()
		daemon := pids(t, lines)[0]
		assert.True(t, alive(daemon))
		assert.Len(t, boxes(t), 1)

		done := start(t, "exit", 0)
		exitOf(t, done)
		eventually(t, "its group has gone", func() bool { done.Release(); return len(boxes(t)) == 1 })

		assert.Empty(t, shared.End(reaper.Ending{Grace: aShortTime}))
		requireDead(t, daemon)
		assert.Empty(t, boxes(t))
	})
}

// Neither the command nor what was started beside is in a group that is killed.
func TestOnlyTheGroupIsKilled(t *testing.T) {
	inGroups(t, func(t *testing.T) {
		plain := program(t, "pause", "")
		plain.Group = false
		command, _ := startReady(t, plain, 1)
		next := neighbour(t, "pause", "")
		child := ready(t, "stubborn", "")
		assert.Empty(t, shared.End(reaper.Ending{Of: child}))
		assert.Equal(t, unix.SIGKILL, exitOf(t, child).Signal())
		assert.True(t, alive(command.PID()))
		require.NoError(t, unix.Kill(next, 0))
	})
}

// hidepid keeps us from seeing another user's child, which we may signal.
func TestEndOfTheHidden(t *testing.T) {
	for _, where := range []string{"pid1 proc=hidden", "pid1 proc=hidden filter=pidfd"} {
		t.Run(where, func(t *testing.T) {
			if !rerun(t, where) {
				return
			}
			endAll(t)
			next := neighbour(t, "pause", "")
			c := writePrograms(t).pause()
			require.NoError(t, os.Chmod(filepath.Dir(c.Path), 0o755))
			require.NoError(t, os.Chmod(filepath.Dir(filepath.Dir(c.Path)), 0o755))
			c.Cred = &syscall.Credential{Uid: 65532, Gid: 65532}
			c.KeepMask = false
			child := startAnyway(t, c)
			_, err := os.Stat(filepath.Join("/proc", fmt.Sprint(child.PID())))
			require.ErrorIs(t, err, os.ErrNotExist, "it is hidden")
			procs, err := reaper.Descendants()
			require.NoError(t, err)
			require.Len(t, procs, 1)
			require.NoError(t, child.Signal(unix.SIGSTOP)) // or TERM would do
			assert.Empty(t, shared.End(reaper.Ending{Of: child}))
			assert.Equal(t, unix.SIGKILL, exitOf(t, child).Signal())
			other := startAnyway(t, c)
			assert.Empty(t, shared.End(reaper.Ending{}))
			assert.Equal(t, unix.SIGKILL, exitOf(t, other).Signal())
			require.NoError(t, unix.Kill(next, 0))
		})
	}
}
