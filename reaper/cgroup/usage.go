// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Usage is how much of a limit is in use. A Limit of 0 is none, or none that
// can be seen; Used is -1 where it is not known.
type Usage struct{ Used, Limit int64 }

// Reaches tells whether so much of the limit is in use, from 0 to 1.
func (u Usage) Reaches(part float64) bool {
	return u.Limit > 0 && u.Used >= 0 && float64(u.Used) >= part*float64(u.Limit)
}

// Usage reads the limits, and what is used where the least is left: of our group
// and those above it, as far as they can be seen. Memory is that which cannot be
// had back at once, without the file cache that has not been used lately; pids
// are processes and threads.
func (b *Box) Usage() (l Limits, memory, pids Usage) {
	g := b.Gauge()
	defer g.Close()
	return g.Read()
}

func fuller(a, b Usage) Usage {
	if b.Limit > 0 && b.Used >= 0 && (a.Limit == 0 || b.Reaches(float64(a.Used)/float64(a.Limit))) {
		return b
	}
	if a.Limit == 0 && a.Used <= 0 {
		return b
	}
	return a
}

// Marks are the counters of what the limits have taken so far. They are
// compared with later ones.
type Marks struct {
	oomKills int64   // -1: not known
	pids     []int64 // forks refused, by level
}

// Marks reads them.
func (b *Box) Marks() Marks {
	m := Marks{oomKills: b.OOMKills()}
	if b == nil {
		return m
	}
	buf := make([]byte, 128)
	b.at[Pids].levels(func(dir string, _ bool) {
		n, ok := field(readShort(dir+"/pids.events", buf), "max")
		if !ok {
			n = -1
		}
		m.pids = append(m.pids, n)
	})
	return m
}

// Unused are the marks of a box in which nothing was refused yet, as that of a
// container is when it begins; what has happened above it is not known.
func (b *Box) Unused() Marks {
	m := b.Marks()
	for i := range m.pids {
		if i > 0 {
			m.pids[i] = -1
		} else if m.pids[i] > 0 {
			m.pids[i] = 0
		}
	}
	return m.WithOOMKills(0)
}

// WithOOMKills are the marks with another number of those killed for want of
// memory.
func (m Marks) WithOOMKills(n int64) Marks {
	m.oomKills = n
	return m
}

// OOMKills is how many processes of our group the kernel has killed because
// memory ran out: that of the group, of one above it, or of the machine. It is
// -1 where that is not known.
func (b *Box) OOMKills() int64 {
	if b == nil || b.at[Memory].dir == "" {
		return -1
	}
	name := "/memory.oom_control"
	if b.at[Memory].v2 {
		name = "/memory.events"
	}
	if n, ok := field(readShort(b.at[Memory].dir+name, make([]byte, 256)), "oom_kill"); ok {
		return n
	}
	return -1
}

// PidsTrips is how often our group was refused a process or thread because of a
// limit; -1 where that is not known.
func (b *Box) PidsTrips() int64 {
	if m := b.Marks(); len(m.pids) > 0 {
		return m.pids[0]
	}
	return -1
}

// Since is what was counted since the earlier marks: processes killed for want
// of memory, and forks refused at a limit on processes. What is not known is -1.
// Which level a refusal is counted at depends on the kernel; what was counted at
// most is told.
func (m Marks) Since(earlier Marks) (oomKills, pidsTrips int64) {
	oomKills, pidsTrips = -1, -1
	if m.oomKills >= 0 && earlier.oomKills >= 0 {
		oomKills = max(0, m.oomKills-earlier.oomKills)
	}
	for i := range min(len(m.pids), len(earlier.pids)) {
		if m.pids[i] >= 0 && earlier.pids[i] >= 0 {
			pidsTrips = max(pidsTrips, m.pids[i]-earlier.pids[i])
		}
	}
	return oomKills, pidsTrips
}

