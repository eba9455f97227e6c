// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// step runs one migration.
func (r *run) step(ctx context.Context, s step, began time.Time) error {
	if s.whole() {
		return r.transaction(ctx, s, s.units[0], s.previous, func(ctx context.Context) error { return r.complete(ctx, s, began) })
	}
	return r.parts(ctx, s, began)
}

// transaction runs a unit, and what record writes, as one.
func (r *run) transaction(ctx context.Context, s step, u unit, version int64, record func(context.Context) error) error {
	if err := r.database.exec(ctx, u.begin); err != nil {
		return fmt.Errorf("%s: begin: %w", s.file.name, err)
	}
	err := r.database.entered(ctx, version)
	if err == nil {
		err = r.statements(ctx, s, u)
	}
	if err == nil {
		err = r.database.held(ctx)
	}
	if err == nil {
		err = record(ctx)
	}
	if err == nil {
		if err = r.database.exec(ctx, "COMMIT"); err == nil {
			return nil
		}
		err = &StatementError{File: s.file.name, Line: lastLine(u), Err: fmt.Errorf("commit: %w", err)}
	}
	r.rollback(ctx)
	return err
}

func lastLine(u unit) int {
	if len(u.statements) == 0 {
		return 1
	}
	return u.statements[len(u.statements)-1].line
}

// rollback ends the transaction in progress. Where it fails the connection is
// lost, and so is the transaction.
func (r *run) rollback(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bookkeepingTime)
	defer cancel()
	if err := r.database.exec(ctx, "ROLLBACK"); err != nil {
		r.options.Log.Debug("not rolled back", "err", err)
	}
}

// statements runs those of a unit.
func (r *run) statements(ctx context.Context, s step, u unit) error {
	for _, stmt := range u.statements {
		if err := r.statement(ctx, s, stmt); err != nil {
			return err
		}
	}
	return nil
}

// statement runs one, and tells of it from time to time while it takes long.
func (r *run) statement(ctx context.Context, s step, stmt statement) error {
	if err := ctx.Err(); err != nil {
		return notBegun{err}
	}
	r.options.Log.Debug("statement", "file", s.file.name, "line", stmt.line, "sql", excerpt(stmt.text))
	beating, stop := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		r.heartbeat(beating, s, stmt)
	}()
	err := r.database.run(ctx, stmt)
	stop()
	<-over
	if err == nil {
		return nil
	}
	line := stmt.line
	var at lineError
	if errors.As(err, &at) {
		line, err = line+at.line, at.error
	}
	if ctx.Err() != nil && r.database.canceled(err) {
		err = fmt.Errorf("cancelled on the server: %w", err)
	}
	return &StatementError{File: s.file.name, Line: line, Statement: excerpt(stmt.text), Err: withoutSecrets(err, stmt.text)}
}

// notBegun is the error for a statement that was not begun, because of a stop.
type notBegun struct{ error }

func (e notBegun) Unwrap() error { return e.error }

// A lineError is an error at a line of a statement, counted from 0.
type lineError struct {
	error
	line int
}

func (e lineError) Unwrap() error { return e.error }

// heartbeat tells of a long statement until ctx ends.
func (r *run) heartbeat(ctx context.Context, s step, stmt statement) {
	began := time.Now()
	tick := time.NewTicker(r.options.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			attrs := []any{"file", s.file.name, "line", stmt.line, "seconds", seconds(time.Since(began)), "sql", excerpt(stmt.text)}
			ctx, cancel := context.WithTimeout(ctx, bookkeepingTime)
			attrs = append(attrs, r.database.activity(ctx)...)
			cancel()
			r.options.Log.Info("statement still running", attrs...)
		case <-ctx.Done():
			return
		}
	}
}

// complete writes that a migration is done.
func (r *run) complete(ctx context.Context, s step, began time.Time) error {
	if err := r.store.setVersion(ctx, s.target, false); err != nil {
		return err
	}
	if s.direction == down {
		return r.store.forget(ctx, s.number)
	}
	rec := r.record(s)
	rec.progress, rec.done, rec.doneSum = applied, len(s.all), sumOf(s.all)
	rec.seconds = s.resumed.seconds + seconds(time.Since(began))
	return r.store.put(ctx, rec)
}

func (r *run) record(s step) record {
	return record{
		version: s.number, name: s.file.name, sum: s.file.sum, progress: between, direction: s.direction, previous: s.previous,
		done: s.done(), total: len(s.all), doneSum: sumOf(s.all[:s.done()]),
	}
}

