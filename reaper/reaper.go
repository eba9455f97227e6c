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
// Starting and registering a child, reaping, and signalling all happen under
// one lock. A pid that is still registered is therefore still ours: it can be
// a zombie, but never a stranger that got the number afterwards.
package reaper

import (
	"errors"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Reaper owns the children of this process. There can be only one in a
// program. The zero value is ready for use; its goroutine starts with the
// first child and then runs for as long as the program does.
type Reaper struct {
	mu       sync.Mutex
	running  bool
	children map[int]*Child
	empty    chan struct{} // closed while there is no child, nil before the first
	spawned  chan struct{} // one token: a child was started since we last looked
	orphans  int
	onOrphan func(pid int, e Exit)
}

// A Child is a process that [Reaper.Start] started.
type Child struct {
	r    *Reaper
	pid  int
	done chan struct{}
	exit Exit
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

// Start starts c and registers it under one lock, so that its status cannot be
// collected before somebody waits for it. It returns when the program has been
// executed, or with the reason why it could not be.
func (r *Reaper) Start(c Command) (*Child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := c.forkExec()
	if err != nil {
		return nil, err
	}
	child := &Child{r: r, pid: pid, done: make(chan struct{})}
	if r.children == nil {
		r.children = map[int]*Child{}
		r.spawned = make(chan struct{}, 1)
	}
	r.children[pid] = child
	if r.empty == nil || isClosed(r.empty) {
		r.empty = make(chan struct{})
	}
	if !r.running {
		r.running = true
		go r.loop()
		return child, nil
	}
	select {
	case r.spawned <- struct{}{}:
	default:
	}
	return child, nil
}

// loop blocks until a child has ended, and then reaps under the lock. A bare
// blocking wait4(-1) would free the pid before the lock is taken: it could be
// given to a new process, whose status or signals would then be mixed up.
func (r *Reaper) loop() {
	for {
		err := waitid(unix.WEXITED | unix.WNOWAIT)
		switch {
		case err == nil:
			r.drain()
		case errors.Is(err, unix.ECHILD):
			r.drain()
			r.awaitChild()
		}
	}
}

// awaitChild returns when there may be a child to wait for: one that we
// started, or an orphan that was handed to us and has ended. Only here, where
// waitid has nothing to block on, does SIGCHLD serve as the wake-up.
func (r *Reaper) awaitChild() {
	sigchld := make(chan os.Signal, 1)
	signal.Notify(sigchld, unix.SIGCHLD)
	defer signal.Stop(sigchld)
	// It may have come before Notify.
	if !errors.Is(waitid(unix.WEXITED|unix.WNOWAIT|unix.WNOHANG), unix.ECHILD) {
		return
	}
	select {
	case <-sigchld:
	case <-r.spawned:
	}
}

// drain reaps every child that has ended.
func (r *Reaper) drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ended []*Child
	for {
		var e Exit
		pid, err := syscall.Wait4(-1, &e.Status, syscall.WNOHANG, &e.Usage)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil && !isClosed(r.empty) {
			close(r.empty) // ECHILD
		}
		if err != nil || pid == 0 {
			break
		}
		e.At = time.Now()
		child := r.children[pid]
		if child == nil {
			r.orphans++
			if r.onOrphan != nil {
				r.onOrphan(pid, e)
			}
			continue
		}
		delete(r.children, pid)
		child.exit = e
		ended = append(ended, child)
	}
	// Told last, so that who waits for a child and then asks whether anything
	// is left gets the answer of the same moment.
	for _, c := range ended {
		close(c.done)
	}
}

// Orphans is the number of processes reaped so far that we had not started.
func (r *Reaper) Orphans() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.orphans
}

// Empty returns a channel that is closed once no child, started or adopted, is
// left. A later Start makes a new channel.
func (r *Reaper) Empty() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.empty == nil {
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
	for _, pid := range slices.Collect(maps.Keys(r.children)) {
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

// waitid waits for any child without collecting its status.
func waitid(options int) error {
	for {
		err := unix.Waitid(unix.P_ALL, 0, nil, options, nil)
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
