// SPDX-License-Identifier: Apache-2.0

package reaper_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// A hang is a command whose execve hangs until goOn is called: the kernel asks
// whether it may go on (see fanotify(7)), and nobody answers.
type hang struct {
	reaper.Command
	t     *testing.T
	group int
}

func hanging(t *testing.T, role string) *hang {
	t.Helper()
	h := &hang{Command: program(t, role, 0), t: t}
	text, err := os.ReadFile(self())
	require.NoError(t, err)
	h.Path = filepath.Join(t.TempDir(), "hanging")
	require.NoError(t, os.WriteFile(h.Path, text, 0o755))
	if h.group, err = unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC); err == nil {
		err = unix.FanotifyMark(h.group, unix.FAN_MARK_ADD, unix.FAN_OPEN_EXEC_PERM, unix.AT_FDCWD, h.Path)
	}
	if err != nil {
		t.Skipf("needs fanotify permission events: %v", err)
	}
	t.Cleanup(func() { h.goOn(); unix.Close(h.group) })
	return h
}

// await waits until it hangs.
func (h *hang) await() {
	h.t.Helper()
	n, err := 0, error(unix.EINTR)
	for err == unix.EINTR {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(h.group), Events: unix.POLLIN}}, 60_000)
	}
	require.NoError(h.t, err)
	require.Equal(h.t, 1, n, "nothing hangs")
}

// goOn lets what hangs be executed, and whatever comes. To close the group would
// not be enough: what hangs has it open, too.
func (h *hang) goOn() {
	require.NoError(h.t, unix.FanotifyMark(h.group, unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD, h.Path))
	var event [unsafe.Sizeof(unix.FanotifyEventMetadata{})]byte
	for {
		if n, err := unix.Read(h.group, event[:]); err != nil || n == 0 {
			return
		}
		fd := (*unix.FanotifyEventMetadata)(unsafe.Pointer(&event)).Fd
		answer := unix.FanotifyResponse{Fd: fd, Response: unix.FAN_ALLOW}
		_, err := unix.Write(h.group, (*[unsafe.Sizeof(answer)]byte)(unsafe.Pointer(&answer))[:])
		require.NoError(h.t, err)
		require.NoError(h.t, unix.Close(int(fd)))
	}
}

type started struct {
	child *reaper.Child
	err   error
}

// launch starts a command beside the test.
func launch(c reaper.Command) (*reaper.Launch, <-chan started) {
	l := shared.Launch(c)
	done := make(chan started, 1)
	go func() {
		child, err := l.Start()
		done <- started{child, err}
	}()
	return l, done
}

// await waits for the end of a start.
func await(t *testing.T, done <-chan started) started {
	t.Helper()
	select {
	case s := <-done:
		return s
	case <-time.After(time.Minute):
		require.FailNow(t, "the start does not end")
		return started{}
	}
}

// What hangs in its execve is found, and neither a neighbour nor a child that
// runs already; KILL ends it, and what waits behind it goes on, or does not if
// that is not wanted any more.
func TestAbortAStart(t *testing.T) {
	for _, where := range []string{"pid1", "sub", "pid1 filter=pidfd", "pid1 cgroup"} {
		t.Run(where, func(t *testing.T) {
			if !rerun(t, where) {
				return
			}
			endAll(t)
			other := ready(t, "pause", "")
			h := hanging(t, "exit")
			l, done := launch(h.Command)
			h.await()
			p, ok := l.Process()
			require.True(t, ok)
			assert.Equal(t, os.Getpid(), p.PPID)
			behind, behindDone := launch(program(t, "exit", 0))
			next, nextDone := launch(program(t, "exit", 7))
			behind.Abort()
			assert.ErrorIs(t, await(t, behindDone).err, reaper.ErrAborted)
			_, ok = next.Process()
			assert.False(t, ok, "its turn has not come")

			l.Abort()
			s := await(t, done)
			require.NoError(t, s.err)
			assert.Equal(t, unix.SIGKILL, exitOf(t, s.child).Signal())
			assert.True(t, alive(other.PID()))
			s = await(t, nextDone)
			require.NoError(t, s.err)
			assert.Equal(t, 7, exitOf(t, s.child).Code())
			h.goOn()
			_, ok = l.Process()
			assert.False(t, ok)
		})
	}
}

var garbage []byte

// What hangs and is not aborted is started as ever when it can be.
func TestASlowStart(t *testing.T) {
	for _, where := range []string{"pid1", "pid1 cgroup"} {
		t.Run(where, func(t *testing.T) {
			if !rerun(t, where) {
				return
			}
			endAll(t)
			h := hanging(t, "exit")
			l, done := launch(h.Command)
			h.await()
			p, ok := l.Process()
			require.True(t, ok)
			assert.Equal(t, os.Getpid(), p.PPID)
			for range 64 { // a collection would wait for what hangs, and all of us with it
				garbage = make([]byte, 1<<20)
			}
			h.goOn()
			s := await(t, done)
			require.NoError(t, s.err)
			assert.Zero(t, exitOf(t, s.child).Code())
		})
	}
}

// What not even KILL ends, as where it cannot be found, keeps others from being
// started, but not from knowing it. When it goes on, so do they.
func TestGiveUpAStart(t *testing.T) {
	if !rerun(t, "pid1 proc=none") {
		return
	}
	endAll(t)
	h := hanging(t, "exit")
	l, done := launch(h.Command)
	h.await()
	_, behindDone := launch(program(t, "exit", 0))
	l.GiveUp()
	_, err := shared.Start(program(t, "exit", 0))
	require.ErrorIs(t, err, reaper.ErrStuck)
	require.ErrorIs(t, await(t, behindDone).err, reaper.ErrStuck)
	h.goOn()
	s := await(t, done)
	require.NoError(t, s.err)
	assert.Zero(t, exitOf(t, s.child).Code())
	exitOf(t, start(t, "exit", 0))
}
