// SPDX-License-Identifier: Apache-2.0

package probes_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/cleanstart-dev/cleanimg-init/probes"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// TestEndpointsWithChecks: what the checks, and the command's own word, mean to
// each probe.
func TestEndpointsWithChecks(t *testing.T) {
	checks := func(startup, liveness, readiness report.CheckState) []report.Check {
		var all []report.Check
		add := func(name string, state report.CheckState) {
			if state != "" {
				all = append(all, report.Check{Name: name, Type: "tcp", State: state, Passed: state == report.CheckPassing, Runs: 5, Reason: "connection refused"})
			}
		}
		add(report.StartupCheck, startup)
		add(report.LivenessCheck, liveness)
		add(report.ReadinessCheck, readiness)
		return all
	}
	const pending, passing, failing = report.CheckPending, report.CheckPassing, report.CheckFailing
	notify := func(ready bool, watchdog report.WatchdogState) *report.Notify {
		return &report.Notify{Ready: ready, Watchdog: watchdog}
	}
	ended := &report.Failure{Cause: report.TimedOut, Code: 124}
	const none, ok, word = `"check":"none"`, `"check":"ok"`, `"check":"notify"`
	tests := []struct {
		name                 string
		report               report.Report
		startup, live, ready int
		bodies               [3]string // parts of them
	}{
		{
			"no check passes yet",
			report.Report{Checks: checks(pending, passing, pending)},
			503, 200, 503,
			[3]string{"startup check: connection refused", ok, "startup check: connection refused"},
		},
		{"before the first run", report.Report{Checks: []report.Check{
			{Name: report.LivenessCheck, State: passing},
			{Name: report.ReadinessCheck, State: pending},
		}}, 200, 200, 503, [3]string{none, `"check":"pending"`, "readiness check: has not run yet"}},
		{"up", report.Report{Checks: checks(passing, passing, pending)}, 200, 200, 503, [3]string{ok, ok, "readiness check: connection refused"}},
		{"ready", report.Report{Checks: checks(passing, passing, passing)}, 200, 200, 200, [3]string{ok, ok, ok}},
		{"readiness alone", report.Report{Checks: checks("", "", passing)}, 200, 200, 200, [3]string{none, none, ok}},
		{"not alive", report.Report{Checks: checks("", failing, passing)}, 200, 503, 200, [3]string{none, "liveness check: connection refused", ok}},
		{
			"not alive while it drains",
			report.Report{Phase: report.Draining, Checks: checks("", failing, passing)},
			200, 200, 503,
			[3]string{none, none, "a stop signal was received"},
		},
		{"READY is awaited", report.Report{Notify: notify(false, "")}, 503, 200, 503, [3]string{"READY=1", none, "READY=1"}},
		{"READY", report.Report{Notify: notify(true, "")}, 200, 200, 200, [3]string{word, none, word}},
		{
			"READY, but no startup check",
			report.Report{Notify: notify(true, ""), Checks: checks(pending, "", "")},
			503, 200, 503,
			[3]string{"startup check", none, "startup check"},
		},
		{"fed", report.Report{Notify: notify(true, report.WatchdogFed)}, 200, 200, 200, [3]string{word, word, word}},
		{
			"watchdog missed",
			report.Report{Notify: notify(true, report.WatchdogMissed), Checks: checks("", failing, failing)},
			200, 410, 410,
			[3]string{word, "watchdog", "watchdog"},
		},
		{"given up before READY", report.Report{Notify: notify(false, report.WatchdogMissed)}, 410, 410, 410, [3]string{"watchdog", "watchdog", "watchdog"}},
		{
			"watchdog missed at the end",
			report.Report{Phase: report.Stopping, Notify: notify(true, report.WatchdogMissed)},
			200, 200, 503,
			[3]string{word, none, "stopping"},
		},
		{
			"STOPPING",
			report.Report{Notify: &report.Notify{Ready: true, Stopping: true, Watchdog: report.WatchdogMissed}, Checks: checks("", failing, passing)},
			200, 200, 503,
			[3]string{word, none, "the command says that it is stopping"},
		},
		{
			"ended before it was up",
			report.Report{Phase: report.Stopping, Notify: notify(false, ""), Failure: ended},
			504, 200, 504,
			[3]string{"timed out", none, "timed out"},
		},
		{
			"ended after it was up",
			report.Report{Phase: report.Stopping, Notify: notify(true, ""), Failure: ended},
			200, 200, 504,
			[3]string{word, none, "timed out"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.report
			r.Started = true
			if r.Phase == "" {
				r.Phase = report.Running
			}
			answer := probes.Endpoints(func() *report.Report { return &r })
			for i, path := range []string{"/health/startup", "/health/live", "/health/ready"} {
				got := answer(path)
				assert.Equal(t, []int{tt.startup, tt.live, tt.ready}[i], got.Status, "%s: %s", path, got.Body)
				assert.Contains(t, string(got.Body), tt.bodies[i], path)
				assert.True(t, json.Valid(got.Body), "%s", got.Body)
			}
		})
	}
}
