// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// machine is a procfs and a file system made of files.
type machine struct {
	cgroup, mountinfo string
	files             map[string]string // by path; cgroup.procs too
}

// build returns where that is. The process has the number 7.
func (m machine) build(t *testing.T) Where {
	t.Helper()
	root := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(root+name), 0o755))
		require.NoError(t, os.WriteFile(root+name, []byte(text), 0o600))
	}
	write("/proc/self/cgroup", m.cgroup)
	write("/proc/self/mountinfo", m.mountinfo)
	for name, text := range m.files {
		write(name, text)
	}
	return Where{Proc: root + "/proc", Root: root, PID: 7}
}

// mounts makes lines of mountinfo of "root point type options", among others.
func mounts(lines ...string) string {
	all := "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n22 21 0:5 / /proc rw - proc proc rw\n"
	for _, line := range lines {
		f := strings.Fields(line)
		all += "31 23 0:28 " + f[0] + " " + f[1] + " ro,nosuid master:9 - " + f[2] + " cgroup " + f[3] + "\n"
	}
	return all
}

const pod = "/kubepods/burstable/pod1/abc"

func TestFind(t *testing.T) {
	tests := []struct {
		name string
		machine
		want   map[Controller]string
		v2     bool
		limits Limits
	}{
		{
			name: "v2 with a cgroup namespace",
			machine: machine{"0::/\n", mounts("/ /sys/fs/cgroup cgroup2 rw"), map[string]string{
				"/sys/fs/cgroup/cgroup.procs": "1\n7\n",
				"/sys/fs/cgroup/cpu.max":      "25000 100000\n", "/sys/fs/cgroup/memory.max": "268435456\n", "/sys/fs/cgroup/pids.max": "100\n",
			}},
			want: map[Controller]string{CPU: "/sys/fs/cgroup", CPUAcct: "/sys/fs/cgroup", Memory: "/sys/fs/cgroup", Pids: "/sys/fs/cgroup"},
			v2:   true, limits: Limits{0.25, 256 << 20, 100},
		},
		{
			name: "v2 without one, limits above ours",
			machine: machine{"0::" + pod + "\n", mounts("/ /sys/fs/cgroup cgroup2 rw,nsdelegate"), map[string]string{
				"/sys/fs/cgroup" + pod + "/cgroup.procs": "7\n", "/sys/fs/cgroup" + pod + "/cpu.max": "max 100000\n", "/sys/fs/cgroup" + pod + "/memory.max": "max\n",
				"/sys/fs/cgroup/kubepods/burstable/cpu.max": "150000 100000\n", "/sys/fs/cgroup/kubepods/cpu.max": "400000 100000\n",
				"/sys/fs/cgroup/kubepods/memory.max": "1000\n", "/sys/fs/memory.max": "1\n",
			}},
			want: map[Controller]string{CPU: "/sys/fs/cgroup" + pod, Pids: "/sys/fs/cgroup" + pod},
			v2:   true, limits: Limits{CPU: 1.5, Memory: 1000},
		},
		{
			name: "v1 joined, the container's path as the root of the mount",
			machine: machine{
				"4:memory:" + pod + "\n3:cpu,cpuacct:" + pod + "\n1:name=systemd:" + pod + "\n",
				mounts(pod+" /sys/fs/cgroup/systemd cgroup rw,name=systemd", pod+" /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct", pod+" /sys/fs/cgroup/memory cgroup rw,memory"),
				map[string]string{
					"/sys/fs/cgroup/cpu,cpuacct/cgroup.procs": "7\n", "/sys/fs/cgroup/memory/cgroup.procs": "3\n7\n9\n",
					"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
					"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
				},
			},
			want:   map[Controller]string{CPU: "/sys/fs/cgroup/cpu,cpuacct", CPUAcct: "/sys/fs/cgroup/cpu,cpuacct", Memory: "/sys/fs/cgroup/memory", Pids: ""},
			limits: Limits{CPU: 0.5},
		},
		{
			name: "v1 split, from the host's side",
			machine: machine{
				"3:cpu:/a\n2:cpuacct:/b\n5:pids:/\n",
				mounts("/ /cg/cpu cgroup rw,cpu", "/ /cg/cpuacct cgroup rw,cpuacct", "/ /cg/pids cgroup rw,pids"),
				map[string]string{
					"/cg/cpu/a/cgroup.procs": "7\n", "/cg/cpuacct/b/cgroup.procs": "7\n", "/cg/pids/cgroup.procs": "7\n",
					"/cg/cpu/a/cpu.cfs_quota_us": "-1\n", "/cg/cpu/a/cpu.cfs_period_us": "100000\n",
				},
			},
			want: map[Controller]string{CPU: "/cg/cpu/a", CPUAcct: "/cg/cpuacct/b", Memory: "", Pids: "/cg/pids"},
		},
		{
			name: "hybrid: what v1 has is not looked for in v2",
			machine: machine{
				"3:cpu:/\n2:memory:/not-mounted\n0::/x\n",
				mounts("/ /sys/fs/cgroup/unified cgroup2 rw", "/ /sys/fs/cgroup/cpu cgroup rw,cpu"),
				map[string]string{
					"/sys/fs/cgroup/unified/x/cgroup.procs": "7\n", "/sys/fs/cgroup/unified/x/pids.max": "12\n", "/sys/fs/cgroup/unified/x/memory.max": "5\n",
					"/sys/fs/cgroup/cpu/cgroup.procs": "7\n",
				},
			},
			want:   map[Controller]string{CPU: "/sys/fs/cgroup/cpu", Memory: "", Pids: "/sys/fs/cgroup/unified/x"},
			limits: Limits{Pids: 12},
		},
		{
			name: "a mount from outside of our namespace",
			machine: machine{"0::/\n", mounts("/../.. /sys/fs/cgroup cgroup2 rw"), map[string]string{
				"/sys/fs/cgroup/cgroup.procs": "7\n", "/sys/fs/cgroup/memory.max": "1000\n",
			}},
			want: map[Controller]string{CPU: "/sys/fs/cgroup"}, v2: true, limits: Limits{Memory: 1000},
		},
		{
			name: "moved out of the root of our namespace",
			machine: machine{"0::/../sibling\n", mounts("/ /sys/fs/cgroup cgroup2 rw"), map[string]string{
				"/sys/fs/cgroup/cgroup.procs": "1\n", "/sys/fs/sibling/cgroup.procs": "7\n",
			}},
		},
		{
			name: "the host's root, which is not ours, is not read",
			machine: machine{"0::" + pod + "\n", mounts("/ /sys/fs/cgroup cgroup2 rw"), map[string]string{
				"/sys/fs/cgroup/cgroup.procs": "1\n77\n", "/sys/fs/cgroup/memory.max": "1000\n",
			}},
		},
		{
			name: "a name that another one begins with",
			machine: machine{"0::/pod11\n", mounts("/pod1 /sys/fs/cgroup cgroup2 rw"), map[string]string{
				"/sys/fs/cgroup1/cgroup.procs": "7\n", "/sys/fs/cgroup/1/cgroup.procs": "7\n",
			}},
		},
		{
			name: "octal escapes, and colons in the path",
			machine: machine{"0::/a b/c:d\n", mounts(`/a\040b /mnt/my\040cgroup\134x cgroup2 rw`), map[string]string{
				`/mnt/my cgroup\x/c:d/cgroup.procs`: "7\n",
			}},
			want: map[Controller]string{CPU: `/mnt/my cgroup\x/c:d`}, v2: true,
		},
		{
			name: "of two mounts the one in which we are",
			machine: machine{"0::/x\n", mounts("/other /mnt/other cgroup2 rw", "/ /mnt/all cgroup2 rw"), map[string]string{
				"/mnt/other/cgroup.procs": "8\n", "/mnt/all/x/cgroup.procs": "7\n",
			}},
			want: map[Controller]string{CPU: "/mnt/all/x"}, v2: true,
		},
		{name: "no mount", machine: machine{"0::/\n", mounts(), nil}},
		{name: "nothing that makes sense", machine: machine{"\n:\n::\nx:y\n", "\n - cgroup\n1 2 3 - cgroup cgroup rw,cpu\n", nil}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			where := tt.build(t)
			b := where.Find()
			if tt.want == nil {
				require.Nil(t, b)
				assert.Zero(t, b.Limits(), "a nil box has none")
				assert.Nil(t, b.Open())
				return
			}
			require.NotNil(t, b)
			for c, want := range tt.want {
				dir, v2 := b.Dir(c)
				assert.Equal(t, want, strings.TrimPrefix(dir, where.Root), names[c])
				if tt.v2 {
					assert.True(t, v2, names[c])
				}
			}
			assert.Equal(t, tt.limits, b.Limits())
		})
	}
}

