// SPDX-License-Identifier: Apache-2.0

package reaper

import "os"

// Descends tells whether a process is one of our descendants. known is false
// when that can't be found out: the process has gone, or /proc is not usable.
func Descends(pid int) (is, known bool) {
	if checkProc() != nil {
		return false, false
	}
	const deepest = 1 << 10 // pids that are reused meanwhile can form a ring
	for depth := 0; depth < deepest; depth++ {
		p, err := statOf(pid)
		if err != nil {
			return false, false
		}
		switch pid = p.PPID; pid {
		case os.Getpid():
			return true, true
		case 0:
			return false, true
		}
	}
	return false, true
}
