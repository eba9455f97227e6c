// SPDX-License-Identifier: Apache-2.0

// Package reaper starts processes, collects the exit statuses of all children
// (the orphans that the kernel hands to PID 1 or to a child subreaper among
// them), signals them, and ends whole process trees.
//
// A [Reaper] is the only caller of wait4(2) in the program. Code that starts a
// process does so with [Reaper.Start] and learns its fate from [Child.Done] and
// [Child.Exit]. Nobody calls [os/exec.Cmd.Wait] or [os.Process.Wait]: whoever
// collects a status first leaves the other with ECHILD.
//
// Reaping and signalling happen under one lock. A pid that is still registered
// is therefore still ours: it can be a zombie, but never a stranger that got
// the number afterwards. Until a child that is being started has been
// registered, only children known already are reaped, and all are signalled.
package reaper

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Reaper owns the children of this process. There can be only one in a
// program. The zero value is ready for use; its goroutine starts with the
// first child and then runs for as long as the program does.
type Reaper struct {
	// Gate is the path of a program that calls [Gate] first of all: this one. It
	// is set before the first Start, or not at all: then no child gets a control
	// group of its own.
	Gate string

	mu       sync.Mutex
	running  bool
	children map[int]*Child
	empty    chan struct{} // closed when there was no child, nil before the first
	spawned  chan struct{} // one token: there is a child that the loop may not know of
	orphans  int
	onOrphan func(pid int, e Exit)
	sigchld  muted // of the loop
	groups   groups

	// starting holds one token while a child has been forked but not registered.
	// It is not mu, because that would stop all signals for as long as an execve
	// takes, and that can be long: a lazily pulled image, a hanging NFS server.
	starting  chan struct{}
	launching *Launch       // that has the token, if one has
	stuck     chan struct{} // closed while that hangs and nobody waits for it
}

const (
	// startPatience is how long ended orphans wait for a start in progress.
	startPatience = 20 * time.Millisecond
	// drainBatch bounds how many are reaped before others get the lock.
	drainBatch = 256
)

// A Child is a process that [Reaper.Start] started.
type Child struct {
	r    *Reaper
	pid  int
	done chan struct{}
	exit Exit
	box  *group // the control group of its tree; nil: none
	// groupLeft: when the child was reaped, its process group had other members.
	// Only these keep its number from being given away.
	groupLeft bool
}

// Exit is how a process ended.
type Exit struct {
	Status syscall.WaitStatus
	Usage  syscall.Rusage // of the process and of those of its children that it has waited for
	At     time.Time      // when its status was collected
}

// Code is the exit status as a shell would report it: the process's own, or
// 128+n when signal n killed it.
func (e Exit) Code() int {
	if e.Status.Signaled() {
		return 128 + int(e.Status.Signal())
	}
	return e.Status.ExitStatus()
}

// Signal is the signal that killed the process, or 0 when it ended by itself.
func (e Exit) Signal() syscall.Signal {
	if e.Status.Signaled() {
		return e.Status.Signal()
	}
	return 0
}

// OnOrphan sets a function that is told of each process that was reaped without
// having been started by us. It is called with the lock held, so it must be
// quick and must not call the Reaper. Call OnOrphan before the first Start.
func (r *Reaper) OnOrphan(f func(pid int, e Exit)) { r.onOrphan = f }

// Start starts c and registers it before its status can be collected. It
// returns when the program has been executed, or with the reason why it could
// not be; then nothing of it is left. Starts happen one after another.
func (r *Reaper) Start(c Command) (*Child, error) {
	return r.Launch(c).Start()
}

// register makes the process known that a start has made. The lock is held.
func (r *Reaper) register(pid int, box *group) *Child {
	child := &Child{r: r, pid: pid, done: make(chan struct{}), box: box}
	if r.children == nil {
		r.children = map[int]*Child{}
	}
	r.children[pid] = child
	if r.empty == nil || isClosed(r.empty) {
		r.empty = make(chan struct{})
	}
	r.wake()
	return child
}

// startToken returns the channel that holds a token while a child is being
// started, and the one that is closed when that hangs for good.
func (r *Reaper) startToken() (starting chan struct{}, stuck <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.starting == nil {
		r.starting = make(chan struct{}, 1)
	}
	if r.stuck == nil {
		r.stuck = make(chan struct{})
	}
	return r.starting, r.stuck
}

// wake makes the loop look for children, and runs it if it does not run yet.
// The lock is held.
func (r *Reaper) wake() {
	if !r.running {
		r.running = true
		r.spawned = make(chan struct{}, 1)
		go r.loop()
		return
	}
	select {
	case r.spawned <- struct{}{}:
	default:
	}
}

// loop blocks until a child has ended, and then reaps under the lock. A bare
// blocking wait4(-1) would free the pid before the lock is taken: it could be
// given to a new process, whose status or signals would then be mixed up.
func (r *Reaper) loop() {
	r.sigchld.mute()
	for {
		err := waitid(unix.WEXITED | unix.WNOWAIT)
		r.drain()
		if err != nil {
			r.awaitChild()
		}
	}
}

