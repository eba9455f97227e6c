// SPDX-License-Identifier: Apache-2.0

// Package report is what cleanimg-init knows about its own run: the data, its
// JSON form, the text of the termination message, and the removal of secrets
// from anything that is shown to people.
//
// There is one writer, the supervisor. It changes a [Report] of its own and
// publishes the result of [Report.Clone]; a published report is never changed
// again, so that any number of probes may read it without a lock.
//
// The package imports nothing of ours and only small parts of the standard
// library, because it is linked into PID 1.
package report

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// Version is the version of the JSON form. It grows when a field changes its
// meaning or goes away, not when one is added.
const Version = 1

// Phase is where a run stands.
type Phase string

// The phases, in the order in which a run passes through them. Any of them
// may be followed at once by Stopping, and Stopping by Ended.
const (
	Starting Phase = "starting" // settings are read, nothing was run
	Hooks    Phase = "hooks"    // hooks are running
	Running  Phase = "running"  // the command is running
	Draining Phase = "draining" // a stop signal came, the command has not been told yet
	Stopping Phase = "stopping" // processes are being ended, stop hooks run
	Ended    Phase = "ended"    // everything is over, we are about to exit
)

// Result is how a [Step] stands or ended.
type Result string

// The results.
const (
	ResultPending    Result = "pending"
	ResultRunning    Result = "running"
	ResultOK         Result = "ok"
	ResultFailed     Result = "failed"
	ResultTimeout    Result = "timeout"
	ResultKilled     Result = "killed"
	ResultCanceled   Result = "canceled"    // ended because a sibling failed or a stop signal came
	ResultContinued  Result = "continued"   // failed, and its step file says onFailure: continue
	ResultNotStarted Result = "not-started" // the run ended before its turn
)

// Kind says when a [Step] runs.
type Kind string

// The kinds.
const (
	KindHook Kind = "hook" // before the command
	KindStop Kind = "stop" // at the end
)

// Report is the state of a run. Fields that do not apply yet are absent from
// its JSON. It holds no output, no arguments and no environment.
type Report struct {
	Version   int            `json:"version"`
	Phase     Phase          `json:"phase"`
	Init      string         `json:"init_version,omitempty"` // of the program, as --version says it
	Instance  string         `json:"instance,omitempty"`     // opaque id of the container
	At        time.Time      `json:"at,omitzero"`            // when all this was so
	StartedAt time.Time      `json:"started_at,omitzero"`
	EndedAt   time.Time      `json:"ended_at,omitzero"`
	Phases    []Passed       `json:"phases,omitempty"` // so far, in their order
	Started   bool           `json:"started"`          // the command was started; stays true
	Steps     []Step         `json:"steps"`            // in the order in which they run
	Skipped   []string       `json:"skipped,omitempty"`
	Command   *Command       `json:"command,omitempty"`
	Checks    []Check        `json:"checks,omitempty"`
	Notify    *Notify        `json:"notify,omitempty"`    // nil: not asked for
	Failure   *Failure       `json:"failure,omitempty"`   // the first one, the reason for the exit code
	Cgroup    *Cgroup        `json:"cgroup,omitempty"`    // the container's limits, and what is used of them
	Signals   map[string]int `json:"signals,omitempty"`   // received, by name without SIG
	Forwarded map[string]int `json:"forwarded,omitempty"` // sent on, by the name under which that was
	Reaped    int            `json:"reaped"`              // orphans collected
	ExitCode  *int           `json:"exit_code,omitempty"`
	// KillMethod is how the tree of the last step would be killed: "cgroup" or
	// "walk" (of /proc); empty before the first step.
	KillMethod string `json:"kill_method,omitempty"`
}

// Passed is a phase that has begun.
type Passed struct {
	Phase Phase     `json:"phase"`
	At    time.Time `json:"at"`
}

// Step is one hook or stop hook.
type Step struct {
	Name           string    `json:"name"`
	Kind           Kind      `json:"kind"`
	Stage          int       `json:"stage"` // steps of one stage run together
	Result         Result    `json:"result"`
	Attempts       int       `json:"attempts,omitempty"`
	StartedAt      time.Time `json:"started_at,omitzero"` // of the first try
	EndedAt        time.Time `json:"ended_at,omitzero"`   // of the last one
	Seconds        float64   `json:"seconds,omitempty"`   // all tries and the waits between them
	Code           *int      `json:"code,omitempty"`      // of the last try
	Reason         string    `json:"reason,omitempty"`    // short, without output
	TimeoutSeconds float64   `json:"timeout_seconds,omitempty"`
	CPUSeconds     float64   `json:"cpu_seconds,omitempty"`
	MaxRSSBytes    int64     `json:"max_rss_bytes,omitempty"`

	// The container's limits when the last try ended, and what they took in all
	// tries.
	CPULimit         float64  `json:"cpu_limit,omitempty"` // cores
	MemoryLimitBytes int64    `json:"memory_limit_bytes,omitempty"`
	PidsLimit        int64    `json:"pids_limit,omitempty"`
	MemoryPeakBytes  int64    `json:"memory_peak_bytes,omitempty"` // most that the container used meanwhile, as far as it was seen
	OOMKills         int64    `json:"oom_kills,omitempty"`         // processes of the container that were killed for memory
	PidsRefused      int64    `json:"pids_refused,omitempty"`      // processes and threads that could not be made
	Warnings         []string `json:"warnings,omitempty"`          // short, without output
}

