// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// commandToStart is the command as the reaper wants it.
func (s *supervisor) commandToStart() reaper.Command {
	c := reaper.Command{
		Path: s.path, Args: s.cfg.Command,
		Files: []uintptr{0, 1, 2}, Foreground: s.foreground, KeepMask: s.cfg.KeepSignals,
	}
	if s.cfg.Mode == ModeExec { // what was said to our pid is for it
		c.Env = hooks.WithEnv(s.env, limitEnv(s.box.Limits())...)
	} else {
		c.Env = s.childEnv()
	}
	if s.cfg.Setsid && s.cfg.Mode != ModeExec {
		c.Setsid, c.Foreground = true, false
		c.Terminal = s.foreground && reaper.GiveUpTerminal()
	}
	if s.identity != nil {
		c.Cred, _ = s.identity.Credential() // prepare has seen that it works
		if s.identity.Home != "" {
			c.Env = hooks.WithEnv(c.Env, "HOME="+s.identity.Home)
		}
	}
	c.Env = s.watch.commandEnv(c.Env, s.cfg.Watchdog.Duration)
	return c
}

// startCommand starts the command and tells the life cycle through s.started
// when that is done. An execve can hang, and signals have to be read meanwhile:
// beside is called with what does the start, and sees to that.
func (s *supervisor) startCommand(beside func(start func())) {
	s.started = make(chan error, 1)
	s.alone = s.nothingLeft()
	s.term.empty() // also of what an earlier run has left, where the file outlives it
	if s.plan.Len() > 0 {
		if err := s.locate(); err != nil {
			s.started <- err
			return
		}
	}
	command := s.commandToStart()
	s.watch.like(command)
	s.launch = s.reaper.Launch(command)
	beside(func() {
		child, err := s.launch.Start()
		s.main = child
		if err != nil {
			err = s.startError(command.Path, err)
		}
		s.started <- err
	})
}

// startSlow is from when on a start is not waited for with other things.
const startSlow = 100 * time.Millisecond

// startFirst starts the command before the actors of the group, because their
// goroutines would take time from it; but where that takes long they begin
// beside it. It returns when both are over.
func (s *supervisor) startFirst(actors func()) {
	var slow *time.Timer
	over := make(chan struct{})
	s.startCommand(func(start func()) {
		slow = time.AfterFunc(startSlow, func() { defer close(over); actors() })
		start()
	})
	if slow.Stop() {
		actors()
	} else {
		<-over
	}
}

// locate looks the command up again: hooks may have changed PATH, or the file.
func (s *supervisor) locate() (err error) {
	s.path, err = hooks.Lookup(s.cfg.Command[0], s.env, s.identity)
	return err
}

// tended is the command while it runs, with all that can happen to it.
type tended struct {
	*supervisor
	done    <-chan struct{}  // nil until it was started
	early   []syscall.Signal // received before that
	drain   <-chan time.Time
	clock   hooks.Clock // of COMMAND_TIMEOUT; nil: none, or over
	timeout <-chan struct{}
	kill    <-chan time.Time
	killAt  time.Time        // when that comes
	overdue <-chan time.Time // when what does not end is named, or a start that hangs
	ended   *report.Failure  // why we ended it, if we did
}

// atOnce is how soon a command ends that was meant to be a daemon.
const atOnce = 2 * time.Second

