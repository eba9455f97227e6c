// SPDX-License-Identifier: Apache-2.0

package reaper_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

func TestDescends(t *testing.T) {
	for _, where := range []string{"sub", "pid1", "pid1 proc=none", "pid1 proc=outer"} {
		t.Run(where, func(t *testing.T) {
			if !rerun(t, where) {
				return
			}
			endAll(t)
			stranger := neighbour(t, "pause", "")
			_, lines := startReady(t, program(t, "hermits", ""), 13)
			_, err := reaper.Descendants()
			usable := err == nil
			for _, pid := range pids(t, lines) {
				is, known := reaper.Descends(pid)
				assert.Equal(t, usable, is, "daemons and sessions of their own are ours")
				assert.Equal(t, usable, known)
			}
			is, known := reaper.Descends(stranger)
			assert.False(t, is, "what somebody else started here")
			assert.Equal(t, usable, known)
			is, _ = reaper.Descends(os.Getpid())
			assert.False(t, is, "we are not below ourselves")
			const none = 1 << 22 // pid_max is at most that
			_, known = reaper.Descends(none)
			assert.False(t, known)
		})
	}
}
