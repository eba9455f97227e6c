// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// The shutdown ladder: the command is told; when it has ended, TERM goes to all
// that is left, after a grace KILL; then the stop hooks run. With GRACE_PERIOD
// there is one deadline for all of it, and every other grace is clamped to it.

const (
	holdOutFirst = 8 * time.Second
	holdOutEvery = 10 * time.Second
	// stopHooksLeast is what the stop hooks have, of the reserve.
	stopHooksLeast = 2 * time.Second
	// leaveTime is kept for KILL to do its work, and for leaving.
	leaveTime = 500 * time.Millisecond
)

// shutdown is what the ladder has to remember.
type shutdown struct {
	stopping syscall.Signal // the first stop signal; 0: none yet
	deadline time.Time      // of the whole shutdown; zero: none
	handover bool           // exec mode: the command takes our place
	armed    bool           // we leave when the grace period of a stop signal is over
	exitCode atomic.Int32   // if we had to leave now
}

// beginStop enters the first stop signal.
func (s *supervisor) beginStop(sig syscall.Signal, p report.Phase) {
	s.stopping = sig
	s.ledger.phase(p)
	s.endWatch()
	s.watch.tell("STOPPING=1")
	s.startGrace()
	s.log.Info("stopping", "signal", SignalName(sig), "drain", s.cfg.DrainDelay.Duration, "grace", s.cfg.GracePeriod.Duration)
}

// startDeadline sets the deadline of the shutdown, once: at the first of stop
// signal, end of the command and failure of a hook.
func (s *supervisor) startDeadline() {
	if s.cfg.GracePeriod.Duration > 0 && s.deadline.IsZero() {
		s.deadline = time.Now().Add(s.cfg.GracePeriod.Duration)
	}
}

// startGrace begins the grace period of the first stop signal. A deadline that an
// end has set before is not moved, unless it is over: then stop hooks run that
// nothing but STEP_TIMEOUT has bounded until now.
//
// It also makes sure that we are gone when the sender's patience is at its end
// (the kubelet counts from its signal), even if something that we wait for hangs
// in the kernel, such as an exec. So that path waits for nothing but the log's
// last lines, and not long.
func (s *supervisor) startGrace() {
	grace := s.cfg.GracePeriod.Duration
	if grace == 0 || s.armed {
		return
	}
	s.armed = true
	if time.Now().After(s.deadline) {
		s.deadline = time.Now().Add(grace)
	}
	time.AfterFunc(grace, s.abandon)
}

// abandon is the end of a run whose grace period is over.
func (s *supervisor) abandon() {
	code := int(s.exitCode.Load())
	s.log.Error("grace period is over: leaving with what still runs", "grace", s.cfg.GracePeriod.Duration, "code", code)
	s.sink.flush(flushTimeout)
	s.opts.Exit(code)
}

// mainTime is what the command, or the running step, has until KILL.
func (s *supervisor) mainTime() time.Duration {
	if s.deadline.IsZero() {
		return 0
	}
	return max(0, time.Until(s.deadline)-s.cfg.reserve())
}

// clamp shortens a grace so that it ends with the deadline.
func (s *supervisor) clamp(d time.Duration) time.Duration {
	if s.deadline.IsZero() {
		return d
	}
	return max(0, min(d, time.Until(s.deadline)))
}

// restTime is what is left of the command has from TERM to KILL.
func (s *supervisor) restTime() time.Duration {
	if s.deadline.IsZero() {
		return s.cfg.KillGrace.Duration
	}
	reserve := s.cfg.reserve()
	keep := min(reserve/4, leaveTime)
	if len(s.plan.Stop) > 0 {
		keep = min(reserve, max(stopHooksLeast, reserve/2))
	}
	return max(0, min(s.cfg.KillGrace.Duration, time.Until(s.deadline)-keep))
}

func (s *supervisor) nothingLeft() bool {
	select {
	case <-s.reaper.Empty():
		return true
	default:
		return false
	}
}

