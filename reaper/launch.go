// SPDX-License-Identifier: Apache-2.0

package reaper

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An execve can hang: a lazily pulled image, an NFS server that is gone. With it
// hangs the thread that has forked, until the child executes or ends. Go takes
// that thread for busy: others run only on another processor (GOMAXPROCS of 2),
// and a collection would stop the world and wait for it. So there is none meanwhile.

var (
	// ErrAborted is the error of a start that was not begun; see [Launch.Abort].
	ErrAborted = errors.New("not started: it was given up before")
	// ErrStuck is the error of a start behind one that hangs for good; see
	// [Launch.GiveUp].
	ErrStuck = errors.New("nothing can be started: an earlier start hangs in the kernel")
)

// A Launch is one start of a command, for whoever wants to do something about
// one that hangs. Start is called once, the other methods at any time beside it.
type Launch struct {
	r       *Reaper
	command Command

	// Under the Reaper's lock.
	aborted chan struct{}
	since   time.Time // that its turn has come
	gate    int       // pid of what is to become the child; 0: see Process
}

// Launch prepares a start of c.
func (r *Reaper) Launch(c Command) *Launch {
	return &Launch{r: r, command: c, aborted: make(chan struct{})}
}

// Start does what [Reaper.Start] does. A child that got its end while it was
// being started is no error: see its Exit.
func (l *Launch) Start() (*Child, error) {
	r := l.r
	starting, stuck := r.startToken()
	select {
	case starting <- struct{}{}:
	case <-l.aborted:
		return nil, ErrAborted
	case <-stuck:
		return nil, ErrStuck
	}
	defer func() { <-starting }()
	r.mu.Lock()
	r.launching, l.since = l, time.Now()
	r.mu.Unlock()
	percent := debug.SetGCPercent(-1)
	pid, box, err := l.fork()
	debug.SetGCPercent(percent)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.launching = nil
	if r.stuck != nil && isClosed(r.stuck) {
		r.stuck = nil // it went on after all
	}
	if err != nil {
		return nil, err
	}
	return r.register(pid, box), nil
}

// StartContext is Start, given up when ctx ends: what hangs then gets KILL. A
// child that got its end while it was being started is no error: see its Exit.
// What not even KILL ends keeps StartContext, too.
func (r *Reaper) StartContext(ctx context.Context, c Command) (*Child, error) {
	l, over := r.Launch(c), make(chan struct{})
	defer close(over)
	stop := context.AfterFunc(ctx, func() {
		for { // it may be about to be forked
			l.Abort()
			select {
			case <-over:
				return
			case <-time.After(abortEvery):
			}
		}
	})
	defer stop()
	return l.Start()
}

const abortEvery = 50 * time.Millisecond

// fork starts the command through the gate, or else without.
func (l *Launch) fork() (pid int, box *group, err error) {
	if isClosed(l.aborted) {
		return 0, nil, ErrAborted
	}
	pid, box, err = l.forkThroughGate()
	if errors.Is(err, errNoGate) && !isClosed(l.aborted) {
		pid, err = l.command.forkExec()
	}
	if err != nil {
		if isClosed(l.aborted) {
			err = ErrAborted // whatever else has come of that
		}
		return 0, nil, err
	}
	switch {
	case box != nil:
		l.r.groups.use(KillByCgroup)
	case l.command.Group:
		l.r.groups.use(KillByWalk)
	}
	return pid, box, nil
}

// Process is the process that is being started, if there is one now. Only /proc
// tells which that is: a child of ours that is not registered, as old as the
// start, and still with our name.
func (l *Launch) Process() (p Proc, ok bool) {
	l.r.mu.Lock()
	now, gate, since := l.r.launching == l, l.gate, l.since
	l.r.mu.Unlock()
	if !now {
		return p, false
	}
	if gate != 0 {
		p, err := statOf(gate)
		return p, err == nil && !p.ended
	}
	self, err := statOf(os.Getpid())
	if err != nil {
		return p, false
	}
	all, err := Descendants()
	if err != nil {
		return p, false
	}
	first := ticksAt(since)
	for _, p := range all {
		leads := p.PGID == p.PID || p.SID == p.PID
		if p.PPID == self.PID && leads && p.Name == self.Name && p.Start >= first && !l.r.knows(p.PID) {
			return p, true
		}
	}
	return p, false
}

// begins sets the pid of the gate that is to become the child, or 0.
func (l *Launch) begins(gate int) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	l.gate = gate
}

// Signal sends sig to the process that is being started, and tells whether there
// was one. What does not handle signals yet is ended by most.
func (l *Launch) Signal(sig syscall.Signal) bool {
	p, ok := l.Process()
	return ok && l.r.signalProc(p, sig) == nil
}

// Abort makes the start come to its end, or not begin at all: then its error is
// ErrAborted. What hangs gets KILL; Abort tells whether something did. It does
// not wait, and is to be called again while Start does not return: the process
// may have been about to be forked.
func (l *Launch) Abort() (killed bool) {
	l.r.mu.Lock()
	if !isClosed(l.aborted) {
		close(l.aborted)
	}
	l.r.mu.Unlock()
	return l.Signal(unix.SIGKILL)
}

// GiveUp says that nobody waits for the start any more, because not even KILL
// has ended it. Other starts fail with ErrStuck while it still hangs. If it gets
// through, its child is for the caller of Start to end.
func (l *Launch) GiveUp() {
	l.Abort()
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if l.r.launching == l && !isClosed(l.r.stuck) {
		close(l.r.stuck)
	}
}

// ticksAt is a time as /proc has it for the starts of processes, or a little
// before that.
func ticksAt(t time.Time) uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100
	at := time.Duration(now.Nano()) - time.Since(t)
	return uint64(max(0, at/tick-1))
}
