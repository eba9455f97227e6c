// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// WithMetrics serves /metrics in the text format of Prometheus, and asks next
// for all other paths, and for the probes' verdicts. Both functions are called
// for each scrape and for nothing else; zombies counts the processes that have
// ended and whose living parent does not wait for them, and is -1 where that is
// not known.
func WithMetrics(next Handler, snapshot func() *report.Report, zombies func() int) Handler {
	return func(path string) Response {
		if path != "/metrics" {
			return next(path)
		}
		e := exposition{b: make([]byte, 0, 8<<10)}
		r, now := snapshot(), time.Now()
		if r == nil {
			r = &report.Report{Phase: report.Starting, At: now}
		}
		e.run(r, next)
		e.steps(r)
		e.processes(r)
		e.known(float64(zombies()), 0, "zombies", gauge, "Processes that have ended and whose living parent does not wait for them.")
		if r.Cgroup != nil {
			e.container(r.Cgroup)
		}
		return Response{Status: 200, ContentType: "text/plain; version=0.0.4; charset=utf-8", Body: e.b}
	}
}

// The types of metrics that we have.
const (
	counter = "counter"
	gauge   = "gauge"
)

// exposition is a text in the exposition format, version 0.0.4. A family is
// begun, and then has its samples.
type exposition struct {
	b    []byte
	name string
}

func (e *exposition) family(name, kind, help string) {
	e.name = "cleanimg_init_" + name
	e.b = append(append(append(e.b, "# HELP "...), e.name...), ' ')
	e.b = append(append(e.b, help...), "\n# TYPE "...)
	e.b = append(append(e.b, e.name...), ' ')
	e.b = append(append(e.b, kind...), '\n')
}

// sample adds one of the family. The labels are names and values in turn.
func (e *exposition) sample(value float64, labels ...string) {
	e.b = append(e.b, e.name...)
	for i := 0; i+1 < len(labels); i += 2 {
		e.b = append(e.b, "{,"[min(i, 1)])
		e.b = append(append(e.b, labels[i]...), '=', '"')
		e.b = append(appendLabel(e.b, labels[i+1]), '"')
	}
	if len(labels) > 0 {
		e.b = append(e.b, '}')
	}
	e.b = strconv.AppendFloat(append(e.b, ' '), value, 'f', -1, 64)
	e.b = append(e.b, '\n')
}

// appendLabel adds a label's value. A step's name is a file's, which may be any
// bytes.
func appendLabel(b []byte, value string) []byte {
	for _, r := range strings.ToValidUTF8(value, "\ufffd") {
		switch r {
		case '\\', '"':
			b = append(b, '\\', byte(r))
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, string(r)...)
		}
	}
	return b
}

