// SPDX-License-Identifier: Apache-2.0

package reaper

import (
	"bytes"
	"errors"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A child has to be in its control group before it runs anything, or what it
// has forked until then stays outside. clone3(2) could start it there, but the
// usual seccomp profiles refuse that call, and Go runs nothing of ours between
// fork and exec. So the child is this program first: it waits at the gate until
// it has been moved, and executes the program that it is to become.
//
// The two talk over a socket, which is the gate's standard error so that what a
// Go runtime says as it dies does not get among the child's own words. We send
// one byte when the child has been moved. It answers with a mark when it is
// about to exec, and with the number of the error if that fails. The end of the
// stream comes with the exec, or with the end of the gate; without the mark
// nothing was executed.
//
// The child's environment is none of the gate's: GODEBUG makes a runtime talk,
// and a wrong GOMEMLIMIT ends it. So each entry comes with a letter before it.

const (
	gateName     = "cleanimg-init: step" // argv[0]
	gateLowest   = 10                    // descriptor that is surely none of the child's own
	gateOpen     = 'o'
	gatePassed   = "\x00passed\x00"
	gateDisguise = ":"
)

// errNoGate means that a child can't be started through the gate.
var errNoGate = errors.New("no gate")

// Gate is the first thing that the program at [Reaper.Gate] does, with its own
// arguments. Where it was started to become a child it does so, and does not
// return; otherwise it does nothing.
func Gate(argv []string) {
	if len(argv) < 4 || argv[0] != gateName {
		return
	}
	stderr, err := strconv.Atoi(argv[1])
	if err != nil {
		return
	}
	os.Exit(passGate(stderr, argv[2], argv[3:]))
}

// passGate becomes the child. It returns only when that fails.
//
// The runtime ends us where it can't have a thread, and after the mark that would
// pass for the child's own end. So what makes threads, a locked goroutine and a
// collection, comes before it or not at all.
func passGate(stderr int, path string, args []string) (code int) {
	const failed = 1
	debug.SetGCPercent(-1)
	_ = withEmptyMask(func() error {
		talk, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, gateLowest)
		if err != nil || !gateOpens(talk) {
			return err // nobody waits for us any more
		}
		env := syscall.Environ()
		for i := range env {
			env[i] = strings.TrimPrefix(env[i], gateDisguise)
		}
		if err := errors.Join(unix.Dup3(stderr, 2, 0), unix.Close(stderr)); err != nil {
			return err
		}
		if _, err := unix.Write(talk, []byte(gatePassed)); err != nil {
			return err
		}
		err = syscall.Exec(path, args, env)
		var errno syscall.Errno
		errors.As(err, &errno)
		_, err = unix.Write(talk, strconv.AppendInt(nil, int64(errno), 10))
		return err
	})
	return failed
}

// forkThroughGate starts the command in a group of its own. The error is
// errNoGate when it has not been tried, and may be tried in another way.
func (l *Launch) forkThroughGate() (pid int, g *group, err error) {
	r, c := l.r, l.command
	if r.Gate == "" || !c.Group || len(c.Files) < 3 {
		return 0, nil, errNoGate
	}
	if g = r.groups.add(); g == nil {
		return 0, nil, errNoGate
	}
	defer func() {
		if err != nil {
			r.groups.remove(g)
			g = nil
		}
	}()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, g, errNoGate
	}
	talk, theirs := pair[0], pair[1]
	stderr, err := unix.FcntlInt(c.Files[2], unix.F_DUPFD, gateLowest)
	if err != nil {
		closeAll(talk, theirs)
		return 0, g, errNoGate
	}
	gate := c
	gate.Path, gate.Files = r.Gate, slices.Clone(c.Files)
	gate.Args = append([]string{gateName, strconv.Itoa(stderr), c.Path}, c.Args...)
	gate.Files[2] = uintptr(theirs)
	gate.Env = make([]string, len(c.Env))
	for i, entry := range c.Env {
		gate.Env[i] = gateDisguise + entry
	}
	pid, err = gate.forkExec()
	closeAll(theirs, stderr)
	if err != nil {
		closeAll(talk)
		return 0, g, errNoGate
	}
	l.begins(pid)
	moved := g.enter(pid) == nil // else it runs all the same
	_, _ = unix.Write(talk, []byte{gateOpen})
	_, answer, passed := bytes.Cut(readAll(talk), []byte(gatePassed))
	closeAll(talk)
	l.begins(0)
	switch {
	case !passed:
		// The Go runtime needs threads, which a pids limit may refuse.
		if signal := waitFor(pid).Signal(); signal > 0 {
			return 0, g, syscall.EINTR
		}
		return 0, g, errNoGate
	case len(answer) > 0:
		waitFor(pid)
		errno, _ := strconv.Atoi(string(answer))
		return 0, g, syscall.Errno(errno)
	case !moved:
		r.groups.remove(g)
		g = nil
	}
	return pid, g, nil
}

// waitFor collects the status of a child that nobody knows of yet. The token for
// starts is held, so that the loop leaves it alone.
func waitFor(pid int) (status syscall.WaitStatus) {
	for {
		if _, err := syscall.Wait4(pid, &status, 0, nil); !errors.Is(err, unix.EINTR) {
			return status
		}
	}
}

func closeAll(fds ...int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// gateOpens waits for the byte that opens the gate.
func gateOpens(talk int) bool {
	for {
		n, err := unix.Read(talk, make([]byte, 1))
		if !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
}

// readAll reads until the end of the stream.
func readAll(fd int) (got []byte) {
	buf := make([]byte, 1<<10)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || n == 0:
			return got
		default:
			got = append(got, buf[:n]...)
		}
	}
}
