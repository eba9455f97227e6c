// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// errPooled is the error behind a pooler that gives each transaction another
// connection.
var errPooled = errors.New("this is a pooler in transaction mode (PgBouncer's pool_mode=transaction): " +
	"an advisory lock means nothing there, so that two replicas could migrate at once. " +
	"Give migrate the address of PostgreSQL itself, or of a pool with pool_mode=session")

// exclusive makes sure that the session, and so its locks, are ours alone.
// Behind a pooler the pid that we were told at the start is not the backend's.
// Then other sessions are opened: where one gets our backend, or we get another
// one or none while they have theirs, backends are shared.
func (p *postgres) exclusive(ctx context.Context) error {
	if p.conn.PID() == p.pid {
		return p.settle(ctx)
	}
	for range 3 {
		shared, got, done, err := p.shares(ctx)
		if done != nil {
			defer done()
		}
		switch {
		case err != nil:
			return err
		case shared:
			return errPooled
		}
		if !got { // the other one has to wait, but not we: each has its own
			break
		}
	}
	p.log.Info("connected through a pooler in session mode")
	return p.settle(ctx)
}

// probeTime bounds what a pooler that has no backend left makes wait.
const probeTime = 3 * time.Second

// shares opens a session with a transaction, and reports whether a backend is
// seen from two sessions, and whether there was one for it at all. done, unless
// nil, ends that session.
func (p *postgres) shares(ctx context.Context) (shared, got bool, done func(), err error) {
	probe, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	ours := strconv.FormatUint(uint64(p.pid), 10)
	other, err := pgconn.ConnectConfig(probe, p.config)
	if err == nil {
		done = func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = other.Close(ctx) // nothing depends on it
		}
		var rows [][]string
		rows, err = execute(probe, other, "BEGIN; SELECT pg_backend_pid()")
		got = err == nil
		if got && rows[0][0] == ours || err != nil && strings.Contains(err.Error(), "statement pooling") {
			return true, got, done, nil
		}
	}
	again, cancelAgain := context.WithTimeout(ctx, probeTime)
	defer cancelAgain()
	mine, err := p.query(again, "SELECT pg_backend_pid()")
	switch {
	case ctx.Err() != nil:
		return false, got, done, context.Cause(ctx)
	case again.Err() != nil:
		return true, got, done, nil // we have none
	case err != nil:
		return false, got, done, err
	}
	return mine[0][0] != ours, got, done, nil
}

// tryLock takes golang-migrate's lock, under each name that it has for it. It
// polls: a session that waits inside pg_advisory_lock has a snapshot, which
// CREATE INDEX CONCURRENTLY of the lock's holder waits for.
func (p *postgres) tryLock(ctx context.Context) (bool, error) {
	for i, key := range p.keys {
		rows, err := p.query(ctx, "SELECT pg_try_advisory_lock(?)", key)
		if err != nil {
			return false, err
		}
		if !isTrue(rows[0][0]) {
			return false, p.release(ctx, p.keys[:i])
		}
	}
	return true, nil
}

func (p *postgres) release(ctx context.Context, keys []int64) error {
	var errs []error
	for _, key := range keys {
		errs = append(errs, p.exec(ctx, "SELECT pg_advisory_unlock(?)", key))
	}
	return errors.Join(errs...)
}

// unlock releases the lock. A connection that is lost has done so already.
func (p *postgres) unlock(ctx context.Context) error {
	if p.conn.IsClosed() {
		return nil
	}
	return p.release(ctx, p.keys)
}

// held: a migration can have released it (DISCARD ALL, pg_advisory_unlock_all).
// It is asked as who we were before the migration.
func (p *postgres) held(ctx context.Context) error {
	rows, err := p.query(ctx, "RESET SESSION AUTHORIZATION; RESET ROLE; SELECT count(*) FROM pg_locks WHERE granted AND pid = pg_backend_pid() AND "+p.isOurs("pg_locks"))
	if err != nil {
		return err
	}
	if number(rows[0][0]) < int64(len(p.keys)) {
		return errors.New("the lock was lost while the migration ran: it is rolled back")
	}
	return nil
}

// isOurs is the condition for a row of pg_locks to be about our lock.
func (p *postgres) isOurs(table string) string {
	var keys []string
	for _, key := range p.keys {
		keys = append(keys, strconv.FormatInt(key, 10))
	}
	return fmt.Sprintf("%[1]s.locktype = 'advisory' AND %[1]s.objsubid = 1 AND %[1]s.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "+
		"AND (%[1]s.classid::bigint << 32 | %[1]s.objid::bigint) IN (%[2]s)", table, strings.Join(keys, ", "))
}

