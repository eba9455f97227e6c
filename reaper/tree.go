// SPDX-License-Identifier: Apache-2.0

package reaper

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// A Proc is a living process as /proc showed it.
type Proc struct {
	PID, PPID, PGID, SID int
	Start                uint64 // clock ticks after boot; tells a pid from its later reuse
	Name                 string // of the executable, at most 15 bytes
	State                string // R running, S sleeping, D uninterruptible, T stopped, …
	ended                bool
}

// String names the process for a log line: no arguments, they may be secret.
func (p Proc) String() string { return fmt.Sprintf("%d (%s, state %s)", p.PID, p.Name, p.State) }

// errNoProc means that /proc does not show our pid namespace.
var errNoProc = errors.New("/proc is not usable")

// Descendants returns the living processes below this one, zombies left out:
// those that the chain of parents leads from to us. What `kubectl exec` starts
// has no parent in the pid namespace and is not among them, nor is what lives
// in other containers of a shared pid namespace.
func Descendants() ([]Proc, error) {
	procs, err := snapshot()
	if err != nil {
		return nil, err
	}
	ours := below(procs, os.Getpid())
	return slices.DeleteFunc(ours, func(p Proc) bool { return p.ended }), nil
}

// snapshot reads every process from /proc, by pid.
func snapshot() (map[int]Proc, error) {
	if err := checkProc(); err != nil {
		return nil, err
	}
	all, err := procfs.AllProcs()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoProc, err)
	}
	procs := make(map[int]Proc, len(all))
	for _, one := range all {
		stat, err := one.Stat()
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) {
			return nil, fmt.Errorf("%w: %w", errNoProc, err) // not "it has ended"
		}
		if err == nil {
			procs[one.PID] = newProc(stat)
		}
	}
	return procs, nil
}

func newProc(stat procfs.ProcStat) Proc {
	return Proc{
		PID: stat.PID, PPID: stat.PPID, PGID: stat.PGRP, SID: stat.Session,
		Start: stat.Starttime, Name: stat.Comm, State: stat.State,
		// A process whose first thread has ended looks like a zombie, but it
		// lives while it has other threads.
		ended: (stat.State == "Z" || stat.State == "X") && stat.NumThreads <= 1,
	}
}

// checkProc finds out whether /proc is that of our pid namespace. Another one's,
// as after unshare without a mount, would make us signal strangers.
func checkProc() error {
	self, err := os.Readlink("/proc/self")
	if err != nil || self != strconv.Itoa(os.Getpid()) {
		return errNoProc
	}
	// The numbers can be equal by chance. NSpid has one for each namespace from
	// that of the mount down to ours.
	proc, err := procfs.NewProc(os.Getpid())
	if err != nil {
		return fmt.Errorf("%w: %w", errNoProc, err)
	}
	if status, err := proc.NewStatus(); err == nil && len(status.NSpids) > 1 {
		return errNoProc
	}
	return nil
}

// below returns the processes whose chain of parents contains root, by pid.
func below(procs map[int]Proc, root int) []Proc {
	var found []Proc
	for _, p := range procs {
		if p.PID != root && descendsFrom(procs, p, func(a Proc) bool { return a.PID == root }) {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b Proc) int { return a.PID - b.PID })
	return found
}

// descendsFrom tells whether p or one of its ancestors satisfies is. The walk
// is bounded because a snapshot is not atomic: pids reused while it was taken
// can form a ring.
func descendsFrom(procs map[int]Proc, p Proc, is func(Proc) bool) bool {
	for range len(procs) + 1 {
		if is(p) {
			return true
		}
		parent, ok := procs[p.PPID]
		if !ok {
			return false
		}
		p = parent
	}
	return false
}

