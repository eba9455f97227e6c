// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
	"golang.org/x/sys/unix"
)

// Cause says how a try of a hook ended.
type Cause int

const (
	Succeeded  Cause = iota
	Exited           // with a code that is not 0
	Killed           // by a signal that was not ours
	TimedOut         // its own timeout
	Deadline         // that of all hooks
	Stopped          // a stop signal, or a sibling that failed
	NotStarted       // the program cannot be executed
	BadExport        // what it wrote to its environment file is wrong
	BadStep          // a variable that the step file needs is not set
)

// An Event is something that happened to a hook.
type Event struct {
	Step    string
	Stop    bool // a stop hook
	Attempt int  // from 1
	At      time.Time
	// Result is nil when the try has started. A hook that is stopped while it
	// waits for its next try ends a second time, with the last try's number.
	Result *Result
}

// A Result is how one try ended.
type Result struct {
	Cause   Cause
	Exit    reaper.Exit   // zero when no process ran, or one could not be killed
	Wall    time.Duration // from the start to the end of all that had to end
	Timeout time.Duration // that the try had; 0 is none
	Spent   string        // how a try that timed out spent it, as its [Clock] says
	// Stderr is the end of what the hook wrote there, at most 2 KiB: whole
	// lines, or whole words of one that is longer. It is nil when standard error
	// was not piped.
	Stderr []byte
	Err    error // why, when neither code nor signal says it
	Toll   Toll  // what the container's limits took meanwhile
	// Usage is what a try that timed out had in use, as its [Meter] says.
	Usage string
	Left  []reaper.Proc // what could not be killed
	Retry bool          // another try follows
	// Continued says that the hook failed and the run goes on all the same.
	Continued bool
}

// Code is the exit code of a run that ends with this result.
func (r Result) Code() int {
	switch r.Cause {
	case Succeeded:
		return 0
	case Exited, Killed:
		return r.Exit.Code()
	case TimedOut, Deadline:
		return 124
	case Stopped:
		var stop Stop
		if errors.As(r.Err, &stop) {
			return 128 + int(stop.signal())
		}
		return 128 + int(syscall.SIGTERM)
	case NotStarted:
		var coded interface{ Code() int }
		if errors.As(r.Err, &coded) {
			return coded.Code()
		}
	}
	return codeOwn
}

// Reason says in a few words why the try failed, or "succeeded".
func (r Result) Reason() string {
	switch r.Cause {
	case Succeeded:
		return "succeeded"
	case Exited, Killed:
		return r.Toll.Explain(r.Exit)
	case TimedOut:
		text := "timed out after " + cmp.Or(r.Spent, r.Timeout.String())
		if r.Usage != "" {
			text += "; " + r.Usage
		}
		return text + r.Toll.Aside()
	default:
		var full *FullError
		if errors.As(r.Err, &full) { // that is the limit that was hit
			return full.Error()
		}
		return r.Err.Error() + r.Toll.Aside()
	}
}

// A Failure is the hook that ended a run.
type Failure struct {
	Step    string
	Attempt int // 0: it was not begun
	Result  Result
}

func (f *Failure) Error() string { return fmt.Sprintf("hook %q: %s", f.Step, f.Result.Reason()) }

func (f *Failure) Unwrap() error { return f.Result.Err }

// Stop is the cause to cancel a run's context with when a stop signal came. The
// hook that is running gets TERM, and KILL after the grace.
type Stop struct {
	Signal syscall.Signal // 0 is SIGTERM
	Grace  time.Duration  // 0 or less: Runner.KillGrace
}

func (s Stop) Error() string { return "stopped by " + signalName(s.signal()) }

func (s Stop) signal() syscall.Signal {
	if s.Signal == 0 {
		return syscall.SIGTERM
	}
	return s.Signal
}

// ErrDeadline is the cause to give to [context.WithDeadlineCause] for the time
// that all hooks have together.
var ErrDeadline = errors.New("the hooks deadline (CLEANIMG_INIT_HOOKS_DEADLINE) has passed")

// interrupted is the result of a hook that was ended because of its context.
func interrupted(ctx context.Context) Result {
	cause := context.Cause(ctx)
	var stop Stop
	var sibling siblingError
	switch {
	case errors.Is(cause, ErrDeadline):
		return Result{Cause: Deadline, Err: cause}
	case errors.As(cause, &stop), errors.As(cause, &sibling):
		return Result{Cause: Stopped, Err: cause}
	default:
		return Result{Cause: Stopped, Err: fmt.Errorf("stopped: %w", cause)}
	}
}

// siblingError is the cause for hooks that run beside one that has failed.
type siblingError struct{ step string }

func (e siblingError) Error() string { return fmt.Sprintf("ended because hook %q failed", e.step) }

func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(sig))
}
