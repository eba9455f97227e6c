// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
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
		if failure = s.stopped(); failure == nil {
			s.handover = true
			return 0
		}
		code = s.fail(failure)
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
	f.Reason = s.redact.String(f.Reason)
	f.Stderr = s.redact.Bytes(f.Stderr)
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
	s.ledger.phase(report.Hooks)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if d := s.cfg.HooksDeadline.Duration; d > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, d, hooks.ErrDeadline)
		defer stop()
	}
	done := make(chan error, 1)
	env := s.childEnv()
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
		s.log.Info("signal dropped: the command is not running yet", "signal", SignalName(sig))
		return
	}
	if s.stopping != 0 {
		return
	}
	s.beginStop(sig, report.Stopping)
	s.exitCode.Store(128 + int32(sig))
	cancel(hooks.Stop{Signal: sig, Grace: s.mainTime()})
}

// stopped looks whether a stop signal is waiting, and if so is the failure that
// it means: something that was interrupted does not count as done.
func (s *supervisor) stopped() *report.Failure {
	for {
		select {
		case got := <-s.signals:
			sig := s.received(got)
			if s.isStop(sig) || sig == unix.SIGQUIT {
				s.beginStop(sig, report.Stopping)
			}
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
		Reaper: s.reaper, Log: s.log, Stderr: s.opts.Stderr,
		Output:    s.cfg.HookOutput.output(),
		KillGrace: s.cfg.KillGrace.Duration, Parallel: s.cfg.HooksParallel > 1, AtOnce: int(s.cfg.HooksParallel), Foreground: s.foreground,
		Started: s.begin, Exported: s.redact.Add,
		HoldOut: func(step string, left []reaper.Proc) { s.holdOut(step, left) },
		Event: func(e hooks.Event) {
			s.ledger.event(e)
			if e.Result == nil && !e.Stop {
				s.term.write(s.ledger.breadcrumb(e))
			}
		},
	}
}

// commandToStart is the command as the reaper wants it.
func (s *supervisor) commandToStart() reaper.Command {
	c := reaper.Command{
		Path: s.path, Args: s.cfg.Command, Env: s.childEnv(),
		Files: []uintptr{0, 1, 2}, Foreground: s.foreground,
	}
	if s.identity != nil {
		c.Cred, _ = s.identity.Credential() // prepare has seen that it works
		if s.identity.Home != "" {
			c.Env = hooks.WithEnv(c.Env, "HOME="+s.identity.Home)
		}
	}
	return c
}

// startCommand starts the command and tells the life cycle through s.started
// when that is done. Where there is a grace period it happens beside the life
// cycle, because an exec from a stalled file system can hang, and signals have
// to be read meanwhile.
func (s *supervisor) startCommand() {
	s.started = make(chan error, 1)
	s.alone = s.nothingLeft()
	if s.plan.Len() > 0 {
		s.term.empty()
		path, err := hooks.Lookup(s.cfg.Command[0], s.env) // hooks may have changed PATH, or the file
		if err != nil {
			s.started <- err
			return
		}
		s.path = path
	}
	command := s.commandToStart()
	start := func() {
		child, err := s.reaper.Start(command)
		s.main = child
		if err != nil {
			err = hooks.StartError(command.Path, err)
		}
		s.started <- err
	}
	if s.cfg.GracePeriod.Duration > 0 {
		go start()
	} else {
		start()
	}
}

// tended is the command while it runs, with all that can happen to it.
type tended struct {
	*supervisor
	done    <-chan struct{}  // nil until it was started
	early   []syscall.Signal // received before that
	drain   <-chan time.Time
	timeout <-chan time.Time
	kill    <-chan time.Time
	holdOut <-chan time.Time
	ended   *report.Failure // why we ended it, if we did
}

// atOnce is how soon a command ends that was meant to be a daemon.
const atOnce = 2 * time.Second

// runCommand starts the command and passes signals on until it has ended. It
// returns its exit code.
func (s *supervisor) runCommand() int {
	c := &tended{supervisor: s}
	if s.started == nil {
		s.startCommand()
	}
	for {
		select {
		case err := <-s.started:
			if err != nil {
				return s.notStarted(err)
			}
			c.begun()
		case got := <-s.signals:
			c.signal(s.received(got))
		case <-c.drain:
			c.drain = nil
			c.tell(s.stopping)
		case <-c.timeout:
			c.timedOut()
		case <-c.holdOut:
			c.holdOut = time.After(holdOutEvery)
			s.holdOut("", commandAlone(s.main.PID()))
		case <-c.kill:
			c.killNow()
		case <-c.done:
			return c.over()
		}
	}
}

// notStarted is the end of a command that could not be executed.
func (s *supervisor) notStarted(err error) int {
	s.serve()
	s.log.Error("command not started", "err", err)
	failed := commandError{err}
	return s.fail(&report.Failure{Cause: report.Invalid, Code: failed.Code(), Reason: failed.Error()})
}

func (c *tended) begun() {
	c.done = c.main.Done()
	now := time.Now()
	c.ledger.update(func(r *report.Report) {
		r.Started = true
		if r.Phase == report.Starting || r.Phase == report.Hooks {
			r.Phase = report.Running
		}
		r.Command = &report.Command{Name: commandName(c.cfg), PID: c.main.PID(), StartedAt: now}
	})
	c.begin()
	if c.plan.Len() > 0 {
		c.log.Info("command started", "command", commandName(c.cfg), "pid", c.main.PID())
	}
	if d := c.cfg.CommandTimeout.Duration; d > 0 {
		c.timeout = time.After(d)
	}
	for _, sig := range c.early {
		c.signal(sig)
	}
}

// signal treats a signal that came while the command runs.
func (c *tended) signal(sig syscall.Signal) {
	switch {
	case c.done == nil:
		c.early = append(c.early, sig)
		if c.isStop(sig) && c.stopping == 0 {
			c.startDeadline() // an exec that hangs must not outlive it
			c.armExit()
		}
	case !c.isStop(sig):
		c.forward(sig)
	case c.stopping == 0:
		c.stop(sig)
	case c.drain != nil: // a second one: enough drained
		c.drain = nil
		c.tell(c.stopping)
	default:
		c.forward(sig)
	}
}

// stop begins the shutdown: readiness turns false, and the command is told
// when the drain delay is over.
func (c *tended) stop(sig syscall.Signal) {
	delay := c.cfg.DrainDelay.Duration
	if delay == 0 {
		c.beginStop(sig, report.Stopping)
		c.tell(sig)
		return
	}
	c.beginStop(sig, report.Draining)
	c.drain = time.After(delay)
}

// tell sends the stop signal, and sets when patience ends.
func (c *tended) tell(sig syscall.Signal) {
	c.ledger.phase(report.Stopping)
	c.forward(sig)
	c.holdOut = time.After(holdOutFirst)
	if !c.deadline.IsZero() && c.ended == nil {
		c.kill = time.After(c.mainTime())
	}
}

// timedOut ends a command that ran into COMMAND_TIMEOUT.
func (c *tended) timedOut() {
	c.timeout = nil
	c.ended = &report.Failure{
		Cause: report.TimedOut, Code: ExitTimeout,
		Reason: fmt.Sprintf("command timed out after %v (%s_COMMAND_TIMEOUT)", c.cfg.CommandTimeout, Prefix),
	}
	c.log.Error("command timed out", "timeout", c.cfg.CommandTimeout.Duration)
	c.ledger.phase(report.Stopping)
	_ = c.main.SignalGroup(unix.SIGTERM)
	_ = c.main.SignalGroup(unix.SIGCONT)
	c.kill = time.After(c.clamp(c.cfg.KillGrace.Duration))
}

// killNow ends a command whose grace is over.
func (c *tended) killNow() {
	c.kill = nil
	if c.ended == nil {
		c.ended = &report.Failure{
			Cause: report.Failed, Code: 128 + int(unix.SIGKILL),
			Reason: fmt.Sprintf("command did not end in its part of %s_GRACE_PERIOD=%v, so it was killed", Prefix, c.cfg.GracePeriod),
		}
	}
	c.supervisor.holdOut("", commandAlone(c.main.PID()))
	_ = c.main.Signal(unix.SIGKILL)
}

// over is the end of the command.
func (c *tended) over() int {
	exit := c.main.Exit()
	code := exit.Code()
	if c.ended != nil && c.ended.Cause == report.TimedOut {
		code = ExitTimeout
	}
	c.exitCode.Store(int32(code))
	lived := time.Duration(0)
	c.ledger.update(func(r *report.Report) {
		r.Command.EndedAt, r.Command.Code = exit.At, &code
		lived = exit.At.Sub(r.Command.StartedAt)
		r.Failure = c.ended
	})
	level := slog.LevelInfo
	if code == 0 || c.stopping != 0 {
		level = slog.LevelDebug // as it should be: not worth the time that the line takes at the end
	}
	c.log.Log(context.Background(), level, "command ended", "command", commandName(c.cfg), "code", code, "seconds", lived.Seconds())
	if c.ended != nil { // nobody else can know this
		c.term.add(c.ended.Message(messageMax))
	}
	if c.stopping == 0 && code == 0 && lived < atOnce && c.alone && !c.nothingLeft() {
		c.log.Warn("command ended at once and left processes running, which end with it: run it in the foreground", "command", commandName(c.cfg))
	}
	c.startDeadline()
	return code
}

// end closes the report and returns the exit code.
func (s *supervisor) end(code int) int {
	if slices.Contains(s.cfg.Remap, code) {
		code = 0
	}
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
	defer unix.Close(fd)
	hooks.WriteAll(fd, s.ledger.snapshot().JSON())
}

// lockedForever runs f on a thread that lives as long as the program.
func lockedForever(f func()) {
	runtime.LockOSThread()
	f()
	select {}
}
