// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A limitBox is a control group of the host for one container: limits on memory
// and processes, on cgroup v1 or v2.
type limitBox struct {
	t            *testing.T
	memory, pids string // directories; on v2 they are one
	v2           bool
}

// newLimitBox makes one that allows so many bytes of memory and so many
// processes and threads; 0 is no limit.
func newLimitBox(t *testing.T, memory, pids int) *limitBox {
	t.Helper()
	needsRoot(t)
	const top = "/sys/fs/cgroup"
	name := fmt.Sprintf("cleanimg-init-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	b := &limitBox{t: t, memory: top + "/memory/" + name, pids: top + "/pids/" + name}
	if _, err := os.Stat(top + "/cgroup.controllers"); err == nil {
		b.v2, b.memory, b.pids = true, top+"/"+name, top+"/"+name
		_ = os.WriteFile(top+"/cgroup.subtree_control", []byte("+memory +pids"), 0)
	}
	for _, dir := range b.dirs() {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Skipf("needs control groups that can be made: %v", err)
		}
		t.Cleanup(func() {
			assert.Eventually(t, func() bool { return os.Remove(dir) == nil }, 20*time.Second, 10*time.Millisecond, "remove %s", dir)
		})
	}
	b.limitMemory(memory)
	if pids > 0 {
		b.write(b.pids, "pids.max", strconv.Itoa(pids))
	}
	return b
}

// limitMemory changes the limit.
func (b *limitBox) limitMemory(bytes int) {
	b.t.Helper()
	switch {
	case bytes == 0:
	case b.v2:
		b.write(b.memory, "memory.max", strconv.Itoa(bytes))
		b.write(b.memory, "memory.swap.max", "0")
	default:
		b.write(b.memory, "memory.limit_in_bytes", strconv.Itoa(bytes))
	}
}

func (b *limitBox) write(dir, file, text string) {
	b.t.Helper()
	err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0)
	if file == "memory.swap.max" && os.IsNotExist(err) {
		return // a kernel without swap accounting
	}
	require.NoError(b.t, err)
}

func (b *limitBox) dirs() []string {
	if b.v2 {
		return []string{b.memory}
	}
	return []string{b.memory, b.pids}
}

// in makes a container begin in the box and see it, read-only, as an engine
// does it.
func (b *limitBox) in(o Options) Options {
	if b.v2 {
		o.Cgroup = &Cgroup{Dir: b.memory}
		return o
	}
	o.Groups = b.dirs()
	for _, dir := range b.dirs() {
		o.Mounts = append(o.Mounts, Mount{Host: dir, Inside: filepath.Dir(dir), ReadOnly: true})
	}
	return o
}
