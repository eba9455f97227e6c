// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func memoryUsage(b *Box) Usage { _, memory, _ := b.Usage(); return memory }

func pidsUsage(b *Box) Usage { _, _, pids := b.Usage(); return pids }

func TestUsageV2(t *testing.T) {
	b, dir := v2(t, map[string]string{
		"memory.max": "67108864\n", "memory.current": "62914560\n", "memory.peak": "64000000\n", "memory.oom.group": "1\n",
		"memory.stat":   "anon 1\nfile 10000000\nactive_file 1\ninactive_file 2914560\n",
		"memory.events": "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n",
		"pids.max":      "100\n", "pids.current": "80\n", "pids.events": "max 7\n",
	})
	assert.Equal(t, Usage{Used: 60000000, Limit: 67108864}, memoryUsage(b), "without what can be had back")
	assert.Equal(t, int64(64000000), b.MemoryPeak())
	assert.Equal(t, Usage{Used: 80, Limit: 100}, pidsUsage(b))
	assert.True(t, pidsUsage(b).Reaches(0.8))
	assert.False(t, pidsUsage(b).Reaches(0.81))
	assert.Equal(t, int64(1), b.OOMKills())
	assert.Equal(t, int64(7), b.PidsTrips())
	assert.True(t, b.KillsTogether())
	assert.Equal(t, "v2", b.Version())

	before := b.Marks()
	write := func(name, text string) { require.NoError(t, os.WriteFile(dir+"/"+name, []byte(text), 0o600)) }
	write("memory.events", "oom 4\noom_kill 3\n")
	write("pids.events", "max 9\n")
	kills, trips := b.Marks().Since(before)
	assert.Equal(t, []int64{2, 2}, []int64{kills, trips})
	kills, trips = b.Marks().Since(b.Unused())
	assert.Equal(t, []int64{3, 9}, []int64{kills, trips}, "since the container began")
	kills, _ = b.Marks().Since(b.Unused().WithOOMKills(2))
	assert.Equal(t, int64(1), kills)

	// Counters that are gone, or begin again, are no news.
	write("memory.events", "oom_kill 0\n")
	require.NoError(t, os.Remove(dir+"/pids.events"))
	kills, trips = b.Marks().Since(before)
	assert.Equal(t, []int64{0, -1}, []int64{kills, trips})

	write("memory.oom.group", "0\n")
	assert.False(t, b.KillsTogether())
	write("pids.current", "100\n")
	assert.Equal(t, "pids limit 100 reached (100 processes and threads)", b.WhyNoProcess())
}

func TestUsageV1(t *testing.T) {
	b := machine{
		"4:memory:/box\n8:pids:/box\n0::/\n", mounts("/box /cg/mem cgroup rw,memory", "/box /cg/pids cgroup rw,pids"),
		map[string]string{
			"/cg/mem/cgroup.procs": "7\n", "/cg/mem/memory.limit_in_bytes": "9223372036854771712\n", "/cg/mem/memory.usage_in_bytes": "5000000\n",
			"/cg/mem/memory.stat":               "inactive_file 1\ntotal_inactive_file 2000000\n",
			"/cg/mem/memory.max_usage_in_bytes": "6000000\n", "/cg/mem/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n",
			"/cg/pids/cgroup.procs": "7\n", "/cg/pids/pids.max": "max\n", "/cg/pids/pids.current": "3\n", "/cg/pids/pids.events": "max 0\n",
		},
	}.build(t).Find()
	require.NotNil(t, b)
	assert.Equal(t, Usage{Used: 3000000}, memoryUsage(b))
	assert.False(t, memoryUsage(b).Reaches(0))
	assert.Equal(t, Usage{Used: 3}, pidsUsage(b))
	assert.Equal(t, int64(6000000), b.MemoryPeak())
	assert.Equal(t, int64(-1), b.OOMKills(), "a kernel before 4.13 does not count")
	kills, trips := b.Marks().Since(b.Unused())
	assert.Equal(t, []int64{-1, 0}, []int64{kills, trips})
	assert.False(t, b.KillsTogether())
	assert.Equal(t, "v1", b.Version())
}

