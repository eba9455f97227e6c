// SPDX-License-Identifier: Apache-2.0

package probes_test

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/probes"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

func two() int { return 2 }

func metrics(t testing.TB, r *report.Report, zombies func() int) string {
	t.Helper()
	snapshot := func() *report.Report { return r }
	resp := probes.WithMetrics(probes.Endpoints(snapshot), snapshot, zombies)("/metrics")
	require.Equal(t, 200, resp.Status)
	return string(resp.Body)
}

// samples are the lines of a text that are no comments, without the prefix that
// all names have.
func samples(t testing.TB, text string) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "cleanimg_init_")
		require.True(t, ok, "%q", line)
		if !strings.HasPrefix(name, "build_info") { // the version of Go
			all = append(all, name)
		}
	}
	return all
}

func TestMetricsOfARunThatFailed(t *testing.T) {
	assert.Equal(t, []string{
		"start_time_seconds 1773457920",
		`phase{phase="starting"} 0`, `phase{phase="hooks"} 0`, `phase{phase="running"} 0`, `phase{phase="draining"} 0`, `phase{phase="stopping"} 0`, `phase{phase="ended"} 1`,
		`phase_duration_seconds{phase="starting"} 0.1`, `phase_duration_seconds{phase="hooks"} 41.3`, `phase_duration_seconds{phase="stopping"} 0.7`, `phase_duration_seconds{phase="ended"} 0`,
		`probe_success{probe="startup"} 0`, `probe_success{probe="live"} 1`, `probe_success{probe="ready"} 0`,
		`failure{step="30-warm-cache",cause="timeout"} 1`,
		"exit_code 124",
		`step_result{step="05-storage",kind="hook",result="ok"} 1`,
		`step_result{step="10-wait-for-db",kind="hook",result="ok"} 1`,
		`step_result{step="20-migrate",kind="hook",result="ok"} 1`,
		`step_result{step="30-warm-cache",kind="hook",result="timeout"} 1`,
		`step_result{step="40-announce",kind="hook",result="not-started"} 1`,
		`step_result{step="10-deregister",kind="stop",result="ok"} 1`,
		`step_duration_seconds{step="05-storage",kind="hook"} 0.3`,
		`step_duration_seconds{step="10-wait-for-db",kind="hook"} 2.7`,
		`step_duration_seconds{step="20-migrate",kind="hook"} 8.3`,
		`step_duration_seconds{step="30-warm-cache",kind="hook"} 30`,
		`step_duration_seconds{step="10-deregister",kind="stop"} 0.5`,
		`step_attempts_total{step="05-storage",kind="hook"} 1`,
		`step_attempts_total{step="10-wait-for-db",kind="hook"} 1`,
		`step_attempts_total{step="20-migrate",kind="hook"} 2`,
		`step_attempts_total{step="30-warm-cache",kind="hook"} 1`,
		`step_attempts_total{step="40-announce",kind="hook"} 0`,
		`step_attempts_total{step="10-deregister",kind="stop"} 1`,
	}, samples(t, metrics(t, broken(), two))[:33])
}

func TestMetricsOfARunningStep(t *testing.T) {
	text := metrics(t, starting(), two)
	assert.Contains(t, text, `cleanimg_init_step_duration_seconds{step="30-warm-cache",kind="hook"} 3.8`, "so far")
	assert.Contains(t, text, `cleanimg_init_step_timeout_seconds{step="30-warm-cache",kind="hook"} 30`)
	assert.NotContains(t, text, `step_duration_seconds{step="40-announce"`)
}

func TestMetricsOfProcessesAndContainer(t *testing.T) {
	all := samples(t, metrics(t, serving(), two))
	first := "reaped_orphans_total 1204"
	require.Contains(t, all, first)
	for all[0] != first {
		all = all[1:]
	}
	assert.Equal(t, []string{
		first,
		`signals_received_total{signal="HUP"} 2`, `signals_received_total{signal="WINCH"} 1`,
		`signals_forwarded_total{signal="HUP"} 2`, `signals_forwarded_total{signal="WINCH"} 1`,
		"zombies 2",
		"cgroup_cpu_limit_cores 0.25", "cgroup_memory_limit_bytes 268435456", "cgroup_pids_limit 100",
		"cgroup_cpu_usage_seconds_total 1.9", "cgroup_cpu_periods_total 300", "cgroup_cpu_throttled_periods_total 271", "cgroup_cpu_throttled_seconds_total 21",
		"cgroup_memory_working_set_bytes 220200960", "cgroup_memory_peak_bytes 268435456", "cgroup_oom_kills_total 1", "cgroup_pids 12", "cgroup_pids_refused_total 7",
		`cgroup_pressure_waiting_seconds_total{resource="cpu"} 1`, `cgroup_pressure_waiting_seconds_total{resource="memory"} 0.000001`,
		`cgroup_pressure_stalled_seconds_total{resource="cpu"} 0.5`, `cgroup_pressure_stalled_seconds_total{resource="memory"} 0`,
	}, all)

	unknown := serving()
	unknown.Cgroup = &report.Cgroup{Version: "none", OOMKills: -1, PidsRefused: -1}
	for _, r := range []*report.Report{starting(), unknown} {
		text := metrics(t, r, func() int { return -1 })
		assert.NotContains(t, text, "cgroup_")
		assert.NotContains(t, text, "zombies")
	}
}

