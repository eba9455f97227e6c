// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"fmt"
	"sync"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// A ledger holds the report of this run and is its only writer.
type ledger struct {
	mu      sync.Mutex
	r       report.Report
	passed  [6]report.Passed // the phases so far: each comes once
	phases  int
	orphans func() int    // reaped so far
	method  func() string // how steps' trees are killed
	redact  *report.Redactor
	limits  func() cgroup.Limits // of the container, as they were seen last
}

func (l *ledger) update(f func(*report.Report)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.r.Phase
	f(&l.r)
	if l.r.Phase != before && l.phases < len(l.passed) {
		l.passed[l.phases] = report.Passed{Phase: l.r.Phase, At: time.Now()}
		l.phases++
	}
}

// begin makes the report of a run that begins.
func (l *ledger) begin(version string) {
	l.update(func(r *report.Report) {
		*r = report.Report{Version: report.Version, Phase: report.Starting, Init: version, StartedAt: time.Now()}
	})
}

// snapshot returns a copy that nobody changes any more.
func (l *ledger) snapshot() *report.Report {
	reaped, method := l.orphans(), l.method()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.r.KillMethod = method
	l.r.Reaped, l.r.At, l.r.Phases = reaped, time.Now(), l.passed[:l.phases]
	return l.r.Clone()
}

// failed tells whether the reason of a failure is known.
func (l *ledger) failed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Failure != nil
}

// note enters a warning about a step.
func (l *ledger) note(step string, stop bool, text string) {
	l.step(step, stop, func(s *report.Step) { s.Warnings = append(s.Warnings, text) })
}

func (l *ledger) phase(p report.Phase) { l.update(func(r *report.Report) { r.Phase = p }) }

// plan enters the steps that are to come.
func (l *ledger) plan(p hooks.Plan) {
	l.update(func(r *report.Report) {
		r.Skipped = p.Skipped
		for i, stage := range p.Stages {
			for _, step := range stage {
				r.Steps = append(r.Steps, newStep(step, report.KindHook, i+1))
			}
		}
		for _, step := range p.Stop {
			r.Steps = append(r.Steps, newStep(step, report.KindStop, 0))
		}
	})
}

func newStep(s hooks.Step, kind report.Kind, stage int) report.Step {
	return report.Step{Name: s.Name, Kind: kind, Stage: stage, Result: report.ResultPending, TimeoutSeconds: s.Timeout.Seconds()}
}

// event enters what happened to a step.
func (l *ledger) event(e hooks.Event) {
	l.step(e.Step, e.Stop, func(s *report.Step) { l.enter(s, e) })
}

// step changes what is known of a step.
func (l *ledger) step(name string, stop bool, f func(*report.Step)) {
	kind := report.KindHook
	if stop {
		kind = report.KindStop
	}
	l.update(func(r *report.Report) {
		for i := range r.Steps {
			if s := &r.Steps[i]; s.Name == name && s.Kind == kind {
				f(s)
			}
		}
	})
}

func (l *ledger) enter(s *report.Step, e hooks.Event) {
	s.Attempts = e.Attempt
	if e.Result == nil {
		s.Result = report.ResultRunning
		if s.StartedAt.IsZero() {
			s.StartedAt = e.At
		}
		return
	}
	s.EndedAt = e.At
	s.Seconds = e.At.Sub(s.StartedAt).Seconds()
	usage := e.Result.Exit.Usage
	s.CPUSeconds += time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	s.MaxRSSBytes = max(s.MaxRSSBytes, int64(usage.Maxrss)*1024)
	limits, toll := l.limits(), e.Result.Toll
	s.CPULimit, s.MemoryLimitBytes, s.PidsLimit = limits.CPU, limits.Memory, limits.Pids
	s.MemoryPeakBytes = max(s.MemoryPeakBytes, toll.Peak)
	s.OOMKills += max(0, toll.OOMKills)
	s.PidsRefused += max(0, toll.PidsTrips)
	s.Result = resultOf(e.Result)
	s.Reason = ""
	if s.Result != report.ResultOK {
		s.Reason = l.redact.String(e.Result.Reason())
	}
	code := e.Result.Code()
	s.Code = &code
}

func resultOf(r *hooks.Result) report.Result {
	switch {
	case r.Continued:
		return report.ResultContinued
	case r.Cause == hooks.Succeeded:
		return report.ResultOK
	case r.Cause == hooks.TimedOut || r.Cause == hooks.Deadline:
		return report.ResultTimeout
	case r.Cause == hooks.Stopped:
		return report.ResultCanceled
	case r.Cause == hooks.Killed:
		return report.ResultKilled
	default:
		return report.ResultFailed
	}
}

// failureOf is what the report and the termination message say of a hook's.
func failureOf(f *hooks.Failure) *report.Failure {
	cause := report.Failed
	switch by := f.Result.Cause; {
	case f.Result.OutOfMemory():
		cause = report.OutOfMemory
	case f.Result.PidsLimit():
		cause = report.PidsLimit
	case by == hooks.TimedOut || by == hooks.Deadline:
		cause = report.TimedOut
	case by == hooks.Stopped:
		cause = report.Stopped
	case by == hooks.NotStarted || by == hooks.BadStep || by == hooks.BadExport:
		cause = report.Invalid
	}
	return &report.Failure{Step: f.Step, Cause: cause, Code: f.Result.Code(), Reason: f.Result.Reason(), Stderr: f.Result.Stderr}
}

// breadcrumb is the termination message while a step runs: an out-of-memory
// kill may take us too, and then this is all that is known.
func (l *ledger) breadcrumb(e hooks.Event, memoryLimit int64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	number, total := 0, 0
	for _, s := range l.r.Steps {
		if s.Kind != report.KindHook {
			continue
		}
		total++
		if s.Name == e.Step {
			number = total
		}
	}
	text := fmt.Sprintf("running step %s (%d of %d), try %d", report.Printable(e.Step), number, total, e.Attempt)
	if memoryLimit > 0 {
		text += ", memory limit " + cgroup.Bytes(memoryLimit)
	}
	return text + "\n"
}
