// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var fullFlag = flag.Int("full", 3, "fill the pids limit so many times in each of the tests that do")

// fullRun has a hook take every process that there may be, and looks at all
// that is promised meanwhile.
func fullRun(t *testing.T, full func() bool, o Options) {
	t.Helper()
	const report = "/tmp/report.json"
	o.Files = []File{Hook("10-fill", "fill"), StopHook("10-stop", "touch /tmp/stopped")}
	o.Env = append(env("CLEANIMG_INIT_HTTP_LISTEN=:10101", "CLEANIMG_INIT_STEP_TIMEOUT=3s", "CLEANIMG_INIT_KILL_GRACE=200ms", "CLEANIMG_INIT_REPORT_FILE="+report), o.Env...)
	in := Run(t, o)
	in.eventually("no process can be made", full)
	answered := 0
	for in.Running() {
		status, _, err := in.Get("/health/live")
		if err != nil {
			break // it is over
		}
		require.Equal(t, 200, status)
		answered++
	}
	assert.Equal(t, 124, in.Wait(), "%s", in.Stderr)
	assert.Positive(t, answered, "probes while it was full")
	assert.True(t, in.ran("/tmp/stopped"), "the stop hook")
	assert.Contains(t, in.Message(), "10-fill")
	assert.NotContains(t, in.Stderr.String(), "runtime:")
	var r struct {
		KillMethod string `json:"kill_method"`
		Steps      []struct{ Result string }
	}
	require.NoError(t, json.Unmarshal([]byte(in.File(report)), &r))
	assert.Equal(t, "walk", r.KillMethod)
	require.Len(t, r.Steps, 2)
	assert.Equal(t, "timeout", r.Steps[0].Result)
	assert.Equal(t, "ok", r.Steps[1].Result)
}

// TestPidsLimitHeld: the Go runtime ends a program that can't have a thread, so
// PID 1 has all of its own before a hook can take the room for them.
func TestPidsLimitHeld(t *testing.T) {
	for i := range *fullFlag {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			const limit = 60
			b := newLimitBox(t, 0, limit)
			full := func() bool {
				text, err := os.ReadFile(filepath.Join(b.pids, "pids.current"))
				n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
				return err == nil && n >= limit
			}
			o := Options{}
			if i%2 == 0 { // as on a host with many CPUs
				o.Env = []string{"GOMAXPROCS=64"}
			}
			fullRun(t, full, b.in(o))
		})
	}
}

// TestPidsLimitHeldByTheCommand: without hooks the threads are made a little
// after the start, while the command has not taken everything yet.
func TestPidsLimitHeldByTheCommand(t *testing.T) {
	for i := range *fullFlag {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			const limit = 60
			b := newLimitBox(t, 0, limit)
			o := Options{
				Args:  do("sleep", "50ms", ";", "fill"),
				Env:   env("CLEANIMG_INIT_HTTP_LISTEN=:10101", "CLEANIMG_INIT_GRACE_PERIOD=6s", "CLEANIMG_INIT_KILL_GRACE=200ms"),
				Files: []File{StopHook("10-stop", "touch /tmp/stopped")},
			}
			if i%2 == 0 {
				o.Env = append(o.Env, "GOMAXPROCS=64")
			}
			in := Run(t, b.in(o))
			in.eventually("no process can be made", func() bool {
				text, err := os.ReadFile(filepath.Join(b.pids, "pids.current"))
				n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
				return err == nil && n >= limit
			})
			for range 10 {
				for _, path := range []string{"/health/live", "/health/ready", "/status", "/metrics", "/"} {
					require.Equal(t, 200, in.Status(path), path)
				}
			}
			in.Signal(syscall.SIGTERM)
			assert.Equal(t, 137, in.Wait(), "it heeds no TERM: %s", in.Stderr)
			assert.True(t, in.ran("/tmp/stopped"), "the stop hook")
			assert.NotContains(t, in.Stderr.String(), "runtime:")
		})
	}
}

// TestProcessLimitHeld: the same with RLIMIT_NPROC, which counts all of a user's.
func TestProcessLimitHeld(t *testing.T) {
	needsRoot(t)
	t.Parallel() // but one after another: to count takes its time
	for i := range *fullFlag {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			const limit = 60
			uid := 70000 + i // nobody else's
			fullRun(t, func() bool { return tasksOf(t, uid) >= limit }, Options{UID: uid, NProc: limit})
		})
	}
}

// tasksOf counts the processes and threads of a user.
func tasksOf(t *testing.T, uid int) (n int) {
	t.Helper()
	statuses, err := filepath.Glob("/proc/[0-9]*/status")
	require.NoError(t, err)
	for _, file := range statuses {
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), fmt.Sprintf("\nUid:\t%d\t", uid)) {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if count, ok := strings.CutPrefix(line, "Threads:"); ok {
				threads, _ := strconv.Atoi(strings.TrimSpace(count))
				n += threads
			}
		}
	}
	return n
}

// TestAHundredthOfACPU: signals, probes and timeouts work, only later.
func TestAHundredthOfACPU(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	quota := func(t *testing.T, o Options) Options {
		dir := "/sys/fs/cgroup/cpu/"
		v2 := false
		if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
			dir, v2 = "/sys/fs/cgroup/", true
			_ = os.WriteFile(dir+"cgroup.subtree_control", []byte("+cpu"), 0)
		}
		dir += fmt.Sprintf("cleanimg-init-test-%d-%d", os.Getpid(), time.Now().UnixNano())
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Skipf("needs control groups that can be made: %v", err)
		}
		t.Cleanup(func() {
			assert.Eventually(t, func() bool { return os.Remove(dir) == nil }, patience, 10*time.Millisecond, "remove %s", dir)
		})
		if v2 {
			require.NoError(t, os.WriteFile(dir+"/cpu.max", []byte("1000 100000"), 0))
		} else {
			require.NoError(t, os.WriteFile(dir+"/cpu.cfs_quota_us", []byte("1000"), 0))
		}
		o.Groups = []string{dir}
		return o
	}
	t.Run("signal and probe", func(t *testing.T) {
		t.Parallel()
		in := Run(t, quota(t, Options{Args: do("trap", "-on", "TERM=17")}))
		in.WaitStdout("ready")
		in.eventually("an answer", func() bool { return in.Status("/health/live") == 200 })
		in.Signal(syscall.SIGTERM)
		assert.Equal(t, 17, in.Wait())
	})
	t.Run("timeout", func(t *testing.T) {
		t.Parallel()
		in := Run(t, quota(t, Options{
			Env:   env("CLEANIMG_INIT_STEP_TIMEOUT=2s", "CLEANIMG_INIT_KILL_GRACE=1s"),
			Files: []File{Hook("10-hang", "ignore TERM", "sleep 1h"), StopHook("10-stop", "touch /tmp/stopped")},
		}))
		assert.Equal(t, 124, in.Wait())
		assert.True(t, in.ran("/tmp/stopped"))
	})
}