// sessions describes the ones of pg_stat_activity (a) that a condition is true
// for.
func (p *postgres) sessions(ctx context.Context, conn *pgconn.PgConn, from, where string) ([]string, error) {
	rows, err := execute(ctx, conn, "SELECT DISTINCT a.pid, COALESCE(a.application_name, ''), COALESCE(host(a.client_addr), ''), COALESCE(a.usename, ''), "+
		"COALESCE(a.state, ''), COALESCE(to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), '') FROM "+from+" WHERE "+where)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, r := range rows {
		text := "pid " + r[0]
		for i, label := range []string{"application", "client", "user", "state", "connected since"} {
			if r[i+1] != "" {
				text += ", " + label + " " + r[i+1]
			}
		}
		all = append(all, text)
	}
	return all, nil
}

func (p *postgres) holder(ctx context.Context) string {
	all, err := p.sessions(ctx, p.conn, "pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid", "l.granted AND "+p.isOurs("l"))
	switch {
	case err != nil:
		return fmt.Sprintf("unknown (%v)", err)
	case len(all) == 0:
		return "nobody any more"
	}
	return strings.Join(all, "; and ")
}

func (p *postgres) waiters(ctx context.Context) []string {
	all, err := p.sessions(ctx, p.conn, "pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid", "NOT l.granted AND "+p.isOurs("l"))
	if err != nil {
		p.log.Debug("sessions that wait for the lock are not known", "err", err)
	}
	return all
}

// outside looks, before a statement that works concurrently, for what would
// keep it from ending, and for the invalid index that an interrupted one has
// left: CREATE INDEX CONCURRENTLY IF NOT EXISTS would take that for done.
func (p *postgres) outside(ctx context.Context, s statement, again bool) (done bool, err error) {
	if !s.has("CONCURRENTLY") {
		return false, nil
	}
	if waiters := p.waiters(ctx); len(waiters) > 0 {
		return false, errYield{to: waiters}
	}
	name, table, ok := createdIndex(s)
	if !ok {
		return false, nil
	}
	rows, err := p.query(ctx, "SELECT i.indexrelid::regclass::text, i.indisvalid, i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "+
		"WHERE c.relname = ? AND i.indrelid = to_regclass(?)", name, table)
	if err != nil || len(rows) == 0 {
		return false, err
	}
	if isTrue(rows[0][1]) {
		return again, nil
	}
	building, err := p.sessions(ctx, p.conn, "pg_stat_progress_create_index i JOIN pg_stat_activity a ON a.pid = i.pid", "i.index_relid = "+rows[0][2])
	if err != nil {
		return false, err
	}
	if len(building) > 0 {
		return false, fmt.Errorf("index %s is being built by %s", rows[0][0], building[0])
	}
	p.log.Warn("dropping the invalid index that an interrupted CREATE INDEX CONCURRENTLY has left", "index", rows[0][0])
	if err := p.exec(ctx, "DROP INDEX CONCURRENTLY IF EXISTS "+rows[0][0]); err != nil {
		return false, fmt.Errorf("drop the invalid index %s: %w", rows[0][0], err)
	}
	return false, nil
}

// createdIndex returns the name of the index that a statement makes, and its
// table as written. An index without a name is not found.
func createdIndex(s statement) (name, table string, ok bool) {
	tokens := s.tokens
	i := 0
	for i < len(tokens) && tokens[i].text != "CONCURRENTLY" {
		i++
	}
	rest := tokens[min(i+1, len(tokens)):]
	if !s.is("CREATE") || len(rest) < 3 {
		return "", "", false
	}
	if rest[0].text == "IF" && !rest[0].quoted && len(rest) > 6 {
		rest = rest[3:]
	}
	if rest[0].text == "ON" && !rest[0].quoted || rest[1].text != "ON" {
		return "", "", false
	}
	name = rest[0].text
	if !rest[0].quoted {
		name = strings.ToLower(rest[0].raw)
	}
	rest = rest[2:]
	if len(rest) > 1 && rest[0].text == "ONLY" && !rest[0].quoted {
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return "", "", false
	}
	table = rest[0].raw
	for len(rest) > 2 && rest[1].text == "." {
		table += "." + rest[2].raw
		rest = rest[2:]
	}
	return name, table, true
}

// activity looks from a second connection at what ours is doing.
func (p *postgres) activity(ctx context.Context) (attrs []any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.extra == nil || p.extra.IsClosed() {
		extra, err := pgconn.ConnectConfig(ctx, p.config)
		if err != nil {
			return []any{"activity", err}
		}
		p.extra = extra
	}
	pid := strconv.FormatUint(uint64(p.pid), 10)
	if rows, err := execute(ctx, p.extra, "SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total FROM pg_stat_progress_create_index WHERE pid = "+pid); err == nil && len(rows) > 0 {
		r := rows[0]
		attrs = append(attrs, "phase", r[0])
		if r[2] != "0" {
			attrs = append(attrs, "blocks", r[1]+"/"+r[2])
		}
		if r[4] != "0" {
			attrs = append(attrs, "tuples", r[3]+"/"+r[4])
		}
	}
	if blockers, err := p.sessions(ctx, p.extra, "pg_stat_activity a", "a.pid = ANY(pg_blocking_pids("+pid+"))"); err == nil && len(blockers) > 0 {
		attrs = append(attrs, "waits_for", strings.Join(blockers, "; "))
	}
	return attrs
}
