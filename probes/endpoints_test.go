// SPDX-License-Identifier: Apache-2.0

package probes_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/probes"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

func TestEndpoints(t *testing.T) {
	step := func(name string, result report.Result) report.Step { return report.Step{Name: name, Result: result} }
	failure := func(cause report.Cause, code int) *report.Failure {
		return &report.Failure{Step: "20-migrate", Cause: cause, Code: code, Reason: "--password=x", Stderr: []byte("output")}
	}
	tests := []struct {
		name                 string
		report               *report.Report
		startup, live, ready int
		startupBody          string
		readyBody            string
	}{
		{
			"nothing yet", nil, 503, 200, 503,
			`{"status":"unavailable","phase":"starting","reason":"starting"}`,
			`{"status":"unavailable","phase":"starting","reason":"starting"}`,
		},
		{
			"a hook", &report.Report{Phase: report.Hooks, Steps: []report.Step{step("10-wait", report.ResultOK), step("20-migrate", report.ResultRunning)}}, 503, 200, 503,
			`{"status":"unavailable","phase":"hooks","reason":"step 20-migrate is running"}`,
			`{"status":"unavailable","phase":"hooks","reason":"step 20-migrate is running"}`,
		},
		{
			"parallel hooks", &report.Report{Phase: report.Hooks, Steps: []report.Step{step("10-a", report.ResultRunning), step("10-b", report.ResultRunning), step("10-c", report.ResultRunning)}}, 503, 200, 503,
			`{"status":"unavailable","phase":"hooks","reason":"step 10-a and 2 more are running"}`,
			`{"status":"unavailable","phase":"hooks","reason":"step 10-a and 2 more are running"}`,
		},
		{
			"between hooks", &report.Report{Phase: report.Hooks}, 503, 200, 503,
			`{"status":"unavailable","phase":"hooks","reason":"between two steps"}`,
			`{"status":"unavailable","phase":"hooks","reason":"between two steps"}`,
		},
		{
			"about to start the command", &report.Report{Phase: report.Running}, 503, 200, 503,
			`{"status":"unavailable","phase":"running","reason":"the command has not been started yet"}`,
			`{"status":"unavailable","phase":"running","reason":"the command has not been started yet"}`,
		},
		{
			"running", &report.Report{Phase: report.Running, Started: true}, 200, 200, 200,
			`{"status":"ok","phase":"running","check":"none"}`,
			`{"status":"ok","phase":"running","check":"none"}`,
		},
		{
			"draining", &report.Report{Phase: report.Draining, Started: true}, 200, 200, 503,
			`{"status":"ok","phase":"draining","check":"none"}`,
			`{"status":"unavailable","phase":"draining","reason":"a stop signal was received"}`,
		},
		{
			"stopping", &report.Report{Phase: report.Stopping, Started: true}, 200, 200, 503,
			`{"status":"ok","phase":"stopping","check":"none"}`,
			`{"status":"unavailable","phase":"stopping","reason":"stopping"}`,
		},
		{
			"ended", &report.Report{Phase: report.Ended}, 503, 200, 503,
			`{"status":"unavailable","phase":"ended","reason":"the run has ended"}`,
			`{"status":"unavailable","phase":"ended","reason":"the run has ended"}`,
		},
		{
			"a hook failed", &report.Report{Phase: report.Stopping, Failure: failure(report.Failed, 3)}, 500, 200, 500,
			`{"status":"failed","phase":"stopping","step":"20-migrate","cause":"failed","code":3,"reason":"step 20-migrate failed (code 3)"}`,
			`{"status":"failed","phase":"stopping","step":"20-migrate","cause":"failed","code":3,"reason":"step 20-migrate failed (code 3)"}`,
		},
		{
			"a hook timed out", &report.Report{Phase: report.Stopping, Failure: failure(report.TimedOut, 124)}, 504, 200, 504,
			`{"status":"failed","phase":"stopping","step":"20-migrate","cause":"timeout","code":124,"reason":"step 20-migrate timed out (code 124)"}`,
			`{"status":"failed","phase":"stopping","step":"20-migrate","cause":"timeout","code":124,"reason":"step 20-migrate timed out (code 124)"}`,
		},
		{
			"out of memory", &report.Report{Phase: report.Stopping, Failure: failure(report.OutOfMemory, 137)}, 507, 200, 507,
			`{"status":"failed","phase":"stopping","step":"20-migrate","cause":"oom","code":137,"reason":"step 20-migrate ran out of memory (code 137)"}`,
			`{"status":"failed","phase":"stopping","step":"20-migrate","cause":"oom","code":137,"reason":"step 20-migrate ran out of memory (code 137)"}`,
		},
		{
			"the command failed", &report.Report{Phase: report.Stopping, Started: true, Failure: &report.Failure{Cause: report.OutOfMemory, Code: 137}}, 200, 200, 507,
			`{"status":"ok","phase":"stopping","check":"none"}`,
			`{"status":"failed","phase":"stopping","cause":"oom","code":137,"reason":"command ran out of memory (code 137)"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := probes.Endpoints(func() *report.Report { return tt.report })
			for path, want := range map[string]int{
				"/health/startup": tt.startup, "/startupz": tt.startup,
				"/health/live": tt.live, "/livez": tt.live, "/healthz": tt.live,
				"/health/ready": tt.ready, "/readyz": tt.ready,
				"/status": 200, "/livez/": 404, "": 404, "//livez": 404, "/%6civez": 404, "*": 404,
			} {
				resp := h(path)
				assert.Equal(t, want, resp.Status, path)
				assert.True(t, json.Valid(resp.Body), "%s: %s", path, resp.Body)
			}
			assert.Equal(t, tt.startupBody+"\n", string(h("/startupz").Body))
			assert.Equal(t, tt.readyBody+"\n", string(h("/readyz").Body))
		})
	}
}

func TestStatusIsTheReport(t *testing.T) {
	r := &report.Report{Version: report.Version, Phase: report.Running, Started: true}
	assert.Equal(t, string(r.JSON()), string(probes.Endpoints(func() *report.Report { return r })("/status").Body))
}

func TestBodiesAreJSONWhateverTheNameOfAStep(t *testing.T) {
	name := "10-\"a\\b\n\x00\x7f\xff\u2028é"
	r := &report.Report{Phase: report.Stopping, Failure: &report.Failure{Step: name, Cause: report.Failed, Code: 1}}
	var body struct{ Step string }
	require.NoError(t, json.Unmarshal(probes.Endpoints(func() *report.Report { return r })("/readyz").Body, &body))
	assert.Equal(t, "10-\"a\\b\n\x00\x7f\ufffd\u2028é", body.Step)
}

func BenchmarkEndpoints(b *testing.B) {
	r := &report.Report{Phase: report.Running, Started: true}
	h := probes.Endpoints(func() *report.Report { return r })
	b.ReportAllocs()
	for b.Loop() {
		h("/readyz")
	}
}