// runCommand starts the command and passes signals on until it has ended. It
// returns its exit code.
func (s *supervisor) runCommand() int {
	c := &tended{supervisor: s}
	if s.started == nil {
		s.startCommand(func(start func()) { go start() })
	}
	var slow <-chan time.Time
	if len(s.started) == 0 {
		slow, c.overdue = time.After(startSlow), time.After(holdOutFirst)
	}
	for {
		select {
		case err := <-s.started:
			slow = nil
			if err != nil {
				return s.notStarted(err)
			}
			c.executed()
		case got := <-s.signals:
			c.signal(s.received(got))
		case got := <-s.stops:
			c.signalsBefore()
			c.signal(s.received(got))
		case <-slow:
			s.serve()
		case <-c.drain:
			c.drain = nil
			c.tell(s.stopping)
		case <-c.timeout:
			c.timedOut()
		case <-c.overdue:
			c.overdue = time.After(holdOutEvery)
			if c.done == nil {
				c.hangs()
			} else {
				s.holdOut("", commandAlone(s.main.PID()))
			}
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
	return s.fail(&report.Failure{Cause: causeOf(err), Code: s.exitCodeOf(failed.Code()), Reason: failed.Error()})
}

// hangs names a start that does not come to its end.
func (c *tended) hangs() {
	process := "unknown"
	if p, ok := c.launch.Process(); ok {
		process = p.String()
	}
	c.log.Warn("start of command hangs", "command", commandName(c.cfg), "process", process)
}

// executed is the beginning of the command.
func (c *tended) executed() {
	c.done, c.overdue = c.main.Done(), nil
	c.command.begin(c.supervisor)
	now := time.Now()
	c.ledger.update(func(r *report.Report) {
		r.Started = true
		if r.Phase == report.Starting || r.Phase == report.Hooks {
			r.Phase = report.Running
		}
		r.Command = &report.Command{Name: commandName(c.cfg), PID: c.main.PID(), StartedAt: now}
	})
	c.beginWatch()
	c.begin()
	time.AfterFunc(reserveAfter, func() { c.reserveThreads(threadReserve, pidsBox) })
	if c.plan.Len() > 0 {
		c.log.Info("command started", "command", commandName(c.cfg), "pid", c.main.PID())
	}
	if d := c.cfg.commandTimeout(); d > 0 {
		c.clock = c.newClock(d)
		c.timeout = c.clock.Expired()
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
			c.startGrace() // an exec that hangs must not outlive it
		}
		if c.isStop(sig) && c.launch != nil { // else it was not found, which is read next
			c.launch.Signal(unix.SIGTERM) // nothing is there yet that could handle another
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

// signalsBefore treats the other signals that are waiting, most of which came
// before the stop signal that was read first.
func (c *tended) signalsBefore() {
	for range len(c.signals) {
		c.signal(c.received(<-c.signals))
	}
}

// stop begins the shutdown: readiness turns false, and the command is told
// when the drain delay is over.
func (c *tended) stop(sig syscall.Signal) {
	c.timeout = nil // it is ending as it is
	delay := c.cfg.DrainDelay.Duration
	if delay == 0 || c.ended != nil { // it was told already
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
	c.overdue = time.After(holdOutFirst)
	if !c.deadline.IsZero() {
		c.killAfter(c.mainTime())
	}
}

// killAfter sets when the command is killed, unless that is to be sooner anyway.
func (c *tended) killAfter(d time.Duration) {
	if at := time.Now().Add(d); c.kill == nil || at.Before(c.killAt) {
		c.kill, c.killAt = time.After(d), at
	}
}

// timedOut ends a command that ran into COMMAND_TIMEOUT.
func (c *tended) timedOut() {
	spent := c.clock.Stop()
	if used := inUse(c.gauge.open()); used != "" {
		spent += "; " + used
	}
	c.clock, c.timeout = nil, nil
	c.ended = &report.Failure{
		Cause: report.TimedOut, Code: ExitTimeout,
		Reason: fmt.Sprintf("timed out after %s (%s_COMMAND_TIMEOUT)", spent, Prefix),
	}
	c.exitCode.Store(ExitTimeout)
	c.log.Error("command timed out", "timeout", c.cfg.CommandTimeout.Duration, "after", spent)
	c.ledger.phase(report.Stopping)
	c.endWatch()
	_ = c.main.SignalGroup(unix.SIGTERM)
	_ = c.main.SignalGroup(unix.SIGCONT)
	c.overdue = time.After(holdOutFirst)
	c.killAfter(c.cfg.KillGrace.Duration)
}

// killNow ends a command whose grace is over.
func (c *tended) killNow() {
	c.kill = nil
	if c.ended == nil {
		c.ended = &report.Failure{
			Cause: report.Failed, Code: 128 + int(unix.SIGKILL),
			Reason: fmt.Sprintf("did not end in its part of %s_GRACE_PERIOD=%v, so it was killed", Prefix, c.cfg.GracePeriod),
		}
	}
	c.holdOut("", commandAlone(c.main.PID()))
	_ = c.main.Signal(unix.SIGKILL)
}

// over is the end of the command.
func (c *tended) over() int {
	if c.clock != nil {
		c.clock.Stop()
	}
	c.endWatch()
	exit := c.main.Exit()
	code, explained := exit.Code(), false
	switch {
	case c.ended != nil && c.ended.Cause == report.TimedOut:
		code = ExitTimeout
	case slices.Contains(c.cfg.Remap, code):
		code = 0
	case c.ended == nil:
		c.ended = c.command.explain(c.supervisor, exit)
		explained = c.ended != nil
	}
	c.exitCode.Store(int32(code))
	lived := time.Duration(0)
	c.ledger.update(func(r *report.Report) {
		if exit.At.Before(r.Command.StartedAt) { // it was over before we saw that it runs
			r.Command.StartedAt = exit.At
		}
		r.Command.EndedAt, r.Command.Code = exit.At, &code
		lived = exit.At.Sub(r.Command.StartedAt)
		r.Failure = c.ended
	})
	level := slog.LevelInfo
	if code == 0 || c.stopping != 0 {
		level = slog.LevelDebug // as it should be: not worth the time that the line takes at the end
	}
	attrs := []any{"command", commandName(c.cfg), "code", code, "seconds", lived.Seconds()}
	if c.ended != nil && c.ended.Cause != report.TimedOut { // which was told when it was so
		attrs = append(attrs, "reason", c.ended.Reason)
		switch {
		case !explained: // we killed it
			level = slog.LevelWarn
		case c.ended.Cause != report.Failed: // a limit, and not somebody's will
			level = slog.LevelError
		}
	}
	c.log.Log(context.Background(), level, "command ended", attrs...)
	if c.ended != nil { // nobody else can know this
		c.term.add(c.ended.Message(messageMax))
	}
	c.watch.awaitChecks()
	if c.stopping == 0 && code == 0 && lived < atOnce && c.alone && !c.nothingLeft() {
		c.log.Warn("command ended at once and left processes running, which end with it: run it in the foreground", "command", commandName(c.cfg))
	}
	c.startDeadline()
	return code
}
