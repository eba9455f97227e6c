// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"math"
	"path"
	"strconv"
	"time"
)

// Limits are what the box may use at most; 0 is no limit, or none that can be
// seen.
type Limits struct {
	CPU    float64 // cores
	Memory int64   // bytes
	Pids   int64   // processes and threads
}

// noLimit is where the numbers begin by which cgroup v1 says "none".
const noLimit = 1 << 60

// Limits reads the limits as they are now: each is the smallest of our group's
// and those of the groups above it, as far as these can be seen.
func (b *Box) Limits() (l Limits) {
	if b == nil {
		return l
	}
	buf := make([]byte, 64)
	b.at[CPU].levels(func(dir string, v2 bool) {
		if quota, period := readQuota(dir, v2, buf); quota > 0 {
			l.CPU = least(l.CPU, cores(quota, period))
		}
	})
	for _, number := range []struct {
		c      Controller
		v1, v2 string
		to     *int64
	}{
		{Memory, "/memory.limit_in_bytes", "/memory.max", &l.Memory},
		{Pids, "/pids.max", "/pids.max", &l.Pids},
	} {
		b.at[number.c].levels(func(dir string, v2 bool) {
			name := number.v1
			if v2 {
				name = number.v2
			}
			if n, ok := readNumber(dir+name, buf); ok && n < noLimit {
				*number.to = least(*number.to, n)
			}
		})
	}
	return l
}

// levels calls f with the directory and those above it.
func (p place) levels(f func(dir string, v2 bool)) {
	for dir := p.dir; dir != ""; dir = path.Dir(dir) {
		f(dir, p.v2)
		if len(dir) <= len(p.top) {
			return
		}
	}
}

func least[T int64 | float64](a, b T) T {
	if a == 0 {
		return b
	}
	return min(a, b)
}

func cores(quota, period time.Duration) float64 { return float64(quota) / float64(period) }

// readQuota returns the CPU quota of a directory; 0 is none.
func readQuota(dir string, v2 bool, buf []byte) (quota, period time.Duration) {
	if v2 {
		return parseMax(readShort(dir+"/cpu.max", buf)) // that of the root has none
	}
	q, ok := readNumber(dir+"/cpu.cfs_quota_us", buf)
	if !ok || q <= 0 {
		return 0, 0
	}
	p, _ := readNumber(dir+"/cpu.cfs_period_us", buf)
	return pair(q, p)
}

// parseMax reads the content of cpu.max: "max 100000", "25000 100000".
func parseMax(text []byte) (quota, period time.Duration) {
	first, second, _ := bytes.Cut(text, []byte{' '})
	q, ok := number(first)
	p, known := number(second)
	if !ok || !known { // max
		return 0, 0
	}
	return pair(q, p)
}

// pair makes durations of microseconds; both are 0 where there is no quota.
func pair(quota, period int64) (q, p time.Duration) {
	if quota <= 0 || period <= 0 {
		return 0, 0
	}
	return time.Duration(quota) * time.Microsecond, time.Duration(period) * time.Microsecond
}

func readNumber(name string, buf []byte) (int64, bool) {
	return number(readShort(name, buf))
}

// number reads a decimal number that may end with a newline.
func number(text []byte) (n int64, ok bool) {
	text = bytes.TrimSuffix(text, []byte{'\n'})
	negative := len(text) > 1 && text[0] == '-'
	if negative {
		text = text[1:]
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n > (math.MaxInt64-9)/10 {
			return math.MaxInt64, true // so large that it says "none"
		}
		n = n*10 + int64(c-'0')
	}
	if negative {
		n = -n
	}
	return n, len(text) > 0
}

// Millicores is the way in which Kubernetes writes a number of cores: 250m, 2.
func Millicores(cores float64) string {
	m := int64(math.Round(cores * 1000))
	if m%1000 == 0 {
		return strconv.FormatInt(m/1000, 10)
	}
	return strconv.FormatInt(m, 10) + "m"
}
