// SPDX-License-Identifier: Apache-2.0

package reaper

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// signal sends sigs to each of procs, or, when /proc could not tell (err), to
// what is known without it.
func (t *tree) signal(procs []Proc, err error, sigs ...syscall.Signal) {
	for _, sig := range sigs {
		switch {
		case err == nil:
			for _, p := range procs {
				_ = t.r.signalProc(p, sig)
			}
		case t.Of != nil:
			_ = t.Of.SignalGroup(sig)
		case os.Getpid() == 1:
			_ = syscall.Kill(-1, sig)
		default:
			t.r.SignalChildren(sig)
		}
	}
}

// SignalDescendants sends sig to each of our descendants. Without a usable
// /proc it does what [Reaper.SignalChildren] does.
func (r *Reaper) SignalDescendants(sig syscall.Signal) {
	procs, err := Descendants()
	if err != nil {
		r.SignalChildren(sig)
		return
	}
	for _, p := range procs {
		_ = r.signalProc(p, sig)
	}
}

// signalProc sends sig to p, and to nobody who got its pid afterwards: through
// a pidfd whose process is compared with p after it was opened. The lock keeps
// our own children from being reaped between the look and the signal, which is
// what protects where the seccomp profile refuses pidfds.
func (r *Reaper) signalProc(p Proc, sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err == nil {
		defer unix.Close(fd)
	}
	if !p.same() {
		return syscall.ESRCH
	}
	if err == nil {
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		return syscall.Kill(p.PID, sig)
	}
	return err
}
