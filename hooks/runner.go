// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// A Runner runs hooks. Its fields are set before the first call and not changed
// afterwards.
type Runner struct {
	Reaper *reaper.Reaper
	Log    *slog.Logger
	Stderr *Stream // where standard error goes; nil: descriptor 2
	Output Output
	// KillGrace is the time from TERM to KILL for what is to be ended.
	KillGrace time.Duration
	// Clock starts the clock of a try with a timeout. Nil: plain time.
	Clock func(timeout time.Duration) Clock
	// AtMost is the wall time that a timeout can become by such a clock. Nil:
	// the same.
	AtMost func(timeout time.Duration) time.Duration
	// Meter starts to watch what the container's limits do to a try. Nil: nothing
	// is known of them.
	Meter func(step string, stop bool) Meter
	// Parallel runs the hooks of a stage together, at most AtOnce of them
	// (0: all).
	Parallel bool
	AtOnce   int
	// Foreground gives hooks that run alone the foreground of the terminal.
	Foreground bool
	// Event is told what happens, in order and never concurrently. It must be
	// quick. May be nil.
	Event func(Event)
	// HoldOut is told what of a hook does not want to end; see
	// [reaper.Ending]. May be nil.
	HoldOut func(step string, left []reaper.Proc)
	// Exported is told environment entries that may be secret and that nobody
	// else knows: what a step file sets, before its program is started, and what
	// a try exported, even if it failed, before its end is told. It can be called
	// concurrently. May be nil.
	Exported func([]string)
	// Started is called once, right after the first process was started, or when
	// it could not be, or that takes its time.
	Started func()

	mu     sync.Mutex // of events and relays
	once   sync.Once
	relays []*relay // that may still have something to pass on
	out    *Stream  // standard output, for tests
}

// Run runs the stages one after another and returns the environment entries
// that the hooks exported (a later one wins), those of a failed run too. A
// program's environment is env with the exports of earlier stages.
//
// The first failure ends the run; the error is a [*Failure]. When ctx ends, the
// running hooks are ended as [context.Cause] says: [Stop], [ErrDeadline].
// Run returns when nothing that it had to end is left. Daemons of hooks that
// succeeded live on, and what they write is passed on.
func (r *Runner) Run(ctx context.Context, stages [][]Step, env []string) (exported []string, err error) {
	for _, stage := range stages {
		got, failure := r.stage(ctx, stage, WithEnv(env, exported...))
		exported = WithEnv(exported, got...)
		if failure != nil {
			return exported, failure
		}
	}
	return exported, nil
}

// RunStop runs stop hooks one after another, the rest also when one has failed.
// They see the exit code as CLEANIMG_INIT_EXIT_CODE and what earlier ones
// exported. Failures are logged and emitted. A ctx that ends cuts all short.
func (r *Runner) RunStop(ctx context.Context, steps []Step, env []string, exitCode int) {
	env = WithEnv(env, ownPrefix+"EXIT_CODE="+strconv.Itoa(exitCode))
	for _, s := range steps {
		got, failure := r.step(ctx, place{stop: true, foreground: true}, s, env)
		env = WithEnv(env, got...)
		if failure != nil && failure.Attempt == 0 {
			r.Log.Warn("stop hook not run", "step", s.Name, "reason", failure.Result.Reason())
		}
	}
}

// Flush waits, for at most d, until what the hooks have written so far has been
// passed on. It is for the end, when the processes have gone.
func (r *Runner) Flush(d time.Duration) {
	r.mu.Lock()
	relays := slices.Clone(r.relays)
	r.mu.Unlock()
	deadline := time.Now().Add(d)
	for _, l := range relays {
		l.drain(max(0, time.Until(deadline)))
	}
}

// keep remembers relays for Flush and forgets those that have ended.
func (r *Runner) keep(relays []*relay) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.relays = slices.DeleteFunc(r.relays, (*relay).over)
	r.relays = append(r.relays, relays...)
}

// outcome is what a hook of a stage came to.
type outcome struct {
	exported []string
	failure  *Failure
}

// stage runs the hooks of one stage.
func (r *Runner) stage(ctx context.Context, steps []Step, env []string) ([]string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	places := make(chan struct{}, r.atOnce(len(steps)))
	outcomes := make([]outcome, len(steps))
	var mu sync.Mutex
	var first *Failure
	var running sync.WaitGroup
	at := place{foreground: cap(places) == 1}
	for i, s := range steps {
		places <- struct{}{} // in order
		running.Go(func() {
			defer func() { <-places }()
			o := &outcomes[i]
			o.exported, o.failure = r.step(ctx, at, s, env)
			if o.failure == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			// One that was running says more than one that was not begun.
			if first == nil || first.Attempt == 0 && o.failure.Attempt > 0 {
				first = o.failure
			}
			cancel(siblingError{s.Name})
		})
	}
	running.Wait()
	exported := r.merge(steps, outcomes)
	if first != nil {
		return exported, first
	}
	return exported, nil
}

func (r *Runner) atOnce(steps int) int {
	if !r.Parallel {
		return 1
	}
	return min(cmp.Or(r.AtOnce, steps), steps)
}