// endRest ends every process that is left of hooks and command. A stop signal
// that comes now means that there is no time for a grace.
func (s *supervisor) endRest() {
	if s.nothingLeft() {
		return
	}
	hurry := make(chan struct{})
	done := make(chan []reaper.Proc, 1)
	go func() {
		done <- s.reaper.End(reaper.Ending{
			Grace: s.restTime(), Hurry: hurry,
			HoldOut: func(left []reaper.Proc) { s.holdOut("", left) },
		})
	}()
	hurried := false
	for {
		select {
		case left := <-done:
			if len(left) > 0 {
				s.log.Error("processes could not be ended", "processes", describe(left))
				return
			}
			s.awaitZombies()
			return
		case got := <-s.signals:
			s.received(got) // nobody is there for it any more
		case got := <-s.stops:
			sig := s.received(got)
			if s.isStop(sig) && s.stopping == 0 {
				s.beginStop(sig, report.Stopping)
			}
			if s.isStop(sig) && !hurried {
				hurried = true
				close(hurry)
			}
		}
	}
}

// awaitZombies waits until what has ended is reaped as well: where we are not
// PID 1, or are about to be replaced, nobody else might do it.
func (s *supervisor) awaitZombies() {
	timer := time.NewTimer(s.clamp(time.Second))
	defer timer.Stop()
	select {
	case <-s.reaper.Empty():
	case <-timer.C:
	}
}

// runStopHooks runs the stop hooks. They have STEP_TIMEOUT each; after a stop
// signal, also one that comes only now, what is left of the grace period.
func (s *supervisor) runStopHooks(code int) {
	if len(s.plan.Stop) == 0 {
		return
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.runner.RunStop(ctx, s.plan.Stop, s.hookEnv(), code)
	}()
	var limit <-chan time.Time
	var grace time.Duration
	if s.stopping != 0 {
		limit, grace = s.stopHooksLimit()
	}
	for {
		select {
		case <-done:
			return
		case <-limit:
			cancel(hooks.Stop{Signal: syscall.SIGTERM, Grace: grace})
		case got := <-s.signals:
			s.received(got)
		case got := <-s.stops:
			if sig := s.received(got); s.isStop(sig) && s.stopping == 0 {
				s.beginStop(sig, report.Stopping)
				limit, grace = s.stopHooksLimit()
			}
		}
	}
}

// stopHooksLimit tells when stop hooks have to be ended so that they can be
// gone at the deadline, and the grace between TERM and KILL that this leaves.
func (s *supervisor) stopHooksLimit() (<-chan time.Time, time.Duration) {
	if s.deadline.IsZero() {
		return nil, 0
	}
	left := time.Until(s.deadline)
	grace := min(left/4, leaveTime)
	return time.After(left - grace), max(grace/2, time.Millisecond) // 0 would be KILL_GRACE
}

// holdOut names what does not end, also where the pod's status shows it: if the
// kubelet has to kill us, this is the reason.
func (s *supervisor) holdOut(step string, left []reaper.Proc) {
	who := describe(left)
	if step == "" {
		s.log.Warn("still running", "processes", who)
	} else {
		s.log.Warn("still running", "step", step, "processes", who)
	}
	if !s.ledger.failed() { // that says more
		s.term.add("still running: " + who + "\n")
	}
}

func describe(procs []reaper.Proc) string {
	const most = 10
	var names []string
	for _, p := range procs[:min(len(procs), most)] {
		p.Name = report.Printable(p.Name)
		names = append(names, p.String())
	}
	if n := len(procs) - most; n > 0 {
		names = append(names, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(names, ", ")
}

// commandAlone is the command as a hold-out; without /proc only its pid.
func commandAlone(pid int) []reaper.Proc {
	procs, _ := reaper.Descendants()
	if i := slices.IndexFunc(procs, func(p reaper.Proc) bool { return p.PID == pid }); i >= 0 {
		return procs[i : i+1]
	}
	return []reaper.Proc{{PID: pid, Name: "command", State: "?"}}
}
