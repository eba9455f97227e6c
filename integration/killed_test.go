// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const mib = 1 << 20

// limitReport is what a report says of the limits.
type limitReport struct {
	Steps []struct {
		Name, Result, Reason string
		Attempts             int
		Warnings             []string
		MemoryLimit          int64 `json:"memory_limit_bytes"`
		MemoryPeak           int64 `json:"memory_peak_bytes"`
		PidsLimit            int64 `json:"pids_limit"`
		OOMKills             int64 `json:"oom_kills"`
		PidsRefused          int64 `json:"pids_refused"`
	}
	Failure *struct{ Step, Cause, Reason string }
	Cgroup  *struct {
		Version     string
		MemoryLimit int64 `json:"memory_limit_bytes"`
		PidsLimit   int64 `json:"pids_limit"`
		Memory      int64 `json:"memory_bytes"`
		MemoryPeak  int64 `json:"memory_peak_bytes"`
		Pids        int64
		OOMKills    int64 `json:"oom_kills"`
		PidsRefused int64 `json:"pids_refused"`
	}
}

// reported is the report that a run has left.
func reported(t *testing.T, in *Instance) (r limitReport) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(in.File("/tmp/report")), &r), "%s", in.File("/tmp/report"))
	return r
}

func reporting(settings ...string) []string {
	return env(append(settings, "CLEANIMG_INIT_REPORT_FILE=/tmp/report")...)
}

// runBoxed runs a container in a box of its own until it has ended with the
// code; -1 is any but 0. It tries some times: while the kernel still takes the
// memory of a process that it has killed apart, it may kill another one that
// needs a page, ours among them.
func runBoxed(t *testing.T, memory, pids, code int, o Options) *Instance {
	t.Helper()
	for try := 1; ; try++ {
		in := Run(t, newLimitBox(t, memory, pids).in(o))
		got := in.Wait()
		if got == code || code < 0 && got > 0 && got != 137 {
			return in
		}
		if try == 5 || !strings.Contains(in.Stderr.String(), "out of memory") && got != -int(syscall.SIGKILL) {
			require.Equal(t, code, got)
		}
	}
}

// TestEveryEndIsExplained has the kernel, or somebody, end a step, and looks
// what log, report and pod status say of it.
func TestEveryEndIsExplained(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		hook  []string
		code  int // -1: any but 0
		cause string
		first string // line of the termination message
	}{
		{
			"the step runs out of memory",
			[]string{"eat 200"},
			137, "oom",
			`^step 20-bad ran out of memory \(code 137\): out of memory: killed by the kernel \(memory limit 64Mi\)$`,
		},
		{
			"one that it has started does",
			[]string{"run eat 200", "exit 3"},
			3, "oom",
			`^step 20-bad ran out of memory \(code 3\): exit code 3; out of memory: the kernel killed 1 other process of the container \(memory limit 64Mi\)$`,
		},
		{
			"it can start no more processes",
			[]string{"spawn 60", "exit 4"},
			-1, "pids",
			`^step 20-bad hit the pids limit \(code \d+\): (exit code \d+|killed by SIG\w+); the pids limit \(60\) was hit \d+ times? meanwhile$`,
		},
		{
			"somebody kills it",
			[]string{"die KILL"},
			137, "failed",
			`^step 20-bad failed \(code 137\): killed by SIGKILL from outside: neither cleanimg-init nor an out-of-memory kill$`,
		},
		{
			"somebody asks it to end",
			[]string{"die TERM"},
			143, "failed",
			`^step 20-bad failed \(code 143\): killed by SIGTERM, which cleanimg-init did not send$`,
		},
		{"it crashes", []string{"die SEGV"}, 139, "failed", `^step 20-bad failed \(code 139\): killed by SIGSEGV$`},
		{"it fails", []string{"err no luck", "exit 7"}, 7, "failed", `^step 20-bad failed \(code 7\): exit code 7$`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := runBoxed(t, 64*mib, 60, tt.code, Options{
				Args: do("exit", "0"), Env: reporting(), Files: []File{Hook("10-good", "print good"), Hook("20-bad", tt.hook...)},
			})
			first, _, _ := strings.Cut(in.Message(), "\n")
			assert.Regexp(t, tt.first, first)
			assert.LessOrEqual(t, len(in.Message()), 1000)
			r := reported(t, in)
			require.NotNil(t, r.Failure)
			assert.Equal(t, tt.cause, r.Failure.Cause)
			assert.Contains(t, in.Stderr.String(), r.Failure.Reason, "the log has it too")
		})
	}
}