func TestFindWithoutProc(t *testing.T) {
	assert.Nil(t, Where{Proc: t.TempDir()}.Find())
}

// Where this machine shows us our group at all, it is the one of which the
// kernel says so.
func TestFindHere(t *testing.T) {
	b := Where{}.Find()
	if b == nil {
		t.Skip("no cgroup is visible here")
	}
	for c := range controllers {
		if dir, _ := b.Dir(c); dir != "" {
			assert.FileExists(t, dir+"/cgroup.procs")
		}
	}
}

// v2 is a box on cgroup v2 with these files.
func v2(t *testing.T, files map[string]string) (b *Box, dir string) {
	t.Helper()
	m := machine{"0::/\n", mounts("/ /cg cgroup2 rw"), map[string]string{"/cg/cgroup.procs": "7\n"}}
	for name, text := range files {
		m.files["/cg/"+name] = text
	}
	where := m.build(t)
	b = where.Find()
	require.NotNil(t, b)
	return b, where.Root + "/cg"
}

func TestCountersV2(t *testing.T) {
	b, dir := v2(t, map[string]string{
		"cpu.max":        "25000 100000\n",
		"cpu.stat":       "usage_usec 2500000\nuser_usec 1\nsystem_usec 1\nnr_periods 40\nnr_throttled 39\nthrottled_usec 99\nnr_bursts 1\nburst_usec 250\n",
		"memory.current": "4096\n", "memory.peak": "8192\n", "memory.events": "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n",
		"pids.current": "12\n", "pids.events": "max 7\n",
	})
	r := b.Open()
	defer r.Close()
	c, err := r.Counters()
	require.NoError(t, err)
	const ms = time.Millisecond
	assert.Equal(t, Counters{
		CPU:     CPUCounters{Quota: 25 * ms, Period: 100 * ms, Periods: 40, Throttled: 39, Burst: 250 * time.Microsecond},
		CPUTime: 2500 * ms, Memory: 4096, Peak: 8192, OOMKills: 1, Pids: 12, PidsTrips: 7,
	}, c)

	// Limits that are changed in flight are seen.
	require.NoError(t, os.WriteFile(dir+"/cpu.max", []byte("max 100000\n"), 0o600))
	cpu, err := r.CPU()
	require.NoError(t, err)
	assert.Zero(t, cpu.Quota)
	assert.Zero(t, b.Limits().CPU)

	// A file that fails later is an error, not a number.
	require.NoError(t, os.Truncate(dir+"/cpu.stat", 0))
	_, err = r.CPU()
	assert.Error(t, err)
}

