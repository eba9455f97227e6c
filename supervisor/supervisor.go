// SPDX-License-Identifier: Apache-2.0

// Package supervisor is cleanimg-init's run: it checks everything, runs the
// hooks, starts the command, passes signals on, and ends what is left.
//
// A run goes through phases (see [report.Phase]) in one goroutine, the life
// cycle, which alone reads signals and decides. Beside it the probes are
// served. Both are actors of one [run.Group]; the life cycle ends the group.
// The reaper is not in the group: it outlives everything that waits for a
// child. Nothing here waits for a log line or a probe. For the termination
// message it does, a small write to a file of the node: what that is to explain
// may end us, too.
package supervisor

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/oklog/run"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/probes"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
	"github.com/cleanstart-dev/cleanimg-init/reaper"
	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// The exit codes that are not the command's or a hook's own, the same for
// every program of the project.
const (
	ExitTimeout       = 124 // a step, the hooks or the command ran into its timeout
	ExitOwn           = 125 // a bad setting, a bad hook, an address in use
	ExitNotExecutable = 126
	ExitNotFound      = 127
)

// flushTimeout is how long the end of a run waits for a reader of its log that
// has stalled.
const flushTimeout = 200 * time.Millisecond

// Options is what a run needs besides its settings.
type Options struct {
	Environ  []string // of this process, as it was started
	Version  string
	Warnings []string // variables with our prefix that mean nothing
	Invalid  error    // what is wrong with the settings: then nothing is run
	Stderr   int      // descriptor of log and messages
	// Exit ends the process. Run calls it, instead of returning, when the grace
	// period is over while something still hangs in the kernel.
	Exit func(code int)
}

// supervisor is one run.
type supervisor struct {
	cfg    Config
	opts   Options
	log    *slog.Logger
	sink   *sink
	redact *report.Redactor
	ledger ledger
	term   terminationLog
	reaper *reaper.Reaper
	prepared

	signals    chan os.Signal
	stops      chan os.Signal   // those that end a run, and QUIT
	ignored    []syscall.Signal // since before us, and to stay so
	termIsOurs chan struct{}    // closed when TERM would be received
	listening  chan struct{}    // closed when INT, HUP and QUIT would be, too
	begun      sync.Once
	reserved   sync.Once     // the threads
	serving    chan struct{} // closed when the probes may be served
	served     sync.Once

	watch      *watch // nil: nothing but that the command runs
	foreground bool   // we own the terminal at descriptor 0
	runner     *hooks.Runner
	launch     *reaper.Launch
	main       *reaper.Child
	started    chan error // the command was started, or could not be
	alone      bool       // nothing of the hooks was running then
	lost       sync.Once  // says that the box can't be read any more
	gauge      gauge
	command    commandSight
	shutdown
}

// Run runs hooks and command as c says and returns the exit code. It returns
// when all is over; in exec mode it does not return but becomes the command.
// Messages go to o.Stderr and the termination log. Run can be called once.
func Run(c Config, o Options) (code int) {
	s := newSupervisor(c, o)
	defer s.sink.flush(flushTimeout)
	if nested(o.Environ) && o.Invalid == nil {
		return s.stepAside()
	}
	if c.KeepSignals {
		s.ignored = reaper.Ignored()
	} else {
		reaper.ResetIgnored()
	}
	s.listenFirst()
	p, err := prepare(c, o.Environ, o.Invalid)
	s.redact.Add(p.env) // contents of ENV_FILES
	listener, listenErr := s.bind()
	watch, watchErr := s.newWatch()
	if err = errors.Join(err, listenErr, watchErr); err != nil {
		if listener != nil {
			_ = listener.Close()
		}
		watch.close()
		return s.refuse(err)
	}
	s.watch = watch
	s.prepared = p
	s.ledger.plan(p.plan)
	s.becomeInit()
	s.runner = s.newRunner()
	twoProcessors()
	actors := func() {
		var g run.Group
		g.Add(func() error { code = s.lifecycle(); return nil }, func(error) {})
		if listener != nil {
			g.Add(s.server(listener))
		}
		if watch != nil {
			g.Add(s.watcher(watch))
		}
		_ = g.Run() // no actor fails
	}
	if p.plan.Len() == 0 && len(c.Command) > 0 && c.Mode != ModeExec && len(s.stops) == 0 {
		s.startFirst(actors)
	} else {
		actors()
	}
	if s.handover {
		return s.becomeCommand()
	}
	return code
}

