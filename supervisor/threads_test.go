// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// The limit that leaves the least may be that of a group above ours, and so is
// what is in use of it.
func TestAffordable(t *testing.T) {
	tests := []struct {
		name                          string
		aboveMax, aboveNow, max, used string
		want                          int
	}{
		{"no limit", "max", "90", "max", "8", 12},
		{"our own", "max", "90", "20", "10", 6},
		{"above ours", "100", "90", "max", "8", 6},
		{"above ours, and ours", "100", "90", "50", "8", 6},
		{"ours, and above ours", "1000", "90", "20", "10", 6},
		{"plenty", "1000", "90", "100", "8", 12},
		{"nothing", "100", "99", "max", "8", 0},
		{"not told", "", "", "20", "", 12},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range map[string]string{
				"proc/self/cgroup": "0::/above/ours\n", "proc/self/mountinfo": "1 0 0:1 / /cg rw - cgroup2 cgroup2 rw\n",
				"cg/above/pids.max": tt.aboveMax, "cg/above/pids.current": tt.aboveNow,
				"cg/above/ours/pids.max": tt.max, "cg/above/ours/pids.current": tt.used, "cg/above/ours/cgroup.procs": "7\n",
			} {
				path := filepath.Join(root, name)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				if text != "" {
					require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
				}
			}
			box := cgroup.Where{Proc: root + "/proc", Root: root, PID: 7}.Find()
			require.NotNil(t, box)
			assert.Equal(t, tt.want, affordable(12, box))
		})
	}
	assert.Equal(t, 12, affordable(12, nil))
}