// An Ending says what [Reaper.End] is to end, and how patiently.
type Ending struct {
	// Of is the child whose tree is to be ended: the child, its descendants,
	// its process group and session. Nil means all our descendants.
	Of *Child
	// Mark is an environment entry ("NAME=value") that the child was started
	// with; descendants that carry it belong to its tree even when they have
	// left its group and session and lost their parents.
	Mark string
	// Grace is the time from TERM to KILL; 0 or less means KILL at once.
	Grace time.Duration
	// Hurry, when it is closed, ends the grace. May be nil.
	Hurry <-chan struct{}
	// HoldOut is told what still lives after 8 s, every 10 s from then on, and
	// before KILL. End waits for it. May be nil.
	HoldOut func([]Proc)
}

const (
	holdOutFirst = 8 * time.Second
	holdOutEvery = 10 * time.Second
	killFor      = 2 * time.Second // then what is left is uninterruptible
)

// End sends TERM (and CONT, so that stopped processes get it) to the child's
// process group, or to all our descendants, waits until they have gone, and
// kills what has not when the grace is over. What the child left behind in
// other groups and sessions gets its TERM when the child has ended. End blocks
// until nothing is left, or until two seconds of KILL did not help; it returns
// what it could not end. The child's status can come a moment later: see
// [Child.Done].
//
// Without a usable /proc only the process groups of children that have not
// ended are known, and End returns when there are none. PID 1 then signals
// everything in its pid namespace, but only where all is to go.
func (r *Reaper) End(e Ending) (left []Proc) {
	t := tree{r: r, Ending: e}
	if e.Grace > 0 && t.terminate() {
		return nil
	}
	return t.kill()
}

// tree is one run of End.
type tree struct {
	r *Reaper
	Ending
	seen  map[int]uint64 // members so far: pid and start time
	freed bool           // the child's pid as a group's number may be a stranger's
}

// terminate asks the tree to end, and returns whether it did within the grace.
func (t *tree) terminate() bool {
	// Looked at before the first signal: parents that end take the chain along.
	left, err := t.members()
	if t.over(left, err) {
		return true
	}
	told := t.Of == nil || isClosed(t.Of.done)
	if told {
		t.signal(left, err, unix.SIGTERM, unix.SIGCONT)
	} else {
		_ = t.Of.SignalGroup(unix.SIGTERM)
		_ = t.Of.SignalGroup(unix.SIGCONT)
	}
	grace := time.NewTimer(t.Grace)
	defer grace.Stop()
	holdOut := time.NewTimer(holdOutFirst)
	defer holdOut.Stop()
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		select {
		case <-t.ended():
		case <-time.After(pause):
		case <-holdOut.C:
			t.report(left)
			holdOut.Reset(holdOutEvery)
		case <-grace.C:
			return false
		case <-t.Hurry:
			return false
		}
		if left, err = t.members(); t.over(left, err) {
			return true
		}
		if !told && isClosed(t.Of.done) {
			told = true
			t.signal(left, err, unix.SIGTERM, unix.SIGCONT)
		}
	}
}

// kill ends the tree until two walks in a row find nothing of it, because one
// walk can miss what was forked while it went on. As long as a walk finds
// something new the next one follows at once: daemons that fork themselves
// again must not be given the time.
func (t *tree) kill() (left []Proc) {
	deadline := time.NewTimer(killFor)
	defer deadline.Stop()
	told := map[int]uint64{} // KILL: pid and start time
	for empty, pause := 0, time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		left, err := t.members()
		switch {
		case !t.over(left, err):
			empty = 0
			if len(told) == 0 {
				t.report(left)
			}
			t.signal(left, err, unix.SIGKILL)
			for _, p := range left {
				if start, ok := told[p.PID]; !ok || start != p.Start {
					told[p.PID] = p.Start
					pause = time.Microsecond
				}
			}
		case empty > 0 || err != nil || t.nothingLeft():
			return nil
		default:
			empty++
		}
		select {
		case <-t.ended():
		case <-time.After(pause):
		case <-deadline.C:
			return left
		}
	}
}

// ended is closed when waiting longer makes no sense: the channel that tells
// soonest that something of the tree has gone.
func (t *tree) ended() <-chan struct{} {
	if t.Of == nil {
		return t.r.Empty()
	}
	if isClosed(t.Of.done) {
		return nil // it told already; the rest is found by looking
	}
	return t.Of.done
}

