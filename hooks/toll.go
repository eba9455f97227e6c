// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
	"golang.org/x/sys/unix"
)

// A Meter watches what the limits of the container do while a try runs. How, is
// the caller's affair.
type Meter interface {
	// Started is told the pid of the program.
	Started(pid int)
	// Usage is what is in use now, in words that can follow a semicolon: "memory
	// 240Mi of 256Mi". It is empty where there is nothing to tell.
	Usage() string
	// Full says, when the kernel has refused to make a process, which limit is
	// reached: "pids limit 100 reached (100 processes and threads)". It is empty
	// where that is not known.
	Full() string
	// Stop ends it. It is called once.
	Stop() Toll
}

// A Toll is what the limits of the container took while a try, or the command,
// ran.
type Toll struct {
	OOMKills  int64 // processes that the kernel killed because memory ran out; -1: not known
	PidsTrips int64 // processes and threads that it refused to make; -1: not known
	// Memory and Pids are the limits in words, "64Mi" and "100"; empty: none.
	Memory, Pids string
	Peak         int64 // most bytes that were in use; 0: not known
}

// unmetered is the toll where nothing is known.
var unmetered = Toll{OOMKills: -1, PidsTrips: -1}

func (r *Runner) meter(step string, stop bool) Meter {
	if r.Meter == nil {
		return noMeter{}
	}
	return r.Meter(step, stop)
}

// noMeter knows nothing.
type noMeter struct{}

func (noMeter) Started(int)   {}
func (noMeter) Usage() string { return "" }
func (noMeter) Full() string  { return "" }
func (noMeter) Stop() Toll    { return unmetered }

// Explain says in words how a process ended that was neither ended by us nor
// successful, as far as exit status and limits can tell.
func (t Toll) Explain(e reaper.Exit) string {
	switch sig := e.Signal(); {
	case sig == 0:
		return fmt.Sprintf("exit code %d", e.Code()) + t.Aside()
	case sig == unix.SIGKILL && t.OOMKills > 0:
		others := ""
		if t.OOMKills > 1 {
			others = ", and with it " + count(t.OOMKills-1, "other process", "other processes") + " of the container"
		}
		return "out of memory: killed by the kernel " + t.memory() + others + t.refused()
	case sig == unix.SIGKILL && t.OOMKills < 0:
		return "killed by SIGKILL from outside, not by cleanimg-init; whether it was an out-of-memory kill can't be told: no memory counters are visible" + t.refused()
	case sig == unix.SIGKILL:
		return "killed by SIGKILL from outside: neither cleanimg-init nor an out-of-memory kill" + t.refused()
	case fault(sig):
		return "killed by " + signalName(sig) + t.Aside()
	default:
		return "killed by " + signalName(sig) + ", which cleanimg-init did not send" + t.Aside()
	}
}

// Aside says what the limits took beside what ended the process; it is empty, or
// can follow any reason.
func (t Toll) Aside() string {
	if t.OOMKills <= 0 {
		return t.refused()
	}
	return "; out of memory: the kernel killed " + count(t.OOMKills, "other process", "other processes") + " of the container " + t.memory() + t.refused()
}

func (t Toll) refused() string {
	if t.PidsTrips <= 0 {
		return ""
	}
	limit := ""
	if t.Pids != "" {
		limit = " (" + t.Pids + ")"
	}
	return "; the pids limit" + limit + " was hit " + count(t.PidsTrips, "time", "times") + " meanwhile"
}

// memory names the limit that ran out. The kernel kills for that of the machine
// in the same way.
func (t Toll) memory() string {
	if t.Memory == "" {
		return "(no memory limit is visible: a limit further up, or the machine's memory)"
	}
	return "(memory limit " + t.Memory + ")"
}

// fault tells whether a process raises the signal itself, by what it does.
func fault(sig syscall.Signal) bool {
	switch sig {
	case unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS, unix.SIGABRT, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGPIPE, unix.SIGALRM:
		return true
	default:
		return false
	}
}

func count(n int64, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// OutOfMemory tells whether the try failed because memory ran out: the kernel
// has killed the program or another process of the container, or there was no
// room for a new one.
func (r Result) OutOfMemory() bool {
	switch r.Cause {
	case Exited, Killed:
		return r.Toll.OOMKills > 0
	case NotStarted:
		return errors.Is(r.Err, unix.ENOMEM)
	}
	return false
}

// PidsLimit tells whether the try failed because no more processes could be
// made.
func (r Result) PidsLimit() bool {
	switch r.Cause {
	case Exited, Killed:
		return r.Toll.PidsTrips > 0 && !r.OutOfMemory()
	case NotStarted:
		return errors.Is(r.Err, unix.EAGAIN)
	}
	return false
}

// A FullError says that there was no room for another process.
type FullError struct {
	What  string // was to be started
	Limit string // which limit is reached
}

func (e *FullError) Error() string { return "cannot start " + e.What + ": " + e.Limit }

// Unwrap is what the kernel said.
func (e *FullError) Unwrap() error { return unix.EAGAIN }
