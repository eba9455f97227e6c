// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// A script of runs: what each returns, and how long it takes.
type result struct {
	err  error
	took time.Duration
}

var errDown = errors.New("down")

// watch runs a monitor over a script, whose last entry repeats, and returns
// when each run began and how the check stood after it.
func watch(t *testing.T, m *Monitor, total time.Duration, script ...result) (begins []time.Duration, states []report.Check) {
	t.Helper()
	if m.Check.Type == "" {
		m.Check = Check{Type: "tcp", Period: checkPeriod, Timeout: checkTimeout, Success: checkSuccess, Failure: checkFailures}
	}
	start := time.Now()
	running := false
	m.Try = func(ctx context.Context) error {
		assert.False(t, running, "two runs at once")
		running = true
		defer func() { running = false }()
		begins = append(begins, time.Since(start))
		next := script[0]
		if len(script) > 1 {
			script = script[1:]
		}
		select {
		case <-time.After(next.took):
			return next.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.Changed = func(c report.Check) { states = append(states, c) }
	ctx, cancel := context.WithTimeout(t.Context(), total)
	defer cancel()
	m.Run(ctx)
	return begins, states
}

func seconds(n ...float64) (all []time.Duration) {
	for _, s := range n {
		all = append(all, time.Duration(s*float64(time.Second)))
	}
	return all
}

func states(all []report.Check) (s []report.CheckState) {
	for _, c := range all {
		s = append(s, c.State)
	}
	return s
}

const (
	pending = report.CheckPending
	passing = report.CheckPassing
	failing = report.CheckFailing
)

func TestMonitorPeriods(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down, ok := result{err: errDown}, result{}
		begins, all := watch(t, &Monitor{Name: report.ReadinessCheck}, 15*time.Second, down, down, down, down, ok, ok, down, down, ok, down)
		assert.Equal(t, seconds(0, 1, 2, 3, 4, 7, 10, 13), begins, "every second until it has passed, then every three")
		assert.Equal(t, []report.CheckState{pending, pending, failing, failing, passing, passing, passing, passing}, states(all), "two failures do not count")
		assert.Equal(t, 2, all[7].Failures)
		assert.Equal(t, "down", all[7].Reason)
		assert.Equal(t, 8, all[7].Runs)
		assert.Equal(t, 4*time.Second, all[7].Since.Sub(all[0].Since), "since it passes")
	})
}

func TestMonitorThresholds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &Monitor{Check: Check{Type: "tcp", Period: 500 * time.Millisecond, Timeout: time.Second, Success: 2, Failure: 2}}
		down, ok := result{err: errDown}, result{}
		begins, all := watch(t, m, 3900*time.Millisecond, ok, down, ok, ok, down, ok, down, down)
		assert.Equal(t, seconds(0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5), begins)
		assert.Equal(t, []report.CheckState{pending, pending, pending, passing, passing, passing, passing, failing}, states(all))
		assert.False(t, all[2].Passed)
		assert.True(t, all[7].Passed, "it has, at some time")
	})
}

func TestMonitorOfLivenessAndStartup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down, ok := result{err: errDown}, result{}
		live := &Monitor{Name: report.LivenessCheck, Benefit: true}
		assert.Equal(t, passing, live.First().State)
		_, all := watch(t, live, 3900*time.Millisecond, down)
		assert.Equal(t, []report.CheckState{passing, passing, failing, failing}, states(all), "three failures count")

		begins, all := watch(t, &Monitor{Name: report.StartupCheck, Once: true}, time.Hour, down, down, ok)
		assert.Equal(t, seconds(0, 1, 2), begins, "it ends when it has passed")
		assert.True(t, all[2].Passed)
	})
}

func TestMonitorTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &Monitor{Check: Check{Type: "exec", Period: 10 * time.Second, Timeout: 5 * time.Second, Success: 1, Failure: 1}}
		slow, ok := result{took: 20 * time.Second}, result{}
		begins, all := watch(t, m, 12*time.Second, slow, ok)
		assert.Equal(t, seconds(0, 5.05), begins, "the next one follows the end of the last")
		assert.Equal(t, []report.CheckState{failing, passing}, states(all))
		assert.Equal(t, "no success within 5s", all[0].Reason)
	})
}

// TestMonitorOfWhatHangs: a run that ignores its end is not joined by another.
func TestMonitorOfWhatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		var reasons []string
		m := &Monitor{
			Check: Check{Type: "file", Period: time.Second, Timeout: time.Second, Success: 1, Failure: 3},
			Try:   func(context.Context) error { runs.Add(1); time.Sleep(4500 * time.Millisecond); return nil },
		}
		m.Changed = func(c report.Check) { reasons = append(reasons, c.Reason) }
		ctx, cancel := context.WithTimeout(t.Context(), 5900*time.Millisecond)
		defer cancel()
		m.Run(ctx)
		assert.EqualValues(t, 2, runs.Load())
		hangs := "the last run hangs: it could not be ended"
		assert.Equal(t, []string{"no success within 1s", hangs, hangs, hangs, "no success within 1s"}, reasons)
		time.Sleep(time.Minute) // its goroutine ends too
	})
}

// TestMonitorOfWhatEndsSlowly: a run whose program takes a while to be killed
// counts as one failure, not two.
func TestMonitorOfWhatEndsSlowly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var begins []time.Duration
		var reasons []string
		start := time.Now()
		m := &Monitor{
			Check: Check{Type: "exec", Period: time.Second, Timeout: time.Second, Success: 1, Failure: 3},
			Try: func(ctx context.Context) error {
				begins = append(begins, time.Since(start))
				<-ctx.Done()
				time.Sleep(200 * time.Millisecond)
				return ctx.Err()
			},
			Changed: func(c report.Check) { reasons = append(reasons, c.Reason) },
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		m.Run(ctx)
		assert.Equal(t, seconds(0, 1.2, 2.4), begins)
		slow := "no success within 1s"
		assert.Equal(t, []string{slow, slow, slow}, reasons)
	})
}

// TestMonitorEnds waits for the run that is to clean up.
func TestMonitorEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cleaned := false
		m := &Monitor{
			Check: Check{Type: "exec", Period: time.Second, Timeout: time.Hour, Success: 1, Failure: 1},
			Try: func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Second)
				cleaned = true
				return ctx.Err()
			},
			Changed: func(report.Check) { assert.Fail(t, "an interrupted run says nothing") },
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		m.Run(ctx)
		assert.True(t, cleaned)
	})
}

// TestMonitorLosesNoResult: a run that has just returned has returned.
func TestMonitorLosesNoResult(t *testing.T) {
	t.Parallel()
	for _, want := range []error{nil, errDown} {
		run := &try{}
		for range 20000 {
			require.Equal(t, want, run.once(t.Context(), time.Hour, func(context.Context) error { return want }))
		}
	}
}
