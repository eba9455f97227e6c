// SPDX-License-Identifier: Apache-2.0

package reaper

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// How a child's tree is ended; see [Reaper.KillMethod].
const (
	KillByCgroup = "cgroup" // cgroup.kill of a control group of its own
	KillByWalk   = "walk"   // KILL to what a walk of /proc finds
)

// groups are the control groups below ours, one for each child that was started
// with Command.Group, where the kernel lets us make some. No controller is
// enabled in them: they are there to be killed.
type groups struct {
	mu     sync.Mutex
	probed bool
	parent string // directory of our own group; "" where none can be made
	made   int
	left   []*group // those that exist
	method string
}

// group is a control group with the tree of one child. A nil group is none.
type group struct{ dir string }

// KillMethod tells how the tree of the child that was started last with
// Command.Group would be killed: [KillByCgroup], [KillByWalk], or "" before the
// first.
func (r *Reaper) KillMethod() string {
	r.groups.mu.Lock()
	defer r.groups.mu.Unlock()
	return r.groups.method
}

func (gs *groups) use(method string) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	gs.method = method
}

// add makes a group, or returns nil. The first refusal that is for good is the
// last: a read-only cgroupfs stays so.
func (gs *groups) add() *group {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	first := !gs.probed
	if first {
		gs.probed = true
		gs.parent = cgroup.Where{}.Unified()
	}
	if gs.parent == "" {
		return nil
	}
	for {
		gs.made++
		g := &group{gs.parent + "/cleanimg-init-" + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(gs.made)}
		err := unix.Mkdir(g.dir, 0o755)
		switch {
		case errors.Is(err, unix.EEXIST): // an instance in another pid namespace, with the same pid
			continue
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOMEM): // cgroup.max.descendants
			return nil
		case err != nil:
			gs.parent = ""
			return nil
		case first && unix.Access(g.dir+"/cgroup.kill", unix.W_OK) != nil: // before Linux 5.14
			gs.parent = ""
			_ = unix.Rmdir(g.dir)
			return nil
		}
		gs.left = append(gs.left, g)
		return g
	}
}

// all are the groups that exist.
func (gs *groups) all() []*group {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	return append([]*group(nil), gs.left...)
}

// remove removes a group and those that were made in it, unless something lives
// there.
func (gs *groups) remove(g *group) {
	if g == nil || g.populated() || !removeTree(g.dir) {
		return
	}
	gs.mu.Lock()
	defer gs.mu.Unlock()
	for i, other := range gs.left {
		if other == g {
			gs.left = append(gs.left[:i], gs.left[i+1:]...)
			return
		}
	}
}

// removeTree removes the directory of an empty group. Files need not go first,
// but other groups do.
func removeTree(dir string) bool {
	if err := unix.Rmdir(dir); err == nil || errors.Is(err, unix.ENOENT) {
		return true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if e.IsDir() && !removeTree(dir+"/"+e.Name()) {
			return false
		}
	}
	return unix.Rmdir(dir) == nil
}

// enter moves a process into the group.
func (g *group) enter(pid int) error {
	return writeTo(g.dir+"/cgroup.procs", strconv.Itoa(pid))
}

// kill kills all that is in the group and below it, in one go that nothing can
// fork away from, and waits until it has ended, but not longer than d.
func (g *group) kill(d time.Duration) {
	if writeTo(g.dir+"/cgroup.kill", "1") != nil {
		return
	}
	deadline := time.Now().Add(d)
	for pause := 100 * time.Microsecond; g.populated() && time.Now().Before(deadline); pause = min(2*pause, 50*time.Millisecond) {
		time.Sleep(pause)
	}
}

// populated tells whether anything lives in the group or below it. What cannot
// be read is taken for populated.
func (g *group) populated() bool {
	text, err := os.ReadFile(g.dir + "/cgroup.events")
	return !errors.Is(err, unix.ENOENT) && !bytes.Contains(text, []byte("populated 0"))
}

// members are the pids in the group and below it, as our pid namespace has them.
func (g *group) members() map[int]bool {
	if g == nil {
		return nil
	}
	pids := map[int]bool{}
	collectPIDs(g.dir, pids)
	return pids
}

func collectPIDs(dir string, pids map[int]bool) {
	text, err := os.ReadFile(dir + "/cgroup.procs")
	if err != nil {
		return
	}
	for word := range bytes.FieldsSeq(text) {
		if pid, err := strconv.Atoi(string(word)); err == nil && pid > 0 { // 0: in another namespace
			pids[pid] = true
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			collectPIDs(dir+"/"+e.Name(), pids)
		}
	}
}

func writeTo(file, text string) error {
	for {
		fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for {
			if _, err = unix.Write(fd, []byte(text)); !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	}
}
