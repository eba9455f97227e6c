// SPDX-License-Identifier: Apache-2.0

package reaper

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

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
	killFor      = 2 * time.Second // without any progress: what is left is uninterruptible
	killForAll   = 20 * time.Second
	freezeFor    = time.Second
)

// End sends TERM (and CONT, so that stopped processes get it) to the child's
// process group, or to all our descendants, waits until they have gone, and
// kills what has not when the grace is over. What the child left behind in
// other groups and sessions gets its TERM when the child has ended. End blocks
// until nothing is left, or until two seconds of KILL did not help; it returns
// what it could not end. The child's status can come a moment later: see
// [Child.Done].
//
// A tree in a control group of its own (Command.Group) is killed by the kernel
// at once; then, and where there is none, what /proc shows of it is stopped
// until nothing new appears, and killed.
//
// Without a usable /proc only the process groups of children that have not
// ended, and their control groups, are known, and End returns when there are
// none. PID 1 then signals everything in its pid namespace, but only where all
// is to go.
func (r *Reaper) End(e Ending) (left []Proc) {
	t := tree{r: r, Ending: e}
	defer t.release()
	if e.Grace > 0 && t.terminate() {
		return nil
	}
	return t.kill()
}

// tree is one run of End.
type tree struct {
	r *Reaper
	Ending
	seen     map[int]uint64 // members so far: pid and start time
	sessions map[int]bool   // that the last snapshot had members in
	freed    bool           // the child's pid as a group's number may be a stranger's
	checked  bool           // /proc is ours
	moved    bool           // some processes went while the last walk went on
	empty    int            // walks in a row that found nothing
}

// boxes are the control groups of the tree.
func (t *tree) boxes() []*group {
	switch {
	case t.Of == nil:
		return t.r.groups.all()
	case t.Of.box != nil:
		return []*group{t.Of.box}
	default:
		return nil
	}
}

// release removes the control groups that are empty now.
func (t *tree) release() {
	for _, g := range t.boxes() {
		t.r.groups.remove(g)
	}
}

// terminate asks the tree to end, and returns whether it did within the grace.
func (t *tree) terminate() bool {
	// Looked at before the first signal: parents that end take the chain along.
	left, err := t.members()
	if t.settled(left, err) {
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
		if left, err = t.members(); t.settled(left, err) {
			return true
		}
		if !told && isClosed(t.Of.done) {
			told = true
			t.signal(left, err, unix.SIGTERM, unix.SIGCONT)
		}
	}
}

// kill ends the tree until it has gone.
func (t *tree) kill() (left []Proc) {
	left, err := t.members()
	t.report(left)
	for _, g := range t.boxes() {
		g.kill(killFor)
	}
	if err == nil && len(left) > 0 {
		t.freeze()
	}
	begun, fewest := time.Now(), len(left)
	progress, told := begun, map[int]uint64{}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		var fresh bool
		if left, fresh, err = t.strike(unix.SIGKILL, told); t.settled(left, err) {
			return nil
		}
		now := time.Now()
		if len(left) < fewest {
			fewest, progress = len(left), now
		}
		if now.Sub(progress) > killFor || now.Sub(begun) > killForAll {
			return left
		}
		if fresh {
			pause = time.Microsecond
		}
		select {
		case <-t.ended():
		case <-time.After(pause):
		}
	}
}

// freeze stops the tree until a walk finds nothing new of it. What is stopped
// does not fork while the rest is looked for, and neither gives its parent's
// place away by ending, nor its place in the pids limit to the next process of
// a fork bomb.
func (t *tree) freeze() {
	told := map[int]uint64{}
	for begun := time.Now(); time.Since(begun) < freezeFor; {
		if _, fresh, err := t.strike(unix.SIGSTOP, told); !fresh || err != nil {
			return
		}
	}
}

// strike sends sig to each member as soon as it has been read from /proc: what
// forks itself again and again is a stranger's pid by the end of a walk. It
// returns what of the tree was alive, and whether any of it had not been told
// before (pid and start time).
func (t *tree) strike(sig syscall.Signal, told map[int]uint64) (left []Proc, fresh bool, err error) {
	tell := func(p Proc) {
		start, ok := told[p.PID]
		if ok && start == p.Start && sig != unix.SIGKILL {
			return
		}
		fresh = fresh || !ok || start != p.Start
		told[p.PID] = p.Start
		_ = t.r.signalProc(p, sig)
	}
	struck := map[int]bool{}
	left, err = t.look(func(procs map[int]Proc, p Proc) {
		if !p.ended && t.plainly(procs, p) {
			struck[p.PID] = true
			tell(p)
		}
	})
	if err != nil {
		t.signal(nil, err, sig)
		return nil, false, err
	}
	for _, p := range left {
		if !struck[p.PID] {
			tell(p)
		}
	}
	return left, fresh, nil
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

// settled tells whether a walk that found nothing is to be believed. One can
// miss what was forked while it went on: two in a row must find nothing, and
// more when processes went meanwhile, as those do that fork themselves again.
// The control groups know it without a walk.
func (t *tree) settled(left []Proc, err error) bool {
	if !t.over(left, err) {
		t.empty = 0
		return false
	}
	if err != nil || t.nothingLeft() {
		return true
	}
	for _, g := range t.boxes() {
		if g.populated() {
			return false
		}
	}
	t.empty++
	const enough = 8
	return t.empty >= 2 && !t.moved || t.empty >= enough
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

func (t *tree) report(left []Proc) {
	if t.HoldOut != nil && len(left) > 0 {
		t.HoldOut(left)
	}
}