// awaitChild returns when there may be a child to wait for: one that we
// started, or an orphan that was handed to us and has ended. Only here, where
// waitid has nothing to block on (or is refused by a seccomp profile), does
// SIGCHLD serve as the wake-up.
func (r *Reaper) awaitChild() {
	// Whoever waited for the last child may want to end the program.
	runtime.Gosched()
	r.sigchld.unmute()
	defer r.sigchld.mute()
	sigchld := make(chan os.Signal, 1)
	signal.Notify(sigchld, unix.SIGCHLD)
	defer signal.Stop(sigchld)
	// The last ones may have ended before Notify.
	for r.drain() {
	}
	if hasChild() {
		return
	}
	select {
	case <-sigchld:
	case <-r.spawned:
	}
}

// drain reaps the children that have ended. While a start hangs those that we
// know: any other could be the one that is being started. It returns whether
// there may be more.
func (r *Reaper) drain() (more bool) {
	starting, _ := r.startToken()
	select {
	case starting <- struct{}{}:
	default:
		patience := time.NewTimer(startPatience)
		defer patience.Stop()
		select {
		case starting <- struct{}{}:
		case <-patience.C:
			r.reapStarted()
			return true
		}
	}
	defer func() { <-starting }()
	r.mu.Lock()
	defer r.mu.Unlock()
	var ended []*Child
	more = true
	for n := 0; more && n < drainBatch; n++ {
		pid, child, err := r.reap(-1)
		if err != nil && r.empty != nil && !isClosed(r.empty) {
			close(r.empty) // ECHILD
		}
		if child != nil {
			ended = append(ended, child)
		}
		more = err == nil && pid != 0
	}
	// Told last, so that who waits for a child and then asks whether anything
	// is left gets the answer of the same moment.
	for _, c := range ended {
		close(c.done)
	}
	return more
}

// reapStarted reaps those of the children that we started that have ended.
func (r *Reaper) reapStarted() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for pid := range r.children {
		if _, child, err := r.reap(pid); err == nil && child != nil {
			close(child.done)
		}
	}
}

// reap collects the status of one child that has ended: of the one with that
// pid, or of any when it is -1. It returns pid 0 when none has ended, and the
// child when it is one that we started. The lock is held.
func (r *Reaper) reap(which int) (pid int, child *Child, err error) {
	var e Exit
	for {
		pid, err = syscall.Wait4(which, &e.Status, syscall.WNOHANG, &e.Usage)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil || pid == 0 {
		return 0, nil, err
	}
	e.At = time.Now()
	child = r.children[pid]
	if child == nil {
		r.orphans++
		if r.onOrphan != nil {
			r.onOrphan(pid, e)
		}
		return pid, nil, nil
	}
	delete(r.children, pid)
	child.exit = e
	child.groupLeft = !errors.Is(syscall.Kill(-pid, 0), unix.ESRCH)
	return pid, child, nil
}

// Orphans is the number of processes reaped so far that we had not started.
func (r *Reaper) Orphans() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.orphans
}

// Empty returns a channel that is closed once no child, started or adopted, is
// left. A child that comes later, by Start or as an orphan, is not seen by a
// channel that is closed already: ask again.
func (r *Reaper) Empty() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.empty != nil && !isClosed(r.empty) {
		return r.empty
	}
	// A living orphan comes without a wake-up, and what executed us may have
	// left us children.
	if hasChild() {
		r.empty = make(chan struct{})
		r.wake()
	} else if r.empty == nil {
		r.empty = make(chan struct{})
		close(r.empty)
	}
	return r.empty
}

// SignalChildren sends sig to the process group of every child that was
// started and has not ended. It needs no /proc.
func (r *Reaper) SignalChildren(sig syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for pid := range r.children {
		_ = syscall.Kill(-pid, sig)
	}
}

// PID is the process id. It stays ours until Done is closed.
func (c *Child) PID() int { return c.pid }

// Done is closed when the child has ended and its status is known.
func (c *Child) Done() <-chan struct{} { return c.done }

// Exit waits for the child and returns how it ended.
func (c *Child) Exit() Exit {
	<-c.done
	return c.exit
}

// Release gives up the control group of a child that has ended, unless
// something that it left behind lives there: that group goes with [Reaper.End].
func (c *Child) Release() { c.r.groups.remove(c.box) }

// Signal sends sig to the child, or returns ESRCH when it has been reaped.
func (c *Child) Signal(sig syscall.Signal) error { return c.kill(c.pid, sig) }

// SignalGroup sends sig to the child's process group, or returns ESRCH when the
// child has been reaped: from then on the group's number may be a stranger's.
func (c *Child) SignalGroup(sig syscall.Signal) error { return c.kill(-c.pid, sig) }

func (c *Child) kill(target int, sig syscall.Signal) error {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if c.r.children[c.pid] != c {
		return syscall.ESRCH
	}
	return syscall.Kill(target, sig)
}

// knows tells whether the pid is that of a child which has not been reaped.
func (r *Reaper) knows(pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.children[pid] != nil
}

// holds tells whether c has not been reaped, so that its pid is its own.
func (r *Reaper) holds(c *Child) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.children[c.pid] == c
}

// started is the number of children that we started and that have not ended.
func (r *Reaper) started() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.children)
}

// hasChild tells whether we have any child, ended or not.
func hasChild() bool { return waitid(unix.WEXITED|unix.WNOWAIT|unix.WNOHANG) == nil }

// isChild tells whether the process is a child of ours that has not been reaped.
func isChild(pid int) bool {
	return waitidOf(unix.P_PID, pid, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG) == nil
}

// waitid waits for any child without collecting its status.
func waitid(options int) error { return waitidOf(unix.P_ALL, 0, options) }

func waitidOf(kind, id, options int) error {
	for {
		err := unix.Waitid(kind, id, nil, options, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
