// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"testing"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/stretchr/testify/assert"
)

// guestOutOfMemory: the kernel kills a step for memory, and with it, where the
// group is one for it, as in Kubernetes, all others of the container.
func guestOutOfMemory(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		group   bool
		code    int
		message string
	}{
		{"the step alone", false, 137, "step 20-big ran out of memory (code 137): out of memory: killed by the kernel (memory limit 32Mi)\n"},
		// What was written before outlives us, and says whose fault it was.
		{"all together", true, -9, "running step 20-big (2 of 2), try 1, memory limit 32Mi\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			limit := memory(32)
			limit.OOMGroup = &tt.group
			box := newCgroup(t, cgroup2.Resources{Memory: limit})
			in := Run(t, Options{
				Cgroup: box, Env: reporting(), Args: do("exit", "0"),
				Files: []File{Hook("10-small", "print fine"), Hook("20-big", "eat 64")},
			})
			assert.Equal(t, tt.code, in.Wait())
			assert.Equal(t, tt.message, in.Message())
			assert.Positive(t, box.stat(t, "memory.events", "oom_kill"))
			if !tt.group {
				assert.Equal(t, "oom", reported(t, in).Failure.Cause)
			}
		})
	}
}

// guestPids: a step that wants more processes than there may be.
func guestPids(t *testing.T) {
	t.Parallel()
	box := newCgroup(t, cgroup2.Resources{Pids: pids(40)})
	in := Run(t, Options{Cgroup: box, Env: reporting(), Args: do("exit", "0"), Files: []File{Hook("10-many", "spawn 50", "exit 4")}})
	assert.NotZero(t, in.Wait())
	assert.Regexp(t, `^step 10-many hit the pids limit \(code \d+\): .*; the pids limit \(40\) was hit \d+ times? meanwhile\n`, in.Message())
	assert.Positive(t, box.stat(t, "pids.events", "max"))
	assert.Equal(t, "pids", reported(t, in).Failure.Cause)
}

// guestResize changes the limit while a step runs, as a pod is resized in
// place: its clock goes by the new one.
func guestResize(t *testing.T) {
	t.Parallel()
	box := newCgroup(t, cgroup2.Resources{CPU: cpu(1000), Memory: memory(64), Pids: pids(100)})
	in := Run(t, Options{Cgroup: box, Env: reporting(), Args: do("exit", "0"), Files: []File{
		Step("10-work.yaml", runs("touch", "/tmp/begun", ";", "await", "/tmp/gate", ";", "busy", "1s"), "timeout: 6s"),
	}})
	in.WaitFile("/tmp/begun")
	assert.NoError(t, box.Update(&cgroup2.Resources{CPU: cpu(120), Memory: memory(96), Pids: pids(200)}))
	in.touch("/tmp/gate")
	assert.Zero(t, in.Wait(), "a second of work, which takes eight")
	assert.Greater(t, stepSeconds(t, in, "10-work"), 6.5)
	for _, changed := range []string{"limit=cpu from=1 to=120m", "limit=memory from=64Mi to=96Mi", "limit=pids from=100 to=200"} {
		assert.Contains(t, in.Stderr.String(), `msg="a limit of the container was changed" `+changed)
	}
}
