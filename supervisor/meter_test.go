// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
	"github.com/cleanstart-dev/cleanimg-init/reaper"
	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// counters are the files of a control group that a test writes.
type counters struct {
	t   *testing.T
	dir string
	log strings.Builder
	gauge
}

// newCounters is a cgroup v2 with 64 MiB and 100 processes, of which little is
// used.
func newCounters(t *testing.T) *counters {
	root := t.TempDir()
	c := &counters{t: t, dir: root + "/cg"}
	c.write("../proc/self/cgroup", "0::/")
	c.write("../proc/self/mountinfo", "31 23 0:28 / /cg ro - cgroup2 cgroup2 rw")
	for name, text := range map[string]string{
		"cgroup.procs": "7", "memory.max": "67108864", "memory.current": "1000000", "memory.stat": "inactive_file 0", "memory.peak": "2000000",
		"memory.events": "oom_kill 0", "pids.max": "100", "pids.current": "3", "pids.events": "max 0", "cpu.max": "max 100000",
	} {
		c.write(name, text)
	}
	c.gauge.log = slog.New(slog.NewTextHandler(&c.log, nil))
	c.gauge.once.Do(func() {
		c.box = cgroup.Where{Proc: root + "/proc", Root: root, PID: 7}.Find()
		c.limits = c.box.Limits()
	})
	require.NotNil(t, c.box)
	return c
}