// parts runs a migration that is not one transaction, and records each part.
func (r *run) parts(ctx context.Context, s step, began time.Time) error {
	rec := r.record(s)
	version := s.previous
	err := r.store.together(ctx, func(ctx context.Context) error {
		if r.store.dialect == mySQL {
			version = max(s.target, noVersion)
			if err := r.store.setVersion(ctx, version, true); err != nil {
				return err
			}
		}
		return r.store.put(ctx, rec)
	})
	if err != nil {
		return err
	}
	for _, stmt := range s.all[:s.done()] {
		if settles(r.store.dialect, stmt) {
			if err := r.statement(ctx, s, stmt); err != nil {
				return err
			}
		}
	}
	offset := s.done()
	for i, u := range s.units {
		rec.done = offset + u.first + u.size
		rec.doneSum = sumOf(s.all[:rec.done])
		record := func(ctx context.Context) error { return r.store.put(ctx, rec) }
		if i == len(s.units)-1 {
			record = func(ctx context.Context) error { return r.complete(ctx, s, began) }
		}
		// That one may have been run before is known of the first only.
		again := i == 0 && s.resumed.progress == within
		if err := r.part(ctx, s, u, rec, version, again, record); err != nil {
			return err
		}
	}
	if len(s.units) == 0 {
		return r.store.together(ctx, func(ctx context.Context) error { return r.complete(ctx, s, began) })
	}
	return nil
}

// part runs one unit and records it: rec is the record of its success.
func (r *run) part(ctx context.Context, s step, u unit, rec record, version int64, again bool, record func(context.Context) error) error {
	rec.done = s.done() + u.first
	rec.doneSum = sumOf(s.all[:rec.done])
	if u.transactional() {
		err := r.transaction(ctx, s, u, version, record)
		if err != nil {
			r.recordFailure(ctx, rec, u, err)
		}
		return err
	}
	if err := r.outside(ctx, s, u, rec, again); err != nil {
		return err
	}
	return r.store.together(ctx, record)
}

// outside runs a unit without a transaction.
func (r *run) outside(ctx context.Context, s step, u unit, rec record, again bool) error {
	if len(u.statements) == 0 {
		return nil
	}
	first := u.statements[0]
	done, err := r.database.outside(ctx, first, again)
	if err != nil {
		return err
	}
	if done {
		r.options.Log.Info("statement had taken effect before", "file", s.file.name, "line", first.line)
		return nil
	}
	rec.progress, rec.statement = within, excerpt(first.text)
	if err := r.store.together(ctx, func(ctx context.Context) error { return r.store.put(ctx, rec) }); err != nil {
		return err
	}
	err = r.statements(ctx, s, u)
	if first.is("LOCK") {
		r.unlockTables(ctx)
	}
	switch {
	case err == nil:
		return nil
	case again && r.database.redundant(err):
		r.options.Log.Warn("statement had taken effect before", "file", s.file.name, "line", first.line, "reason", err)
		return nil
	case r.database.deadlock(err):
		if waiters := r.database.waiters(context.WithoutCancel(ctx)); len(waiters) > 0 {
			return errYield{to: waiters, err: err}
		}
	}
	r.recordFailure(ctx, rec, u, err)
	return err
}

// unlockTables ends what MySQL's LOCK TABLES began.
func (r *run) unlockTables(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bookkeepingTime)
	defer cancel()
	if err := r.database.exec(ctx, "UNLOCK TABLES"); err != nil {
		r.options.Log.Debug("tables not unlocked", "err", err)
	}
}

// recordFailure writes down why a unit failed, so far as that is known and the
// connection is still there. A unit of several statements without a transaction
// stays in doubt: its first ones took effect.
func (r *run) recordFailure(ctx context.Context, rec record, u unit, err error) {
	var not notBegun
	switch {
	case u.transactional() || len(u.statements) == 1 && (r.database.refused(err) || errors.As(err, &not)):
		rec.progress = failedAt
		if ctx.Err() != nil {
			rec.progress = between
		}
	default:
		rec.progress = within
	}
	rec.message = err.Error()
	var failed *StatementError
	if errors.As(err, &failed) {
		rec.message, rec.statement = failed.Err.Error(), failed.Statement
	}
	write := func(ctx context.Context) error {
		if rec.done == 0 && rec.progress != within && r.store.dialect != mySQL {
			return r.store.forget(ctx, rec.version) // it is as if it had not been begun
		}
		return r.store.put(ctx, rec)
	}
	if err := r.store.together(ctx, write); err != nil {
		r.options.Log.Debug("failure not recorded", "err", err)
	}
}