// TestTimeoutTellsTheMemory that was in use before the step was ended.
func TestTimeoutTellsTheMemory(t *testing.T) {
	t.Parallel()
	box := newLimitBox(t, 64*mib, 0)
	in := Run(t, box.in(Options{Env: reporting("CLEANIMG_INIT_STEP_TIMEOUT=2s"), Files: []File{Hook("10-slow", "eat 20", "sleep 1h")}}))
	assert.Equal(t, 124, in.Wait())
	assert.Regexp(t, `^step 10-slow timed out \(code 124\): timed out after 2s; memory \d+(\.\d)?Mi of 64Mi\n$`, in.Message())
	assert.Equal(t, "timeout", reported(t, in).Failure.Cause)
}

// TestNoRetryAfterOutOfMemory: an engine takes the container for killed by then,
// whatever becomes of it.
func TestNoRetryAfterOutOfMemory(t *testing.T) {
	t.Parallel()
	in := runBoxed(t, 64*mib, 0, 137, Options{Env: reporting(), Files: []File{
		Step("10-big.yaml", runs("eat", "200"), "retries: 3", "backoff: 1ms"),
		Hook("20-never", "touch /tmp/never"),
	}})
	r := reported(t, in)
	assert.Equal(t, 1, r.Steps[0].Attempts)
	assert.Equal(t, int64(1), r.Steps[0].OOMKills)
	assert.Equal(t, int64(64*mib), r.Steps[0].MemoryLimit)
	assert.Greater(t, r.Steps[0].MemoryPeak, int64(50*mib))
	assert.False(t, in.ran("/tmp/never"))
}

// TestLossOfASuccessfulStep: it ends well, but not everything of it did.
func TestLossOfASuccessfulStep(t *testing.T) {
	t.Parallel()
	in := runBoxed(t, 64*mib, 0, 0, Options{Env: reporting(), Files: []File{Hook("10-careless", "run eat 200", "print went on")}})
	assert.Contains(t, in.Stderr.String(), `level=WARN msg="hook ended" step=10-careless`)
	assert.Contains(t, in.Stderr.String(), `but="out of memory: the kernel killed 1 other process of the container (memory limit 64Mi)"`)
	r := reported(t, in)
	assert.Equal(t, "ok", r.Steps[0].Result)
	assert.Equal(t, int64(1), r.Steps[0].OOMKills)
	assert.Nil(t, r.Failure)
}

// TestNearTheLimits: a step that comes near a limit is named, once for each.
func TestNearTheLimits(t *testing.T) {
	t.Parallel()
	box := newLimitBox(t, 128*mib, 100)
	in := Run(t, box.in(Options{Env: reporting(), Args: do("exit", "0"), Files: []File{
		Hook("10-small", "sleep 300ms"),
		Hook("20-big", "eat 114", "await /tmp/gate"),
		Hook("30-litter", "litter 72", "await /tmp/gate2"),
	}}))
	in.WaitStderr(`msg="near the memory limit" step=20-big`)
	message := in.Message()
	in.touch("/tmp/gate")
	in.WaitStderr(`msg="near the pids limit" step=30-litter`)
	in.touch("/tmp/gate2")
	assert.Zero(t, in.Wait())
	log := in.Stderr.String()
	assert.Equal(t, 1, strings.Count(log, "near the memory limit"))
	assert.Equal(t, 1, strings.Count(log, "near the pids limit"))
	assert.Regexp(t, `near the pids limit" step=30-litter used=\d+ limit=100 not_reaped_by="\d+ \(30-litter\), \d+ of them"`, log)
	assert.Equal(t, "running step 20-big (2 of 3), try 1, memory limit 128Mi\n", message)
	assert.Regexp(t, `msg=started .* memory_limit=128Mi`, log)
	r := reported(t, in)
	assert.Empty(t, r.Steps[0].Warnings)
	require.Len(t, r.Steps[1].Warnings, 1)
	assert.Regexp(t, `^memory 1\d\dMi of 128Mi$`, r.Steps[1].Warnings[0])
	require.Len(t, r.Steps[2].Warnings, 1)
	assert.Regexp(t, `^\d+ of 100 processes and threads, zombies that their parent does not reap: \d+ \(30-litter\), \d+ of them$`, r.Steps[2].Warnings[0])
	assert.Equal(t, int64(100), r.Steps[1].PidsLimit)
	require.NotNil(t, r.Cgroup)
	assert.Contains(t, []string{"v1", "v2"}, r.Cgroup.Version)
	assert.Equal(t, int64(128*mib), r.Cgroup.MemoryLimit)
	assert.Equal(t, int64(100), r.Cgroup.PidsLimit)
	assert.Greater(t, r.Cgroup.MemoryPeak, int64(50*mib))
	assert.Positive(t, r.Cgroup.Pids)
}

