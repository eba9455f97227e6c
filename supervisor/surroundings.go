// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

// pidVariable tells an instance below us that it is not alone.
const pidVariable = Prefix + "_PID"

// childEnv is the environment of hooks and command. What a service manager said
// to us by our pid is not for them.
func (s *supervisor) childEnv() []string {
	pid := strconv.Itoa(os.Getpid())
	env := s.env
	if slices.Contains(env, "LISTEN_PID="+pid) {
		env = hooks.WithoutEnv(env, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
	}
	if slices.Contains(env, "WATCHDOG_PID="+pid) {
		env = hooks.WithoutEnv(env, "WATCHDOG_PID")
	}
	return hooks.WithEnv(env, append(limitEnv(s.box.Limits()), pidVariable+"="+pid)...)
}

// hookEnv is that of hooks alone.
func (s *supervisor) hookEnv() []string { return withoutNotify(s.childEnv()) }

// nested tells whether another instance has started us, directly or not. PID 1
// of a new pid namespace is on its own again.
func nested(environ []string) bool {
	if os.Getpid() == 1 {
		return false
	}
	for _, entry := range environ {
		if len(entry) > len(pidVariable) && entry[:len(pidVariable)+1] == pidVariable+"=" {
			return true
		}
	}
	return false
}

// ownsTerminal tells whether descriptor 0 is our controlling terminal and we
// are in its foreground, so that we may hand it on.
func ownsTerminal() bool {
	group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// signalAtParentDeath asks the kernel for sig when our parent dies. The request
// belongs to the thread that makes it, so that thread is kept for ever.
func signalAtParentDeath(sig syscall.Signal) {
	parent := os.Getppid()
	asked := make(chan struct{})
	go lockedForever(func() {
		_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(sig), 0, 0, 0)
		if os.Getppid() != parent { // it died before we asked
			_ = syscall.Kill(os.Getpid(), sig)
		}
		close(asked)
	})
	<-asked
}

// lockedForever runs f on a thread that lives as long as the program.
func lockedForever(f func()) {
	runtime.LockOSThread()
	f()
	select {}
}