// The limit that is reached first may be that of a group further up.
func TestUsageByLevel(t *testing.T) {
	b := machine{
		"0::/pod/box\n", mounts("/ /cg cgroup2 rw"),
		map[string]string{
			"/cg/pod/box/cgroup.procs": "7\n", "/cg/pod/box/pids.max": "max\n", "/cg/pod/box/pids.current": "3\n", "/cg/pod/box/pids.events": "max 0\n",
			"/cg/pod/pids.max": "50\n", "/cg/pod/pids.current": "49\n", "/cg/pod/pids.events": "max 4\n",
			"/cg/pod/box/memory.max": "1000\n", "/cg/pod/box/memory.current": "900\n",
			"/cg/pod/memory.max": "5000\n", "/cg/pod/memory.current": "1000\n",
		},
	}.build(t).Find()
	require.NotNil(t, b)
	assert.Equal(t, Usage{Used: 49, Limit: 50}, pidsUsage(b))
	assert.Equal(t, Usage{Used: 900, Limit: 1000}, memoryUsage(b))
	_, trips := b.Marks().Since(Marks{pids: []int64{0, 1, 0}})
	assert.Equal(t, int64(3), trips, "where most were counted")
	_, trips = b.Marks().Since(b.Unused())
	assert.Zero(t, trips, "what others further up were refused")
	assert.Contains(t, b.WhyNoProcess(), "pids limit 50 reached")
}

func TestUsageOfNothing(t *testing.T) {
	var b *Box
	assert.Zero(t, memoryUsage(b))
	assert.Zero(t, pidsUsage(b))
	assert.Zero(t, b.MemoryPeak())
	assert.Equal(t, int64(-1), b.OOMKills())
	assert.Equal(t, int64(-1), b.PidsTrips())
	assert.False(t, b.KillsTogether())
	assert.Equal(t, "none", b.Version())
	kills, trips := b.Marks().Since(b.Unused())
	assert.Equal(t, []int64{-1, -1}, []int64{kills, trips})
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 1023: "1023", 1024: "1Ki", 4096 * 100: "400Ki", 1 << 20: "1Mi", 1<<20 + 1<<19: "1.5Mi",
		64 << 20: "64Mi", 251_658_241: "240Mi", 1 << 30: "1Gi", 1536 << 20: "1536Mi", 20 << 30: "20Gi", 25<<30 + 1<<29: "25.5Gi",
		math.MaxInt64: "8589934592Gi",
	} {
		assert.Equal(t, want, Bytes(n))
	}
}

// Where memory has run out, a look at it must not need more.
func TestLookingDoesNotAllocate(t *testing.T) {
	b, dir := v2(t, map[string]string{
		"cpu.max": "25000 100000\n", "memory.max": "67108864\n", "memory.current": "62914560\n", "memory.stat": "anon 1\ninactive_file 2914560\n",
		"pids.max": "100\n", "pids.current": "80\n",
	})
	g := b.Gauge()
	defer g.Close()
	assert.Zero(t, testing.AllocsPerRun(100, func() { g.Read() }))
	limits, memory, pids := g.Read()
	assert.Equal(t, Limits{CPU: 0.25, Memory: 67108864, Pids: 100}, limits)
	assert.Equal(t, b.Limits(), limits)
	assert.Equal(t, Usage{Used: 60000000, Limit: 67108864}, memory)
	assert.Equal(t, Usage{Used: 80, Limit: 100}, pids)

	require.NoError(t, os.WriteFile(dir+"/memory.max", []byte("max\n"), 0o600))
	limits, memory, _ = g.Read()
	assert.Zero(t, limits.Memory)
	assert.Zero(t, memory.Limit)
	g.Close()
	limits, _, _ = g.Read()
	assert.Zero(t, limits)
}
