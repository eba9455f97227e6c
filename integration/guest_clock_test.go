// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// guestClock: with a quarter of a CPU a second of work takes four. A timeout of
// two means the work, and for what only waits, two.
//
// Neither this nor the next is parallel to others: there is one CPU.
func guestClock(t *testing.T) {
	tests := []struct {
		name    string
		step    []string
		timeout int
		code    int
		reason  string
		from    float64 // seconds of wall time
	}{
		{"busy for a second", []string{"busy", "1s"}, 2, 0, "", 2.5},
		{"busy for ever", []string{"busy", "1h"}, 1, 124, `timed out after [\d.]+s( charged \([\d.]+s wall\))?: CPU limit 250m, throttled in \d+ of \d+ periods`, 1},
		{"asleep", []string{"sleep", "1h"}, 2, 124, `timed out after [\d.]+s( charged \([\d.]+s wall\))?: CPU limit 250m, throttled in \d+ of \d+ periods`, 2},
	}
	t.Run("resized", guestResize)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.code != 0 { // what waits for its CPU because of others is charged
				t.Parallel()
			}
			in := Run(t, Options{
				Cgroup: newCgroup(t, cgroup2.Resources{CPU: cpu(250)}),
				Files:  []File{Step("10-work.yaml", runs(tt.step...), fmt.Sprintf("timeout: %ds", tt.timeout))},
			})
			assert.Equal(t, tt.code, in.Wait())
			assert.Contains(t, in.Stderr.String(), fmt.Sprintf("at_most=%ds", 4*tt.timeout), "what the timeout can become is said")
			assert.GreaterOrEqual(t, stepSeconds(t, in, "10-work"), tt.from)
			if tt.reason != "" {
				assert.Regexp(t, tt.reason, in.Message())
			}
		})
	}
}

// stepSeconds is how long the last try of a step took, as the log tells it.
func stepSeconds(t *testing.T, in *Instance, step string) float64 {
	t.Helper()
	lines := regexp.MustCompile(`step=`+step+` .*\bseconds=([\d.]+)`).FindAllStringSubmatch(in.Stderr.String(), -1)
	require.NotEmpty(t, lines, "no end of %s in\n%s", step, in.Stderr)
	n, err := strconv.ParseFloat(lines[len(lines)-1][1], 64)
	require.NoError(t, err)
	return n
}

// guestRows: what is charged of other loads, as docs/timeouts.md has it.
func guestRows(t *testing.T) {
	out, err := exec.Command("/bin/throttling.test", "-test.run=^TestCharged$", "-test.v", "-test.parallel=8").CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Equal(t, 5, strings.Count(string(out), "    --- PASS: TestCharged/"), "%s", out)
}

// guestFind: the limits are found in whatever way the hierarchy is shown.
func guestFind(t *testing.T) {
	t.Parallel()
	type limits = cgroup2.Resources
	const mem32, mem64 = "_MEMORY_LIMIT=33554432\n", "_MEMORY_LIMIT=67108864\n"
	tests := []struct {
		name          string
		limits        []limits // of the groups, from the outermost
		whole, hidden bool
		want          []string // of the variables; nothing else is told
	}{
		{"a group as the root", []limits{{CPU: cpu(250), Memory: memory(64)}}, false, false, []string{"_CPU_LIMIT=0.25\n", mem64}},
		{"a group in the hierarchy", []limits{{CPU: cpu(1500), Memory: memory(64)}}, true, false, []string{"_CPU_LIMIT=1.5\n", mem64}},
		{"no limits", []limits{{}}, false, false, nil},
		{"what is above a namespace is not seen", []limits{{CPU: cpu(500), Memory: memory(32)}, {Memory: memory(64)}}, false, false, []string{mem64}},
		{"without a namespace the least counts", []limits{{CPU: cpu(500), Memory: memory(32)}, {Memory: memory(64)}}, true, false, []string{"_CPU_LIMIT=0.5\n", mem32}},
		{"three levels", []limits{{CPU: cpu(2000), Memory: memory(64)}, {CPU: cpu(750)}, {Memory: memory(32)}}, true, false, []string{"_CPU_LIMIT=0.75\n", mem32}},
		{"not mounted", []limits{{CPU: cpu(250)}}, false, true, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			box := newCgroup(t, tt.limits[0], tt.limits[1:]...)
			box.Whole, box.Hidden = tt.whole, tt.hidden
			for _, mode := range []string{"supervise", "exec"} {
				in := Run(t, Options{Cgroup: box, Args: do("env"), Env: env("CLEANIMG_INIT_MODE=" + mode), Files: []File{Hook("10-tell", "env")}})
				require.Zero(t, in.Wait())
				for _, want := range tt.want {
					assert.Equal(t, 2, strings.Count(in.Stdout.String(), "CLEANIMG_INIT"+want), "%s: hook and command are told %s", mode, want)
				}
				assert.Equal(t, 2*len(tt.want), strings.Count(in.Stdout.String(), "_LIMIT="), "%s", in.Stdout)
				assert.Equal(t, tt.hidden, strings.Contains(in.Stderr.String(), noCgroup), "%s", in.Stderr)
			}
		})
	}
}