func TestCountersV1(t *testing.T) {
	where := machine{
		"3:cpu,cpuacct:/\n4:memory:/\n", mounts("/ /cg/cpu cgroup rw,cpu,cpuacct", "/ /cg/mem cgroup rw,memory"),
		map[string]string{
			"/cg/cpu/cgroup.procs": "7\n", "/cg/cpu/cpu.cfs_quota_us": "-1\n", "/cg/cpu/cpu.cfs_period_us": "100000\n",
			"/cg/cpu/cpu.stat": "nr_periods 4\nnr_throttled 3\nthrottled_time 123456789\nnr_bursts 1\nburst_time 2500\n", "/cg/cpu/cpuacct.usage": "5000000000\n",
			"/cg/mem/cgroup.procs": "7\n", "/cg/mem/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
		},
	}.build(t)
	r := where.Find().Open()
	defer r.Close()
	c, err := r.Counters()
	require.NoError(t, err)
	assert.Equal(t, Counters{
		CPU:     CPUCounters{Periods: 4, Throttled: 3, Burst: 2500},
		CPUTime: 5 * time.Second, Memory: -1, Peak: -1, OOMKills: 2, Pids: -1, PidsTrips: -1,
	}, c)
}

// What the root group lacks is no limit, and no error.
func TestCountersOfTheRoot(t *testing.T) {
	b, _ := v2(t, map[string]string{"cpu.stat": "usage_usec 1\n"})
	r := b.Open()
	defer r.Close()
	c, err := r.Counters()
	require.NoError(t, err)
	assert.Equal(t, Counters{CPUTime: time.Microsecond, Memory: -1, Peak: -1, OOMKills: -1, Pids: -1, PidsTrips: -1}, c)
	assert.Zero(t, b.Limits())
}

