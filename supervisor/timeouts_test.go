// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

func TestLimitVariables(t *testing.T) {
	assert.Equal(t, []string{"CLEANIMG_INIT_CPU_LIMIT=0.25", "CLEANIMG_INIT_MEMORY_LIMIT=67108864"}, limitEnv(cgroup.Limits{CPU: 0.25, Memory: 64 << 20}))
	assert.Equal(t, []string{"CLEANIMG_INIT_CPU_LIMIT=0.3333"}, limitEnv(cgroup.Limits{CPU: 1.0 / 3}))
	assert.Equal(t, []string{"CLEANIMG_INIT_CPU_LIMIT=16"}, limitEnv(cgroup.Limits{CPU: 16}))
	assert.Empty(t, limitEnv(cgroup.Limits{Pids: 100}))

	given := []string{"A=1", "CLEANIMG_INIT_CPU_LIMIT=8", "CLEANIMG_INIT_MEMORY_LIMIT=1", "CLEANIMG_INIT_CPU_LIMITS=x"}
	assert.Equal(t, []string{"A=1", "CLEANIMG_INIT_CPU_LIMITS=x"}, withoutLimits(given), "those of another container")
	assert.Len(t, given, 4)
	assert.Equal(t, "CLEANIMG_INIT_CPU_LIMIT=8", given[1], "the caller's are not changed")
}

func TestStretched(t *testing.T) {
	c := Config{TimeoutMode: TimeoutMode(cgroup.Throttle), TimeoutCpus: 1, TimeoutStretch: 10}
	assert.Equal(t, "30s, CPU limit 250m: at most 2m0s of wall time", stretched(&c, 30*time.Second, 0.25))
	assert.Equal(t, "30s", stretched(&c, 30*time.Second, 2))
	assert.Equal(t, "30s", stretched(&c, 30*time.Second, 0))
	assert.Equal(t, "none", stretched(&c, 0, 0.25))
	c.TimeoutMode = TimeoutMode(cgroup.Wall)
	assert.Equal(t, "30s", stretched(&c, 30*time.Second, 0.25))
}

func TestHasTimeout(t *testing.T) {
	with := func(d time.Duration) []hooks.Step { return []hooks.Step{{Timeout: d}} }
	command := Config{Command: []string{"x"}, CommandTimeout: Duration{time.Second}}
	inExec := command
	inExec.Mode = ModeExec
	tests := []struct {
		name string
		Config
		hooks.Plan
		want bool
	}{
		{"nothing", Config{}, hooks.Plan{}, false},
		{"the command", command, hooks.Plan{}, true},
		{"a command that takes our place", inExec, hooks.Plan{}, false},
		{"a hook", Config{}, hooks.Plan{Stages: [][]hooks.Step{with(0), with(1)}}, true},
		{"a hook without one", Config{}, hooks.Plan{Stages: [][]hooks.Step{with(0)}}, false},
		{"a stop hook", Config{}, hooks.Plan{Stop: with(1)}, true},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, hasTimeout(&tt.Config, tt.Plan), tt.name)
	}
}
