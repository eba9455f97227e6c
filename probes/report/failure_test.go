// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

func TestHTTPStatus(t *testing.T) {
	want := map[report.Cause]int{
		report.Failed: 500, report.TimedOut: 504, report.OutOfMemory: 507, report.PidsLimit: 507,
		report.Stopped: 503, report.Invalid: 500, "unheard of": 500,
	}
	for cause, status := range want {
		assert.Equal(t, status, (&report.Failure{Step: "10-a", Cause: cause}).HTTPStatus(), "cause %s", cause)
	}
	assert.Equal(t, 503, (&report.Failure{Cause: report.Failed}).HTTPStatus(), "the command's own end is no hook's failure")
	assert.Equal(t, 500, (&report.Failure{Cause: report.Invalid}).HTTPStatus(), "the command could not be started")
}

func TestMessage(t *testing.T) {
	timedOut := report.Failure{Step: "20-migrate", Cause: report.TimedOut, Code: 124, Reason: "30s charged (112s wall)"}
	with := func(f report.Failure, stderr string) *report.Failure {
		f.Stderr = []byte(stderr)
		return &f
	}
	tests := []struct {
		name    string
		failure *report.Failure
		limit   int
		want    string
	}{
		{"nothing failed", nil, 1000, ""},
		{"facts only", &timedOut, 1000, "step 20-migrate timed out (code 124): 30s charged (112s wall)\n"},
		{"no room at all", &timedOut, 0, ""},
		{"a negative limit", &timedOut, -1, ""},
		{"facts that do not fit", &timedOut, 41, "step 20-migrate timed out (code 124): \u2026"[:37] + "…\n"},
		{"stderr", with(timedOut, "one\ntwo\n"), 1000, "step 20-migrate timed out (code 124): 30s charged (112s wall)\nstderr:\none\ntwo\n"},
		{"the last lines that fit", with(timedOut, "one\ntwo\nthree\n"), 62 + 8 + 10, "step 20-migrate timed out (code 124): 30s charged (112s wall)\nstderr:\ntwo\nthree\n"},
		{"a last line that does not", with(timedOut, "one\n"+strings.Repeat("x", 100)+"\n"), 62 + 8 + 30, "step 20-migrate timed out (code 124): 30s charged (112s wall)\nstderr:\n" + strings.Repeat("x", 26) + "…\n"},
		{"no room for stderr", with(timedOut, "one\ntwo\n"), 66, "step 20-migrate timed out (code 124): 30s charged (112s wall)\n"},
		{"colours, bells and carriage returns", with(timedOut, "\x1b[1;31mred\x1b[0m\a\r\n\tin\xffdented\x00\n"), 1000, "step 20-migrate timed out (code 124): 30s charged (112s wall)\nstderr:\nred\n\tin\ufffddented\n"},
		{"the command", &report.Failure{Cause: report.OutOfMemory, Code: 137}, 1000, "command ran out of memory (code 137)\n"},
		{"ourselves", &report.Failure{Cause: report.Invalid, Code: 125, Reason: "CLEANIMG_INIT_MODE: \"x\"\nCLEANIMG_INIT_USER: \"y\""}, 1000, "cleanimg-init (code 125): CLEANIMG_INIT_MODE: \"x\"\nCLEANIMG_INIT_USER: \"y\"\n"},
		{"a name of several lines", &report.Failure{Step: "10\nstep", Cause: report.Failed, Code: 3}, 1000, "step \"10\\nstep\" failed (code 3)\n"},
		{"the pids limit", &report.Failure{Step: "a", Cause: report.PidsLimit, Code: 1}, 1000, "step a hit the pids limit (code 1)\n"},
		{"a stop signal", &report.Failure{Step: "a", Cause: report.Stopped, Code: 143}, 1000, "step a was stopped by a signal (code 143)\n"},
		{"a step that is invalid", &report.Failure{Step: "a b", Cause: report.Invalid, Code: 125}, 1000, "step \"a b\" could not be run (code 125)\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, tt.failure.Message(tt.limit))
		})
	}
}

func FuzzMessage(f *testing.F) {
	f.Add("20-migrate", "timeout", "30s charged", []byte("one\ntwo\n"), 1000)
	f.Add("a\xffb", "invalid", "line\nline", []byte("\x1b[31mé\x1b["), 40)
	f.Add("", "oom", "", []byte(strings.Repeat("é", 300)), 77)
	f.Fuzz(func(t *testing.T, step, cause, reason string, stderr []byte, limit int) {
		failure := &report.Failure{Step: step, Cause: report.Cause(cause), Code: 1, Reason: reason, Stderr: stderr}
		got := failure.Message(limit)

		assert.LessOrEqual(t, len(got), max(limit, 0))
		assert.True(t, utf8.ValidString(got), "%q", got)
		assert.Equal(t, limit > 0, strings.HasSuffix(got, "\n"), "%q", got)
		assert.Equal(t, -1, strings.IndexFunc(got, func(r rune) bool {
			return unicode.IsControl(r) && r != '\n' && r != '\t'
		}), "%q", got)
		if facts := failure.Summary(); limit > len(facts)+len("…\n") {
			assert.True(t, strings.HasPrefix(got, facts), "%q", got)
		}
	})
}
