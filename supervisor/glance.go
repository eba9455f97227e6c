// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
	"github.com/cleanstart-dev/cleanimg-init/reaper"
	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// A commandSight is what is seen of the limits while the command runs. Nothing
// wakes us up for that: it is looked at when something happens anyway, which in
// Kubernetes is a probe.
type commandSight struct {
	mu    sync.Mutex
	begun bool
	name  string
	kills int64  // for want of memory, before it was started
	sight *sight // nil: not looked yet
	at    time.Time
	over  bool
}

// lookAgain is how old what a glance has seen gets.
const lookAgain = time.Second

// begin enters that the command was started. Without hooks, one counter is all
// that is read.
func (c *commandSight) begin(s *supervisor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun, c.name = true, commandName(s.cfg)
	if s.plan.Len() > 0 {
		c.sight = s.gauge.sight(nil, "command", c.name)
		return
	}
	c.kills = s.box.OOMKills()
}

// open returns the sight. The lock is held.
func (c *commandSight) open(s *supervisor) *sight {
	if c.sight == nil {
		c.sight = s.gauge.sight(nil, "command", c.name)
		if os.Getpid() == 1 { // the container began with us
			c.sight.before = s.gauge.box.Unused()
		}
		c.sight.before = c.sight.before.WithOOMKills(c.kills)
	}
	return c.sight
}

// glance warns of what is near, or was lost. It does not wait for another one.
func (c *commandSight) glance(s *supervisor) {
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	if time.Since(c.at) < lookAgain {
		return
	}
	if c.begun && !c.over {
		sight := c.open(s)
		sight.look()
		sight.lost()
	}
	s.reportBox()
	c.at = time.Now()
}

// reportBox enters the container's limits and counters into the report.
func (s *supervisor) reportBox() {
	state := s.gauge.report()
	s.ledger.update(func(r *report.Report) { r.Cgroup = state })
}

// snapshot is the report as it is now, with a glance at the container.
func (s *supervisor) snapshot() *report.Report {
	s.command.glance(s)
	return s.ledger.snapshot()
}

// report is the box as the report shows it.
func (w *gauge) report() *report.Cgroup {
	box := w.open()
	limits, memory, pids := box.Usage()
	r := &report.Cgroup{
		Version: box.Version(), CPULimit: limits.CPU, MemoryLimitBytes: limits.Memory, PidsLimit: limits.Pids,
		MemoryBytes: max(0, memory.Used), MemoryPeakBytes: box.MemoryPeak(), Pids: max(0, pids.Used),
		OOMKills: box.OOMKills(), PidsRefused: box.PidsTrips(), OOMGroup: box.KillsTogether(),
		ThrottledSeconds: max(0, box.ThrottledTime()).Seconds(),
	}
	for _, resource := range [...]string{"cpu", "memory", "io"} {
		if p, ok := cgroup.ReadPressure(w.unified, resource); ok {
			if r.Pressure == nil {
				r.Pressure = map[string]report.Pressure{}
			}
			r.Pressure[resource] = report.Pressure{SomeSeconds: p.Some.Seconds(), FullSeconds: p.Full.Seconds()}
		}
	}
	reader := box.Open(cgroup.CPU, cgroup.CPUAcct)
	if reader == nil {
		return r
	}
	defer reader.Close()
	if c, err := reader.Counters(); err == nil {
		r.CPUSeconds = max(0, c.CPUTime).Seconds()
		r.Periods, r.ThrottledPeriods = c.CPU.Periods, c.CPU.Throttled
	}
	return r
}

// explain says why the command failed, where only we can know it: an
// out-of-memory kill, the pids limit, a KILL that was not ours.
func (c *commandSight) explain(s *supervisor, e reaper.Exit) *report.Failure {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if e.Code() == 0 || s.stopping != 0 && e.Signal() != unix.SIGKILL {
		return nil
	}
	sight := c.open(s)
	told := sight.kills
	toll := sight.toll()
	f := &report.Failure{Cause: report.Failed, Code: e.Code(), Reason: toll.Explain(e)}
	switch killed := e.Code() == 128+int(unix.SIGKILL); {
	case toll.OOMKills > 0 && (killed || toll.OOMKills > told):
		f.Cause = report.OutOfMemory
	case killed && e.Signal() != 0:
	case toll.PidsTrips > 0:
		f.Cause = report.PidsLimit
	default: // its own affair
		return nil
	}
	return f
}

// startError says why the command could not be started.
func (s *supervisor) startError(path string, err error) error {
	if errors.Is(err, unix.EAGAIN) {
		if limit := s.gauge.open().WhyNoProcess(); limit != "" {
			return &hooks.FullError{What: "it", Limit: limit}
		}
	}
	return hooks.StartError(path, err)
}

// causeOf is the cause of a start that failed.
func causeOf(err error) report.Cause {
	switch {
	case errors.Is(err, unix.EAGAIN):
		return report.PidsLimit
	case errors.Is(err, unix.ENOMEM):
		return report.OutOfMemory
	default:
		return report.Invalid
	}
}
