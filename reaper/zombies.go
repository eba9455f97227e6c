// SPDX-License-Identifier: Apache-2.0

package reaper

import "os"

// Zombies counts the processes below this one that have ended and whose parent
// lives and has not asked how, by that parent. They are no orphans, so that
// nobody but the parent can reap them.
func Zombies() (byParent map[Proc]int, err error) {
	if err := checkProc(); err != nil {
		return nil, err
	}
	procs, _, err := snapshot(nil)
	if err != nil {
		return nil, err
	}
	byParent = map[Proc]int{}
	for _, p := range below(procs, os.Getpid()) {
		parent, ok := procs[p.PPID]
		if p.ended && ok && !parent.ended && p.PPID != os.Getpid() {
			byParent[parent]++
		}
	}
	return byParent, nil
}