// MemoryPeak is the most memory that our group ever had in use, its file cache
// included; 0 where that is not known.
func (b *Box) MemoryPeak() int64 {
	if b == nil || b.at[Memory].dir == "" {
		return 0
	}
	name := "/memory.max_usage_in_bytes"
	if b.at[Memory].v2 {
		name = "/memory.peak"
	}
	n, _ := readNumber(b.at[Memory].dir+name, make([]byte, 32))
	return n
}

// KillsTogether tells whether an out-of-memory kill in our group ends all of it
// (memory.oom.group), as Kubernetes sets it on cgroup v2.
func (b *Box) KillsTogether() bool {
	if b == nil || !b.at[Memory].v2 {
		return false
	}
	n, ok := readNumber(b.at[Memory].dir+"/memory.oom.group", make([]byte, 16))
	return ok && n == 1
}

// Version is that of the control groups: v1, v2, hybrid where some controllers
// are on v1 and some on v2, and none where none is visible.
func (b *Box) Version() string {
	v1, v2 := false, false
	for c := Controller(0); b != nil && c < controllers; c++ {
		// cpuacct is no controller of v2, where nothing is found for it but its mount.
		if b.at[c].dir != "" && c != CPUAcct {
			v1, v2 = v1 || !b.at[c].v2, v2 || b.at[c].v2
		}
	}
	switch {
	case v1 && v2:
		return "hybrid"
	case v1:
		return "v1"
	case v2:
		return "v2"
	default:
		return "none"
	}
}

// WhyNoProcess says, when the kernel has refused to make a process (EAGAIN),
// which limit on processes and threads is reached: "pids limit 100 reached (100
// processes and threads)". It is empty where none is known to be.
func (b *Box) WhyNoProcess() string {
	const nearly = 0.9 // something may have ended meanwhile
	if _, _, pids := b.Usage(); pids.Reaches(nearly) {
		return fmt.Sprintf("pids limit %d reached (%d processes and threads)", pids.Limit, pids.Used)
	}
	buf := make([]byte, 64)
	if most, ok := readNumber("/proc/sys/kernel/pid_max", buf); ok {
		if n := processes(); float64(n) >= nearly*float64(most) {
			return fmt.Sprintf("kernel.pid_max %d reached (%d processes)", most, n)
		}
	}
	var nproc unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NPROC, &nproc) == nil && nproc.Cur < math.MaxInt32 {
		return fmt.Sprintf("the user's limit on processes (ulimit -u) of %d reached, user %d", nproc.Cur, os.Getuid())
	}
	return ""
}

// processes counts the processes and their threads in /proc.
func processes() (n int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	buf := make([]byte, 1024)
	for _, e := range entries {
		if _, ok := number([]byte(e.Name())); !ok {
			continue
		}
		// After the name, which may contain anything, num_threads is the 18th field.
		stat := readShort("/proc/"+e.Name()+"/stat", buf)
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		threads := int64(1)
		if len(fields) > 17 {
			threads, _ = number(fields[17])
		}
		n += int(max(1, threads))
	}
	return n
}

// Bytes is the way in which Kubernetes writes an amount of memory: 256Mi, 1Gi.
// What is no whole number of a unit is rounded.
func Bytes(n int64) string {
	const ki, mi, gi = 1 << 10, 1 << 20, 1 << 30
	in := func(unit int64, name string, digits int) string {
		text := strconv.FormatFloat(float64(n)/float64(unit), 'f', digits, 64)
		return strings.TrimSuffix(text, ".0") + name
	}
	switch {
	case n >= 10*gi || n >= gi && n%gi == 0:
		return in(gi, "Gi", 1)
	case n >= 10*mi:
		return in(mi, "Mi", 0)
	case n >= mi:
		return in(mi, "Mi", 1)
	case n >= ki:
		return in(ki, "Ki", 0)
	default:
		return strconv.FormatInt(n, 10)
	}
}