// merge joins what the hooks of a stage exported, in the order of their names.
func (r *Runner) merge(steps []Step, outcomes []outcome) (exported []string) {
	from := map[string]string{}
	for i, o := range outcomes {
		for _, entry := range o.exported {
			name := entryName(entry)
			if earlier, ok := from[name]; ok {
				r.Log.Warn("variable exported by two hooks of a stage, the later name wins",
					"variable", name, "step", steps[i].Name, "over", earlier)
			}
			from[name] = steps[i].Name
		}
		exported = WithEnv(exported, o.exported...)
	}
	return exported
}

// step runs a hook with all its tries.
func (r *Runner) step(ctx context.Context, at place, s Step, env []string) (exported []string, failure *Failure) {
	if ctx.Err() != nil {
		res := interrupted(ctx)
		res.Err = fmt.Errorf("not begun: %w", res.Err)
		return nil, &Failure{Step: s.Name, Result: res}
	}
	for attempt := 1; ; attempt++ {
		exported, res := r.try(ctx, at, s, attempt, env)
		if res.Retry = attempt <= s.retries && res.retryable(); res.Retry && ctx.Err() != nil {
			// It would have been tried again, so this failure did not end the run.
			ended := interrupted(ctx)
			ended.Exit, ended.Wall, ended.Timeout, ended.Stderr, ended.Left, ended.Toll = res.Exit, res.Wall, res.Timeout, res.Stderr, res.Left, res.Toll
			res = ended
		}
		res.Continued = s.carryOn && !res.Retry && res.survivable()
		wait := pauseAfter(s.backoff, attempt, rand.Float64())
		r.ended(at, s, attempt, res, wait)
		switch {
		case res.Cause == Succeeded:
			return exported, nil
		case res.Continued:
			return nil, nil
		case !res.Retry:
			return nil, &Failure{Step: s.Name, Attempt: attempt, Result: res}
		}
		if Pause(ctx, wait) != nil {
			stderr := res.Stderr
			res := interrupted(ctx)
			res.Stderr = stderr
			r.ended(at, s, attempt, res, 0)
			return nil, &Failure{Step: s.Name, Attempt: attempt, Result: res}
		}
	}
}

// retryable tells whether another try could end differently, and may. After an
// out-of-memory kill an engine takes the container for killed, whatever becomes
// of it (containerd: internal/cri/server/events.go).
func (r Result) retryable() bool {
	return r.survivable() && r.Cause != BadStep && r.Toll.OOMKills <= 0
}

// survivable tells whether this is a failure of the hook, and not the end of the
// run.
func (r Result) survivable() bool {
	return r.Cause != Succeeded && r.Cause != Stopped && r.Cause != Deadline
}

// ended logs and emits the end of a try.
func (r *Runner) ended(at place, s Step, attempt int, res Result, wait time.Duration) {
	r.firstStart()
	level, phrase := slog.LevelError, at.phrase("hook failed", "stop hook failed")
	attrs := []any{
		"step", s.Name, "attempt", attempt,
		"seconds", float64(res.Wall.Milliseconds()) / 1000, "code", res.Code(),
	}
	switch {
	case res.Cause == Succeeded:
		level, phrase = slog.LevelInfo, at.phrase("hook ended", "stop hook ended")
		if lost := res.Toll.Aside(); lost != "" {
			level = slog.LevelWarn
			attrs = append(attrs, "but", strings.TrimPrefix(lost, "; "))
		}
	case res.Retry:
		level, phrase = slog.LevelWarn, at.phrase("hook failed, will be tried again", "stop hook failed, will be tried again")
		attrs = append(attrs, "in", wait.Round(time.Millisecond))
	case res.Continued:
		level, phrase = slog.LevelWarn, at.phrase("hook failed, going on", "stop hook failed, going on")
	}
	if res.Cause != Succeeded {
		attrs = append(attrs, "reason", res.Reason())
	}
	if len(res.Left) > 0 {
		attrs = append(attrs, "left", fmt.Sprint(res.Left))
	}
	r.Log.Log(context.Background(), level, phrase, attrs...)
	r.emit(Event{Step: s.Name, Stop: at.stop, Attempt: attempt, At: time.Now(), Result: &res})
}

func (r *Runner) emit(e Event) {
	if r.Event == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Event(e)
}

func (r *Runner) tell(entries []string) {
	if r.Exported != nil && len(entries) > 0 {
		r.Exported(entries)
	}
}

func (r *Runner) firstStart() {
	r.once.Do(func() {
		if r.Started != nil {
			r.Started()
		}
	})
}

// graceOf is the time from TERM to KILL that the cause of the context's end
// leaves.
func (r *Runner) graceOf(ctx context.Context) time.Duration {
	var stop Stop
	if errors.As(context.Cause(ctx), &stop) && stop.Grace > 0 {
		return stop.Grace
	}
	return r.KillGrace
}

func (r *Runner) stderr() *Stream { return cmp.Or(r.Stderr, standardError) }

func (r *Runner) stdout() *Stream { return cmp.Or(r.out, standardOutput) }