// Cgroup is the control group that we are in, as it was when the report was
// read. What is not known is absent, or -1 where 0 says something.
type Cgroup struct {
	Version          string  `json:"version"`             // v1, v2, hybrid or none
	CPULimit         float64 `json:"cpu_limit,omitempty"` // cores
	MemoryLimitBytes int64   `json:"memory_limit_bytes,omitempty"`
	PidsLimit        int64   `json:"pids_limit,omitempty"`
	CPUSeconds       float64 `json:"cpu_seconds,omitempty"`
	Periods          int64   `json:"cpu_periods,omitempty"`           // in which something ran under the CPU limit
	ThrottledPeriods int64   `json:"cpu_throttled_periods,omitempty"` // of these, in which it was used up
	ThrottledSeconds float64 `json:"cpu_throttled_seconds,omitempty"` // of all CPUs together: it can be more than the time that has passed
	MemoryBytes      int64   `json:"memory_bytes,omitempty"`          // in use, without the file cache that can be dropped
	MemoryPeakBytes  int64   `json:"memory_peak_bytes,omitempty"`     // with it
	Pids             int64   `json:"pids,omitempty"`                  // processes and threads
	OOMKills         int64   `json:"oom_kills"`
	PidsRefused      int64   `json:"pids_refused"`
	OOMGroup         bool    `json:"oom_group,omitempty"` // an out-of-memory kill ends all of the container

	Pressure map[string]Pressure `json:"pressure,omitempty"` // by resource: cpu, memory, io
}

// Pressure is for how long processes had to wait for a resource (PSI).
type Pressure struct {
	SomeSeconds float64 `json:"some_seconds"` // at least one of them
	FullSeconds float64 `json:"full_seconds"` // all that had work to do, at once
}

// Command is the real command. Name is the base name of the program: its
// arguments may hold secrets and stay out.
type Command struct {
	Name      string    `json:"name"`
	PID       int       `json:"pid,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Code      *int      `json:"code,omitempty"`
}

// Clone returns a copy that shares nothing changeable with r. The copy of nil
// is nil.
func (r *Report) Clone() *Report {
	if r == nil {
		return nil
	}
	c := *r
	c.Steps = slices.Clone(r.Steps)
	for i := range c.Steps {
		c.Steps[i].Code = clone(c.Steps[i].Code)
		c.Steps[i].Warnings = slices.Clone(c.Steps[i].Warnings)
	}
	c.Phases = slices.Clone(r.Phases)
	c.Cgroup = clone(c.Cgroup)
	if c.Cgroup != nil {
		c.Cgroup.Pressure = maps.Clone(c.Cgroup.Pressure)
	}
	c.Skipped = slices.Clone(r.Skipped)
	c.Checks = slices.Clone(r.Checks)
	c.Notify = clone(r.Notify)
	c.Signals = maps.Clone(r.Signals)
	c.Forwarded = maps.Clone(r.Forwarded)
	c.ExitCode = clone(r.ExitCode)
	c.Command = clone(r.Command)
	if c.Command != nil {
		c.Command.Code = clone(c.Command.Code)
	}
	c.Failure = clone(r.Failure)
	if c.Failure != nil {
		c.Failure.Stderr = bytes.Clone(c.Failure.Stderr)
	}
	return &c
}

// JSON returns the report as one line of JSON with a newline at its end. It
// always returns a valid document: for a report that JSON cannot express
// (seconds that are not a number) one with the phase and the error.
func (r *Report) JSON() []byte {
	if r == nil {
		r = &Report{Version: Version, Phase: Starting}
	}
	c := *r // only to replace nil: readers are promised an array
	if c.Steps == nil {
		c.Steps = []Step{}
	}
	b, err := encode(&c)
	if err != nil {
		b, _ = encode(map[string]any{"version": c.Version, "phase": c.Phase, "error": err.Error()})
	}
	return b
}

// encode is json.Marshal without its escaping of <, > and &, which the readers
// of a log or of curl's output would have to undo.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
