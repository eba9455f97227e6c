// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/probes"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// A watch finds out whether the command works, not only runs: by checks, and by
// what the command says of itself. There is none where nobody asked for it.
type watch struct {
	monitors []*probes.Monitor
	exec     probes.Exec
	socket   *probes.NotifySocket // nil: NOTIFY=off
	service  *probes.Service
	upstream string // the socket of a service manager above us

	ctx     context.Context // of the checks
	stop    context.CancelFunc
	running chan struct{} // closed when the command runs
	up      chan struct{} // closed when it is up
	isUp    sync.Once
	quiet   chan struct{} // closed when no check runs any more
}

// namedChecks are the checks that are set, by name.
func (c *Config) namedChecks() (names []string, checks []probes.Check) {
	for _, one := range []struct {
		name  string
		check CheckURL
	}{
		{report.StartupCheck, c.StartupCheck},
		{report.LivenessCheck, c.LivenessCheck},
		{report.ReadinessCheck, c.ReadinessCheck},
	} {
		if one.check.Check != nil {
			names, checks = append(names, one.name), append(checks, *one.check.Check)
		}
	}
	return names, checks
}

// supervises tells whether we are there while a command runs.
func (c *Config) supervises() bool { return len(c.Command) > 0 && c.Mode != ModeExec }

// idle says what is there for the command or after it and does nothing, and why.
func (c *Config) idle(plan hooks.Plan) (texts []string) {
	if c.Mode == ModeExec && len(plan.Stop) > 0 {
		texts = append(texts, "stop hooks run only if a hook fails: in exec mode nobody is there at the end")
	}
	if c.Mode == ModeExec && c.CommandTimeout.Duration > 0 {
		texts = append(texts, "COMMAND_TIMEOUT does nothing: in exec mode nobody is there to end the command")
	}
	names, _ := c.namedChecks()
	switch {
	case len(names) == 0 && c.Notify == NotifyOff:
	case len(c.Command) == 0:
		texts = append(texts, "checks and NOTIFY do nothing: there is no command")
	case c.Mode == ModeExec:
		texts = append(texts, "checks and NOTIFY do nothing: in exec mode nobody is there to watch")
	case len(names) > 0 && !c.HTTP():
		texts = append(texts, "checks do nothing: HTTP_LISTEN is off, so nobody could ask for the result")
	}
	return texts
}

// newWatch makes what watches the command, nil where nothing is to do. A
// notify socket is open then.
func (s *supervisor) newWatch() (*watch, error) {
	c := &s.cfg
	if !c.supervises() {
		return nil, nil
	}
	names, checks := c.namedChecks()
	if !c.HTTP() {
		names = nil
	}
	if len(names) == 0 && c.Notify == NotifyOff {
		return nil, nil
	}
	w := &watch{running: make(chan struct{}), up: make(chan struct{}), quiet: make(chan struct{})}
	w.ctx, w.stop = context.WithCancel(context.Background())
	w.exec.Reaper, w.exec.Mark = s.reaper, Prefix+"_CHECK_ID"
	var first []report.Check
	for i, name := range names {
		w.monitors = append(w.monitors, s.newMonitor(w, name, checks[i]))
		first = append(first, w.monitors[i].First())
	}
	if c.Notify != NotifyOff {
		var err error
		if w.socket, err = probes.ListenNotify(s.log); err != nil {
			return nil, settingError("NOTIFY", nil, string(c.Notify), err)
		}
		w.service = probes.NewService(c.Watchdog.Duration, func(n report.Notify) { s.notified(w, n) }, s.redact.String,
			func(what string) { s.log.Info("notification not followed", "what", what) })
		w.upstream = upstream(s.opts.Environ)
	}
	s.ledger.update(func(r *report.Report) {
		r.Checks = first
		if w.service != nil {
			state := w.service.State()
			r.Notify = &state
		}
	})
	return w, nil
}

