// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	driver "modernc.org/sqlite"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

// sqliteDB is an open SQLite file. Its lock is flock(2) on that file, which
// SQLite itself does not use. Each transaction is SQLite's own exclusive one
// besides, so that tools without such a lock are kept out of it.
type sqliteDB struct {
	sqlSession
	db          *sql.DB
	log         *slog.Logger
	path        string
	table       string
	file        *os.File // that is locked
	foreignKeys string   // as it was at the start
}

// The results of sqlite3_step that pass, and the one of an interrupt.
// https://www.sqlite.org/rescode.html
const (
	sqliteBusy      = 5
	sqliteLocked    = 6
	sqliteInterrupt = 9
)

func openSQLite(ctx context.Context, t target, o Options) (database, error) {
	path, _, _ := strings.Cut(t.url, "?")
	path = strings.TrimPrefix(path, "file:")
	if path == "" {
		return nil, errors.New("the database URL has no file: sqlite:///data/app.db")
	}
	s := &sqliteDB{log: o.Log, path: path, table: t.table}
	var err error
	if s.db, err = sql.Open("sqlite", t.url); err == nil {
		s.conn, err = s.db.Conn(ctx)
	}
	if err == nil {
		var rows [][]string
		if rows, err = s.query(ctx, "PRAGMA foreign_keys"); err == nil {
			s.foreignKeys = rows[0][0]
			_, err = s.query(ctx, "SELECT count(*) FROM sqlite_master")
		}
	}
	if err != nil {
		s.close()
		return nil, &ConnectError{Server: "SQLite file " + path, Err: err, Permanent: true}
	}
	return s, nil
}

func (s *sqliteDB) store() store {
	host, _ := os.Hostname() //nolint:errcheck // only for people
	quote := func(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
	return store{session: s, dialect: sqlite, by: host, version: quote(s.table), history: quote(s.table + "_history")}
}

// busyTime is how long another program's transaction is waited for.
const busyTime = 30 * time.Second

// patiently tries again while another program writes. SQLite's own waiting
// cannot be interrupted.
func (s *sqliteDB) patiently(ctx context.Context, try func() error) error {
	for deadline := time.Now().Add(busyTime); ; {
		err := try()
		var code *driver.Error
		if !errors.As(err, &code) || code.Code()&0xff != sqliteBusy && code.Code()&0xff != sqliteLocked || time.Now().After(deadline) {
			return err
		}
		if hooks.Pause(ctx, 20*time.Millisecond) != nil {
			return err
		}
	}
}

func (s *sqliteDB) exec(ctx context.Context, query string, args ...any) error {
	return s.patiently(ctx, func() error { return s.sqlSession.exec(ctx, query, args...) })
}

func (s *sqliteDB) query(ctx context.Context, query string, args ...any) (rows [][]string, err error) {
	err = s.patiently(ctx, func() error {
		rows, err = s.sqlSession.query(ctx, query, args...)
		return err
	})
	return rows, err
}

func (s *sqliteDB) run(ctx context.Context, stmt statement) error { return s.exec(ctx, stmt.text) }

func (s *sqliteDB) exclusive(context.Context) error { return nil }

func (s *sqliteDB) tryLock(context.Context) (bool, error) {
	if s.path == ":memory:" {
		return true, nil
	}
	if s.file == nil {
		var err error
		if s.file, err = os.OpenFile(s.path, os.O_RDWR, 0); err != nil {
			return false, err
		}
	}
	switch err := unix.Flock(int(s.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return false, nil
	default:
		return false, fmt.Errorf("flock %s: %w", s.path, err)
	}
}

// unlock leaves the file open: closing it would release the locks that SQLite
// itself has on it.
func (s *sqliteDB) unlock(context.Context) error {
	if s.file == nil {
		return nil
	}
	return unix.Flock(int(s.file.Fd()), unix.LOCK_UN)
}

// holder looks into /proc/locks, which shows processes of our pid namespace.
func (s *sqliteDB) holder(context.Context) string {
	const somebody = "another process"
	locks, err := os.Open("/proc/locks")
	if err != nil || s.file == nil {
		return somebody
	}
	defer locks.Close()
	var stat unix.Stat_t
	if unix.Fstat(int(s.file.Fd()), &stat) != nil {
		return somebody
	}
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) > 5 && f[1] == "FLOCK" && strings.HasSuffix(f[5], ":"+strconv.FormatUint(stat.Ino, 10)) && f[4] != "0" && f[4] != "-1" {
			return "process " + f[4]
		}
	}
	return somebody
}

func (s *sqliteDB) waiters(context.Context) []string { return nil }

// entered: golang-migrate has no lock here.
func (s *sqliteDB) entered(ctx context.Context, version int64) error {
	rows, err := s.query(ctx, "SELECT version, dirty FROM "+s.store().version)
	if err != nil {
		return err
	}
	found := noVersion
	if len(rows) > 0 {
		found = number(rows[0][0])
		if isTrue(rows[0][1]) {
			return errMoved
		}
	}
	if found != version {
		return errMoved
	}
	return nil
}

func (s *sqliteDB) held(context.Context) error { return nil }

func (s *sqliteDB) outside(context.Context, statement, bool) (bool, error) { return false, nil }

func (s *sqliteDB) refused(err error) bool {
	var code *driver.Error
	return errors.As(err, &code)
}

func (s *sqliteDB) canceled(err error) bool {
	var code *driver.Error
	return errors.As(err, &code) && code.Code()&0xff == sqliteInterrupt || errors.Is(err, context.Canceled)
}

func (s *sqliteDB) redundant(error) bool { return false }

func (s *sqliteDB) deadlock(error) bool { return false }

func (s *sqliteDB) activity(context.Context) []any { return nil }

func (s *sqliteDB) reset(ctx context.Context) error {
	return s.exec(ctx, "PRAGMA foreign_keys = "+s.foreignKeys)
}

func (s *sqliteDB) close() {
	if s.conn != nil {
		_ = s.conn.Close()
	}
	if s.db != nil {
		_ = s.db.Close()
	}
	if s.file != nil {
		_ = s.file.Close()
	}
}
