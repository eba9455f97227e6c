// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// full returns a report in which every field has a value.
func full() *report.Report {
	code := func(n int) *int { return &n }
	return &report.Report{
		Version: report.Version, Phase: report.Stopping, Init: "1.0.0", Instance: "4026532001",
		At: noon.Add(time.Hour), StartedAt: noon, EndedAt: noon.Add(time.Minute), Started: true,
		Phases: []report.Passed{{Phase: report.Starting, At: noon}},
		Steps: []report.Step{{
			Name: "20-migrate", Kind: report.KindHook, Stage: 1, Result: report.ResultTimeout, Attempts: 2,
			StartedAt: noon, EndedAt: noon.Add(time.Second), Seconds: 1.5, Code: code(124), Reason: "30s charged",
			TimeoutSeconds: 30, CPUSeconds: 0.25, MaxRSSBytes: 1 << 20,
		}},
		Skipped: []string{"10-wait"},
		Command: &report.Command{Name: "nginx", PID: 7, StartedAt: noon, EndedAt: noon, Code: code(0)},
		Failure: &report.Failure{Step: "20-migrate", Cause: report.TimedOut, Code: 124, Reason: "30s charged", Stderr: []byte("secret output\n")},
		Signals: map[string]int{"TERM": 1}, Forwarded: map[string]int{"QUIT": 1},
		Reaped: 3, ExitCode: code(124), KillMethod: "walk",
	}
}

func TestJSON(t *testing.T) {
	got := full().JSON()

	assert.Equal(t, `{"version":1,"phase":"stopping","init_version":"1.0.0","instance":"4026532001","at":"2026-11-22T13:00:00Z",`+
		`"started_at":"2026-11-22T12:00:00Z","ended_at":"2026-11-22T12:01:00Z","phases":[{"phase":"starting","at":"2026-11-22T12:00:00Z"}],"started":true,`+
		`"steps":[{"name":"20-migrate","kind":"hook","stage":1,"result":"timeout","attempts":2,"started_at":"2026-11-22T12:00:00Z","ended_at":"2026-11-22T12:00:01Z",`+
		`"seconds":1.5,"code":124,"reason":"30s charged","timeout_seconds":30,"cpu_seconds":0.25,"max_rss_bytes":1048576}],"skipped":["10-wait"],`+
		`"command":{"name":"nginx","pid":7,"started_at":"2026-11-22T12:00:00Z","ended_at":"2026-11-22T12:00:00Z","code":0},`+
		`"failure":{"step":"20-migrate","cause":"timeout","code":124,"reason":"30s charged"},"signals":{"TERM":1},"forwarded":{"QUIT":1},"reaped":3,"exit_code":124,"kill_method":"walk"}`+"\n", string(got))
	assert.NotContains(t, string(got), "secret output")
}

func TestJSONLeavesOutWhatIsUnset(t *testing.T) {
	r := report.Report{Version: report.Version, Phase: report.Starting}
	assert.Equal(t, `{"version":1,"phase":"starting","started":false,"steps":[],"reaped":0}`+"\n", string(r.JSON()))
	assert.Nil(t, r.Steps, "the report itself is not changed")
}

func TestJSONIsAlwaysADocument(t *testing.T) {
	odd := full()
	odd.Steps[0].Seconds = math.NaN()
	for _, r := range []*report.Report{nil, {}, odd} {
		var doc map[string]any
		require.NoError(t, json.Unmarshal(r.JSON(), &doc))
		assert.Contains(t, doc, "phase")
	}
}

func TestCloneIsUnaffectedByTheOriginal(t *testing.T) {
	r := full()
	c := r.Clone()
	require.Equal(t, r, c)
	want := string(c.JSON()) + c.Failure.Message(1000)

	r.Phase, r.Reaped = report.Ended, 99
	r.Steps[0].Name, *r.Steps[0].Code = "x", 1
	r.Skipped[0], r.Signals["TERM"], r.Signals["INT"] = "x", 5, 1
	r.Command.Name, *r.Command.Code, *r.ExitCode = "x", 1, 1
	r.Failure.Step, r.Failure.Stderr[0] = "x", 'X'

	assert.Equal(t, want, string(c.JSON())+c.Failure.Message(1000))
	assert.Nil(t, (*report.Report)(nil).Clone())
}
