// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// breakFile has a file of the reader fail with EIO, as one of a broken file system
// does: nothing is mapped where /proc/self/mem begins.
func breakFile(t *testing.T, r *Reader, file int) {
	t.Helper()
	mem, err := os.Open("/proc/self/mem")
	require.NoError(t, err)
	t.Cleanup(func() { mem.Close() })
	_, err = unix.Pread(int(mem.Fd()), make([]byte, 1), 0)
	require.ErrorIs(t, err, unix.EIO)
	require.NoError(t, unix.Dup3(int(mem.Fd()), r.fds[file], unix.O_CLOEXEC))
}

func TestInputOutputErrors(t *testing.T) {
	open := func(t *testing.T) *Reader {
		b, _ := v2(t, map[string]string{
			"cpu.max": "25000 100000\n", "cpu.stat": "usage_usec 7\nnr_periods 5\nnr_throttled 3\n",
			"memory.current": "100\n", "memory.peak": "200\n", "memory.events": "oom_kill 1\n", "pids.current": "4\n", "pids.events": "max 2\n",
		})
		r := b.Open()
		require.NotNil(t, r)
		t.Cleanup(r.Close)
		c, err := r.Counters()
		require.NoError(t, err)
		require.Equal(t, []int64{3, 100, 200, 1, 4, 2}, []int64{c.CPU.Throttled, c.Memory, c.Peak, c.OOMKills, c.Pids, c.PidsTrips})
		return r
	}
	// What explains the end of a step is "not known", and the rest is.
	for name, file := range map[string]int{"memory.current": fileMemory, "memory.peak": filePeak, "memory.events": fileOOM, "pids.current": filePids, "pids.events": filePidsEvents} {
		t.Run(name, func(t *testing.T) {
			r := open(t)
			breakFile(t, r, file)
			c, err := r.Counters()
			require.NoError(t, err)
			got := map[int]int64{fileMemory: c.Memory, filePeak: c.Peak, fileOOM: c.OOMKills, filePids: c.Pids, filePidsEvents: c.PidsTrips}
			for f, n := range got {
				if f == file {
					assert.Equal(t, int64(-1), n)
				} else {
					assert.Positive(t, n)
				}
			}
		})
	}
	// Without the counters of the CPU nothing is credited: plain wall time.
	for name, file := range map[string]int{"cpu.max": fileMax, "cpu.stat": fileStat} {
		t.Run(name, func(t *testing.T) {
			r := open(t)
			breakFile(t, r, file)
			_, err := r.CPU()
			require.Error(t, err)
			_, err = r.Counters()
			require.Error(t, err)
		})
	}
}

// TestClockWhenFilesFail: a clock whose counters can't be read any more tells it
// once, and charges all of the time.
func TestClockWhenFilesFail(t *testing.T) {
	b, _ := v2(t, map[string]string{"cpu.max": "25000 100000\n", "cpu.stat": "nr_periods 5\nnr_throttled 3\n"})
	r := b.Open(CPU)
	require.NotNil(t, r)
	breakFile(t, r, fileStat)
	lost := 0
	clock := Rule{}.start(r, 200*time.Millisecond, func(error) { lost++ })
	<-clock.Expired()
	spent := clock.Stop()
	assert.Equal(t, 1, lost)
	assert.True(t, spent.Expired)
	assert.False(t, spent.Hard, "not only in wall time")
	assert.Equal(t, spent.Wall, spent.Charged)
}