func newSupervisor(c Config, o Options) *supervisor {
	s := &supervisor{
		cfg: c, opts: o,
		redact:  report.NewRedactor(o.Environ),
		term:    terminationLog{path: string(c.TerminationLog)},
		reaper:  &reaper.Reaper{Gate: "/proc/self/exe"}, // main begins with reaper.Gate
		signals: make(chan os.Signal, 128),
		stops:   make(chan os.Signal, 16),
		serving: make(chan struct{}),
	}
	s.exitCode.Store(128 + int32(syscall.SIGKILL)) // what leaving does to a command
	s.sink = newSink(&hooks.Stream{FD: o.Stderr}, s.redact.Bytes)
	s.log = newLogger(s.sink, c.LogFormat, c.LogLevel.Level)
	s.gauge.log, s.ledger.limits = s.log, s.gauge.last
	s.ledger.orphans, s.ledger.method, s.ledger.redact = s.reaper.Orphans, s.reaper.KillMethod, s.redact
	s.ledger.begin(o.Version)
	return s
}

// bind binds the address of the probes, if it is a right one. They are served
// once something runs.
func (s *supervisor) bind() (net.Listener, error) {
	if !s.cfg.HTTP() || s.cfg.HTTPListen == "" {
		return nil, nil
	}
	return probes.Listen(string(s.cfg.HTTPListen))
}

// server returns the actor that serves the probes. It begins when the first
// process was started, and ends only when it is interrupted.
func (s *supervisor) server(l net.Listener) (execute func() error, interrupt func(error)) {
	zombies := &zombieCount{}
	server := probes.New(l, probes.WithMetrics(probes.Endpoints(s.snapshot), s.snapshot, zombies.read), s.log)
	over := make(chan struct{})
	execute = func() error {
		select {
		case <-s.serving:
		case <-over:
			return nil
		}
		server.Instance = probes.InstanceID()
		s.ledger.update(func(r *report.Report) { r.Instance = server.Instance })
		if err := server.Serve(); err != nil {
			s.log.Error("probes can no longer be served", "err", err)
		}
		<-over
		return nil
	}
	return execute, func(error) { close(over); server.Close() }
}

// refuse says what is wrong, before anything has run.
func (s *supervisor) refuse(err error) int {
	code := s.exitCodeOf(errorCode(err))
	text := s.redact.String(err.Error())
	s.term.write((&report.Failure{Cause: report.Invalid, Code: code, Reason: text}).Message(messageMax))
	PrintProblems(s.sink, errors.New(text))
	return code
}

// exitCodeOf is the exit code for a command that cannot be executed.
func (s *supervisor) exitCodeOf(code int) int {
	if s.cfg.ExecFailure != 0 && (code == ExitNotFound || code == ExitNotExecutable) {
		return s.cfg.ExecFailure
	}
	return code
}