// known adds a family of one sample, unless its value is below least.
func (e *exposition) known(value, least float64, name, kind, help string) {
	if value >= least {
		e.family(name, kind, help)
		e.sample(value)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unixTime(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

// run adds where the run stands.
func (e *exposition) run(r *report.Report, next Handler) {
	e.family("build_info", gauge, "Always 1; which cleanimg-init this is.")
	e.sample(1, "version", r.Init, "goversion", runtime.Version())
	if !r.StartedAt.IsZero() {
		e.known(unixTime(r.StartedAt), 0, "start_time_seconds", gauge, "When the run began, in Unix time.")
	}
	if r.Command != nil {
		e.known(unixTime(r.Command.StartedAt), 0, "command_start_time_seconds", gauge, "When the command was started, in Unix time.")
	}
	e.family("phase", gauge, "1 for the phase that the run is in, 0 for the others.")
	for _, p := range [...]report.Phase{report.Starting, report.Hooks, report.Running, report.Draining, report.Stopping, report.Ended} {
		e.sample(truth(p == r.Phase), "phase", string(p))
	}
	if len(r.Phases) > 0 {
		e.family("phase_duration_seconds", gauge, "How long each phase has lasted so far.")
		for i, p := range r.Phases {
			end := r.At
			if i+1 < len(r.Phases) {
				end = r.Phases[i+1].At
			}
			e.sample(end.Sub(p.At).Seconds(), "phase", string(p.Phase))
		}
	}
	e.family("probe_success", gauge, "1 where a probe is answered with 200 now.")
	for _, probe := range [...]string{"startup", "live", "ready"} {
		e.sample(truth(next("/health/"+probe).Status == 200), "probe", probe)
	}
	e.checks(r)
	if r.Failure != nil {
		e.family("failure", gauge, "1, with the cause, once the run has failed; the step is empty when that was the command.")
		e.sample(1, "step", r.Failure.Step, "cause", string(r.Failure.Cause))
	}
	if r.ExitCode != nil {
		e.known(float64(*r.ExitCode), 0, "exit_code", gauge, "The exit code, once the run has ended.")
	}
}

// checks adds what is known of the command from outside, and by its own word.
func (e *exposition) checks(r *report.Report) {
	if len(r.Checks) > 0 {
		e.family("check_passing", gauge, "1 where a check passes.")
		for _, c := range r.Checks {
			e.sample(truth(c.State == report.CheckPassing), "check", c.Name, "type", c.Type)
		}
		e.family("check_runs_total", counter, "How often a check has run.")
		for _, c := range r.Checks {
			e.sample(float64(c.Runs), "check", c.Name, "type", c.Type)
		}
	}
	if r.Notify != nil {
		e.known(truth(r.Notify.Ready), 0, "notify_ready", gauge, "1 once the command has said READY=1.")
		e.known(truth(r.WatchdogMissed()), 0, "watchdog_missed", gauge, "1 while the command does not feed its watchdog.")
	}
}

// steps adds a line for each step to each family in which it has something to
// tell.
func (e *exposition) steps(r *report.Report) {
	started := func(s *report.Step) bool { return s.Attempts > 0 }
	families := []struct {
		name, kind, help string
		value            func(*report.Step) float64
		has              func(*report.Step) bool
	}{
		{"step_duration_seconds", gauge, "How long the step has taken so far, all its tries and the waits between them.", func(s *report.Step) float64 {
			if s.Result == report.ResultRunning {
				return r.At.Sub(s.StartedAt).Seconds()
			}
			return s.Seconds
		}, started},
		{"step_attempts_total", counter, "Tries of the step.", func(s *report.Step) float64 { return float64(s.Attempts) }, nil},
		{
			"step_timeout_seconds", gauge, "The limit of each try; of none where there is no sample.",
			func(s *report.Step) float64 { return s.TimeoutSeconds }, func(s *report.Step) bool { return s.TimeoutSeconds > 0 },
		},
		{"step_cpu_seconds_total", counter, "CPU time of the tries that have ended.", func(s *report.Step) float64 { return s.CPUSeconds }, started},
		{
			"step_max_resident_memory_bytes", gauge, "The largest resident set of one of the step's processes.",
			func(s *report.Step) float64 { return float64(s.MaxRSSBytes) }, func(s *report.Step) bool { return s.MaxRSSBytes > 0 },
		},
		{
			"step_exit_code", gauge, "The exit code of the last try.",
			func(s *report.Step) float64 { return float64(*s.Code) }, func(s *report.Step) bool { return s.Code != nil },
		},
	}
	if len(r.Steps) == 0 {
		return
	}
	e.family("step_result", gauge, "Always 1; how the step stands or has ended.")
	for i := range r.Steps {
		s := &r.Steps[i]
		e.sample(1, "step", s.Name, "kind", string(s.Kind), "result", string(s.Result))
	}
	for _, f := range families {
		begun := false
		for i := range r.Steps {
			s := &r.Steps[i]
			if f.has != nil && !f.has(s) {
				continue
			}
			if !begun {
				e.family(f.name, f.kind, f.help)
				begun = true
			}
			e.sample(f.value(s), "step", s.Name, "kind", string(s.Kind))
		}
	}
}

// processes adds what PID 1 does.
func (e *exposition) processes(r *report.Report) {
	e.family("reaped_orphans_total", counter, "Processes reaped that were not started here.")
	e.sample(float64(r.Reaped))
	for _, f := range [...]struct {
		name, help string
		counts     map[string]int
	}{
		{"signals_received_total", "Signals received, by name.", r.Signals},
		{"signals_forwarded_total", "Signals sent on, by the name under which that was.", r.Forwarded},
	} {
		if len(f.counts) == 0 {
			continue
		}
		e.family(f.name, counter, f.help)
		for _, name := range slices.Sorted(maps.Keys(f.counts)) {
			e.sample(float64(f.counts[name]), "signal", name)
		}
	}
}

// container adds what the container may use and has used.
func (e *exposition) container(c *report.Cgroup) {
	e.known(c.CPULimit, 1e-9, "cgroup_cpu_limit_cores", gauge, "The CPU limit; absent where there is none.")
	e.known(float64(c.MemoryLimitBytes), 1, "cgroup_memory_limit_bytes", gauge, "The memory limit; absent where there is none.")
	e.known(float64(c.PidsLimit), 1, "cgroup_pids_limit", gauge, "The limit on processes and threads; absent where there is none.")
	if c.Version == "none" {
		return
	}
	e.known(c.CPUSeconds, 1e-9, "cgroup_cpu_usage_seconds_total", counter, "CPU time used.")
	if c.CPULimit > 0 || c.Periods > 0 {
		e.known(float64(c.Periods), 0, "cgroup_cpu_periods_total", counter, "Enforcement periods of the CPU limit.")
		e.known(float64(c.ThrottledPeriods), 0, "cgroup_cpu_throttled_periods_total", counter, "Those of them in which the CPU limit was used up.")
		e.known(c.ThrottledSeconds, 0, "cgroup_cpu_throttled_seconds_total", counter, "Time throttled, of all CPUs together.")
	}
	e.known(float64(c.MemoryBytes), 1, "cgroup_memory_working_set_bytes", gauge, "Memory in use without the file cache that was not used lately.")
	e.known(float64(c.MemoryPeakBytes), 1, "cgroup_memory_peak_bytes", gauge, "The most memory that ever was in use, with the file cache.")
	e.known(float64(c.OOMKills), 0, "cgroup_oom_kills_total", counter, "Processes that the kernel has killed for want of memory.")
	e.known(float64(c.Pids), 1, "cgroup_pids", gauge, "Processes and threads.")
	e.known(float64(c.PidsRefused), 0, "cgroup_pids_refused_total", counter, "Processes and threads that the limit has prevented.")
	if len(c.Pressure) == 0 {
		return
	}
	resources := slices.Sorted(maps.Keys(c.Pressure))
	e.family("cgroup_pressure_waiting_seconds_total", counter, "Time in which some process waited for the resource.")
	for _, name := range resources {
		e.sample(c.Pressure[name].SomeSeconds, "resource", name)
	}
	e.family("cgroup_pressure_stalled_seconds_total", counter, "Time in which all processes that had work to do waited for the resource at once.")
	for _, name := range resources {
		e.sample(c.Pressure[name].FullSeconds, "resource", name)
	}
}
