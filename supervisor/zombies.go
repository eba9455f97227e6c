// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"fmt"
	"os"

	"github.com/prometheus/procfs"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// negligent names the process below us that leaves most zombies: it lives, and
// does not ask how its children ended. Its zombies are no orphans, so that we
// can't reap them. It is empty where there are none.
func negligent() string {
	all, err := procfs.AllProcs()
	if err != nil {
		return ""
	}
	procs := make(map[int]procfs.ProcStat, len(all))
	for _, p := range all {
		if stat, err := p.Stat(); err == nil {
			procs[p.PID] = stat
		}
	}
	zombies, worst := map[int]int{}, 0
	for _, p := range procs {
		if p.State == "Z" && p.NumThreads <= 1 && p.PPID != os.Getpid() && isOurs(procs, p.PPID) {
			zombies[p.PPID]++
			if worst == 0 || zombies[p.PPID] > zombies[worst] {
				worst = p.PPID
			}
		}
	}
	if worst == 0 {
		return ""
	}
	return fmt.Sprintf("%d (%s), %d of them", worst, report.Printable(procs[worst].Comm), zombies[worst])
}

// isOurs tells whether the process descends from us. The walk is bounded: pids
// that were used again while procs was read can form a ring.
func isOurs(procs map[int]procfs.ProcStat, pid int) bool {
	for range len(procs) {
		p, ok := procs[pid]
		switch {
		case !ok:
			return false
		case p.PPID == os.Getpid():
			return true
		}
		pid = p.PPID
	}
	return false
}