func (s *supervisor) newMonitor(w *watch, name string, check probes.Check) *probes.Monitor {
	m := &probes.Monitor{
		Name: name, Check: check,
		Benefit: name == report.LivenessCheck, Once: name == report.StartupCheck,
	}
	var unable sync.Once
	m.Try = func(ctx context.Context) error {
		err := check.Try(ctx, &w.exec)
		var errno syscall.Errno
		if check.Program() != "" && errors.As(err, &errno) { // waiting does not help
			unable.Do(func() { s.log.Warn("check cannot be run", "check", name, "err", err) })
		}
		return err
	}
	before := m.First()
	m.Changed = func(now report.Check) {
		now.Reason = s.redact.String(report.Clean(now.Reason))
		s.fold(w, func(r *report.Report) { *r.Check(name) = now })
		s.logCheck(before, now)
		before = now
	}
	return m
}

// notYet is the number of runs, one a second, after which it is worth a line
// that a check has not passed at all.
const notYet = 30

// logCheck says what has changed. That a check does not pass while the command
// is starting is nothing to say, for a while.
func (s *supervisor) logCheck(before, now report.Check) {
	switch {
	case now.Passed && !before.Passed:
		s.log.Info("check passes", "check", now.Name, "runs", now.Runs)
	case now.Runs == notYet && !now.Passed && now.Name != report.LivenessCheck: // that is known to fail
		s.log.Warn("check has not passed yet", "check", now.Name, "runs", now.Runs, "err", now.Reason)
	case now.State == before.State:
	case now.State == report.CheckFailing && before.State == report.CheckPassing:
		s.log.Warn("check fails", "check", now.Name, "failures", now.Failures, "err", now.Reason)
	case now.State == report.CheckPassing:
		s.log.Info("check passes again", "check", now.Name)
	}
}

// fold enters something that can make the command up, unless it is to end by now.
func (s *supervisor) fold(w *watch, f func(*report.Report)) {
	up := false
	s.ledger.update(func(r *report.Report) { f(r); up = r.Phase == report.Running && r.Up() })
	if up {
		w.isUp.Do(func() {
			close(w.up)
			w.tell("READY=1")
		})
	}
}

// beginWatch is called when the command runs.
func (s *supervisor) beginWatch() {
	if s.watch != nil {
		close(s.watch.running)
		s.fold(s.watch, func(*report.Report) {})
	}
}

// endWatch is called when the command is to end, or has ended. From here on it
// may do what it wants. It does not wait.
func (s *supervisor) endWatch() {
	if w := s.watch; w != nil {
		w.stop()
		if w.service != nil {
			w.service.Stop()
		}
	}
}

// awaitChecks waits until no program of a check runs any more. endWatch was
// called, so that is soon, unless one hangs in the kernel.
func (w *watch) awaitChecks() {
	if w == nil {
		return
	}
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-w.quiet:
	case <-timer.C:
	}
}

// watcher returns the actor that watches the command. It begins when that
// runs.
func (s *supervisor) watcher(w *watch) (execute func() error, interrupt func(error)) {
	over := make(chan struct{})
	execute = func() error {
		select {
		case <-w.running:
		case <-over:
			return nil
		}
		var notifications, checks sync.WaitGroup
		if w.socket != nil {
			notifications.Go(func() { w.socket.Serve(s.lets, w.service) })
		}
		for _, m := range w.monitors {
			checks.Go(func() { w.monitor(m) })
		}
		checks.Wait()
		close(w.quiet)
		<-over
		notifications.Wait()
		return nil
	}
	return execute, func(error) {
		close(over)
		w.close()
	}
}

// monitor runs a check. Liveness is of no interest before the command is up.
func (w *watch) monitor(m *probes.Monitor) {
	if m.Name == report.LivenessCheck {
		select {
		case <-w.up:
		case <-w.ctx.Done():
			return
		}
	}
	m.Run(w.ctx)
}

// close ends everything. It does not wait.
func (w *watch) close() {
	if w == nil {
		return
	}
	w.stop()
	if w.socket != nil {
		w.service.Stop()
		w.socket.Close()
	}
}

// like remembers how the command is started: checks are run in the same way.
func (w *watch) like(c reaper.Command) {
	if w != nil {
		w.exec.Like = c
		w.exec.Like.Env = withoutNotify(c.Env)
	}
}
