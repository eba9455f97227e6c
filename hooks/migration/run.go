// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

// errMoved is the error when the version has changed since the plan was made.
var errMoved = errors.New("the version was changed by another process meanwhile")

// errYield is the error when sessions that wait for our lock keep a statement
// from ending: CREATE INDEX CONCURRENTLY waits for every open transaction, and
// golang-migrate waits for the lock inside of one.
type errYield struct {
	to  []string
	err error
}

func (e errYield) Error() string {
	text := "another migration tool waits for our lock in a transaction, which CREATE INDEX CONCURRENTLY has to wait for: " + strings.Join(e.to, ", ")
	if e.err != nil {
		text = e.err.Error() + "; " + text
	}
	return text
}

func (e errYield) Unwrap() error { return e.err }

// mostYields bounds how often a run lets others pass.
const mostYields = 5

// A run is one command.
type run struct {
	*Migrator
	plans    func(state) (plan, error)
	result   Result
	begun    bool // From is known
	locked   bool
	checked  bool
	patience time.Time // when waiting for the lock ends; zero: never
	told     map[string]bool
}

// run plans and runs until there is nothing left to do. The lock is taken only
// if there is.
func (m *Migrator) run(ctx context.Context, plans func(state) (plan, error)) (Result, error) {
	r := &run{Migrator: m, plans: plans, told: map[string]bool{}}
	err := r.loop(ctx)
	if r.locked {
		unlock, cancel := context.WithTimeout(context.WithoutCancel(ctx), bookkeepingTime)
		defer cancel()
		err = errors.Join(err, m.database.unlock(unlock))
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return r.result, err
}

func (r *run) loop(ctx context.Context) error {
	for yields := 0; ; {
		st, err := r.store.read(ctx)
		if err != nil {
			return err
		}
		if !r.begun {
			r.begun, r.result.From = true, st.version
		}
		r.result.To = st.version
		p, err := r.plans(st)
		if r.options.DryRun != nil {
			if err == nil {
				r.warn(p)
				err = r.show(st, p)
			}
			return err
		}
		if err == nil && p.empty() {
			r.warn(p)
			r.remember(ctx, st, p)
			return nil
		}
		if !r.locked {
			// What looks wrong may be a migration in progress, so that it is
			// judged when we have the lock.
			if err := r.lock(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		r.warn(p)
		err = r.apply(ctx, st, p)
		var yield errYield
		switch {
		case errors.As(err, &yield) && yields < mostYields && ctx.Err() == nil:
			yields++
			if err := r.yield(ctx, yield); err != nil {
				return err
			}
		case errors.Is(err, errMoved) && ctx.Err() == nil:
			r.options.Log.Info("another process has changed the version", "version", st.version)
		default:
			return err
		}
	}
}

// warn logs what a plan warns of, once.
func (r *run) warn(p plan) {
	for _, text := range p.warnings {
		if !r.told[text] {
			r.told[text] = true
			r.options.Log.Warn(text)
		}
	}
}

// lock waits for the lock, or until there is nothing left to do.
func (r *run) lock(ctx context.Context) error {
	if !r.checked {
		if err := r.database.exclusive(ctx); err != nil {
			return err
		}
		r.checked = true
		if r.options.LockTimeout > 0 {
			r.patience = time.Now().Add(r.options.LockTimeout)
		}
	}
	began := time.Now()
	var said time.Time
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		ok, err := r.database.tryLock(ctx)
		if err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		if ok {
			r.locked = true
			return nil
		}
		if !r.patience.IsZero() && time.Now().After(r.patience) {
			return fmt.Errorf("%w: waited %s; it is held by %s", ErrLockTimeout, r.options.LockTimeout, r.database.holder(ctx))
		}
		if time.Since(said) >= r.options.Heartbeat {
			said = time.Now()
			r.options.Log.Info("waiting for the lock", "holder", r.database.holder(ctx), "seconds", seconds(time.Since(began)))
		}
		if err := hooks.Pause(ctx, pause/2+rand.N(pause)); err != nil {
			return err
		}
		// Perhaps the holder has done it all.
		if st, err := r.store.read(ctx); err == nil {
			if p, err := r.plans(st); err == nil && p.empty() {
				return nil
			}
		}
	}
}

// yield lets those pass that wait for the lock.
func (r *run) yield(ctx context.Context, y errYield) error {
	r.options.Log.Warn("letting another tool pass", "reason", y.Error())
	if err := r.database.unlock(ctx); err != nil {
		return err
	}
	r.locked = false
	for range 100 {
		if err := hooks.Pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		if len(r.database.waiters(ctx)) == 0 {
			break
		}
	}
	return nil
}

// remember writes what the history does not know of, once. That is a service to
// later runs, so that it may fail.
func (r *run) remember(ctx context.Context, st state, p plan) {
	if len(p.assumed) == 0 || st.dirty {
		return
	}
	var err error
	if !st.tables {
		err = r.store.create(ctx)
	}
	if err == nil {
		err = r.store.together(ctx, func(ctx context.Context) error { return r.assume(ctx, p) })
	}
	if err != nil {
		r.options.Log.Debug("history not written", "err", err)
	}
}

func (r *run) assume(ctx context.Context, p plan) error {
	for _, v := range p.assumed {
		rec := record{version: v.number, name: v.name(), progress: assumed, direction: up, previous: v.number}
		if v.up != nil {
			rec.sum = v.up.sum
		}
		if err := r.store.assume(ctx, rec); err != nil {
			return err
		}
	}
	return nil
}

// apply runs a plan under the lock.
func (r *run) apply(ctx context.Context, st state, p plan) error {
	if !st.tables {
		if err := r.store.create(ctx); err != nil {
			return err
		}
	}
	if p.force != nil {
		return r.force(ctx, st, *p.force)
	}
	if len(p.assumed) > 0 {
		if err := r.store.together(ctx, func(ctx context.Context) error { return r.assume(ctx, p) }); err != nil {
			return err
		}
	}
	for i, s := range p.steps {
		if ctx.Err() != nil {
			return r.remaining(ctx, p, i, ctx.Err())
		}
		began := time.Now()
		if err := r.step(ctx, s, began); err != nil {
			return r.remaining(ctx, p, i, err)
		}
		r.result.To = s.target
		r.result.Files = append(r.result.Files, s.file.name)
		attrs := []any{"file", s.file.name, "direction", s.direction, "version", s.target, "statements", len(s.rest), "seconds", seconds(time.Since(began))}
		if s.done() > 0 {
			attrs = append(attrs, "resumed_after", s.done())
		}
		r.options.Log.Info("migration done", attrs...)
		if err := r.database.reset(ctx); err != nil {
			return r.remaining(ctx, p, i+1, fmt.Errorf("reset the session: %w", err))
		}
	}
	return nil
}

// remaining adds to an error where it leaves the database.
func (r *run) remaining(ctx context.Context, p plan, done int, err error) error {
	var yield errYield
	if errors.As(err, &yield) || errors.Is(err, errMoved) {
		return err
	}
	return fmt.Errorf("%w; %d of %d migrations done, the database is %s", err, done, len(p.steps), r.place(ctx, p, done))
}

// place says at which version the database is. Only a migration that is not one
// transaction can have left it dirty.
func (r *run) place(ctx context.Context, p plan, done int) string {
	if done < len(p.steps) && !p.steps[done].whole() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bookkeepingTime)
		defer cancel()
		if st, err := r.store.read(ctx); err == nil && st.dirty {
			return fmt.Sprintf("dirty at version %d, from where resume goes on", st.version)
		}
	}
	return fmt.Sprintf("at version %d", r.result.To)
}

