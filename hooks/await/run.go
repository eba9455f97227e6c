// SPDX-License-Identifier: Apache-2.0

package await

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

// errSettled ends what still runs when the outcome is known.
var errSettled = errors.New("settled")

// Run asks every service until the outcome is known: all (or, with Options.Any,
// one) are ready, one failed for good, the time is over, or ctx ended. It
// returns when all checks have returned. See [Report.Err].
func Run(ctx context.Context, services []Service, o Options) Report {
	o = o.withDefaults(len(services))
	start := time.Now()
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errSettled)
	if o.Timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, o.Timeout)
		defer stop()
	}

	r := &run{Options: o, services: services, places: make(chan struct{}, triesAtOnce), start: start, settle: func() { cancel(errSettled) }}
	r.results = make([]Result, len(services))
	for i, s := range services {
		r.results[i] = Result{Service: s.name, State: NotReady}
	}
	var waits sync.WaitGroup
	for i := range services {
		waits.Go(func() { r.wait(ctx, i) })
	}
	beating := make(chan struct{})
	go func() {
		defer close(beating)
		r.beat(ctx)
	}()
	waits.Wait()
	cancel(errSettled)
	<-beating

	rep := Report{Services: r.results, Elapsed: time.Since(start), any: o.Any, once: o.Once, invert: o.Invert, timeout: o.Timeout}
	rep.Ready = r.good(r.count(Ready))
	if !rep.Ready {
		rep.cause = context.Cause(outer)
	}
	return rep
}

// run is one call of Run.
type run struct {
	Options
	services []Service
	places   chan struct{} // for tries at the same time
	start    time.Time
	settle   func()

	mu      sync.Mutex
	results []Result
}

// wait asks one service until its outcome is known.
func (r *run) wait(ctx context.Context, i int) {
	pauses := newBackoff(r.MaxInterval, len(r.services), rand.Float64)
	for good := 0; ; {
		select {
		case r.places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		err := r.try(ctx, r.services[i])
		<-r.places
		if err != nil && ended(ctx, err) {
			r.cutShort(ctx, i)
			return
		}
		kind := kindOf(err)
		if kind == denied && !r.RetryAuth {
			kind = permanent
		}
		var next time.Duration
		state := NotReady
		switch {
		case err != nil && kind == permanent:
			state = Failed
		case (err == nil) != r.Invert:
			if good++; good >= r.Stable {
				state = Ready
			}
			next = min(stableInterval, r.MaxInterval)
		default:
			good = 0
			next = pauses.after(kind)
		}
		if state != NotReady || r.Once && good == 0 {
			next = 0
		}
		r.tried(i, state, err, next)
		if next == 0 || hooks.Pause(ctx, next) != nil {
			return
		}
	}
}

// ended tells whether a try failed because the time for all is over. A
// connection's deadline can be a moment earlier than that of its context.
func ended(ctx context.Context, err error) bool {
	if deadline, ok := ctx.Deadline(); ok && kindOf(err) == silent && time.Until(deadline) < 20*time.Millisecond {
		<-ctx.Done()
	}
	return ctx.Err() != nil
}

// cutShort records a try that had no time, if it was the only one: an earlier
// one says more.
func (r *run) cutShort(ctx context.Context, i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if res := &r.results[i]; res.Attempts == 0 && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		res.Attempts, res.After = 1, time.Since(r.start)
		res.LastError = fmt.Sprintf("no answer within %v", rounded(res.After))
	}
}

// try asks once, in the time that a try has.
func (r *run) try(ctx context.Context, s Service) error {
	ctx, stop := context.WithTimeout(ctx, r.TryTimeout)
	defer stop()
	err := s.check(ctx)
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && kindOf(err) == answered {
		// However the library puts it.
		err = context.DeadlineExceeded
	}
	text := explain(err, r.TryTimeout)
	return &shownError{err, s.redact.String(text)}
}

// shownError is an error in the words in which people see it.
type shownError struct {
	err  error
	text string
}

func (e *shownError) Error() string { return e.text }
func (e *shownError) Unwrap() error { return e.err }

// tried records the end of a try and tells whom it concerns.
func (r *run) tried(i int, state State, err error, next time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	res := &r.results[i]
	res.State = state
	res.Attempts++
	res.After = time.Since(r.start)
	switch {
	case err != nil:
		res.LastError = err.Error()
	case r.Invert && state == NotReady:
		res.LastError = "still ready"
	case state == NotReady:
		res.LastError = "" // good, but not yet often enough
	}
	if r.Event != nil {
		r.Event(Event{Index: i, Result: *res, Pause: next})
	}
	switch state {
	case Ready:
		phrase := "service is ready"
		if r.Invert {
			phrase = "service is gone"
		}
		r.Log.Info(phrase, "service", res.Service, "attempts", res.Attempts, "seconds", seconds(res.After))
		if r.good(r.countLocked(Ready)) {
			r.settle()
		}
	case Failed:
		r.Log.Error("service cannot become ready", "service", res.Service, "err", res.LastError)
		// Once is a report of all, and soon over.
		if !r.Once && (!r.Any || r.countLocked(Failed) == len(r.results)) {
			r.settle()
		}
	default:
		r.Log.Debug("service is not ready", "service", res.Service, "attempts", res.Attempts, "err", res.LastError, "in", next.Round(time.Millisecond))
	}
}

// good tells whether so many ready services are enough.
func (r *run) good(ready int) bool {
	return ready == len(r.services) || r.Any && ready > 0
}

func (r *run) count(s State) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.countLocked(s)
}

func (r *run) countLocked(s State) (n int) {
	for _, res := range r.results {
		if res.State == s {
			n++
		}
	}
	return n
}

// beat logs what is being waited for, until ctx ends.
func (r *run) beat(ctx context.Context) {
	if r.Heartbeat <= 0 {
		return
	}
	for hooks.Pause(ctx, r.Heartbeat) == nil {
		r.mu.Lock()
		results := append([]Result(nil), r.results...)
		r.mu.Unlock()
		waiting, text := summary(results, heartbeatNames)
		r.Log.Info("still waiting", "waiting", waiting, "of", len(results), "seconds", seconds(time.Since(r.start)), "for", text)
	}
}
