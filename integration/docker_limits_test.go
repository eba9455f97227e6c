// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDockerLimits: a step in a container as a deployment limits it. With a
// quarter of a CPU a second of work takes four, which is nothing to a timeout
// of two.
func TestDockerLimits(t *testing.T) {
	needDocker(t)
	t.Parallel()
	options := []string{"--cpus", "0.25", "--memory", "64m", "--pids-limit", "60"}
	tests := []struct {
		name    string
		step    []string
		code    int // -1: any but 0
		message string
		killed  string // what the engine says of memory
	}{
		{"busy for a second", []string{"busy", "1s"}, 0, `^$`, "false"},
		{"asleep", []string{"sleep", "1h"}, 124, `^step 10-work timed out \(code 124\): timed out after 2(\.\d)?s( charged \([\d.]+s wall\))?: CPU limit 250m, throttled in \d+ of \d+ periods; memory [\d.]+Mi of 64Mi\n$`, "false"},
		{"too much memory", []string{"eat", "200"}, 137, `^step 10-work ran out of memory \(code 137\): out of memory: killed by the kernel \(memory limit 64Mi\)\n$`, "true"},
		{"too many processes", []string{"spawn", "60", ";", "exit", "4"}, -1, `^step 10-work hit the pids limit \(code \d+\): .*the pids limit \(60\) was hit \d+ times? meanwhile\n`, "false"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := newAppRoot(t)
			root.hook("10-work.yaml", runs(tt.step...)+"\ntimeout: 2s\n")
			image := root.appImage()
			var message func() string
			c := fed(t, tt.code == 0, func() (c *dockerContainer) {
				c, message = runLimited(t, image, options)
				return c
			})
			code := c.wait()
			if tt.code >= 0 {
				assert.Equal(t, tt.code, code)
			} else {
				assert.NotZero(t, code)
			}
			assert.Regexp(t, tt.message, message())
			assert.Equal(t, tt.killed, c.inspect("{{.State.OOMKilled}}"))
			assert.Contains(t, c.log(), "timeout=2s at_most=8s", "what the timeout can become is said")
			assert.Contains(t, c.log(), "cpu_limit=250m")
		})
	}
}

// TestDockerUpdate changes the limits while a step runs, as a pod is resized
// in place: the clock goes by the new one, and the log tells it.
func TestDockerUpdate(t *testing.T) {
	needDocker(t)
	t.Parallel()
	root := newAppRoot(t)
	root.hook("10-work.yaml", runs("touch", "/tmp/begun", ";", "await", "/tmp/gate", ";", "busy", "2500ms")+"\ntimeout: 10s\n")
	image := root.appImage()
	c := fed(t, true, func() *dockerContainer {
		c, _ := runLimited(t, image, []string{"--cpus", "2", "--memory", "64m"})
		requireFile(t, c, "/tmp/begun")
		docker(t, "update", "--cpus", "0.2", "--memory", "96m", "--memory-swap", "96m", c.name)
		c.open()
		return c
	})
	assert.Zero(t, c.wait(), "two and a half seconds of work, which take twelve")
	assert.Contains(t, c.log(), `msg="a limit of the container was changed" limit=cpu from=2 to=200m`)
	assert.Contains(t, c.log(), `msg="a limit of the container was changed" limit=memory from=64Mi to=96Mi`)
}

// fed starts a container, and again for a work that ran into its timeout when
// the machine was too busy to give it what the limit allows: what a step waits
// for a CPU is charged.
func fed(t *testing.T, works bool, start func() *dockerContainer) *dockerContainer {
	t.Helper()
	for try := 0; ; try++ {
		c := start()
		if !works || try == 2 || c.wait() != 124 {
			return c
		}
		if n := throttledPeriods.FindStringSubmatch(c.log()); n != nil {
			throttled, _ := strconv.Atoi(n[1])
			periods, _ := strconv.Atoi(n[2])
			if throttled*10 > periods*8 {
				return c
			}
		}
	}
}

var throttledPeriods = regexp.MustCompile(`throttled in (\d+) of (\d+) periods`)

// runLimited starts a container with a termination log, which message reads.
func runLimited(t *testing.T, image string, options []string) (c *dockerContainer, message func() string) {
	t.Helper()
	file := mountedLog(t)
	c = startContainer(t, image, append(options, "--volume", file+":"+messagePath))
	message = func() string {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		return string(text)
	}
	return c, message
}
