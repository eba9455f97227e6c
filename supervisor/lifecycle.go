// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// lifecycle is the run from the first hook to the last moment. It returns the
// exit code.
func (s *supervisor) lifecycle() (code int) {
	var failure *report.Failure
	if s.started == nil { // else there are no hooks, and the command runs
		failure = s.runHooks()
	}
	switch {
	case failure != nil:
		code = s.fail(failure)
	case len(s.cfg.Command) == 0:
		s.begin() // if there was no hook at all
		s.term.empty()
	case s.cfg.Mode == ModeExec:
		s.endRest() // nobody could reap it afterwards
		if failure = s.stopped(); failure != nil {
			code = s.fail(failure)
		} else if err := s.locate(); err != nil {
			code = s.notStarted(err)
		} else {
			s.handover = true
			return 0
		}
	default:
		code = s.runCommand()
	}
	s.ledger.phase(report.Stopping)
	s.endRest()
	s.runStopHooks(code)
	if os.Getpid() != 1 {
		s.endRest() // of the stop hooks; with PID 1 the kernel ends everything
	}
	return s.end(code)
}

// fail enters why the run has failed, and returns its exit code.
func (s *supervisor) fail(f *report.Failure) int {
	// Cleaned first: colours inside a secret would keep it from being found.
	f.Reason = s.redact.String(report.Clean(f.Reason))
	f.Stderr = []byte(s.redact.String(report.Clean(string(f.Stderr))))
	s.ledger.update(func(r *report.Report) { r.Failure = f })
	s.exitCode.Store(int32(f.Code))
	s.term.write(f.Message(messageMax))
	s.startDeadline()
	return f.Code
}

// runHooks runs the hooks, and ends them when a stop signal or QUIT comes.
func (s *supervisor) runHooks() *report.Failure {
	if failure := s.stopped(); failure != nil || s.plan.Len() == 0 {
		return failure
	}
	openPoller()
	s.reserveThreads(hooksReserve, s.gauge.open)
	s.ledger.phase(report.Hooks)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if d := s.cfg.HooksDeadline.Duration; d > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, d, hooks.ErrDeadline)
		defer stop()
	}
	done := make(chan error, 1)
	env := s.hookEnv()
	go func() {
		exported, err := s.runner.Run(ctx, s.plan.Stages, env)
		s.env = hooks.WithEnv(s.env, exported...)
		done <- err
	}()
	for {
		select {
		case err := <-done:
			var f *hooks.Failure
			if errors.As(err, &f) {
				return failureOf(f)
			}
			return s.stopped() // one that came with the end of the last hook
		case got := <-s.stops:
			s.hookSignal(s.received(got), cancel)
		case got := <-s.signals:
			s.hookSignal(s.received(got), cancel)
		}
	}
}

// hookSignal treats a signal that came while hooks run. Only those that end the
// run mean something now; the others would kill a command that has just been
// executed and has no handler yet.
func (s *supervisor) hookSignal(sig syscall.Signal, cancel context.CancelCauseFunc) {
	if !s.isStop(sig) && sig != unix.SIGQUIT {
		s.tooEarly(sig)
		return
	}
	if s.stopping != 0 {
		return
	}
	s.beginStop(sig, report.Stopping)
	s.exitCode.Store(128 + int32(sig))
	cancel(hooks.Stop{Signal: sig, Grace: s.mainTime()})
}

func (s *supervisor) tooEarly(sig syscall.Signal) {
	s.log.Info("signal dropped: the command is not running yet", "signal", SignalName(sig))
}

// stopped looks whether a stop signal is waiting, and if so is the failure that
// it means: something that was interrupted does not count as done.
func (s *supervisor) stopped() *report.Failure {
	for {
		select {
		case got := <-s.stops:
			if sig := s.received(got); s.stopping == 0 && (s.isStop(sig) || sig == unix.SIGQUIT) {
				s.beginStop(sig, report.Stopping)
			}
		case got := <-s.signals:
			s.tooEarly(s.received(got))
		default:
			if s.stopping == 0 {
				return nil
			}
			return &report.Failure{
				Cause: report.Stopped, Code: 128 + int(s.stopping),
				Reason: "terminated by SIG" + SignalName(s.stopping) + " before the command was started",
			}
		}
	}
}

// newRunner returns what runs hooks and stop hooks.
func (s *supervisor) newRunner() *hooks.Runner {
	return &hooks.Runner{
		Reaper: s.reaper, Log: s.log, Stderr: s.sink.to,
		Output:    s.cfg.HookOutput.output(),
		KillGrace: s.cfg.KillGrace.Duration, Parallel: s.cfg.HooksParallel > 1, AtOnce: int(s.cfg.HooksParallel), Foreground: s.foreground,
		Clock: s.newClock, AtMost: s.atMost, Meter: s.newMeter,
		Started: s.begin, Exported: s.redact.Add,
		HoldOut: func(step string, left []reaper.Proc) { s.holdOut(step, left) },
		Event: func(e hooks.Event) {
			s.ledger.event(e)
			if e.Result == nil && !e.Stop {
				s.term.write(s.ledger.breadcrumb(e, s.box.Limits().Memory))
			}
		},
	}
}

// end closes the report and returns the exit code.
func (s *supervisor) end(code int) int {
	s.ledger.update(func(r *report.Report) {
		r.Phase, r.EndedAt, r.ExitCode = report.Ended, time.Now(), &code
		for i := range r.Steps {
			if r.Steps[i].Result == report.ResultPending {
				r.Steps[i].Result = report.ResultNotStarted
			}
		}
	})
	if s.plan.Len()+len(s.plan.Stop) > 0 {
		s.runner.Flush(flushTimeout)
	}
	if !s.ledger.failed() {
		s.term.retract()
	}
	s.writeReport()
	return code
}

func (s *supervisor) writeReport() {
	if s.cfg.ReportFile == "" {
		return
	}
	// NONBLOCK: a named pipe without a reader must not stop us.
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC | unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := unix.Open(string(s.cfg.ReportFile), flags, 0o644)
	if err != nil {
		s.log.Warn("report not written", "file", string(s.cfg.ReportFile), "err", err)
		return
	}
	written := make(chan error, 1)
	go func() {
		defer unix.Close(fd)
		s.reportBox() // as it is at the end, not at the last glance
		written <- hooks.WriteAll(fd, s.ledger.snapshot().JSON())
	}()
	select {
	case err = <-written:
	case <-time.After(time.Second):
		err = errors.New("nobody reads it")
	}
	if err != nil {
		s.log.Warn("report not written", "file", string(s.cfg.ReportFile), "err", err)
	}
}