// checked is a run that asks whether its command does what it should.
func checked() *report.Report {
	r := serving()
	r.Checks = []report.Check{
		{Name: report.StartupCheck, Type: "tcp", State: report.CheckPassing, Passed: true, Runs: 3},
		{Name: report.ReadinessCheck, Type: "http", State: report.CheckFailing, Runs: 9, Failures: 4, Reason: "connection refused"},
	}
	r.Notify = &report.Notify{Ready: true, Watchdog: report.WatchdogMissed, Status: "loading 3 of 7 shards"}
	return r
}

func TestMetricsOfChecks(t *testing.T) {
	all := samples(t, metrics(t, checked(), two))
	assert.Subset(t, all, []string{
		`check_passing{check="startup",type="tcp"} 1`, `check_passing{check="readiness",type="http"} 0`,
		`check_runs_total{check="startup",type="tcp"} 3`, `check_runs_total{check="readiness",type="http"} 9`,
		"notify_ready 1", "watchdog_missed 1", `probe_success{probe="ready"} 0`,
	})
}

// hostile is a report with names as only an attacker would give them.
func hostile() *report.Report {
	r := broken()
	for i := range r.Steps {
		r.Steps[i].Name = string(rune('a'+i)) + "\"} 1\ncleanimg_init_up{x=\"\\\x00\xff\u2028"
	}
	r.Failure.Step = r.Steps[0].Name
	return r
}

// TestMetricsConvention asks Prometheus' own linter.
func TestMetricsConvention(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	for name, text := range map[string]string{
		"nothing yet": metrics(t, nil, two), "starting": metrics(t, starting(), two), "running": metrics(t, serving(), two),
		"checks": metrics(t, checked(), two), "ended": metrics(t, stopped(), two), "failed": metrics(t, broken(), two), "hostile": metrics(t, hostile(), two),
	} {
		cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
		cmd.Stdin = strings.NewReader(text)
		out, err := cmd.CombinedOutput()
		assert.NoError(t, err, "%s: %s", name, out)
		assert.Empty(t, string(out), name)
	}
}

func TestMetricsAreDocumented(t *testing.T) {
	docs, err := os.ReadFile("../docs/probes.md")
	require.NoError(t, err)
	text := metrics(t, checked(), two) + metrics(t, broken(), two)
	for _, found := range regexp.MustCompile(`(?m)^# TYPE cleanimg_init_(\S+)`).FindAllStringSubmatch(text, -1) {
		assert.Contains(t, string(docs), "`"+found[1]+"`")
	}
}

func TestMetricsOverHTTP(t *testing.T) {
	addr := start(t, probes.WithMetrics(probes.Endpoints(running), running, two))
	resp, body := probe(t, kubelet(t), http.MethodGet, "http://"+addr+"/metrics")
	assert.Equal(t, "text/plain; version=0.0.4; charset=utf-8", resp.Header.Get("Content-Type"))
	assert.Contains(t, body, "\ncleanimg_init_probe_success{probe=\"ready\"} 1\n")
	resp, _ = probe(t, kubelet(t), http.MethodGet, "http://"+addr+"/livez")
	assert.Equal(t, 200, resp.StatusCode, "other paths are answered as before")
}

// FuzzMetricsLabel: whatever the name of a step, it stays in its label.
func FuzzMetricsLabel(f *testing.F) {
	for _, name := range []string{"10-wait", `a"b\c`, "a\nb", "\xff\x00", "\u2028é", `\n`, ""} {
		f.Add(name)
	}
	want := strings.Count(metrics(f, &report.Report{Steps: []report.Step{{Name: "x"}}}, two), "\n")
	undo := strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n")
	f.Fuzz(func(t *testing.T, name string) {
		text := metrics(t, &report.Report{Steps: []report.Step{{Name: name}}}, two)
		assert.Equal(t, want, strings.Count(text, "\n"), "lines")
		assert.True(t, utf8.ValidString(text))
		_, rest, ok := strings.Cut(text, `cleanimg_init_step_attempts_total{step="`)
		require.True(t, ok)
		label, _, ok := strings.Cut(rest, `",kind=""} 0`+"\n")
		require.True(t, ok, "%q", rest)
		assert.Equal(t, strings.ToValidUTF8(name, "\ufffd"), undo.Replace(label))
	})
}

func BenchmarkMetrics(b *testing.B) {
	r := serving()
	snapshot := func() *report.Report { return r }
	h := probes.WithMetrics(probes.Endpoints(snapshot), snapshot, two)
	b.ReportAllocs()
	for b.Loop() {
		if !bytes.HasSuffix(h("/metrics").Body, []byte("\n")) {
			b.Fatal("cut off")
		}
	}
}
