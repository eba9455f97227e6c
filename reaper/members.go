// SPDX-License-Identifier: Apache-2.0

package reaper

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// nothingLeft tells without /proc that the tree has gone.
func (t *tree) nothingLeft() bool { return isClosed(t.r.Empty()) }

// members returns what lives of the tree.
func (t *tree) members() ([]Proc, error) { return t.look(nil) }

// look returns what lives of the tree. Seen, if it is not nil, is told of each
// process, of any tree, while that goes on.
func (t *tree) look(seen func(map[int]Proc, Proc)) ([]Proc, error) {
	if t.nothingLeft() {
		return nil, nil
	}
	if !t.checked {
		if err := checkProc(); err != nil {
			return nil, err
		}
		t.checked = true
	}
	for {
		held := t.Of == nil || t.r.holds(t.Of)
		procs, moved, err := snapshot(seen)
		if err != nil {
			return nil, err
		}
		t.moved = moved
		if t.Of == nil || t.r.holds(t.Of) == held { // else who had the pid in procs is not known
			return t.pick(procs, held), nil
		}
	}
}

// pick returns what lives of the tree in a snapshot, and remembers all that
// belongs to it. Held says that the child's pid was its own all the time.
func (t *tree) pick(procs map[int]Proc, held bool) (found []Proc) {
	if t.seen == nil {
		t.seen = map[int]uint64{}
	}
	ours := below(procs, os.Getpid())
	if t.Of == nil {
		t.include(ours, func(Proc) bool { return true })
	} else {
		t.freed = t.freed || !held && !t.numberKept(procs)
		t.attribute(procs, ours)
	}
	for _, p := range ours {
		if t.member(p) && !p.ended {
			found = append(found, p)
		}
	}
	return found
}

// attribute finds out which of ours belong to the child's tree.
func (t *tree) attribute(procs map[int]Proc, ours []Proc) {
	t.include(ours, t.numbered)
	t.include(ours, t.marked)
	// Read after the snapshot, so that a pid that is in both and was a
	// stranger's then is told by its start time.
	boxed := t.Of.box.members()
	t.include(ours, func(p Proc) bool { return boxed[p.PID] })
	// A session is inherited and cannot be joined, so one that a member is in
	// was made in the tree, and so was all that is in it. Ours is the exception:
	// the child and others of our children were started in it.
	t.sessions = map[int]bool{}
	for grown := true; grown; {
		for _, p := range ours {
			if t.member(p) && p.SID > 0 && p.SID != procs[os.Getpid()].SID {
				t.sessions[p.SID] = true
			}
		}
		grown = t.include(ours, func(p Proc) bool {
			return t.sessions[p.SID] || descendsFrom(procs, p, t.member)
		})
	}
}

// plainly tells of a process that was just read whether it belongs to the tree,
// as far as it and those that were read before it say.
func (t *tree) plainly(procs map[int]Proc, p Proc) bool {
	self := os.Getpid()
	if p.PID == self || p.PPID != self && !descendsFrom(procs, p, func(a Proc) bool { return a.PID == self }) {
		return false
	}
	// The group's number is surely the child's only while that is not reaped.
	member := func(p Proc) bool { return t.known(p) || t.numbered(p) && t.r.holds(t.Of) }
	if t.Of == nil || member(p) || t.sessions[p.SID] {
		return true
	}
	if p.PPID == self {
		return t.marked(p)
	}
	parent, ok := procs[p.PPID]
	return ok && member(parent)
}

// include remembers as members those of procs that belong, and returns whether
// there were any that it did not know.
func (t *tree) include(procs []Proc, belongs func(Proc) bool) (grown bool) {
	for _, p := range procs {
		if start, ok := t.seen[p.PID]; (!ok || start != p.Start) && belongs(p) {
			t.seen[p.PID] = p.Start
			grown = true
		}
	}
	return grown
}

// numberKept tells whether the group of the reaped child still has the number.
// It keeps it, and nobody else gets it as a pid, for as long as it has members.
func (t *tree) numberKept(procs map[int]Proc) bool {
	if _, reused := procs[t.Of.pid]; reused || !t.Of.groupLeft {
		return false
	}
	for _, p := range procs {
		if t.numbered(p) {
			return true
		}
	}
	return false
}

// numbered tells whether p is in the group, or in the session, that has the
// child's pid as its number.
func (t *tree) numbered(p Proc) bool {
	return !t.freed && (p.PGID == t.Of.pid || p.SID == t.Of.pid)
}

func (t *tree) member(p Proc) bool { return t.known(p) || t.Of != nil && t.numbered(p) }

func (t *tree) known(p Proc) bool {
	start, ok := t.seen[p.PID]
	return ok && start == p.Start
}

func (t *tree) marked(p Proc) bool {
	if t.Mark == "" {
		return false
	}
	env, err := readWhole(strconv.Itoa(p.PID) + "/environ")
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		t.moved = true
	}
	mark := []byte(t.Mark)
	return err == nil && slices.ContainsFunc(bytes.Split(env, []byte{0}), func(entry []byte) bool { return bytes.Equal(entry, mark) })
}
