// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"context"
	"errors"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

const (
	startSlow  = 250 * time.Millisecond // until then nothing is done about it
	hangsFirst = 8 * time.Second        // until a start that hangs is named
	hangsEvery = 10 * time.Second
	abortEvery = 50 * time.Millisecond
	abortFor   = 2 * time.Second // until what KILL does not end is given up
)

// launch is the start of a try's process. An execve can hang, so it happens
// beside us.
type launch struct {
	*reaper.Launch
	done  chan struct{} // closed when that is over; then the others are set
	child *reaper.Child
	err   error
}

// launch starts the process. Where the try ends before its program was executed,
// the result says why, and nothing of it is left but what KILL does not end.
func (t *try) launch(ctx context.Context, command reaper.Command) (Result, error) {
	l := &launch{Launch: t.r.Reaper.Launch(command), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		l.child, l.err = l.Start()
	}()
	slow := time.NewTimer(startSlow)
	defer slow.Stop()
	select {
	case <-l.done:
		t.child = l.child
		return Result{}, l.err
	case <-slow.C:
	}
	t.r.firstStart()
	hangs := time.NewTimer(hangsFirst)
	defer hangs.Stop()
	for {
		select {
		case <-l.done:
			t.child = l.child
			return Result{}, l.err
		case <-hangs.C:
			t.hangs(l)
			hangs.Reset(hangsEvery)
		case <-ctx.Done():
			return t.cut(ctx, l)
		case <-t.expired():
			return t.cut(ctx, l)
		}
	}
}

// cut ends a start whose try is over.
func (t *try) cut(ctx context.Context, l *launch) (Result, error) {
	enough := time.NewTimer(abortFor)
	defer enough.Stop()
	aborted, left := false, []reaper.Proc(nil)
wait:
	for named := false; ; {
		if _, hangs := l.Process(); hangs && !named {
			t.hangs(l)
			named = true
		}
		aborted = l.Abort() || aborted
		select {
		case <-l.done:
			break wait
		case <-time.After(abortEvery):
		case <-enough.C:
			if p, ok := l.Process(); ok {
				left = append(left, p)
			}
			l.GiveUp()
			go func() { // in case that it goes on one day
				if <-l.done; l.child != nil {
					t.r.Reaper.End(reaper.Ending{Of: l.child, Mark: t.mark})
				}
			}()
			return t.unstarted(ctx, left), nil
		}
	}
	switch {
	case l.child != nil && !aborted, l.err != nil && !errors.Is(l.err, reaper.ErrAborted): // it came to its own end
		t.child = l.child
		return Result{}, l.err
	case l.child != nil:
		t.child = l.child
		left = t.end(ctx, 0)
		t.child.Release()
	}
	return t.unstarted(ctx, left), nil
}

// unstarted is the result of a try that has ended before its program was
// executed.
func (t *try) unstarted(ctx context.Context, left []reaper.Proc) Result {
	res := Result{Cause: TimedOut, Spent: t.stopClock()}
	if ctx.Err() != nil {
		res = interrupted(ctx)
	} else {
		res.Usage = "its program was still being executed"
	}
	res.Left = left
	return res
}

// hangs names a start that does not come to its end.
func (t *try) hangs(l *launch) {
	attrs := []any{"step", t.step.Name, "attempt", t.attempt}
	if p, ok := l.Process(); ok {
		attrs = append(attrs, "process", p.String())
	} else {
		attrs = append(attrs, "process", "not begun, another start hangs")
	}
	t.r.Log.Warn(t.at.phrase("start of hook hangs", "start of stop hook hangs"), attrs...)
}
