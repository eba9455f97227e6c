// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// CPUCounters are what the kernel has counted of our group's CPU time, and the
// quota that is in force.
type CPUCounters struct {
	Quota, Period      time.Duration // a Quota of 0 is none
	Periods, Throttled int64         // enforcement periods, and those in which the quota was used up
	Burst              time.Duration // beyond the quota
}

// Counters are the numbers by which the end of a step can be explained. What is
// not known is -1.
type Counters struct {
	CPU       CPUCounters
	CPUTime   time.Duration // that was used
	Memory    int64         // bytes in use
	Peak      int64         // most bytes that ever were
	OOMKills  int64
	Pids      int64 // processes and threads
	PidsTrips int64 // forks that the limit has prevented
}

// The files of a Reader.
const (
	fileMax    = iota // v2: quota and period; v1: the quota
	filePeriod        // v1
	fileStat
	fileUsage // v1; on v2 it is in the stat
	fileMemory
	filePeak
	fileOOM
	filePids
	filePidsEvents

	files
)

// A Reader keeps the files of a box open and reads them again and again,
// without an allocation. It is for one goroutine.
type Reader struct {
	fds [files]int // -1: not there
	v2  bool
	buf [2048]byte
}

// Open opens the counters, or only those of some controllers. It returns nil for
// a nil box, and where nothing is known of the CPU. What else is missing is not
// known, or not limited.
func (b *Box) Open(only ...Controller) *Reader {
	if b == nil || b.at[CPU].dir == "" {
		return nil
	}
	r := &Reader{v2: b.at[CPU].v2}
	for i := range r.fds {
		r.fds[i] = -1
	}
	try := func(file int, c Controller, v1, v2 string) {
		name := v1
		if b.at[c].v2 {
			name = v2
		}
		if b.at[c].dir == "" || name == "" || len(only) > 0 && !slices.Contains(only, c) {
			return
		}
		if fd, err := open(b.at[c].dir + "/" + name); err == nil {
			r.fds[file] = fd
		}
	}
	try(fileMax, CPU, "cpu.cfs_quota_us", "cpu.max")
	try(filePeriod, CPU, "cpu.cfs_period_us", "")
	try(fileStat, CPU, "cpu.stat", "cpu.stat")
	try(fileUsage, CPUAcct, "cpuacct.usage", "")
	try(fileMemory, Memory, "memory.usage_in_bytes", "memory.current")
	try(filePeak, Memory, "memory.max_usage_in_bytes", "memory.peak")
	try(fileOOM, Memory, "memory.oom_control", "memory.events")
	try(filePids, Pids, "pids.current", "pids.current")
	try(filePidsEvents, Pids, "pids.events", "pids.events")
	return r
}

// Close closes the files.
func (r *Reader) Close() {
	for i, fd := range r.fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		r.fds[i] = -1
	}
}

// errGone is what reading a file of a group gives that is no more.
var errGone = errors.New("the control group's files can't be read any more")

// CPU reads what a [Clock] needs. After an error nothing can be said any more.
func (r *Reader) CPU() (c CPUCounters, err error) {
	if c.Quota, c.Period, err = r.quota(); err != nil || r.fds[fileStat] < 0 {
		return c, err
	}
	stat, err := r.read(fileStat)
	if err != nil {
		return c, err
	}
	c.Periods, _ = field(stat, "nr_periods")
	c.Throttled, _ = field(stat, "nr_throttled")
	if r.v2 {
		us, _ := field(stat, "burst_usec")
		c.Burst = time.Duration(us) * time.Microsecond
	} else {
		ns, _ := field(stat, "burst_time")
		c.Burst = time.Duration(ns)
	}
	return c, nil
}

func (r *Reader) quota() (quota, period time.Duration, err error) {
	if r.fds[fileMax] < 0 { // that of the root has none
		return 0, 0, nil
	}
	text, err := r.read(fileMax)
	if err != nil {
		return 0, 0, err
	}
	if r.v2 {
		quota, period = parseMax(text)
		return quota, period, nil
	}
	q, _ := number(text)
	if q <= 0 || r.fds[filePeriod] < 0 {
		return 0, 0, nil
	}
	if text, err = r.read(filePeriod); err != nil {
		return 0, 0, err
	}
	p, _ := number(text)
	quota, period = pair(q, p)
	return quota, period, nil
}

// Counters reads all of them.
func (r *Reader) Counters() (Counters, error) {
	c := Counters{CPUTime: -1}
	var err error
	if c.CPU, err = r.CPU(); err != nil {
		return c, err
	}
	if r.v2 {
		if us := r.field(fileStat, "usage_usec"); us >= 0 {
			c.CPUTime = time.Duration(us) * time.Microsecond
		}
	} else {
		c.CPUTime = time.Duration(r.field(fileUsage, ""))
	}
	c.Memory = r.field(fileMemory, "")
	c.Peak = r.field(filePeak, "")
	c.OOMKills = r.field(fileOOM, "oom_kill")
	c.Pids = r.field(filePids, "")
	c.PidsTrips = r.field(filePidsEvents, "max")
	return c, nil
}

// field reads one number, that of a file when key is empty; -1: not known.
func (r *Reader) field(file int, key string) int64 {
	if r.fds[file] < 0 {
		return -1
	}
	text, err := r.read(file)
	if err != nil {
		return -1
	}
	var n int64
	var ok bool
	if key == "" {
		n, ok = number(text)
	} else {
		n, ok = field(text, key)
	}
	if !ok {
		return -1
	}
	return n
}

// read reads a file from its beginning. The text is good until the next call.
func (r *Reader) read(file int) ([]byte, error) {
	for {
		n, err := unix.Pread(r.fds[file], r.buf[:], 0)
		switch {
		case err == nil && n > 0:
			return r.buf[:n], nil
		case err == unix.EINTR: //nolint:errorlint // nothing wraps it
		default:
			return nil, errGone
		}
	}
}

// field returns the number that follows key in a file of "key number" lines.
func field(text []byte, key string) (int64, bool) {
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, newline)
		if len(line) > len(key) && line[len(key)] == ' ' && string(line[:len(key)]) == key {
			return number(line[len(key)+1:])
		}
	}
	return 0, false
}

var newline = []byte{'\n'}
