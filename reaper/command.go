// SPDX-License-Identifier: Apache-2.0

package reaper

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Command is a program to start. It becomes the leader of a process group of
// its own, with an empty signal mask and default dispositions.
type Command struct {
	Path string   // the executable; nothing is looked up
	Args []string // argv, with the name as the first
	Env  []string // the whole environment
	Dir  string   // empty: ours
	// Files are the child's descriptors 0, 1, 2, …; those of 0 to 2 that are not
	// given are closed. Of our own nothing else is inherited. What we were
	// started with beyond 2 (socket activation, a job server) passes through.
	Files []uintptr
	Cred  *syscall.Credential // nil: ours
	// Foreground makes the process group the foreground group of the terminal
	// at our descriptor 0, which must be our controlling terminal.
	Foreground bool
	// Setsid makes the child the leader of a session instead; Terminal makes the
	// terminal at our descriptor 0, which we have given up, that session's.
	Setsid, Terminal bool
	// KeepMask lets the child block the signals that we were started with as
	// blocked, as far as the Go runtime has not unblocked them.
	KeepMask bool
	// Group gives the child a control group of its own where that can be had,
	// so that [Reaper.End] can kill its whole tree at once. It needs
	// [Reaper.Gate], and Files of 0 to 2.
	Group bool
}

// forkExec starts the command. It goes past package os on purpose: that checks
// for pidfd support with a clone of its own and would want to do the waiting.
func (c *Command) forkExec() (pid int, err error) {
	attr := &syscall.ProcAttr{
		Dir:   c.Dir,
		Env:   c.Env,
		Files: c.Files,
		Sys: &syscall.SysProcAttr{
			Setpgid: !c.Setsid, Setsid: c.Setsid, Setctty: c.Terminal, Credential: c.Cred, Foreground: c.Foreground,
		},
	}
	if c.KeepMask {
		return syscall.ForkExec(c.Path, c.Args, attr)
	}
	err = withEmptyMask(func() (err error) {
		pid, err = syscall.ForkExec(c.Path, c.Args, attr)
		return err
	})
	return pid, err
}

// Replace executes the command in place of this program (same pid), with the
// signal mask and the dispositions that a started child gets. It returns only
// on failure, possibly as the command's user already. With Foreground it takes
// the terminal's foreground back from whoever had it last; Files are not used,
// nor is a session. The caller has made sure that nothing is running which would
// need a reaper.
func Replace(c Command) error {
	if c.Foreground {
		takeForeground()
	}
	// It survives execve, and the program might not reap.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	if err := become(c.Cred); err != nil {
		return err
	}
	if c.Dir != "" {
		if err := syscall.Chdir(c.Dir); err != nil {
			return err
		}
	}
	return withEmptyMask(func() error { return syscall.Exec(c.Path, c.Args, c.Env) })
}

// become gives all our threads the identity of a child with these credentials;
// nil is ours. Groups first: without root they could not be changed any more.
func become(cred *syscall.Credential) error {
	if cred == nil {
		return nil
	}
	if !cred.NoSetGroups {
		groups := make([]int, len(cred.Groups))
		for i, g := range cred.Groups {
			groups[i] = int(g)
		}
		if err := syscall.Setgroups(groups); err != nil {
			return err
		}
	}
	if err := syscall.Setgid(int(cred.Gid)); err != nil {
		return err
	}
	return syscall.Setuid(int(cred.Uid))
}

// takeForeground makes our process group the foreground group of the terminal
// at descriptor 0. Whoever is in the background is stopped with TTOU for that,
// unless the thread blocks it; see tcsetpgrp(3).
func takeForeground() {
	var ttou unix.Sigset_t
	ttou.Val[0] = 1 << (unix.SIGTTOU - 1)
	_ = withMask(&ttou, func() error {
		return unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, unix.Getpgrp())
	})
}

// withEmptyMask calls f on a thread that blocks no signal: a forked child gets
// the mask of the thread that forks, and Go unblocks only some of the signals
// that it was started with.
func withEmptyMask(f func() error) error { return withMask(&unix.Sigset_t{}, f) }

// withMask calls f on a thread that blocks these signals and no others.
func withMask(mask *unix.Sigset_t, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, mask, &old); err != nil {
		return f()
	}
	defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil) }()
	return f()
}

// left are the signals whose disposition the Go runtime leaves alone when they
// are ignored at its start, so that children would ignore them too: 32 and 34
// are the C libraries' own (it handles 33).
var left = [...]syscall.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, 32, 34,
}

// Ignored returns the signals that we were started with as ignored, as far as
// the Go runtime lets them stay so: children ignore them too until
// signal.Notify is called for them.
func Ignored() []syscall.Signal {
	var ignored []syscall.Signal
	for _, sig := range left {
		const sigIgn = 1
		var old kernelSigaction
		if sigaction(sig, nil, &old) && old.handler == sigIgn {
			ignored = append(ignored, sig)
		}
	}
	return ignored
}

// ResetIgnored gives the default disposition back to the signals that we were
// started with as ignored, so that children do not inherit that. Call it before
// the first Start and before any signal.Notify.
func ResetIgnored() {
	for _, sig := range Ignored() {
		sigaction(sig, &kernelSigaction{}, nil)
	}
}

// Doomed tells whether the Go runtime is ending this program because of sig,
// which came before signal.Notify was called for it: on its way out it gives the
// signal its default disposition, and then takes some time to leave.
func Doomed(sig syscall.Signal) bool {
	var now kernelSigaction
	return sigaction(sig, nil, &now) && now.handler == 0
}

// GiveUpTerminal gives up the controlling terminal at descriptor 0, so that a
// child in a session of its own can have it, and tells whether it did. Only the
// leader of a session can hand it on. The HUP and CONT that the kernel sends us
// for it do not reach us; see tty_ioctl(4).
func GiveUpTerminal() bool {
	if sid, err := unix.Getsid(0); err != nil || sid != unix.Getpid() {
		return false
	}
	for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGCONT} {
		var old kernelSigaction
		if sigaction(sig, &kernelSigaction{handler: 1}, &old) {
			defer sigaction(sig, &old, nil)
		}
	}
	return unix.IoctlSetInt(0, unix.TIOCNOTTY, 0) == nil
}

// muted is SIGCHLD while nobody wants it. The Go runtime has a handler for every
// signal, and one for each orphan that ends would cost us more than reaping it.
// With the default disposition the kernel does not send it at all, and still
// keeps the status (unlike SIG_IGN, see wait(2)).
type muted struct{ handler kernelSigaction }

func (m *muted) mute() {
	var dfl kernelSigaction
	sigaction(unix.SIGCHLD, &dfl, &m.handler)
}

// unmute gives the runtime its handler back; it would not install it anew.
func (m *muted) unmute() { sigaction(unix.SIGCHLD, &m.handler, nil) }

// kernelSigaction is large enough for struct sigaction of rt_sigaction(2) on
// every architecture; all zero is SIG_DFL. The handler is its first word (not
// on mips, where nothing would be reset).
type kernelSigaction struct {
	handler uintptr
	_       [7]uintptr
}

// sigaction is rt_sigaction(2), behind the back of the Go runtime.
func sigaction(sig syscall.Signal, set, old *kernelSigaction) (ok bool) {
	const sigsetSize = 8
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig),
		uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), sigsetSize, 0, 0)
	return errno == 0
}