func TestSamplingDoesNotAllocate(t *testing.T) {
	b, _ := v2(t, map[string]string{"cpu.max": "25000 100000\n", "cpu.stat": "nr_periods 40\nnr_throttled 39\n", "memory.current": "1\n"})
	r := b.Open()
	defer r.Close()
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		if _, err := r.Counters(); err != nil {
			t.Fatal(err)
		}
	}))
}

func TestMillicores(t *testing.T) {
	for cores, want := range map[float64]string{0.25: "250m", 1: "1", 1.5: "1500m", 16: "16", 0.001: "1m"} {
		assert.Equal(t, want, Millicores(cores))
	}
}

func FuzzFind(f *testing.F) {
	f.Add("0::/a\n", mounts("/ /cg cgroup2 rw", `/a\04 /b\777 cgroup rw,cpu`))
	f.Fuzz(func(_ *testing.T, groups, mountinfo string) {
		g, _ := memberships([]byte(groups))
		for line := range strings.Lines(mountinfo) {
			if m, ok := parseMount([]byte(line)); ok {
				for c := range g {
					if m.has(c, g[c]) {
						below(g[c].path, m.root)
					}
				}
			}
		}
		number([]byte(groups))
		parseMax([]byte(groups))
	})
}

// The pid is found in lists of any length, and no part of another is taken for
// it.
func TestOursInLongLists(t *testing.T) {
	var others strings.Builder
	for pid := 100; pid < 100_000; pid += 7 {
		if pid%10 == 7 {
			others.WriteString("1") // ends in 7
		}
		others.WriteString(strconv.Itoa(pid) + "\n")
	}
	for end, want := range map[string]bool{"": false, "7\n": true, "77\n": false} {
		m := machine{"0::/\n", mounts("/ /cg cgroup2 rw"), map[string]string{"/cg/cgroup.procs": others.String() + end}}
		assert.Equal(t, want, m.build(t).Find() != nil, "%q", end)
	}
}

func TestFindSome(t *testing.T) {
	where := machine{
		"3:cpu:/\n4:memory:/\n", mounts("/ /cg/cpu cgroup rw,cpu", "/ /cg/mem cgroup rw,memory"),
		map[string]string{"/cg/cpu/cgroup.procs": "7\n", "/cg/mem/cgroup.procs": "7\n"},
	}.build(t)
	dir, _ := where.Find(CPU).Dir(Memory)
	assert.Empty(t, dir)
	dir, _ = where.Find(CPU, Memory).Dir(Memory)
	assert.NotEmpty(t, dir)
	assert.Nil(t, where.Find(Pids))
}
