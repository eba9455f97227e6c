// SPDX-License-Identifier: Apache-2.0

package cgroup

import "golang.org/x/sys/unix"

// A Gauge keeps the files open that tell what is limited and what is used of it,
// and reads them again and again without an allocation: where memory has run
// out, whoever touches another page of it may be the next to be killed. It is for
// one goroutine.
type Gauge struct {
	cpu, memory, pids []dial
	buf               [4096]byte // memory.stat is the longest
}

// dial is what is read of one level.
type dial struct {
	limit, used, stat int // descriptors, -1: not there; of the CPU quota and period
	v2                bool
}

// Gauge opens the files. That of a nil box has none.
func (b *Box) Gauge() *Gauge {
	g := &Gauge{}
	if b == nil {
		return g
	}
	b.at[CPU].levels(func(dir string, v2 bool) {
		if v2 {
			g.cpu = append(g.cpu, dial{openFile(dir + "/cpu.max"), -1, -1, v2})
		} else {
			g.cpu = append(g.cpu, dial{openFile(dir + "/cpu.cfs_quota_us"), openFile(dir + "/cpu.cfs_period_us"), -1, v2})
		}
	})
	b.at[Memory].levels(func(dir string, v2 bool) {
		limit, used := "/memory.limit_in_bytes", "/memory.usage_in_bytes"
		if v2 {
			limit, used = "/memory.max", "/memory.current"
		}
		g.memory = append(g.memory, dial{openFile(dir + limit), openFile(dir + used), openFile(dir + "/memory.stat"), v2})
	})
	b.at[Pids].levels(func(dir string, v2 bool) {
		g.pids = append(g.pids, dial{openFile(dir + "/pids.max"), openFile(dir + "/pids.current"), -1, v2})
	})
	return g
}

// openFile returns -1 where there is none.
func openFile(name string) int {
	fd, err := open(name)
	if err != nil {
		return -1
	}
	return fd
}

// Read reads what [Box.Usage] says, as it is now.
func (g *Gauge) Read() (l Limits, memory, pids Usage) {
	for _, d := range g.cpu {
		if quota, period := d.quota(g.buf[:]); quota > 0 {
			l.CPU = least(l.CPU, float64(quota)/float64(period))
		}
	}
	for _, d := range g.memory {
		u := d.usage(g.buf[:])
		if u.Used > 0 && d.stat >= 0 {
			cache := "total_inactive_file"
			if d.v2 {
				cache = "inactive_file"
			}
			n, _ := field(readAgain(d.stat, g.buf[:]), cache)
			u.Used = max(0, u.Used-n)
		}
		memory = fuller(memory, u)
		if u.Limit > 0 {
			l.Memory = least(l.Memory, u.Limit)
		}
	}
	for _, d := range g.pids {
		u := d.usage(g.buf[:])
		pids = fuller(pids, u)
		if u.Limit > 0 {
			l.Pids = least(l.Pids, u.Limit)
		}
	}
	return l, memory, pids
}

func (d dial) quota(buf []byte) (quota, period int64) {
	if d.v2 {
		q, p := parseMax(readAgain(d.limit, buf))
		return int64(q), int64(p)
	}
	quota, _ = number(readAgain(d.limit, buf))
	period, _ = number(readAgain(d.used, buf))
	if quota <= 0 || period <= 0 {
		return 0, 0
	}
	return quota, period
}

func (d dial) usage(buf []byte) (u Usage) {
	var ok bool
	if u.Limit, ok = number(readAgain(d.limit, buf)); !ok || u.Limit >= noLimit {
		u.Limit = 0
	}
	if u.Used, ok = number(readAgain(d.used, buf)); !ok {
		u.Used = -1
	}
	return u
}

// readAgain reads a file from its beginning.
func readAgain(fd int, buf []byte) []byte {
	if fd < 0 {
		return nil
	}
	for {
		n, err := unix.Pread(fd, buf, 0)
		if err != unix.EINTR { //nolint:errorlint // nothing wraps it
			return buf[:max(0, n)]
		}
	}
}

// Close closes the files.
func (g *Gauge) Close() {
	for _, dials := range [][]dial{g.cpu, g.memory, g.pids} {
		for _, d := range dials {
			for _, fd := range [...]int{d.limit, d.used, d.stat} {
				if fd >= 0 {
					_ = unix.Close(fd)
				}
			}
		}
	}
	*g = Gauge{}
}