// becomeInit takes over the duties towards processes: from here on TERM is
// ours, and orphans come to us.
func (s *supervisor) becomeInit() {
	<-s.termIsOurs
	if s.cfg.ParentDeath != 0 {
		signalAtParentDeath(s.cfg.ParentDeath)
	}
	if os.Getpid() != 1 {
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
	s.foreground = ownsTerminal()
	if s.cfg.WarnReaped {
		s.reaper.OnOrphan(func(pid int, e reaper.Exit) {
			s.log.Warn("reaped an orphan", "pid", pid, "code", e.Code())
		})
	}
}

// begin is called when the first process has been started, and does what could
// wait until then.
func (s *supervisor) begin() {
	s.begun.Do(func() {
		s.serve()
		attrs := []any{"version", s.opts.Version, "pid", os.Getpid()}
		if n := s.plan.Len(); n > 0 {
			attrs = append(attrs, "hooks", n, "hooks_take", atMost(s.cfg.hooksLongest(s.plan, s.box.Limits().CPU)))
			limits := s.box.Limits()
			if limits.CPU > 0 {
				attrs = append(attrs, "cpu_limit", cgroup.Millicores(limits.CPU))
			}
			if limits.Memory > 0 {
				attrs = append(attrs, "memory_limit", cgroup.Bytes(limits.Memory))
			}
			if s.box.KillsTogether() {
				attrs = append(attrs, "out_of_memory", "ends the whole container")
			}
		}
		if name := commandName(s.cfg); name != "" {
			attrs = append(attrs, "command", name)
			if d := s.cfg.commandTimeout(); d > 0 {
				attrs = append(attrs, "timeout", stretched(&s.cfg, d, s.box.Limits().CPU))
			}
		}
		if s.cfg.HTTP() {
			attrs = append(attrs, "probes", s.cfg.HTTPListen)
		}
		s.log.Info("started", attrs...)
		if os.Getpid() != 1 {
			s.log.Info("not PID 1: acting as child subreaper, for our own descendants only", "pid", os.Getpid())
		}
		s.notices()
		go s.listenRest()
	})
}

// serve lets the probes be served.
func (s *supervisor) serve() { s.served.Do(func() { close(s.serving) }) }

// notices logs what a user should know about this run, a line each.
func (s *supervisor) notices() {
	if s.plan.Len()+len(s.plan.Skipped)+len(s.cfg.Command) == 0 {
		s.log.Warn("nothing to do: no command, and no hook", "hooks_dir", strings.Join(s.cfg.HooksDir, ":"))
	}
	if dir, _ := s.box.Dir(cgroup.CPU); dir == "" && s.cfg.timeoutRule().Mode != cgroup.Wall && hasTimeout(&s.cfg, s.plan) {
		s.log.Info("no cgroup is visible: timeouts are plain wall time")
	}
	for _, name := range s.opts.Warnings {
		s.log.Warn("unknown variable, it does nothing: see --help", "variable", name)
	}
	for _, text := range s.plan.Warnings {
		s.log.Warn(text)
	}
	for _, name := range s.plan.Skipped {
		s.log.Warn("hook skipped", "step", name, "by", Prefix+"_HOOKS_SKIP")
	}
	for _, text := range s.cfg.idle(s.plan) {
		s.log.Warn(text)
	}
}

// stepAside leaves all to the instance above: it has run the hooks and serves
// the probes.
func (s *supervisor) stepAside() int {
	if len(s.cfg.Command) == 0 {
		return s.refuse(errors.New("started by another cleanimg-init and without a command: it runs the hooks, so there is nothing to do here"))
	}
	path, err := hooks.Lookup(s.cfg.Command[0], s.opts.Environ, nil)
	if err != nil {
		return s.refuse(commandError{err})
	}
	s.log.Warn("started by another cleanimg-init: no hooks, no probes, only the command", "command", commandName(s.cfg))
	s.sink.flush(flushTimeout)
	return s.replace(reaper.Command{Path: path, Args: s.cfg.Command, Env: s.opts.Environ})
}

// becomeCommand ends exec mode: the command takes our place.
func (s *supervisor) becomeCommand() int {
	s.term.empty()
	s.writeReport()
	s.begun.Do(s.notices) // without a hook nothing has begun
	s.log.Info("replaced by the command", "command", commandName(s.cfg))
	s.sink.flush(flushTimeout)
	time.AfterFunc(holdOutFirst, func() { s.log.Warn("start of command hangs", "command", commandName(s.cfg)) })
	go s.leaveAtStop()
	return s.replace(s.commandToStart())
}

// leaveAtStop ends us at a stop signal that comes while the command is executed
// in our place. That can take long, and nobody else reads signals any more.
func (s *supervisor) leaveAtStop() {
	for got := range s.stops {
		if sig := s.received(got); s.isStop(sig) || sig == unix.SIGQUIT {
			s.beginStop(sig, report.Stopping)
			code := s.end(s.fail(s.stopped()))
			s.sink.flush(flushTimeout)
			s.opts.Exit(code)
		}
	}
}

func (s *supervisor) replace(c reaper.Command) int {
	return s.refuse(commandError{hooks.StartError(c.Path, reaper.Replace(c))})
}
