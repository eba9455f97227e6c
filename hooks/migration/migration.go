// SPDX-License-Identifier: Apache-2.0

// Package migration brings a database to a version: with golang-migrate's files,
// table and lock, but so that many replicas may start at once, and so that a
// stop, a crash or a mistake in the SQL leaves a state that the next run can go
// on from.
//
// On PostgreSQL and SQLite a migration and its version are one transaction. What
// cannot run in a transaction (CREATE INDEX CONCURRENTLY, found by looking) is
// run statement by statement, each recorded in a table of our own beside
// golang-migrate's, so that the next run resumes there. MySQL and MariaDB have
// no transactions for DDL: there the version is marked dirty meanwhile, and the
// record says how far it came.
//
// A [Migrator] has one connection and is for one goroutine.
package migration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"time"
)

// Options say what to migrate, and how.
type Options struct {
	// Source is the directory with the files: a file:// URL or a path. Empty:
	// DefaultSource.
	Source string
	// Database is its URL: postgres, postgresql, pgx, pgx4, pgx5, mysql, mariadb,
	// sqlite or sqlite3, with golang-migrate's x- parameters. PostgreSQL's may
	// also be a connection string ("host=… dbname=…").
	Database string
	// Password is used where it is not empty, whatever the URL has;
	// DefaultPassword where the URL has none.
	Password, DefaultPassword string
	// LockTimeout bounds the time to wait for other replicas. 0: for ever.
	LockTimeout time.Duration
	// OutOfOrder allows to apply a file whose number is below the version.
	OutOfOrder bool
	// Strict makes errors of what is else a warning: a database newer than the
	// files, and files that have changed since they were applied.
	Strict bool
	// Application is what sessions are called on the server, so that other
	// replicas can say who has the lock. Empty: "migrate".
	Application string
	// DryRun, unless nil, is told what would be run, and nothing is.
	DryRun io.Writer
	// Heartbeat is how often a long wait or statement is logged. 0: 10 s.
	Heartbeat time.Duration
	Log       *slog.Logger // nil: none
}

const defaultHeartbeat = 10 * time.Second

// A Result is what a command has done.
type Result struct {
	From, To int64    // versions; -1 is none
	Files    []string // that were run, in order
}

// ErrLockTimeout is the error when another replica had the lock for all of
// LockTimeout. It is a context.DeadlineExceeded, too.
var ErrLockTimeout = fmt.Errorf("the lock was not free in time: %w", context.DeadlineExceeded)

// A StatementError says which statement of which file failed.
type StatementError struct {
	File      string
	Line      int    // where the server saw the mistake, or where the statement begins
	Statement string // its beginning, without secrets
	Err       error
}

func (e *StatementError) Error() string {
	text := fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
	if e.Statement != "" {
		text += ": " + e.Statement
	}
	return text
}

func (e *StatementError) Unwrap() error { return e.Err }

// A Migrator has the files and a connection to the database.
type Migrator struct {
	options  Options
	planner  planner
	database database
	store    store
}

// Open reads the files and connects. An error that may pass with time is a
// [ConnectError]. Close must be called.
func Open(ctx context.Context, o Options) (*Migrator, error) {
	o.Source = cmp.Or(o.Source, DefaultSource)
	o.Application = cmp.Or(o.Application, "migrate")
	o.Heartbeat = cmp.Or(o.Heartbeat, defaultHeartbeat)
	if o.Log == nil {
		o.Log = discard()
	}
	target, err := parseTarget(o.Database)
	all, errFiles := readFiles(o.Source)
	if err := errors.Join(err, errFiles); err != nil {
		return nil, err
	}
	if len(all.ignored) > 0 {
		o.Log.Warn("files that are no migrations by their names", "files", strings.Join(all.ignored, " "), "accepted", "001_title.up.sql 001_title.down.sql 001_title.sql")
	}
	db, err := target.open(ctx, o)
	if err != nil {
		return nil, err
	}
	s := db.store()
	return &Migrator{
		options: o, database: db, store: s,
		planner: planner{dialect: s.dialect, files: all, outOfOrder: o.OutOfOrder, strict: o.Strict, noWrap: target.noWrap},
	}, nil
}

