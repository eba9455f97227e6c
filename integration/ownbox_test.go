// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// unifiedBox makes a cgroup v2 group without controllers for a container of a
// user, which has it at /sys/fs/cgroup.
func unifiedBox(t *testing.T, o Options, readOnly bool) (dir string, in Options) {
	t.Helper()
	needsRoot(t)
	top := "/sys/fs/cgroup"
	if _, err := os.Stat(top + "/cgroup.controllers"); err != nil {
		top += "/unified"
	}
	dir = fmt.Sprintf("%s/cleanimg-init-test-%d-%d", top, os.Getpid(), time.Now().UnixNano())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("needs a cgroup v2 hierarchy in which groups can be made: %v", err)
	}
	t.Cleanup(func() {
		assert.Eventually(t, func() bool { removeGroups(dir); return !exists(dir) }, patience, 10*time.Millisecond)
	})
	for _, name := range []string{"", "cgroup.procs"} { // delegation
		require.NoError(t, os.Chown(filepath.Join(dir, name), o.UID, o.UID))
	}
	o.Groups = append(o.Groups, dir)
	o.Mounts = append(o.Mounts, Mount{Host: dir, Inside: "/sys/fs/cgroup", ReadOnly: readOnly})
	return dir, o
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// removeGroups removes a group and those below it, the deepest first.
func removeGroups(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeGroups(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}

func groupsIn(dir string) (n int) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != dir {
			n++
		}
		return nil
	})
	return n
}

// TestStepsHaveTheirGroups: a hook's tree is killed by its control group where
// the container may make some, and by a walk where it may not. A daemon that a
// successful hook left lives on beside the command.
func TestStepsHaveTheirGroups(t *testing.T) {
	for _, tt := range []struct {
		name     string
		o        Options
		readOnly bool
		method   string
	}{
		{"an ordinary user", Options{UID: 65532}, false, "cgroup"},
		{"root", Options{Root: true}, false, "cgroup"},
		{"read-only", Options{UID: 65532}, true, "walk"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, o := unifiedBox(t, tt.o, tt.readOnly)
			o.Args = do("trap", "-on", "TERM=0")
			o.Env = env("CLEANIMG_INIT_STEP_TIMEOUT=1s", "CLEANIMG_INIT_KILL_GRACE=100ms", "CLEANIMG_INIT_REPORT_FILE=/tmp/report.json")
			o.Files = []File{
				Hook("10-daemon", "daemon sleep 1h"),
				Step("20-hang.yaml", runs("ignore", "TERM", ";", "daemon", "ignore", "TERM", ";", "sleep", "2h", ";", "sleep", "3h"), "onFailure: continue"),
			}
			in := Run(t, o)
			in.WaitStdout("ready")
			left := 0
			for _, p := range in.Processes() {
				if p.Name == "testprog" || p.Name == "10-daemon" {
					left++
				}
			}
			if tt.method == "cgroup" {
				assert.Equal(t, 1, groupsIn(dir), "of the daemon that lives on")
			} else {
				assert.Zero(t, groupsIn(dir))
			}
			assert.Equal(t, 2, left, "the daemon and the command: %v", in.Processes())
			_, body, err := in.Get("/status")
			require.NoError(t, err)
			var r struct {
				KillMethod string `json:"kill_method"`
				Steps      []struct{ Result string }
			}
			require.NoError(t, json.Unmarshal([]byte(body), &r))
			assert.Equal(t, tt.method, r.KillMethod)
			assert.Equal(t, "continued", r.Steps[1].Result)
			in.Signal(15)
			assert.Zero(t, in.Wait())
			assert.Zero(t, groupsIn(dir), "groups that were left")
		})
	}
}

// TestGroupsNearThePidsLimit: the gate by which a step gets its group is a Go
// program, and the pids limit may have no room for its threads. Then the step is
// started without, rather than taken for one that failed.
func TestGroupsNearThePidsLimit(t *testing.T) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs a static busybox, as a program of one thread")
	}
	for _, limit := range []int{18, 19, 20, 21} {
		t.Run(strconv.Itoa(limit), func(t *testing.T) {
			t.Parallel()
			dir, o := unifiedBox(t, Options{Root: true}, false)
			if b := newLimitBox(t, 0, limit); b.v2 {
				b.write(dir, "pids.max", strconv.Itoa(limit))
			} else {
				o.Groups = append(o.Groups, b.pids)
				o.Mounts = append(o.Mounts, Mount{Host: b.pids, Inside: "/pids", ReadOnly: true})
			}
			o.Mounts = append(o.Mounts, Mount{Host: busybox, Inside: "/bin/busybox", ReadOnly: true})
			o.Args = []string{"/bin/busybox", "sh", "-c", "exit 7"}
			o.Files = []File{Step("10-a.yaml", "run: [/bin/busybox, touch, /tmp/ran]")}
			in := Run(t, o)
			assert.Equal(t, 7, in.Wait(), "%s", in.Stderr)
			assert.True(t, in.ran("/tmp/ran"))
			assert.NotContains(t, in.Stderr.String(), "runtime:")
		})
	}
}