// TestLimitChangedInFlight: a pod was resized.
func TestLimitChangedInFlight(t *testing.T) {
	t.Parallel()
	box := newLimitBox(t, 64*mib, 0)
	in := Run(t, box.in(Options{Env: reporting(), Files: []File{Hook("10-wait", "touch /tmp/begun", "await /tmp/gate")}}))
	in.WaitFile("/tmp/begun")
	box.limitMemory(128 * mib)
	in.WaitStderr(`msg="a limit of the container was changed" limit=memory from=64Mi to=128Mi`)
	in.touch("/tmp/gate")
	assert.Zero(t, in.Wait())
	assert.Equal(t, int64(128*mib), reported(t, in).Steps[0].MemoryLimit)
}

// TestNoRoomForAStep: the kernel refuses to make the process, and it is said
// which limit is to blame.
func TestNoRoomForAStep(t *testing.T) {
	t.Parallel()
	box := newLimitBox(t, 0, 100)
	in := Run(t, box.in(Options{Env: reporting(), Args: do("sleep", "1h"), Files: []File{
		Hook("10-first", "touch /tmp/begun", "await /tmp/gate"),
		Hook("20-second", "print never"),
	}}))
	in.WaitFile("/tmp/begun")
	box.write(box.pids, "pids.max", "1")
	in.touch("/tmp/gate")
	assert.Equal(t, 125, in.Wait())
	assert.Regexp(t, `^step 20-second hit the pids limit \(code 125\): cannot start step 20-second: pids limit 1 reached \(\d+ processes and threads\)\n$`, in.Message())
	assert.Equal(t, "pids", reported(t, in).Failure.Cause)
}

// TestWhatEndedTheCommand: the reasons that only we know are in the pod's
// status too, if the command has written nothing there.
func TestWhatEndedTheCommand(t *testing.T) {
	t.Parallel()
	const oom = `^command ran out of memory \(code 137\): out of memory: killed by the kernel \(memory limit 64Mi\)\n$`
	const pids = `^command hit the pids limit \(code \d+\): (exit code \d+|killed by SIG\w+); the pids limit \(60\) was hit \d+ times meanwhile\n$`
	const outside = `^command failed \(code 137\): killed by SIGKILL from outside: neither cleanimg-init nor an out-of-memory kill\n$`
	tests := []struct {
		name    string
		command []string
		hooks   bool // before it, one that loses a process to the memory limit
		code    int  // -1: any but 0
		cause   string
		message string
	}{
		{"out of memory", do("eat", "200"), false, 137, "oom", oom},
		{"out of memory again", do("eat", "200"), true, 137, "oom", oom},
		{
			"one that it has started",
			[]string{"/roles/careless"},
			false, 3, "oom",
			`^command ran out of memory \(code 3\): exit code 3; out of memory: the kernel killed 1 other process of the container \(memory limit 64Mi\)\n$`,
		},
		{"killed", do("die", "KILL"), false, 137, "failed", outside},
		{"killed, and not for memory this time", do("die", "KILL"), true, 137, "failed", outside},
		{"it has said something itself", do("write", messagePath, "mine", ";", "eat", "200"), false, 137, "oom", `^mine\n$`},
		{"no more processes", do("spawn", "100", ";", "exit", "3"), false, -1, "pids", pids},
		{"no more processes, after hooks", do("spawn", "100", ";", "exit", "3"), true, -1, "pids", pids},
		{"its own affair", do("exit", "3"), true, 3, "", `^$`},
		{"a crash", do("die", "SEGV"), false, 139, "", `^$`},
		{"success", do("exit", "0"), true, 0, "", `^$`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := Options{Args: tt.command, Env: reporting(), Files: []File{Script("/roles/careless", "run eat 200", "exit 3")}}
			if tt.hooks {
				o.Files = append(o.Files, Hook("10-careless", "run eat 200"))
			}
			in := runBoxed(t, 64*mib, 60, tt.code, o)
			assert.Regexp(t, tt.message, in.Message())
			r := reported(t, in)
			if tt.cause == "" {
				assert.Nil(t, r.Failure)
				return
			}
			require.NotNil(t, r.Failure)
			assert.Equal(t, tt.cause, r.Failure.Cause)
			assert.Contains(t, in.Stderr.String(), `msg="command ended"`)
			assert.Contains(t, in.Stderr.String(), r.Failure.Reason, "the log has it too")
		})
	}
}