func (c *counters) write(name, text string) {
	c.t.Helper()
	name = filepath.Join(c.dir, name)
	require.NoError(c.t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(c.t, os.WriteFile(name, []byte(text+"\n"), 0o600))
}

// told returns what was logged since it was asked last.
func (c *counters) told() string {
	defer c.log.Reset()
	return c.log.String()
}

func TestSightWarnsOnce(t *testing.T) {
	c := newCounters(t)
	var notes []string
	s := c.sight(func(text string) { notes = append(notes, text) }, "step", "10-a")
	defer s.files.Close()
	s.look()
	s.lost()
	assert.Empty(t, c.told())

	c.write("memory.current", "62914560") // 60 MiB
	c.write("pids.current", "80")
	c.write("memory.stat", "inactive_file 5242880") // 5 of them can be had back
	s.look()
	told := c.told()
	assert.NotContains(t, told, "memory")
	assert.Contains(t, told, `level=WARN msg="near the pids limit" step=10-a used=80 limit=100`)
	c.write("memory.stat", "inactive_file 0")
	s.look()
	assert.Contains(t, c.told(), `level=WARN msg="near the memory limit" step=10-a used=60Mi limit=64Mi`)
	s.look()
	assert.Empty(t, c.told(), "once")
	assert.Equal(t, []string{"80 of 100 processes and threads", "memory 60Mi of 64Mi"}, notes)
	assert.Equal(t, "memory 60Mi of 64Mi, 80 of 100 processes and threads", inUse(c.box))
}

func TestSightTellsLosses(t *testing.T) {
	c := newCounters(t)
	s := c.sight(nil, "command", "app")
	defer s.files.Close()
	c.write("memory.events", "oom 2\noom_kill 2")
	c.write("pids.events", "max 7")
	s.lost()
	told := c.told()
	assert.Contains(t, told, `msg="out of memory: the kernel killed a process of the container" command=app kills=2 memory_limit=64Mi`)
	assert.Contains(t, told, `msg="the pids limit was hit: no process or thread could be started" command=app times=7 limit=100`)
	s.lost()
	assert.Empty(t, c.told())
	c.write("memory.events", "oom_kill 3")
	s.lost()
	assert.Contains(t, c.told(), "kills=1")

	c.write("memory.peak", "60000000")
	assert.Equal(t, hooks.Toll{OOMKills: 3, PidsTrips: 7, Memory: "64Mi", Pids: "100", Peak: 60000000}, s.toll())
}

// The kernel's peak is of the container's whole life. Where it stays as it was,
// what was seen counts.
func TestPeakOfAStep(t *testing.T) {
	c := newCounters(t)
	s := c.sight(nil)
	defer s.files.Close()
	c.write("memory.current", "1500000")
	s.look()
	c.write("memory.current", "1200000")
	assert.Equal(t, int64(1500000), s.toll().Peak)
}

func TestLimitsThatChange(t *testing.T) {
	c := newCounters(t)
	s := c.sight(nil)
	defer s.files.Close()
	c.write("memory.max", "134217728")
	c.write("pids.max", "max")
	c.write("cpu.max", "25000 100000")
	s.look()
	told := c.told()
	for _, change := range []string{"limit=cpu from=none to=250m", "limit=memory from=64Mi to=128Mi", "limit=pids from=100 to=none"} {
		assert.Contains(t, told, `msg="a limit of the container was changed" `+change)
	}
	assert.Equal(t, cgroup.Limits{CPU: 0.25, Memory: 128 << 20}, c.last())
	s.look()
	assert.Empty(t, c.told())
}

func TestCauseOfAFailure(t *testing.T) {
	oom, pids := hooks.Toll{OOMKills: 1}, hooks.Toll{PidsTrips: 1}
	killed := reaper.Exit{Status: syscall.WaitStatus(unix.SIGKILL)}
	tests := []struct {
		hooks.Result
		want report.Cause
	}{
		{hooks.Result{Cause: hooks.Killed, Exit: killed, Toll: oom}, report.OutOfMemory},
		{hooks.Result{Cause: hooks.Killed, Exit: killed}, report.Failed},
		{hooks.Result{Cause: hooks.Exited, Toll: oom}, report.OutOfMemory},
		{hooks.Result{Cause: hooks.Exited, Toll: pids}, report.PidsLimit},
		{hooks.Result{Cause: hooks.TimedOut, Toll: pids}, report.TimedOut},
		{hooks.Result{Cause: hooks.NotStarted, Err: &hooks.FullError{What: "step a", Limit: "pids limit 9 reached"}}, report.PidsLimit},
		{hooks.Result{Cause: hooks.NotStarted, Err: unix.ENOENT}, report.Invalid},
		{hooks.Result{Cause: hooks.Stopped, Err: hooks.Stop{}, Toll: oom}, report.Stopped},
	}
	for _, tt := range tests {
		f := failureOf(&hooks.Failure{Step: "a", Result: tt.Result})
		assert.Equal(t, tt.want, f.Cause, f.Reason)
	}
	assert.Equal(t, report.PidsLimit, causeOf(fmt.Errorf("start: %w", unix.EAGAIN)))
	assert.Equal(t, report.OutOfMemory, causeOf(fmt.Errorf("start: %w", unix.ENOMEM)))
	assert.Equal(t, report.Invalid, causeOf(errors.New("no such file")))
}

func TestBreadcrumb(t *testing.T) {
	l := ledger{r: report.Report{Steps: []report.Step{
		{Name: "10-a", Kind: report.KindHook}, {Name: "20-migrate", Kind: report.KindHook}, {Name: "20-migrate", Kind: report.KindStop},
	}}}
	e := hooks.Event{Step: "20-migrate", Attempt: 1}
	assert.Equal(t, "running step 20-migrate (2 of 2), try 1, memory limit 256Mi\n", l.breadcrumb(e, 256<<20))
	assert.Equal(t, "running step 20-migrate (2 of 2), try 1\n", l.breadcrumb(e, 0))
}

// TestReportOfTheLastMoment: what was killed after the last probe is in the file.
func TestReportOfTheLastMoment(t *testing.T) {
	c := newCounters(t)
	file := filepath.Join(t.TempDir(), "report.json")
	s := newSupervisor(Config{ReportFile: AbsolutePath(file)}, Options{Stderr: 2})
	s.gauge.once.Do(func() { s.gauge.box = c.box })
	require.Zero(t, s.snapshot().Cgroup.OOMKills)
	c.write("memory.events", "oom_kill 1")
	s.writeReport()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var r report.Report
	require.NoError(t, json.Unmarshal(text, &r))
	assert.EqualValues(t, 1, r.Cgroup.OOMKills)
}
