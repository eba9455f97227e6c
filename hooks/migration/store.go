// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// noVersion is golang-migrate's number for a database without migrations.
const noVersion int64 = -1

// A state is what the database knows about its migrations.
type state struct {
	version int64 // noVersion: none
	dirty   bool
	history map[int64]record // by version
	tables  bool             // both tables are there
}

// A record is a row of the history: a migration that is applied, or one that was
// begun.
type record struct {
	version   int64
	name      string // of the file
	sum       string // of the file
	progress  progress
	direction direction
	previous  int64 // the version before it
	done      int   // statements that took effect
	total     int
	doneSum   string // of the text of those
	statement string // that failed, or that was running
	message   string // why
	at        string // when it was written
	seconds   float64
	by        string // who did it
}

// progress is how far a recorded migration has come.
type progress string

const (
	applied  progress = "applied"
	assumed  progress = "assumed" // applied by another tool, before there was a history
	between  progress = "between" // as many statements as it says took effect, and no other
	within   progress = "within"  // one more was begun; whether it took effect is not known
	failedAt progress = "failed"  // one more was refused by the server
)

// complete reports whether the migration is applied as a whole.
func (r record) complete() bool { return r.progress == applied || r.progress == assumed }

// direction is that of a migration.
type direction string

const (
	up   direction = "up"
	down direction = "down"
)

// begun returns the migration that was begun and not completed, if the version
// is still as it was left: else somebody has put that right with another tool.
func (s state) begun() (record, bool) {
	for _, r := range s.history {
		left := r.previous
		switch {
		case r.complete():
			continue
		case s.dirty && r.direction == up:
			left = max(r.previous, r.version)
		case s.dirty:
			left = min(s.version, r.version-1)
		}
		if s.version == left {
			return r, true
		}
	}
	return record{}, false
}

