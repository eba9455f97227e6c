// SPDX-License-Identifier: Apache-2.0

package report

import "time"

// The names of the checks, each that of the probe that it is for.
const (
	StartupCheck   = "startup"
	LivenessCheck  = "liveness"
	ReadinessCheck = "readiness"
)

// CheckState is what a [Check] says.
type CheckState string

// The states.
const (
	CheckPending CheckState = "pending" // has not passed yet, nor failed often enough
	CheckPassing CheckState = "passing"
	CheckFailing CheckState = "failing"
)

// Check is a check of the command from outside. It holds no URL: that may have
// a password.
type Check struct {
	Name     string     `json:"name"`
	Type     string     `json:"type"` // tcp, http, unix, file, exec
	State    CheckState `json:"state"`
	Since    time.Time  `json:"since,omitzero"`     // of the state
	Passed   bool       `json:"passed"`             // at some time; stays true
	Runs     int        `json:"runs"`               // so far
	Failures int        `json:"failures,omitempty"` // the last ones, in a row
	Reason   string     `json:"reason,omitempty"`   // of the last failure, if the last run was one
}

// WatchdogState is where the command's watchdog stands.
type WatchdogState string

// The states.
const (
	WatchdogWaiting WatchdogState = "waiting" // for READY=1 or the first WATCHDOG=1
	WatchdogFed     WatchdogState = "fed"
	WatchdogMissed  WatchdogState = "missed" // or the command said WATCHDOG=trigger
)

// Notify is what the command said of itself by sd_notify(3).
type Notify struct {
	Ready           bool          `json:"ready"` // READY=1 was seen; stays true
	Reloading       bool          `json:"reloading,omitempty"`
	Stopping        bool          `json:"stopping,omitempty"`
	Status          string        `json:"status,omitempty"` // one line, without secrets
	Errno           int           `json:"errno,omitempty"`
	Watchdog        WatchdogState `json:"watchdog,omitempty"`
	WatchdogSeconds float64       `json:"watchdog_seconds,omitempty"` // the interval
}

// Check returns the check of that name, or nil.
func (r *Report) Check(name string) *Check {
	for i := range r.Checks {
		if r.Checks[i].Name == name {
			return &r.Checks[i]
		}
	}
	return nil
}

// Up reports whether the command was started and, where that was asked for,
// its startup check has passed and READY=1 was seen. Once true it stays so.
func (r *Report) Up() bool {
	check := r.Check(StartupCheck)
	return r.Started && (check == nil || check.Passed) && (r.Notify == nil || r.Notify.Ready)
}

// WatchdogMissed reports whether the command has not fed its watchdog, while it
// should.
func (r *Report) WatchdogMissed() bool {
	return r.Phase == Running && r.Notify != nil && !r.Notify.Stopping && r.Notify.Watchdog == WatchdogMissed
}
