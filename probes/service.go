// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// The bounds of what the command may say of its own watchdog, and the length
// of a status.
const (
	leastWatchdog = time.Second
	mostWatchdog  = time.Hour
	maxStatus     = 256
)

// Service is what the command has said of itself by sd_notify(3), and its
// watchdog. That is armed by READY=1 or by the first WATCHDOG=1, whichever
// comes first, and fed by every WATCHDOG=1.
type Service struct {
	changed func(report.Notify)
	redact  func(string) string
	refused func(what string)

	mu       sync.Mutex
	state    report.Notify
	interval time.Duration
	due      time.Time // when the watchdog has to be fed
	timer    *time.Timer
	final    bool // no watchdog any more
	told     map[string]bool
}

// NewService returns a service whose watchdog has to be fed at that interval; 0
// is none. changed is told of every change, one after another; redact takes
// secrets out of the status; refused is told, once each, what was asked for and
// is not done. None of them may call the Service.
func NewService(watchdog time.Duration, changed func(report.Notify), redact func(string) string, refused func(what string)) *Service {
	s := &Service{changed: changed, redact: redact, refused: refused, interval: watchdog, told: map[string]bool{}}
	s.showInterval()
	return s
}

// State is what is known so far.
func (s *Service) State() report.Notify {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Stop ends the watchdog.
func (s *Service) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.final = true
	s.disarm()
}

// apply enters a notification.
func (s *Service) apply(n notification) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.state
	if n.hasInterval {
		s.setInterval(n.interval)
	}
	if n.ready {
		s.state.Ready, s.state.Reloading = true, false
	}
	if n.reloading {
		s.state.Reloading = true
	}
	if n.stopping {
		s.state.Stopping = true
		s.disarm()
	}
	if n.hasStatus {
		s.state.Status = s.statusLine(n.status)
	}
	if n.errno != 0 {
		s.state.Errno = n.errno
	}
	s.watchdog(n)
	if s.state != before {
		s.changed(s.state)
	}
	s.refuse(n.mainPID != 0, "MAINPID: the main process stays the command")
	s.refuse(n.store, "FDSTORE: descriptors are closed, not kept")
}

func (s *Service) refuse(asked bool, what string) {
	if asked && !s.told[what] {
		s.told[what] = true
		s.refused(what)
	}
}

// watchdog enters what a notification means to the watchdog. A missed one that
// is fed again is fine; what the command itself gave up stays so.
func (s *Service) watchdog(n notification) {
	switch {
	case s.final || s.state.Stopping || s.state.Watchdog == report.WatchdogMissed && s.timer == nil:
	case n.trigger:
		s.disarm()
		s.state.Watchdog = report.WatchdogMissed
	case s.interval == 0:
	case n.fed || n.ready && s.state.Watchdog == report.WatchdogWaiting || n.hasInterval && s.state.Watchdog == report.WatchdogFed:
		s.state.Watchdog = report.WatchdogFed
		s.arm(max(s.interval, min(n.extend, mostWatchdog)))
	case n.extend > 0 && s.state.Watchdog == report.WatchdogFed:
		if d := min(n.extend, mostWatchdog); d > time.Until(s.due) {
			s.arm(d)
		}
	}
}

// setInterval changes the interval as the command wants it.
func (s *Service) setInterval(d time.Duration) {
	if d > 0 {
		d = min(max(d, leastWatchdog), mostWatchdog)
	}
	s.interval = d
	if d == 0 {
		s.disarm()
	}
	s.showInterval()
}

func (s *Service) showInterval() {
	s.state.WatchdogSeconds = s.interval.Seconds()
	switch {
	case s.interval == 0 && s.state.Watchdog != report.WatchdogMissed:
		s.state.Watchdog = ""
	case s.interval > 0 && s.state.Watchdog == "":
		s.state.Watchdog = report.WatchdogWaiting
	}
}

func (s *Service) arm(d time.Duration) {
	s.due = time.Now().Add(d)
	if s.timer == nil {
		s.timer = time.AfterFunc(d, s.miss)
		return
	}
	s.timer.Reset(d)
}

func (s *Service) disarm() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// miss is called when the watchdog was to be fed.
func (s *Service) miss() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil || time.Now().Before(s.due) || s.state.Watchdog != report.WatchdogFed {
		return // fed, or disarmed, at the same moment
	}
	s.state.Watchdog = report.WatchdogMissed
	s.changed(s.state)
}

// statusLine makes a status fit for people: one short line without secrets.
func (s *Service) statusLine(text string) string {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s.redact(report.Clean(text))))
	if len(text) <= maxStatus {
		return text
	}
	end := maxStatus
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}
