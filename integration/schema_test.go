// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// reportSchema is the published one, made strict: a field that it does not
// describe is an error here, and none for users.
func reportSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile("../docs/status.schema.json")
	require.NoError(t, err)
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	require.NoError(t, err)
	var restrict func(any)
	restrict = func(part any) {
		switch part := part.(type) {
		case map[string]any:
			for _, p := range part {
				restrict(p)
			}
			if _, ok := part["properties"].(map[string]any); ok {
				part["additionalProperties"] = false
			}
		case []any:
			for _, p := range part {
				restrict(p)
			}
		}
	}
	restrict(doc)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource("status.schema.json", doc))
	s, err := c.Compile("status.schema.json")
	require.NoError(t, err)
	return s
}

func assertReport(t *testing.T, s *jsonschema.Schema, text string) {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if assert.NoError(t, err, "%s", text) {
		assert.NoError(t, s.Validate(doc), "%s", text)
	}
}

// TestReportsFollowTheSchema in each phase of runs that go well and badly.
func TestReportsFollowTheSchema(t *testing.T) {
	t.Parallel()
	s := reportSchema(t)
	status := func(in *Instance) {
		t.Helper()
		_, body, err := in.Get("/status")
		require.NoError(t, err)
		assertReport(t, s, body)
	}

	in := Run(t, Options{
		Args: do("listen", "127.0.0.1:9000"),
		Env: env("CLEANIMG_INIT_REPORT_FILE=/tmp/report.json", "CLEANIMG_INIT_HOOKS_SKIP=90-z", "CLEANIMG_INIT_READINESS_CHECK=tcp://127.0.0.1:9000",
			"CLEANIMG_INIT_LIVENESS_CHECK=file:///none", "CLEANIMG_INIT_DRAIN_DELAY=300ms"),
		Files: []File{
			Hook("10-a", "touch /tmp/hook", "await /tmp/go"), Hook("90-z", "exit 1"),
			Step("20-b.yaml", runs("exit", "4"), "retries: 1", "backoff: 1ms", "onFailure: continue"),
			StopHook("10-stop", "exit 5"),
		},
	})
	in.WaitFile("/tmp/hook")
	in.WaitStatus("/health/live", 200)
	status(in)
	in.touch("/tmp/go")
	in.WaitStatus("/health/ready", 200)
	status(in)
	in.Signal(syscall.SIGTERM)
	in.WaitStatus("/health/ready", 503)
	status(in)
	assert.Equal(t, 143, in.Wait())
	assertReport(t, s, in.File("/tmp/report.json"))

	in = Run(t, Options{
		Args:  mainRan,
		Env:   env("CLEANIMG_INIT_REPORT_FILE=/tmp/report.json"),
		Files: []File{Step("10-a.yaml", runs("sleep", "1h"), "timeout: 300ms"), Hook("20-b"), StopHook("10-stop")},
	})
	assert.Equal(t, 124, in.Wait())
	assertReport(t, s, in.File("/tmp/report.json"))
}

// TestReportOfACIJob: an image that only runs its hooks, where nobody asks for
// probes. The job keeps the file.
func TestReportOfACIJob(t *testing.T) {
	t.Parallel()
	s := reportSchema(t)
	in := Run(t, Options{
		Env:   env("CLEANIMG_INIT_REPORT_FILE=/tmp/report.json"),
		Files: []File{Hook("10-lint", "exit 0"), Hook("20-test", "err what went wrong", "exit 9"), Hook("30-publish", ran("never"))},
	})
	assert.Equal(t, 9, in.Wait())
	text := in.File("/tmp/report.json")
	assertReport(t, s, text)
	var r struct {
		Phase string
		Steps []struct {
			Name, Result string
			Seconds      float64
		}
		Failure  struct{ Step, Cause string }
		ExitCode int `json:"exit_code"`
	}
	require.NoError(t, json.Unmarshal([]byte(text), &r))
	assert.Equal(t, "ended", r.Phase)
	assert.Equal(t, 9, r.ExitCode)
	assert.Equal(t, "20-test", r.Failure.Step)
	var results []string
	for _, step := range r.Steps {
		results = append(results, step.Name+" "+step.Result)
	}
	assert.Equal(t, []string{"10-lint ok", "20-test failed", "30-publish not-started"}, results)
	assert.NotContains(t, text, "what went wrong", "output is in the log")

	// That it can't be written is no reason to fail.
	in = Run(t, Options{Env: env("CLEANIMG_INIT_REPORT_FILE=/none/report.json"), Files: []File{Hook("10-lint")}})
	assert.Zero(t, in.Wait())
	assert.Contains(t, in.Stderr.String(), "report not written")
}
