// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"regexp"
	"strconv"
	"strings"
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
		unlucky func(*dockerContainer) bool
	}{
		{"busy for a second", []string{"busy", "1s"}, 0, `^$`, starved},
		{"asleep", []string{"sleep", "1h"}, 124, `^step 10-work timed out \(code 124\): timed out after 2(\.\d)?s( charged \([\d.]+s wall\))?: CPU limit 250m, throttled in \d+ of \d+ periods; memory [\d.]+Mi of 64Mi\n$`, nil},
		{"too much memory", []string{"eat", "200"}, 137, `^step 10-work ran out of memory \(code 137\): out of memory: killed by the kernel \(memory limit 64Mi\)\n$`, taken},
		{"too many processes", []string{"spawn", "60", ";", "exit", "4"}, -1, `^step 10-work hit the pids limit \(code \d+\): .*the pids limit \(60\) was hit \d+ times? meanwhile\n`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := newAppRoot(t)
			root.hook("10-work.yaml", runs(tt.step...)+"\ntimeout: 2s\n")
			image := root.appImage()
			var message func() string
			c := lucky(t, func() (c *dockerContainer) {
				c, message = runLimited(t, image, options)
				return c
			}, tt.unlucky)
			code := c.wait()
			if tt.code >= 0 {
				assert.Equal(t, tt.code, code)
			} else {
				assert.NotZero(t, code)
			}
			assert.Regexp(t, tt.message, message())
			if code != 137 { // else the engine may have been told too late
				assert.Equal(t, "false", c.inspect("{{.State.OOMKilled}}"))
			}
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
	c := lucky(t, func() *dockerContainer {
		c, _ := runLimited(t, image, []string{"--cpus", "2", "--memory", "64m"})
		requireFile(t, c, "/tmp/begun")
		docker(t, "update", "--cpus", "0.2", "--memory", "96m", "--memory-swap", "96m", c.name)
		c.open()
		return c
	}, starved)
	assert.Zero(t, c.wait(), "two and a half seconds of work, which take twelve")
	assert.Contains(t, c.log(), `msg="a limit of the container was changed" limit=cpu from=2 to=200m`)
	assert.Contains(t, c.log(), `msg="a limit of the container was changed" limit=memory from=64Mi to=96Mi`)
}

// lucky starts a container, and again when what got in its way was the machine.
func lucky(t *testing.T, start func() *dockerContainer, unlucky func(*dockerContainer) bool) *dockerContainer {
	t.Helper()
	for try := 0; ; try++ {
		if c := start(); try == 4 || unlucky == nil || !unlucky(c) {
			return c
		}
	}
}

// starved: a work ran into its timeout because the machine was too busy to give
// it what the limit allows. What a step waits for a CPU is charged.
func starved(c *dockerContainer) bool {
	if c.wait() != 124 {
		return false
	}
	n := throttledPeriods.FindStringSubmatch(c.log())
	if n == nil {
		return false
	}
	throttled, _ := strconv.Atoi(n[1])
	periods, _ := strconv.Atoi(n[2])
	return throttled*10 <= periods*8
}

// taken: while the kernel still takes the memory of a process that it has
// killed apart, it may kill another one that needs a page, ours among them.
func taken(c *dockerContainer) bool {
	return c.wait() == 137 && !strings.Contains(c.log(), "out of memory")
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
