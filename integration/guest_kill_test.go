// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// guestKill: of a step that has failed nothing is left, in whatever way it tried
// to get away; what another one has left lives on. Where groups can be made the
// kernel does it, and none of them is left either.
func guestKill(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		writable bool
		whole    bool
		root     bool
		method   string
	}{
		{"read-only", false, false, false, "walk"},
		{"writable", true, false, false, "cgroup"},
		{"writable, by root", true, false, true, "cgroup"},
		{"writable, the whole hierarchy", true, true, false, "cgroup"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			box := newCgroup(t, cgroup2.Resources{})
			box.Writable, box.Whole = tt.writable, tt.whole
			flee := []string{
				"daemon", "sleep", "2h", ";", "setsid", "trap", "-quiet", ";", "bg", "sleep", "2h", ";", "respawn", ";", "respawn", ";",
				"touch", "/tmp/fled", ";", "exit", "3",
			}
			if tt.writable {
				flee = append([]string{"nest", ";"}, flee...)
			}
			in := Run(t, Options{
				Cgroup: box, Root: tt.root, Args: do("ps", "/tmp/left"), Env: reporting("CLEANIMG_INIT_KILL_GRACE=100ms"),
				Files: []File{
					Hook("10-daemon", "daemon sleep 1h"),
					Step("20-flees.yaml", runs(flee...), "onFailure: continue"),
				},
			})
			assert.Zero(t, in.Wait())
			assert.True(t, in.ran("/tmp/fled"))
			assert.Regexp(t, `^\S testprog \S+ sleep 1h\n$`, in.File("/tmp/left"), "the daemon of the hook that succeeded, and nothing else")
			var r struct {
				KillMethod string `json:"kill_method"`
			}
			require.NoError(t, json.Unmarshal([]byte(in.File("/tmp/report")), &r))
			assert.Equal(t, tt.method, r.KillMethod)
			entries, err := os.ReadDir(box.Dir)
			require.NoError(t, err)
			for _, e := range entries {
				assert.False(t, e.IsDir(), "the group %s is left", e.Name())
			}
		})
	}
}
