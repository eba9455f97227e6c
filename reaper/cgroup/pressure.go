// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"math"
	"time"
)

// Pressure is for how long processes of our group had to wait for a resource, in
// all (PSI).
type Pressure struct {
	Some time.Duration // at least one of them
	Full time.Duration // all that had work to do, at once
}

// ReadPressure reads that of "cpu", "memory" or "io" of a group of the cgroup v2
// hierarchy; see [Where.Unified]. It is false where it is not known: the kernel
// may have been told not to count it.
func ReadPressure(dir, resource string) (Pressure, bool) {
	return parsePressure(readShort(dir+"/"+resource+".pressure", make([]byte, 256)))
}

// parsePressure reads a pressure file:
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=12345
//	full avg10=0.00 avg60=0.00 avg300=0.00 total=1234
//
// Kernels before 5.13 have no second line for the CPU.
func parsePressure(text []byte) (p Pressure, ok bool) {
	for line := range bytes.Lines(text) {
		_, total, _ := bytes.Cut(line, []byte(" total="))
		us, good := number(total)
		switch {
		case !good || us < 0 || us > math.MaxInt64/1000:
		case bytes.HasPrefix(line, []byte("some ")):
			p.Some, ok = time.Duration(us)*time.Microsecond, true
		case bytes.HasPrefix(line, []byte("full ")):
			p.Full = time.Duration(us) * time.Microsecond
		}
	}
	return p, ok
}

// ThrottledTime is for how long the kernel has throttled the tasks of our group,
// those of all CPUs together, so that it can be more than the time that has
// passed. It is -1 where that is not known.
func (b *Box) ThrottledTime() time.Duration {
	if b == nil || b.at[CPU].dir == "" {
		return -1
	}
	key, unit := "throttled_time", time.Nanosecond
	if b.at[CPU].v2 {
		key, unit = "throttled_usec", time.Microsecond
	}
	n, ok := field(readShort(b.at[CPU].dir+"/cpu.stat", make([]byte, 1024)), key)
	if !ok {
		return -1
	}
	return time.Duration(n) * unit
}
