// SPDX-License-Identifier: Apache-2.0

package reaper_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Whatever we were started with, our children start with no signal blocked and
// none ignored.
func TestMaskAndDispositions(t *testing.T) {
	for _, how := range []string{"start", "replace"} {
		t.Run(how, func(t *testing.T) {
			out, e := run(t, program(t, "masked", how))
			require.Zero(t, e.Code(), out)
			for _, set := range []string{"SigPnd", "SigBlk", "SigIgn", "SigCgt"} {
				assert.Contains(t, out, set+":\t0000000000000000\n")
			}
		})
	}
	requireEmpty(t)
}

func TestDescriptorLimitIsTheOriginal(t *testing.T) {
	out, e := run(t, program(t, "limits", "set"))
	require.Zero(t, e.Code())
	for line := range strings.Lines(out) {
		if soft, ok := strings.CutPrefix(line, "Max open files"); ok {
			assert.Equal(t, "77", strings.Fields(soft)[0])
			return
		}
	}
	t.Fatal(out)
}

func TestOnlyGivenDescriptorsAreInherited(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	c := program(t, "fds", "")
	out, _ := run(t, c)
	assert.Equal(t, descriptors(0, 1, 2), out)
	c.Files = append(c.Files, w.Fd(), r.Fd())
	out, _ = run(t, c)
	assert.Equal(t, descriptors(0, 1, 2, 3, 4), out)
}

// A job server's or a socket's descriptor is meant for the command.
func TestDescriptorsFromOutsidePassThrough(t *testing.T) {
	null, err := unix.Open(os.DevNull, unix.O_RDONLY, 0) // as if it came from outside
	require.NoError(t, err)
	fd, err := unix.FcntlInt(uintptr(null), unix.F_DUPFD, 40)
	require.NoError(t, err)
	require.NoError(t, unix.Close(null))
	defer unix.Close(fd)
	out, _ := run(t, program(t, "fds", ""))
	got := strings.Fields(out)
	assert.Contains(t, got, fmt.Sprint(fd))
	assert.Subset(t, strings.Fields(descriptors(0, 1, 2)), got, "and nothing of ours")
}

// descriptors are given and those that this process was itself started with.
func descriptors(given ...int) string {
	for fd := 3; fd < 64; fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 && !slices.Contains(given, fd) {
			given = append(given, fd)
		}
	}
	return strings.Trim(fmt.Sprint(given), "[]")
}

func TestEnvironmentAndDirectory(t *testing.T) {
	c := program(t, "where", "")
	c.Dir = "/"
	out, e := run(t, c)
	require.Zero(t, e.Code())
	assert.Equal(t, "/ "+strings.Join(c.Env, " ")+"\n", out)
}

func TestProcessGroupOfItsOwn(t *testing.T) {
	endAll(t)
	child := ready(t, "pause", "")
	pgid, err := unix.Getpgid(child.PID())
	require.NoError(t, err)
	assert.Equal(t, child.PID(), pgid)
}

// With a terminal the child gets the foreground, and it is not stopped for
// asking while it is in the background.
func TestForeground(t *testing.T) {
	out, e := run(t, program(t, "terminal", "session"))
	assert.Zero(t, e.Code())
	assert.Equal(t, "foreground\n", out)
	requireEmpty(t)
}