// force writes a version by hand.
func (r *run) force(ctx context.Context, st state, number int64) error {
	err := r.store.together(ctx, func(ctx context.Context) error {
		for n, rec := range st.history {
			if n > number || !rec.complete() {
				if err := r.store.forget(ctx, n); err != nil {
					return err
				}
			}
		}
		return r.store.setVersion(ctx, number, false)
	})
	if err != nil {
		return err
	}
	r.result.To = number
	r.options.Log.Info("version forced", "version", number, "was", st.version, "was_dirty", st.dirty)
	// What is below it counts as applied from now on.
	if st, err = r.store.read(ctx); err == nil {
		r.remember(ctx, st, plan{assumed: r.planner.judge(st).assumed})
	}
	return nil
}

// show writes what would be run.
func (r *run) show(st state, p plan) error {
	var b strings.Builder
	for _, s := range p.steps {
		how := "in one transaction"
		if !s.whole() {
			how = fmt.Sprintf("in %d parts, not in one transaction", len(s.units))
		}
		fmt.Fprintf(&b, "%s (%s, to version %d): %d statements, %s\n", s.file.name, s.direction, s.target, len(s.rest), how)
		for _, line := range s.rest {
			fmt.Fprintf(&b, "  %d: %s\n", line.line, excerpt(line.text))
		}
	}
	switch {
	case p.force != nil:
		fmt.Fprintf(&b, "version %d would become %d\n", st.version, *p.force)
	case p.empty():
		fmt.Fprintf(&b, "nothing to do at version %d\n", st.version)
	}
	_, err := r.options.DryRun.Write([]byte(b.String()))
	return err
}

// seconds is a duration for the log.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
