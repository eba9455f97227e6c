// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

func exited(code int) reaper.Exit { return reaper.Exit{Status: syscall.WaitStatus(code << 8)} }

func killed(sig syscall.Signal) reaper.Exit { return reaper.Exit{Status: syscall.WaitStatus(sig)} }

func TestExplain(t *testing.T) {
	tests := []struct {
		Toll
		exit reaper.Exit
		want string
	}{
		{Toll{}, exited(3), "exit code 3"},
		{unmetered, exited(3), "exit code 3"},
		{Toll{OOMKills: 1, Memory: "64Mi"}, killed(unix.SIGKILL), "out of memory: killed by the kernel (memory limit 64Mi)"},
		{Toll{OOMKills: 3, Memory: "64Mi"}, killed(unix.SIGKILL), "out of memory: killed by the kernel (memory limit 64Mi), and with it 2 other processes of the container"},
		{Toll{OOMKills: 1}, killed(unix.SIGKILL), "out of memory: killed by the kernel (no memory limit is visible: a limit further up, or the machine's memory)"},
		{Toll{OOMKills: 1, Memory: "1Gi"}, exited(137), "exit code 137; out of memory: the kernel killed 1 other process of the container (memory limit 1Gi)"},
		{Toll{OOMKills: 1, Memory: "1Gi"}, killed(unix.SIGTERM), "killed by SIGTERM, which cleanimg-init did not send; out of memory: the kernel killed 1 other process of the container (memory limit 1Gi)"},
		{Toll{}, killed(unix.SIGKILL), "killed by SIGKILL from outside: neither cleanimg-init nor an out-of-memory kill"},
		{unmetered, killed(unix.SIGKILL), "killed by SIGKILL from outside, not by cleanimg-init; whether it was an out-of-memory kill can't be told: no memory counters are visible"},
		{Toll{}, killed(unix.SIGSEGV), "killed by SIGSEGV"},
		{Toll{PidsTrips: 7, Pids: "100"}, exited(2), "exit code 2; the pids limit (100) was hit 7 times meanwhile"},
		{Toll{PidsTrips: 1}, killed(unix.SIGABRT), "killed by SIGABRT; the pids limit was hit 1 time meanwhile"},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, tt.Explain(tt.exit))
	}
}

func TestWhichLimit(t *testing.T) {
	oom, pids := Toll{OOMKills: 1}, Toll{PidsTrips: 1}
	both := Toll{OOMKills: 1, PidsTrips: 1}
	tests := []struct {
		Result
		memory, pids, retry bool
	}{
		{Result{Cause: Killed, Toll: oom}, true, false, false},
		{Result{Cause: Exited, Toll: oom}, true, false, false},
		{Result{Cause: Exited, Toll: pids}, false, true, true},
		{Result{Cause: Exited, Toll: both}, true, false, false},
		{Result{Cause: Exited, Toll: unmetered}, false, false, true},
		{Result{Cause: TimedOut, Toll: pids}, false, false, true},
		{Result{Cause: TimedOut, Toll: oom}, false, false, false},
		{Result{Cause: NotStarted, Err: fmt.Errorf("start: %w", unix.EAGAIN)}, false, true, true},
		{Result{Cause: NotStarted, Err: fmt.Errorf("start: %w", unix.ENOMEM)}, true, false, true},
		{Result{Cause: NotStarted, Err: unix.ENOENT}, false, false, true},
		{Result{Toll: both}, false, false, false},
	}
	for i, tt := range tests {
		assert.Equal(t, tt.memory, tt.OutOfMemory(), "memory, %d", i)
		assert.Equal(t, tt.pids, tt.PidsLimit(), "pids, %d", i)
		assert.Equal(t, tt.retry, tt.retryable(), "another try, %d", i)
	}
	full := Result{Cause: NotStarted, Err: &FullError{What: "step a", Limit: "pids limit 9 reached (9 processes and threads)"}, Toll: pids}
	assert.Equal(t, "cannot start step a: pids limit 9 reached (9 processes and threads)", full.Reason(), "once")
	assert.Equal(t, codeOwn, full.Code())
	assert.True(t, full.PidsLimit())
}

// fakeMeter knows what it was told.
type fakeMeter struct {
	toll    Toll
	started int
	stopped int
}

func (f *fakeMeter) Started(pid int) { f.started = pid }
func (f *fakeMeter) Usage() string   { return "memory 240Mi of 256Mi" }
func (f *fakeMeter) Full() string    { return "" }
func (f *fakeMeter) Stop() Toll      { f.stopped++; return f.toll }

// TestMeteredTries: each try has a meter of its own, and what it says decides.
func TestMeteredTries(t *testing.T) {
	step := roleStep(t, "s", "exit", "3")
	step.retries = 2
	var meters []*fakeMeter
	var log strings.Builder
	var tolls []Toll
	r := &Runner{
		Reaper: &testReaper, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Meter: func(string, bool) Meter {
			m := &fakeMeter{toll: Toll{OOMKills: int64(len(meters)), Memory: "64Mi"}}
			meters = append(meters, m)
			return m
		},
		Event: func(e Event) {
			if e.Result != nil {
				tolls = append(tolls, e.Result.Toll)
			}
		},
	}
	_, err := r.Run(context.Background(), [][]Step{{step}}, nil)
	assert.EqualError(t, err, `hook "s": exit code 3; out of memory: the kernel killed 1 other process of the container (memory limit 64Mi)`)
	assert.Len(t, meters, 2, "the first may be tried again, the second not")
	for _, m := range meters {
		assert.Equal(t, 1, m.stopped)
		assert.Positive(t, m.started)
	}
	assert.Equal(t, []Toll{{Memory: "64Mi"}, {OOMKills: 1, Memory: "64Mi"}}, tolls)
}

// TestUsageAtATimeout is told as it was before the step was ended.
func TestUsageAtATimeout(t *testing.T) {
	step := roleStep(t, "s", "hang")
	step.Timeout = 1
	r := &Runner{Reaper: &testReaper, Log: slog.New(slog.DiscardHandler), Meter: func(string, bool) Meter { return &fakeMeter{} }}
	_, err := r.Run(context.Background(), [][]Step{{step}}, nil)
	assert.EqualError(t, err, `hook "s": timed out after 1ns; memory 240Mi of 256Mi`)
}

// TestLossOfASuccess is a warning.
func TestLossOfASuccess(t *testing.T) {
	var log strings.Builder
	r := &Runner{
		Reaper: &testReaper, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Meter: func(string, bool) Meter { return &fakeMeter{toll: Toll{PidsTrips: 2, Pids: "100"}} },
	}
	_, err := r.Run(context.Background(), [][]Step{{roleStep(t, "s", "exit", "0")}}, nil)
	assert.NoError(t, err)
	assert.Contains(t, log.String(), `level=WARN msg="hook ended" step=s`)
	assert.Contains(t, log.String(), `but="the pids limit (100) was hit 2 times meanwhile"`)
}
