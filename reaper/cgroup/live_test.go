// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if load := os.Getenv("TEST_LOAD"); load != "" {
		enter(os.Getenv("TEST_GROUPS"))
		os.Exit(underLoad(load))
	}
	os.Exit(m.Run())
}

// A load is what a process does in a group, and for how long.
type load struct {
	Threads     int
	Busy, Sleep time.Duration
}

// observed is what that process sees of itself.
type observed struct {
	Spent
	Limits  Limits
	CPUTime time.Duration
	Found   bool
}

// enter puts the process into groups, separated by colons, and begins it anew
// there, so that it finds itself in them from its first moment.
func enter(groups string) {
	if groups == "" {
		return
	}
	self, err := os.Executable()
	for dir := range strings.SplitSeq(groups, ":") {
		err = errors.Join(err, os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0o600))
	}
	if err == nil {
		err = syscall.Exec(self, []string{self}, []string{"TEST_LOAD=" + os.Getenv("TEST_LOAD")})
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}

// underLoad is the process: it finds its own group, starts a clock and goes on
// until its load is done.
func underLoad(text string) int {
	var l load
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return 2
	}
	b := Where{}.Find()
	o := observed{Found: b != nil, Limits: b.Limits()}
	c := Rule{}.Start(b, time.Hour, nil)
	until := time.Now().Add(l.Busy)
	var spinning sync.WaitGroup
	for range l.Threads {
		spinning.Go(func() {
			for time.Now().Before(until) { //nolint:revive // to be busy is what it is for
			}
		})
	}
	spinning.Wait()
	time.Sleep(l.Sleep)
	o.Spent = c.Stop()
	if r := b.Open(); r != nil {
		if counters, err := r.Counters(); err == nil {
			o.CPUTime = counters.CPUTime
		}
	}
	if json.NewEncoder(os.Stdout).Encode(o) != nil {
		return 2
	}
	return 0
}

// v1Group makes a group in the v1 hierarchies of cpu and cpuacct, with a quota
// for each period of 100 ms.
func v1Group(t *testing.T, quota time.Duration) (dirs []string) {
	t.Helper()
	b := Where{}.Find()
	dir, isV2 := b.Dir(CPU)
	acct, _ := b.Dir(CPUAcct)
	if os.Geteuid() != 0 || dir == "" || isV2 {
		t.Skip("needs root and the cpu controller on cgroup v1")
	}
	name := fmt.Sprintf("/cleanimg-init-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	for _, parent := range []string{dir, acct} {
		if parent == "" || len(dirs) > 0 && parent == dir {
			continue
		}
		if err := os.Mkdir(parent+name, 0o755); err != nil {
			t.Skipf("needs a cgroup file system that can be written: %v", err)
		}
		t.Cleanup(func() {
			assert.Eventually(t, func() bool { return os.Remove(parent+name) == nil }, 20*time.Second, 10*time.Millisecond)
		})
		dirs = append(dirs, parent+name)
	}
	require.NoError(t, os.WriteFile(dirs[0]+"/cpu.cfs_period_us", []byte("100000"), 0o600))
	require.NoError(t, os.WriteFile(dirs[0]+"/cpu.cfs_quota_us", []byte(strconv.FormatInt(quota.Microseconds(), 10)), 0o600))
	return dirs
}

// run runs a load in the groups.
func run(t *testing.T, dirs []string, l load) (o observed) {
	t.Helper()
	text, err := json.Marshal(l)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = []string{"TEST_LOAD=" + string(text), "TEST_GROUPS=" + strings.Join(dirs, ":")}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", &stderr)
	require.NoError(t, json.Unmarshal(out, &o), "%s", out)
	return o
}

// TestThrottledLive has the kernel throttle real processes, and compares what
// their clocks charge with what they have used.
func TestThrottledLive(t *testing.T) {
	const all = 3 * time.Second
	tests := []struct {
		name       string
		quota      time.Duration // of each 100 ms
		load       load
		from, upTo float64 // what is charged, of the wall time
	}{
		{"one busy thread at 250m", 25 * ms, load{Threads: 1, Busy: all}, 0.05, 0.6},
		{"four busy threads at 250m", 25 * ms, load{Threads: 4, Busy: all}, 0.05, 0.6},
		{"two busy threads at 100m", 10 * ms, load{Threads: 2, Busy: all}, 0.02, 0.5},
		{"asleep at 250m", 25 * ms, load{Sleep: all}, 0.85, 1},
		{"a second busy, two asleep at 250m", 25 * ms, load{Threads: 1, Busy: time.Second, Sleep: 2 * time.Second}, 0.5, 0.95},
		{"four busy threads at 1500m", 150 * ms, load{Threads: 4, Busy: all}, 1, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := run(t, v1Group(t, tt.quota), tt.load)
			t.Logf("%v, CPU time %v", o.Spent, o.CPUTime)
			require.True(t, o.Found)
			assert.InDelta(t, tt.quota.Seconds()*10, o.Limits.CPU, 1e-9)
			part := o.Charged.Seconds() / o.Wall.Seconds()
			assert.GreaterOrEqual(t, part, tt.from, "%v", o.Spent)
			assert.LessOrEqual(t, part, tt.upTo, "%v", o.Spent)
			// Never more than the kernel says that it has throttled.
			saved := float64(o.Throttled) * max(0, (100*ms-tt.quota).Seconds())
			assert.LessOrEqual(t, (o.Wall - o.Charged).Seconds(), saved+1e-6, "%v", o.Spent)
			if tt.load.Threads == 1 && tt.load.Sleep == 0 { // its CPU time, but for what starting took
				assert.InDelta(t, o.CPUTime.Seconds(), o.Charged.Seconds(), 0.5, "%v", o.Spent)
			}
		})
	}
}
