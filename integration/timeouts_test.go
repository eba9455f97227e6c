// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const noCgroup = "no cgroup is visible"

// Where no cgroup is mounted, one line says so to whom it matters: whoever has
// set a timeout.
func TestNoCgroupIsSaidOnce(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		env   []string
		files []File
		want  int
	}{
		{"hooks", nil, []File{Hook("10-a", ran("a")), Hook("20-b", ran("b"))}, 1},
		{"a command with a timeout", []string{"CLEANIMG_INIT_COMMAND_TIMEOUT=1h"}, nil, 1},
		{"no timeout", nil, nil, 0},
		{"hooks without a timeout", []string{"CLEANIMG_INIT_STEP_TIMEOUT=0"}, []File{Hook("10-a", ran("a"))}, 0},
		{"plain time was asked for", []string{"CLEANIMG_INIT_TIMEOUT_MODE=wall"}, []File{Hook("10-a", ran("a"))}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			// What an instance in another container has found does not count.
			stale := []string{"CLEANIMG_INIT_CPU_LIMIT=64", "CLEANIMG_INIT_MEMORY_LIMIT=1"}
			in := Run(t, Options{Args: do("env"), Env: env(append(tt.env, stale...)...), Files: tt.files})
			require.Zero(t, in.Wait(), "%s", in.Stderr)
			assert.Equal(t, tt.want, strings.Count(in.Stderr.String(), noCgroup), "%s", in.Stderr)
			assert.NotContains(t, in.Stdout.String(), "_LIMIT", "absent where nothing is known")
		})
	}
}

// TestDockerThrottled: with a twentieth of a CPU, half a second of work takes
// ten. A timeout of eight seconds means the work, and not the waiting for the
// CPU. So little, because also on a busy machine the container should get it:
// where it doesn't, that is no throttling, and is charged.
func TestDockerThrottled(t *testing.T) {
	needDocker(t)
	t.Parallel()
	root := newAppRoot(t)
	root.hook("10-work.yaml", runs("busy", "500ms")+"\ntimeout: 8s\n")
	root.hook("20-tell", "env\n")
	image := root.appImage()
	c := lucky(t, func() *dockerContainer {
		return startContainer(t, image, []string{"--cpus", "0.05", "--memory", "64m"}, "/bin/testprog", "env")
	}, starved)

	assert.Zero(t, c.wait())
	log := c.log()
	if strings.Contains(log, noCgroup) {
		t.Skip("this engine shows no cgroup to its containers")
	}
	assert.Equal(t, 2, strings.Count(log, "CLEANIMG_INIT_CPU_LIMIT=0.05\n"), "hook and command are told")
	assert.Equal(t, 2, strings.Count(log, "CLEANIMG_INIT_MEMORY_LIMIT=67108864\n"))
	assert.Contains(t, log, "at_most=1m20s", "what the timeout can become is said")
	assert.Contains(t, log, "cpu_limit=50m")
}

// TestDockerThrottledAsleep: a step that waits for something else has no more
// time than anywhere.
func TestDockerThrottledAsleep(t *testing.T) {
	needDocker(t)
	t.Parallel()
	root := newAppRoot(t)
	root.hook("10-sleep.yaml", runs("sleep", "1h")+"\ntimeout: 2s\n")
	termination := mountedLog(t)
	c := startContainer(t, root.appImage(), []string{"--cpus", "0.25", "--volume", termination + ":/dev/termination-log"}, "/bin/testprog", "exit", "0")

	assert.Equal(t, 124, c.wait())
	assert.Contains(t, c.log(), "10-sleep")
	if !strings.Contains(c.log(), noCgroup) {
		assert.Regexp(t, `timed out after 2(\.\d)?s( charged \([\d.]+s wall\))?: CPU limit 250m, throttled in \d+ of \d+ periods`, c.log())
	}
}

// TestDockerCommandTimeout counts by the same rule, and has the same limits
// shown by --check.
func TestDockerCommandTimeout(t *testing.T) {
	needDocker(t)
	t.Parallel()
	image := newAppRoot(t).appImage()
	options := []string{"--cpus", "0.25", "--env", "CLEANIMG_INIT_COMMAND_TIMEOUT=2s"}
	c := lucky(t, func() *dockerContainer {
		return startContainer(t, image, []string{"--cpus", "0.05", "--env", "CLEANIMG_INIT_COMMAND_TIMEOUT=8s"}, "/bin/testprog", "busy", "500ms")
	}, starved)
	assert.Zero(t, c.wait(), "half a second of work in ten seconds")
	if strings.Contains(c.log(), noCgroup) {
		t.Skip("this engine shows no cgroup to its containers")
	}
	c = startContainer(t, image, options, "/bin/testprog", "busy", "1h")
	assert.Equal(t, 124, c.wait())
	assert.Regexp(t, `timed out.*after 2(\.\d)?s charged \([\d.]+s wall\): CPU limit 250m, throttled in \d+ of \d+ periods`, strings.ReplaceAll(c.log(), "after=\"", "after "))
	out, code := dockerTry(append(append(append([]string{"run", "--rm"}, hardened...), options...), image, "--check", "/bin/testprog")...)
	assert.Zero(t, code, out)
	assert.Contains(t, out, "timeout 2s, CPU limit 250m: at most 8s of wall time")
}
