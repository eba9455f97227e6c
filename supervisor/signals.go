// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// askedFirst are the signals that are asked for first: TERM, which must not be lost,
// and those that would end a Go program.
var askedFirst = [...]syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT}

// forwarded returns the signals that are passed on: everything that a user may
// send. CHLD is the reaper's, URG and PIPE the Go runtime's own, 32 to 34 can't
// be received in Go, and those that report a fault of our own stay ours.
func forwarded() []syscall.Signal {
	all := append(askedFirst[:len(askedFirst):len(askedFirst)],
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
	for sig := syscall.Signal(rtMin + 1); sig <= rtMax; sig++ {
		all = append(all, sig)
	}
	return all
}

// onRequest are the signals that are passed on only where a setting names them,
// or another init would do it.
var onRequest = [...]syscall.Signal{
	unix.SIGALRM, unix.SIGVTALRM, unix.SIGPROF, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGIO, unix.SIGPWR, unix.SIGSTKFLT,
}

// faults are the signals that report a fault of the program they are sent to. A
// fault of our own still ends us; one that somebody sends must not end PID 1.
var faults = [...]syscall.Signal{
	unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSYS,
}

// CanReceive tells whether a signal can be received, and so be named.
func CanReceive(number int) bool {
	sig := syscall.Signal(number)
	return slices.Contains(forwarded(), sig) || slices.Contains(onRequest[:], sig)
}

// wanted are the signals to ask for.
func (c *Config) wanted() []syscall.Signal {
	all := forwarded()
	for _, sig := range onRequest {
		_, rewritten := c.SignalRewrite[sig]
		if c.ForwardMore || rewritten || slices.Contains(c.StopSignals, sig) {
			all = append(all, sig)
		}
	}
	all = append(all, faults[:]...)
	if !slices.Contains(all, unix.SIGSTKFLT) {
		all = append(all, unix.SIGSTKFLT)
	}
	return all
}

// kept tells whether a signal is asked for only so that it does not end us.
func (c *Config) kept(sig syscall.Signal) bool {
	return slices.Contains(faults[:], sig) && !c.ForwardFaults || sig == unix.SIGSTKFLT && !c.ForwardMore
}

// Asking for a signal costs 50 to 90 us each, more than all the rest of the
// start. So only TERM is waited for before the first process is started; the
// others of askedFirst come beside that, and the rest after it.

// listenFirst begins to ask for TERM, and then for what would end us. A TERM
// that comes before it ends us by the Go runtime's doing, some time later and on
// another thread; then nothing is to be started any more.
func (s *supervisor) listenFirst() {
	s.termIsOurs, s.listening = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(s.listening)
		// Before and after, because asking gives the signal a handler again.
		doomed := reaper.Doomed(askedFirst[0])
		s.listen(askedFirst[0])
		if doomed || reaper.Doomed(askedFirst[0]) {
			select {}
		}
		close(s.termIsOurs)
		s.listen(askedFirst[1:]...)
	}()
}

// listenRest asks for all the others.
func (s *supervisor) listenRest() {
	<-s.listening
	s.listen(slices.DeleteFunc(s.cfg.wanted(), func(sig syscall.Signal) bool { return slices.Contains(askedFirst[:], sig) })...)
}

// listen asks for signals, but not for those that are to stay ignored: asking
// would make children start with the default. Those that end a run have a
// channel of their own, so that no flood of others can crowd them out: package
// signal drops what does not fit.
func (s *supervisor) listen(sigs ...syscall.Signal) {
	for _, sig := range sigs {
		switch {
		case slices.Contains(s.ignored, sig):
		case s.isStop(sig) || sig == unix.SIGQUIT || sig == unix.SIGTERM:
			signal.Notify(s.stops, sig)
		default:
			signal.Notify(s.signals, sig)
		}
	}
}

// received counts a signal and tells which it is.
func (s *supervisor) received(got os.Signal) syscall.Signal {
	sig := got.(syscall.Signal)
	s.ledger.update(func(r *report.Report) { count(&r.Signals, sig) })
	return sig
}

func count(counts *map[string]int, sig syscall.Signal) {
	if *counts == nil {
		*counts = map[string]int{}
	}
	(*counts)[SignalName(sig)]++
}

// isStop tells whether a signal begins the shutdown. One that is dropped on its
// way to the command does not.
func (s *supervisor) isStop(sig syscall.Signal) bool {
	to, rewritten := s.cfg.SignalRewrite[sig]
	return slices.Contains(s.cfg.StopSignals, sig) && (!rewritten || to != 0)
}

// forward sends a received signal on, after SIGNAL_REWRITE, to SIGNAL_TARGET.
func (s *supervisor) forward(sig syscall.Signal) {
	to, rewritten := s.cfg.SignalRewrite[sig]
	switch {
	case rewritten:
	case s.cfg.kept(sig):
		to = 0
	default:
		to = sig
	}
	if to == 0 {
		s.log.Debug("signal dropped", "signal", SignalName(sig))
		return
	}
	s.log.Debug("signal forwarded", "signal", SignalName(sig), "as", SignalName(to), "target", string(s.cfg.SignalTarget))
	if s.send(to) {
		s.ledger.update(func(r *report.Report) { count(&r.Forwarded, to) })
	}
	switch sig {
	case unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		if s.cfg.SuspendSelf && os.Getpid() != 1 {
			_ = syscall.Kill(os.Getpid(), unix.SIGSTOP)
		}
	}
}

// send sends sig to SIGNAL_TARGET, and tells whether somebody was there.
func (s *supervisor) send(sig syscall.Signal) bool {
	var err error
	switch s.cfg.SignalTarget {
	case TargetGroup:
		err = s.main.SignalGroup(sig)
	case TargetTree:
		s.reaper.SignalDescendants(sig)
	default:
		err = s.main.Signal(sig)
	}
	if err != nil && err != syscall.ESRCH {
		s.log.Warn("signal not forwarded", "signal", SignalName(sig), "err", err)
	}
	return err == nil
}