// sumOf is the sum of the first statements of a file. White space and comments
// between them do not count.
func sumOf(statements []statement) string {
	h := sha256.New()
	for _, s := range statements {
		fmt.Fprintf(h, "%d:%s", len(s.text), s.text)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// A session runs SQL on the one connection that a migration has. Its queries
// have a ? for each argument, and return text.
type session interface {
	exec(ctx context.Context, query string, args ...any) error
	query(ctx context.Context, query string, args ...any) ([][]string, error)
}

// A store keeps the version in golang-migrate's table, and the history in one
// beside it.
type store struct {
	session
	dialect dialect
	version string // the tables' names, quoted
	history string
	by      string
}

const historyColumns = "version, name, checksum, progress, direction, previous, done, total, done_checksum, statement, message, at, seconds, applied_by"

// read returns the state. Tables that are not there are empty.
func (s store) read(ctx context.Context) (state, error) {
	st := state{version: noVersion, history: map[int64]record{}}
	haveVersion, haveHistory, err := s.exist(ctx)
	if err != nil {
		return st, err
	}
	st.tables = haveVersion && haveHistory
	if haveVersion {
		rows, err := s.query(ctx, "SELECT version, dirty FROM "+s.version+" LIMIT 1")
		if err != nil {
			return st, fmt.Errorf("read %s: %w", s.version, err)
		}
		if len(rows) > 0 {
			if st.version, err = strconv.ParseInt(rows[0][0], 10, 64); err != nil {
				return st, fmt.Errorf("read %s: version %q is not a number", s.version, rows[0][0])
			}
			st.dirty = isTrue(rows[0][1])
		}
	}
	if !haveHistory {
		return st, nil
	}
	rows, err := s.query(ctx, "SELECT "+historyColumns+" FROM "+s.history)
	if err != nil {
		return st, fmt.Errorf("read %s: %w", s.history, err)
	}
	for _, row := range rows {
		r := record{
			version: number(row[0]), name: row[1], sum: row[2], progress: progress(row[3]), direction: direction(row[4]),
			previous: number(row[5]), done: int(number(row[6])), total: int(number(row[7])), doneSum: row[8],
			statement: row[9], message: row[10], at: row[11], by: row[13],
		}
		r.seconds, _ = strconv.ParseFloat(row[12], 64)
		st.history[r.version] = r
	}
	return st, nil
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

func isTrue(s string) bool { return s == "t" || s == "true" || s == "1" }

// exist reports which of the two tables are there.
func (s store) exist(ctx context.Context) (version, history bool, err error) {
	query := map[dialect]string{
		postgreSQL: "SELECT to_regclass(?) IS NOT NULL, to_regclass(?) IS NOT NULL",
		mySQL: "SELECT (SELECT COUNT(*) FROM information_schema.tables WHERE CONCAT('`', REPLACE(table_schema, '`', '``'), '`.`', REPLACE(table_name, '`', '``'), '`') = ?), " +
			"(SELECT COUNT(*) FROM information_schema.tables WHERE CONCAT('`', REPLACE(table_schema, '`', '``'), '`.`', REPLACE(table_name, '`', '``'), '`') = ?)",
		sqlite: "SELECT (SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND '\"' || REPLACE(name, '\"', '\"\"') || '\"' = ?), " +
			"(SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND '\"' || REPLACE(name, '\"', '\"\"') || '\"' = ?)",
	}[s.dialect]
	rows, err := s.query(ctx, query, s.version, s.history)
	if err != nil {
		return false, false, fmt.Errorf("look for %s: %w", s.version, err)
	}
	return isTrue(rows[0][0]), isTrue(rows[0][1]), nil
}

// create makes the tables that are missing: the first as golang-migrate makes
// it.
func (s store) create(ctx context.Context) error {
	haveVersion, haveHistory, err := s.exist(ctx)
	if err != nil {
		return err
	}
	if !haveVersion {
		definition := " (version bigint not null primary key, dirty boolean not null)"
		if s.dialect == sqlite {
			definition = " (version uint64,dirty bool)"
		}
		if err := s.exec(ctx, "CREATE TABLE IF NOT EXISTS "+s.version+definition); err != nil {
			return fmt.Errorf("create %s: %w", s.version, err)
		}
		if s.dialect == sqlite {
			if err := s.exec(ctx, "CREATE UNIQUE INDEX IF NOT EXISTS version_unique ON "+s.version+" (version)"); err != nil {
				return fmt.Errorf("create the index of %s: %w", s.version, err)
			}
		}
	}
	if haveHistory {
		return nil
	}
	at, suffix := "timestamp with time zone", ""
	if s.dialect == mySQL {
		at, suffix = "datetime", " DEFAULT CHARACTER SET utf8mb4"
	}
	if err := s.exec(ctx, "CREATE TABLE IF NOT EXISTS "+s.history+` (version bigint not null primary key, name text not null, checksum varchar(64) not null,
progress varchar(16) not null, direction varchar(4) not null, previous bigint not null, done int not null, total int not null,
done_checksum varchar(64) not null, statement text not null, message text not null, at `+at+` not null,
seconds double precision not null, applied_by text not null)`+suffix); err != nil {
		return fmt.Errorf("create %s: %w", s.history, err)
	}
	return nil
}

// setVersion writes the version row as golang-migrate does, except that it does
// not truncate, which would lock readers out. To be called in a transaction.
func (s store) setVersion(ctx context.Context, version int64, dirty bool) error {
	if err := s.exec(ctx, "DELETE FROM "+s.version); err != nil {
		return fmt.Errorf("write %s: %w", s.version, err)
	}
	if version == noVersion && !dirty {
		return nil
	}
	bit := "FALSE"
	if dirty {
		bit = "TRUE"
	}
	if err := s.exec(ctx, "INSERT INTO "+s.version+" (version, dirty) VALUES (?, "+bit+")", version); err != nil {
		return fmt.Errorf("write %s: %w", s.version, err)
	}
	return nil
}

// put writes a record. To be called in a transaction.
func (s store) put(ctx context.Context, r record) error {
	if err := s.forget(ctx, r.version); err != nil {
		return err
	}
	return s.insert(ctx, "INSERT INTO "+s.history, "", r)
}

// assume writes a record unless there is one.
func (s store) assume(ctx context.Context, r record) error {
	if s.dialect == mySQL {
		return s.insert(ctx, "INSERT IGNORE INTO "+s.history, "", r)
	}
	return s.insert(ctx, "INSERT INTO "+s.history, " ON CONFLICT DO NOTHING", r)
}

func (s store) insert(ctx context.Context, into, suffix string, r record) error {
	marks := strings.Repeat("?, ", strings.Count(historyColumns, ",")) + "?"
	err := s.exec(ctx, into+" ("+historyColumns+") VALUES ("+marks+")"+suffix,
		r.version, clean(r.name), r.sum, string(r.progress), string(r.direction), r.previous, r.done, r.total, r.doneSum,
		clean(r.statement), clean(r.message), time.Now().UTC().Format(s.timeLayout()), r.seconds, clean(s.by))
	if err != nil {
		return fmt.Errorf("write %s: %w", s.history, err)
	}
	return nil
}

func (s store) timeLayout() string {
	if s.dialect == mySQL {
		return time.DateTime
	}
	return time.RFC3339
}

// clean makes a text that every database can keep in a column.
func clean(s string) string {
	return shorten(strings.ReplaceAll(s, "\x00", ""), 2000)
}

// forget removes a record.
func (s store) forget(ctx context.Context, version int64) error {
	if err := s.exec(ctx, "DELETE FROM "+s.history+" WHERE version = ?", version); err != nil {
		return fmt.Errorf("write %s: %w", s.history, err)
	}
	return nil
}

// together runs what writes both tables in a transaction of its own. It is cut
// short neither by ctx nor by a stop: it takes no time, and what has been done
// should be known.
func (s store) together(ctx context.Context, write func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bookkeepingTime)
	defer cancel()
	if err := s.exec(ctx, defaultBegin(s.dialect)); err != nil {
		return err
	}
	if err := write(ctx); err != nil {
		_ = s.exec(ctx, "ROLLBACK") // the first error says what is wrong
		return err
	}
	return s.exec(ctx, "COMMIT")
}

// bookkeepingTime bounds what we still do after a stop.
const bookkeepingTime = 5 * time.Second