// over tells whether nothing of the tree is left, or, without /proc (err),
// nothing that could be found and signalled.
func (t *tree) over(left []Proc, err error) bool {
	switch {
	case err == nil:
		return len(left) == 0
	case t.Of != nil:
		return isClosed(t.Of.done)
	case os.Getpid() == 1:
		return t.nothingLeft()
	default:
		return t.r.started() == 0
	}
}

// nothingLeft tells without /proc that the tree has gone.
func (t *tree) nothingLeft() bool { return isClosed(t.r.Empty()) }

// members returns what lives of the tree.
func (t *tree) members() ([]Proc, error) {
	if t.nothingLeft() {
		return nil, nil
	}
	if t.Of == nil {
		return Descendants()
	}
	for {
		held := t.r.holds(t.Of)
		procs, err := snapshot()
		if err != nil {
			return nil, err
		}
		if t.r.holds(t.Of) == held { // else who had the pid in procs is not known
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
	t.freed = t.freed || !held && !t.numberKept(procs)
	ours := below(procs, os.Getpid())
	t.include(ours, t.marked)
	// A session is inherited and cannot be joined, so one that a member is in
	// was made in the tree, and so was all that is in it. Ours is the exception:
	// the child and others of our children were started in it.
	sessions := map[int]bool{}
	for grown := true; grown; {
		for _, p := range ours {
			if t.member(p) && p.SID != procs[os.Getpid()].SID {
				sessions[p.SID] = true
			}
		}
		grown = t.include(ours, func(p Proc) bool {
			return sessions[p.SID] || descendsFrom(procs, p, t.member)
		})
	}
	for _, p := range ours {
		if t.member(p) && !p.ended {
			found = append(found, p)
		}
	}
	return found
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
func (t *tree) numbered(p Proc) bool { return p.PGID == t.Of.pid || p.SID == t.Of.pid }

func (t *tree) member(p Proc) bool {
	start, ok := t.seen[p.PID]
	return ok && start == p.Start || !t.freed && t.numbered(p)
}

func (t *tree) marked(p Proc) bool {
	if t.Mark == "" {
		return false
	}
	proc, err := procfs.NewProc(p.PID)
	if err != nil {
		return false
	}
	env, err := proc.Environ()
	return err == nil && slices.Contains(env, t.Mark)
}

func (t *tree) report(left []Proc) {
	if t.HoldOut != nil && len(left) > 0 {
		t.HoldOut(left)
	}
}

// signal sends sigs to each of procs, or, when /proc could not tell (err), to
// what is known without it.
func (t *tree) signal(procs []Proc, err error, sigs ...syscall.Signal) {
	for _, sig := range sigs {
		switch {
		case err == nil:
			for _, p := range procs {
				_ = t.r.signalProc(p, sig)
			}
		case t.Of != nil:
			_ = t.Of.SignalGroup(sig)
		case os.Getpid() == 1:
			_ = syscall.Kill(-1, sig)
		default:
			t.r.SignalChildren(sig)
		}
	}
}

// SignalDescendants sends sig to each of our descendants. Without a usable
// /proc it does what [Reaper.SignalChildren] does.
func (r *Reaper) SignalDescendants(sig syscall.Signal) {
	procs, err := Descendants()
	if err != nil {
		r.SignalChildren(sig)
		return
	}
	for _, p := range procs {
		_ = r.signalProc(p, sig)
	}
}

// signalProc sends sig to p, and to nobody who got its pid afterwards: through
// a pidfd whose process is compared with p after it was opened. The lock keeps
// our own children from being reaped between the look and the signal, which is
// what protects where the seccomp profile refuses pidfds.
func (r *Reaper) signalProc(p Proc, sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err == nil {
		defer unix.Close(fd)
	}
	proc, statErr := procfs.NewProc(p.PID)
	if statErr != nil {
		return syscall.ESRCH
	}
	if stat, statErr := proc.Stat(); statErr != nil || stat.Starttime != p.Start {
		return syscall.ESRCH
	}
	if err == nil {
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		return syscall.Kill(p.PID, sig)
	}
	return err
}
