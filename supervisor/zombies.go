// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"fmt"

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
