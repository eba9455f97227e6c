// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"runtime"
	"sync"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// The Go runtime ends the program when it can't make a thread, as it is where
// hooks or command have used up the pids limit, and for a moment is not enough
// to wait. So the threads that we may ever need are made while there is room:
// with hooks before the first is started, and without a little after the
// command.
//
// At once blocked in the kernel can be: the wait for children, the wait for
// signals, a start, the log, termination message and report; with hooks also
// who writes to standard output, to standard error, and to their own files. Two
// run Go code, and one watches. What the runtime has made by itself until then
// is partly on top of the reserve.
const (
	threadReserve = 2
	hooksReserve  = 12
	processors    = 4                    // that run Go code at once; to have fewer costs 0.3 MB
	reserveAfter  = 3 * time.Millisecond // the start of a command without hooks: longer, and it may have used the room up
)

// twoProcessors makes sure that Go code runs while an execve hangs: the thread
// that waits for it keeps its processor. A variable of the image for its own Go
// program (GOMAXPROCS=1) may have left us one, or the machine has no more.
func twoProcessors() {
	if runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2)
	}
}

// reserveThreads makes so many threads, once, as far as the box has room. The
// runtime keeps them.
func (s *supervisor) reserveThreads(n int, box func() *cgroup.Box) {
	s.reserved.Do(func() {
		if runtime.GOMAXPROCS(0) > processors {
			runtime.GOMAXPROCS(processors)
		}
		makeThreads(affordable(n, box()))
	})
}

// openPoller has the Go runtime open what its timers wait with: it ends the program
// where that is refused, as it can be once hooks have their files. Without hooks
// the timer of the start does so.
func openPoller() { time.AfterFunc(time.Hour, func() {}).Stop() }

// pidsBox is the box as far as threads are concerned. All of it costs more, and
// without hooks mostly nobody asks.
func pidsBox() *cgroup.Box { return cgroup.Where{}.Find(cgroup.Pids) }

// affordable is how many threads the pids limit leaves room for: trying to make
// more would be what this is to prevent.
func affordable(threads int, box *cgroup.Box) int {
	_, _, pids := box.Usage()
	if pids.Limit <= 0 || pids.Used < 0 {
		return threads
	}
	const forOthers = 4 // a hook wants to be started, too
	return int(max(0, min(int64(threads), pids.Limit-pids.Used-forOthers)))
}

// makeThreads parks as many goroutines on a thread each, all at the same time.
func makeThreads(n int) {
	var parked, done sync.WaitGroup
	parked.Add(n)
	release := make(chan struct{})
	for range n {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			parked.Done()
			<-release
		})
	}
	parked.Wait()
	close(release)
	done.Wait()
}
