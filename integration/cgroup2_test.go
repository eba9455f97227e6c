// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/stretchr/testify/require"
)

// cgroup2Mount is where the guest has its hierarchy.
const cgroup2Mount = "/sys/fs/cgroup"

// A Cgroup is a cgroup v2 group for containers, and says what they see of it.
type Cgroup struct {
	*cgroup2.Manager
	Dir string // on the host

	Whole    bool // the container sees the whole hierarchy, not only its group as the root
	Writable bool // it may write there, and make groups of its own
	Hidden   bool // nothing is mounted
}

// newCgroup makes a group, nested in that many others of the test. It goes when
// the test ends.
func newCgroup(t *testing.T, limits cgroup2.Resources, nested ...cgroup2.Resources) *Cgroup {
	t.Helper()
	name := "/" + labName(t) + strconv.FormatInt(time.Now().UnixNano(), 36)
	top := filepath.Join(cgroup2Mount, name)
	manager, err := cgroup2.NewManager(cgroup2Mount, name, &limits)
	require.NoError(t, err)
	t.Cleanup(func() { removeCgroup(t, manager, top) })
	c := &Cgroup{Manager: manager, Dir: top}
	for _, inner := range nested {
		c.Manager, err = c.NewChild("inner", &inner)
		require.NoError(t, err)
		c.Dir = filepath.Join(c.Dir, "inner")
	}
	return c
}

// removeCgroup removes a group with all that is in it.
func removeCgroup(t *testing.T, manager *cgroup2.Manager, top string) {
	t.Helper()
	require.NoError(t, manager.Kill())
	deadline := time.Now().Add(patience)
	for {
		var dirs []string
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append([]string{path}, dirs...) // the deepest first
			}
			return nil
		})
		if len(dirs) == 0 {
			return
		}
		for _, dir := range dirs {
			_ = os.Remove(dir)
		}
		require.True(t, time.Now().Before(deadline), "the groups %v cannot be removed", dirs)
		time.Sleep(time.Millisecond)
	}
}

// show completes the description of a container that is in the group.
func (c *Cgroup) show(t *testing.T, root string, uid int, box map[string]any) {
	t.Helper()
	box["CgroupNS"] = !c.Whole
	if !c.Hidden {
		require.NoError(t, os.MkdirAll(filepath.Join(root, "sys/fs/cgroup"), 0o755))
		box["Cgroup"] = "ro"
	}
	if c.Writable {
		box["Cgroup"] = "rw"
		// What an engine gives the container's user with the group.
		for _, name := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
			require.NoError(t, os.Chown(filepath.Join(c.Dir, name), uid, uid))
		}
	}
}

// stat returns a number of a file of "key number" lines.
func (c *Cgroup) stat(t *testing.T, name, key string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.Dir, name))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if k, value, _ := strings.Cut(strings.TrimSpace(line), " "); k == key {
			n, err := strconv.Atoi(value)
			require.NoError(t, err)
			return n
		}
	}
	require.FailNow(t, "no such key", "%s in %s", key, name)
	return 0
}

// cpu limits to so many thousandths of a CPU, memory to so many MiB, and pids
// to so many processes and threads.
func cpu(millicores int64) *cgroup2.CPU {
	quota := millicores * 100
	return &cgroup2.CPU{Max: cgroup2.NewCPUMax(&quota, nil)}
}

func memory(mebibytes int64) *cgroup2.Memory {
	size := mebibytes << 20
	return &cgroup2.Memory{Max: &size}
}

func pids(most int64) *cgroup2.Pids { return &cgroup2.Pids{Max: most} }