// Close ends the connection, and with it all that it holds on the server.
func (m *Migrator) Close() { m.database.close() }

// Up applies the next n migrations; 0 is all.
func (m *Migrator) Up(ctx context.Context, n int) (Result, error) {
	return m.run(ctx, func(st state) (plan, error) { return m.planner.up(st, n, math.MaxInt64) })
}

// Down takes back the last n migrations; -1 is all.
func (m *Migrator) Down(ctx context.Context, n int) (Result, error) {
	return m.run(ctx, func(st state) (plan, error) { return m.planner.down(st, n, noVersion) })
}

// Goto migrates up or down to a version, which there must be a file for.
func (m *Migrator) Goto(ctx context.Context, number int64) (Result, error) {
	return m.run(ctx, func(st state) (plan, error) { return m.planner.to(st, number) })
}

// Resume completes a migration that was begun, after whatever kept it from that
// has been put right. With skip the statement at which it stopped is taken as
// done.
func (m *Migrator) Resume(ctx context.Context, skip bool) (Result, error) {
	n := 0
	if skip {
		n = 1
	}
	return m.run(ctx, func(st state) (plan, error) { return m.planner.continued(st, n) })
}

// Force writes the version, -1 for none, and runs nothing. It forgets what was
// begun.
func (m *Migrator) Force(ctx context.Context, number int64) (Result, error) {
	if number < noVersion {
		return Result{}, fmt.Errorf("force %d: accepted are -1 (no version) and numbers from 0", number)
	}
	return m.run(ctx, func(state) (plan, error) {
		p := plan{force: &number}
		if _, ok := m.planner.files.find(number); !ok && number != noVersion {
			p.warnings = append(p.warnings, fmt.Sprintf("%s has no file for version %d", m.planner.files.dir, number))
		}
		return p, nil
	})
}

// Version returns the version, -1 for none, and whether it is dirty.
func (m *Migrator) Version(ctx context.Context) (number int64, dirty bool, err error) {
	st, err := m.store.read(ctx)
	return st.version, st.dirty, err
}

// A FileStatus is a line of [Migrator.Status].
type FileStatus struct {
	Version int64
	File    string
	State   string // applied, pending, late, changed, incomplete
	At      string // when it was applied, or begun; empty when that is not known
	Note    string
}

// Status returns what is known of every file, and the version.
func (m *Migrator) Status(ctx context.Context) (lines []FileStatus, number int64, dirty bool, err error) {
	st, err := m.store.read(ctx)
	if err != nil {
		return nil, 0, false, err
	}
	number, dirty = st.version, st.dirty
	incomplete, begun := st.begun()
	if begun && dirty {
		st.version = incomplete.previous
	}
	j := m.planner.judge(st)
	state := map[int64]string{}
	for _, v := range j.applied {
		state[v.number] = "applied"
	}
	for _, v := range j.late {
		state[v.number] = "late"
	}
	for _, v := range m.planner.files.versions {
		r := st.history[v.number]
		line := FileStatus{Version: v.number, File: v.name(), State: cmp.Or(state[v.number], "pending")}
		if line.State == "applied" {
			line.At = r.at
			if r.progress == assumed {
				line.At, line.Note = "", "by another tool"
			}
			if v.up != nil && r.sum != "" && r.sum != v.up.sum {
				line.State, line.Note = "changed", "since it was applied"
			}
		}
		if begun && incomplete.version == v.number {
			line.State, line.At = "incomplete", r.at
			line.Note = fmt.Sprintf("%s: %d of %d statements; %s", r.direction, r.done, r.total, cmp.Or(r.message, r.statement))
		}
		lines = append(lines, line)
	}
	return lines, number, dirty, nil
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