// TestSeenByAProbe: while the command runs nothing wakes us up to look; a probe
// comes anyway.
func TestSeenByAProbe(t *testing.T) {
	t.Parallel()
	box := newLimitBox(t, 128*mib, 100)
	in := Run(t, box.in(Options{
		Env: reporting(), Args: []string{"/roles/app"},
		Files: []File{Script("/roles/app", "litter 72", "eat 114", "touch /tmp/begun", "sleep 1h")},
	}))
	in.WaitFile("/tmp/begun")
	in.eventually("a look at it", func() bool {
		in.Status("/livez")
		return strings.Contains(in.Stderr.String(), "near the pids limit")
	})
	log := in.Stderr.String()
	assert.Contains(t, log, `msg="near the memory limit" command=app used=1`)
	assert.Regexp(t, `msg="near the pids limit" command=app used=\d+ limit=100 not_reaped_by="\d+ \(app\), \d+ of them"`, log)
	var r limitReport
	_, body, err := in.Get("/status")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(body), &r))
	require.NotNil(t, r.Cgroup)
	assert.Zero(t, r.Cgroup.OOMKills)
	assert.Equal(t, int64(128*mib), r.Cgroup.MemoryLimit)
	assert.Greater(t, r.Cgroup.Memory, int64(110*mib))
	assert.Zero(t, r.Cgroup.PidsRefused)
	box.write(box.pids, "pids.max", "200")
	in.eventually("the new limit", func() bool {
		in.Status("/readyz")
		return strings.Contains(in.Stderr.String(), "limit=pids from=100 to=200")
	})
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 143, in.Wait())
	assert.Empty(t, in.Message(), "it has ended because it was told to")
	assert.Nil(t, reported(t, in).Failure)
}

// TestLossWhileTheCommandRuns is told with the next probe.
func TestLossWhileTheCommandRuns(t *testing.T) {
	t.Parallel()
	box := newLimitBox(t, 64*mib, 60)
	in := Run(t, box.in(Options{Env: reporting(), Args: do("spawn", "80", ";", "touch", "/tmp/begun", ";", "sleep", "1h")}))
	in.WaitFile("/tmp/begun")
	in.eventually("a look at it", func() bool {
		in.Status("/livez")
		return strings.Contains(in.Stderr.String(), `msg="the pids limit was hit: no process or thread could be started" command=testprog times=`)
	})
}

// TestProbesShowTheLimit: the kubelet's event has nothing but the status.
func TestProbesShowTheLimit(t *testing.T) {
	t.Parallel()
	box := newLimitBox(t, 0, 60)
	in := Run(t, box.in(Options{
		Env: reporting(), Args: do("exit", "0"),
		Files: []File{Hook("10-many", "spawn 80", "exit 3"), StopHook("10-slow", "touch /tmp/begun", "await /tmp/gate")},
	}))
	in.WaitFile("/tmp/begun")
	in.WaitStatus("/startupz", 507)
	in.WaitStatus("/readyz", 507)
	in.touch("/tmp/gate")
	assert.NotZero(t, in.Wait())
}

// TestTheStepIsKilledRather: when memory runs out, and nobody has much, the
// kernel prefers the step, and not whoever can tell what happened.
func TestTheStepIsKilledRather(t *testing.T) {
	t.Parallel()
	box := newLimitBox(t, 64*mib, 0)
	in := Run(t, box.in(Options{Env: reporting(), Args: do("props"), Files: []File{Hook("10-asks", "sleep 100ms", "props")}}))
	assert.Zero(t, in.Wait())
	var values []int
	for _, line := range in.Stdout.Lines() {
		if text, ok := strings.CutPrefix(line, "oom "); ok {
			n, err := strconv.Atoi(text)
			require.NoError(t, err)
			values = append(values, n)
		}
	}
	require.Len(t, values, 2)
	assert.Equal(t, min(values[1]+251, 1000), values[0], "16 of 64 MiB, in thousandths")
}
