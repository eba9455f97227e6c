// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// events is what go test -json writes for a package with one test of each end.
const events = `{"Action":"start","Package":"example.com/p"}
{"Action":"output","Package":"example.com/p","Test":"TestGood","Output":"    p_test.go:9: chatter\n"}
{"Action":"pass","Package":"example.com/p","Test":"TestGood","Elapsed":0}
{"Action":"output","Package":"example.com/p","Test":"TestBad","Output":"    p_test.go:12: got 1, want 2\n"}
{"Action":"fail","Package":"example.com/p","Test":"TestBad","Elapsed":0}
{"Action":"output","Package":"example.com/p","Test":"TestAway","Output":"=== RUN   TestAway\n"}
{"Action":"output","Package":"example.com/p","Test":"TestAway","Output":"    p_test.go:15: no engine answers\n"}
{"Action":"output","Package":"example.com/p","Test":"TestAway","Output":"--- SKIP: TestAway (0.00s)\n"}
{"Action":"skip","Package":"example.com/p","Test":"TestAway","Elapsed":0}
{"Action":"output","Package":"example.com/p","Output":"FAIL\texample.com/p\t0.004s\n"}
{"Action":"fail","Package":"example.com/p","Elapsed":0.004}
`

func TestTally(t *testing.T) {
	var out strings.Builder
	tally := newTally(&out)
	require.NoError(t, tally.read(strings.NewReader(events)))

	assert.Equal(t, 1, tally.passed)
	assert.Equal(t, []string{"example.com/p TestBad"}, tally.failed)
	assert.Equal(t, []skip{{"example.com/p TestAway", "no engine answers"}}, tally.skipped)
	assert.Contains(t, out.String(), "got 1, want 2")
	assert.Contains(t, out.String(), "FAIL\texample.com/p")
	assert.NotContains(t, out.String(), "chatter", "what passed is quiet")
}

func TestTallyClose(t *testing.T) {
	engine := skip{"integration TestDocker", "no engine answers"}
	tests := []struct {
		name    string
		code    int
		strict  bool
		allowed string
		notes   []string
		want    int
		last    string
	}{
		{"a skip is listed", 0, false, "", nil, 0, "ok  \t2 passed, 0 failed, 1 not run\t1.0s"},
		{"the code is kept", 2, false, "", nil, 2, "FAIL\t2 passed, 0 failed, 1 not run\t1.0s"},
		{"in CI a skip fails", 0, true, "another", nil, 1, "FAIL\t2 passed, 0 failed, 1 not run\t1.0s"},
		{"in CI a known skip does not", 0, true, "TestDocker: no engine", nil, 0, "ok  \t2 passed, 0 failed, 1 not run\t1.0s"},
		{"in CI the race detector is needed", 0, true, "TestDocker", []string{"no compiler"}, 1, "FAIL\t2 passed, 0 failed, 1 not run\t1.0s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			tally := newTally(&out)
			tally.passed, tally.skipped = 2, []skip{engine}

			code := tally.close(&out, tt.code, []*regexp.Regexp{regexp.MustCompile(tt.allowed)}, tt.strict, tt.notes, time.Second)

			assert.Equal(t, tt.want, code)
			assert.Contains(t, out.String(), engine.test)
			assert.Contains(t, out.String(), engine.reason)
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			assert.Equal(t, tt.last, lines[len(lines)-1], "a CI reads the last line")
		})
	}
}

func TestRuns(t *testing.T) {
	assert.Equal(t, [][]string{{"-race", "./..."}}, runs([]string{"-race", "./..."}))
	assert.Equal(t, [][]string{{"./..."}, {"-C", "other", "./..."}}, runs([]string{"./...", "--", "-C", "other", "./..."}))
}
