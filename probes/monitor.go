// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// Monitor runs a check on a clock of its own, one run at a time, and applies
// the thresholds.
type Monitor struct {
	Name  string // report.StartupCheck and so on
	Check Check
	// Try is one run of the check. It is not called again before it has
	// returned, however long that takes.
	Try func(context.Context) error
	// Benefit counts the check as passing until it fails: so does the kubelet
	// with liveness.
	Benefit bool
	// Once ends the monitor when the check has passed.
	Once bool
	// Changed is told after each run how the check stands.
	Changed func(report.Check)
}

const (
	// pause is the least time between two runs.
	pause = 50 * time.Millisecond
	// endPatience is how long the end of a monitor waits for a run that is to
	// kill its program.
	endPatience = 3 * time.Second
)

// First is how the check stands before its first run.
func (m *Monitor) First() report.Check {
	state := report.CheckPending
	if m.Benefit {
		state = report.CheckPassing
	}
	return report.Check{Name: m.Name, Type: m.Check.Type, State: state}
}

// Run runs the check until ctx ends, or until it has passed once if that is
// all that is wanted. It is called once.
func (m *Monitor) Run(ctx context.Context) {
	tally := tally{Check: m.First(), success: m.Check.Success, failure: m.Check.Failure}
	run := &try{}
	defer run.settle()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		begin := time.Now()
		err := run.once(ctx, m.Check.Timeout, m.Try)
		if ctx.Err() != nil {
			return
		}
		tally.add(err, time.Now())
		m.Changed(tally.Check)
		period := m.Check.Period
		if !tally.Passed {
			period = min(period, firstPeriod)
		} else if m.Once {
			return
		}
		timer.Reset(max(pause, time.Until(begin.Add(period))))
	}
}

// tally counts successes and failures in a row.
type tally struct {
	report.Check
	success, failure int
	successes        int
}

// add enters the result of a run.
func (t *tally) add(err error, now time.Time) {
	t.Runs++
	state := t.State
	if err == nil {
		t.successes++
		t.Failures, t.Reason = 0, ""
		if t.successes >= t.success {
			state, t.Passed = report.CheckPassing, true
		}
	} else {
		t.successes = 0
		t.Failures++
		t.Reason = err.Error()
		if t.Failures >= t.failure {
			state = report.CheckFailing
		}
	}
	if state != t.State || t.Since.IsZero() {
		t.State, t.Since = state, now
	}
}

// errHangs is the result while an earlier run has not returned.
var errHangs = errors.New("the last run hangs: it could not be ended")

// try is a run that may outlive its time.
type try struct {
	result chan error // not nil while one has not returned
	hangs  bool       // and has had time to
}

// settle waits for a run that has to end the program that it has started.
func (t *try) settle() {
	if t.result == nil || t.hangs {
		return
	}
	select {
	case <-t.result:
	case <-time.After(endPatience):
	}
}

// once runs f, but returns when the timeout is over, and does not run it while
// the last one has not returned. That has as much time again, or a second: to kill
// a program with all that it has started takes a while.
func (t *try) once(ctx context.Context, timeout time.Duration, f func(context.Context) error) error {
	if t.result != nil {
		limited, cancel := context.WithTimeout(ctx, max(timeout, time.Second))
		defer cancel()
		select {
		case <-t.result:
			t.result, t.hangs = nil, false
		case <-limited.Done():
			t.hangs = ctx.Err() == nil
			return errHangs
		}
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- f(limited) }()
	select {
	case err := <-result:
		if err != nil && limited.Err() != nil {
			return fmt.Errorf("no success within %v", timeout)
		}
		return err
	case <-limited.Done():
	}
	t.result = result
	return fmt.Errorf("no success within %v", timeout)
}
