// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/probes"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// The variables of sd_notify(3) and sd_watchdog_enabled(3).
const (
	notifyVariable   = "NOTIFY_SOCKET"
	intervalVariable = "WATCHDOG_USEC"
	watchdogVariable = "WATCHDOG_PID"
)

// notified enters what the command says of itself.
func (s *supervisor) notified(w *watch, now report.Notify) {
	var before report.Notify
	s.fold(w, func(r *report.Report) { before, *r.Notify = *r.Notify, now })
	switch {
	case now.Watchdog == report.WatchdogMissed && before.Watchdog != report.WatchdogMissed:
		s.log.Error("watchdog missed", "seconds", now.WatchdogSeconds)
	case before.Watchdog == report.WatchdogMissed && now.Watchdog == report.WatchdogFed:
		s.log.Info("watchdog fed again")
	}
	switch {
	case now.Ready && !before.Ready:
		s.log.Info("command is ready", "by", "READY=1")
	case now.Stopping && !before.Stopping:
		s.log.Info("command is stopping", "by", "STOPPING=1")
	}
	if now.Status != before.Status {
		w.tell("STATUS=" + now.Status)
	}
}

// lets tells whether NOTIFY lets the sender of a notification in. One from
// outside our pid namespace has the pid 0.
func (s *supervisor) lets(sender unix.Ucred) bool {
	pid := int(sender.Pid)
	switch {
	case pid == s.main.PID():
		return true
	case pid <= 0 || s.cfg.Notify != NotifyAll:
		return false
	}
	is, known := reaper.Descends(pid)
	if known {
		return is
	}
	// It has ended. In a pid namespace of our own nearly everything is our
	// descendant; anywhere else it may have been anybody's.
	return os.Getpid() == 1 && sender.Uid == s.uid()
}

// uid is that of the command.
func (s *supervisor) uid() uint32 {
	if s.watch.exec.Like.Cred != nil {
		return s.watch.exec.Like.Cred.Uid
	}
	return uint32(os.Geteuid())
}

// commandEnv adds what the command is told about its notify socket. Nobody else
// is: hooks are not the service. There is no WATCHDOG_PID: the pid is not known
// before the command runs, and libraries take its absence for everybody's.
func (w *watch) commandEnv(env []string, interval time.Duration) []string {
	if w == nil || w.socket == nil {
		return env
	}
	env = append(withoutNotify(env), notifyVariable+"="+w.socket.Name())
	if interval > 0 {
		env = append(env, intervalVariable+"="+strconv.FormatInt(interval.Microseconds(), 10))
	}
	return env
}

// withoutNotify returns env for those who are not the service.
func withoutNotify(env []string) []string {
	named := func(entry string) bool {
		return strings.HasPrefix(entry, notifyVariable+"=") || strings.HasPrefix(entry, intervalVariable+"=") || strings.HasPrefix(entry, watchdogVariable+"=")
	}
	if !slices.ContainsFunc(env, named) {
		return env
	}
	return slices.DeleteFunc(slices.Clone(env), named)
}

// upstream is the notify socket that we were started with.
func upstream(environ []string) string {
	for _, entry := range environ {
		if socket, ok := strings.CutPrefix(entry, notifyVariable+"="); ok {
			return socket
		}
	}
	return ""
}

// tell tells a service manager above us.
func (w *watch) tell(text string) {
	if w != nil && w.upstream != "" {
		_ = probes.Send(w.upstream, text) // it may have gone
	}
}
