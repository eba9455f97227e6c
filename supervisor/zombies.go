// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"fmt"
	"sync"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// negligent names the process below us that leaves most zombies. It is empty
// where there are none.
func negligent() string {
	byParent, err := reaper.Zombies()
	if err != nil {
		return ""
	}
	var worst reaper.Proc
	for parent, n := range byParent {
		if most := byParent[worst]; n > most || n == most && parent.PID < worst.PID {
			worst = parent
		}
	}
	if worst.PID == 0 {
		return ""
	}
	return fmt.Sprintf("%d (%s), %d of them", worst.PID, report.Printable(worst.Name), byParent[worst])
}

// zombieCount counts zombies for /metrics. The walk over all processes must not
// be something that strangers can repeat without end, so that what was counted
// for one scrape is good for those of the next second.
type zombieCount struct {
	mu sync.Mutex
	n  int // -1: /proc does not tell
	at time.Time
}

func (z *zombieCount) read() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	if !z.at.IsZero() && time.Since(z.at) < lookAgain {
		return z.n
	}
	z.n = -1
	if byParent, err := reaper.Zombies(); err == nil {
		z.n = 0
		for _, n := range byParent {
			z.n += n
		}
	}
	z.at = time.Now()
	return z.n
}
