// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	gmdatabase "github.com/golang-migrate/migrate/v4/database"

	"github.com/cleanstart-dev/cleanimg-init/hooks/await"
)

// mysqlDB is a connection to MySQL or MariaDB.
type mysqlDB struct {
	sqlSession
	db      *sql.DB
	log     *slog.Logger
	timeout time.Duration
	noLock  bool

	id       string // of the connection
	name     string // of the database
	table    string
	key      string
	settings map[string]string // as they were at the start
}

// silent throws away what the driver logs: its errors are returned, too.
type silent struct{}

func (silent) Print(...any) {}

func openMySQL(ctx context.Context, t target, o Options) (database, error) {
	config, err := mysqlConfig(t)
	if err != nil {
		return nil, err
	}
	config.Passwd = cmp.Or(o.Password, config.Passwd, o.DefaultPassword)
	config.Logger = silent{}
	config.InterpolateParams = true
	config.Timeout = cmp.Or(config.Timeout, connectTime)
	if config.ConnectionAttributes == "" {
		config.ConnectionAttributes = "program_name:" + strings.NewReplacer(",", " ", ":", " ").Replace(o.Application)
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	m := &mysqlDB{db: sql.OpenDB(suspicious{connector}), log: o.Log, timeout: t.timeout, noLock: t.noLock, table: t.table, settings: map[string]string{}}
	if m.conn, err = m.db.Conn(ctx); err != nil {
		m.close()
		var server *mysql.MySQLError
		permanent := errors.As(err, &server) && !slices.Contains([]uint16{1040, 1049, 1053, 1203, 1226}, server.Number) // too many connections, no such database yet, going down
		return nil, &ConnectError{Server: fmt.Sprintf("MySQL at %s, database %s, as %s", config.Addr, config.DBName, config.User), Err: err, Permanent: permanent}
	}
	if err := m.locate(ctx); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// suspicious connects to what may be no MySQL server at all.
type suspicious struct{ driver.Connector }

func (s suspicious) Connect(ctx context.Context) (conn driver.Conn, err error) {
	defer await.Garbled("MySQL", &err)
	return s.Connector.Connect(ctx)
}

// The settings that dumps and migrations change.
var mysqlSettings = []string{"sql_mode", "foreign_key_checks", "unique_checks", "autocommit", "time_zone", "sql_notes"}

func (m *mysqlDB) locate(ctx context.Context) error {
	rows, err := m.query(ctx, "SELECT CONNECTION_ID(), DATABASE(), @@SESSION."+strings.Join(mysqlSettings, ", @@SESSION."))
	if err != nil {
		return err
	}
	m.id, m.name = rows[0][0], rows[0][1]
	for i, name := range mysqlSettings {
		m.settings[name] = rows[0][2+i]
	}
	m.key, err = gmdatabase.GenerateAdvisoryLockId(m.name + ":" + m.table)
	return err
}

func (m *mysqlDB) store() store {
	host, _ := os.Hostname() //nolint:errcheck // only for people
	quote := func(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }
	return store{
		session: m, dialect: mySQL, by: host,
		version: quote(m.name) + "." + quote(m.table), history: quote(m.name) + "." + quote(m.table+"_history"),
	}
}

// run runs a statement. The driver would close the connection when a context
// ends, and the server would go on, so that it is killed there.
func (m *mysqlDB) run(ctx context.Context, s statement) error {
	if err := ctx.Err(); err != nil {
		return notBegun{err}
	}
	if m.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, m.timeout, fmt.Errorf("the statement took longer than %s (x-statement-timeout): %w", m.timeout, context.DeadlineExceeded))
		defer cancel()
	}
	running, lost := context.WithCancel(context.WithoutCancel(ctx))
	defer lost()
	result := make(chan error, 1)
	go func() {
		_, err := m.conn.ExecContext(running, s.text)
		result <- err
	}()
	var err error
	select {
	case err = <-result:
	case <-ctx.Done():
		m.kill(ctx)
		select {
		case err = <-result:
		case <-time.After(cancelTime):
			lost() // the connection, and with it our knowledge of the statement
			err = <-result
		}
		m.absorb(ctx)
		if err != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			return errors.Join(context.Cause(ctx), err)
		}
	}
	var server *mysql.MySQLError
	if errors.As(err, &server) {
		if found := atLine.FindStringSubmatch(server.Message); found != nil {
			return lineError{err, max(0, int(number(found[1]))-1)}
		}
	}
	return err
}

var atLine = regexp.MustCompile(` at line (\d+)$`)

// kill cancels our running statement from a second connection.
func (m *mysqlDB) kill(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
	defer cancel()
	if _, err := m.db.ExecContext(ctx, "KILL QUERY "+m.id); err != nil {
		m.log.Warn("statement not cancelled on the server", "err", err)
	}
}

// absorb takes a kill that came when the statement had just ended: MariaDB ends
// the next one instead.
func (m *mysqlDB) absorb(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
	defer cancel()
	for range 3 {
		if err := m.exec(ctx, "DO 0"); !m.canceled(err) {
			return
		}
	}
}

func hasNumber(err error, numbers ...uint16) bool {
	var server *mysql.MySQLError
	return errors.As(err, &server) && slices.Contains(numbers, server.Number)
}

func (m *mysqlDB) refused(err error) bool {
	var server *mysql.MySQLError
	return errors.As(err, &server)
}

// canceled: 1317 is an interrupted query, 1969 MariaDB's time limit.
func (m *mysqlDB) canceled(err error) bool { return hasNumber(err, 1317, 1969) }

func (m *mysqlDB) deadlock(error) bool { return false }

// redundant: it exists, or it does not exist any more.
func (m *mysqlDB) redundant(err error) bool {
	return hasNumber(err, 1007, 1008, 1050, 1051, 1060, 1061, 1068, 1091, 1146, 1304, 1305, 1359, 1360, 1537, 1539, 1826)
}

// exclusive: a proxy that shares connections among sessions keeps one that has
// GET_LOCK for itself; held looks.
func (m *mysqlDB) exclusive(context.Context) error { return nil }

func (m *mysqlDB) tryLock(ctx context.Context) (bool, error) {
	if m.noLock {
		return true, nil
	}
	rows, err := m.query(ctx, "SELECT GET_LOCK(?, 0)", m.key)
	if err != nil {
		return false, err
	}
	return rows[0][0] == "1", nil
}

func (m *mysqlDB) unlock(ctx context.Context) error {
	if m.noLock {
		return nil
	}
	if _, err := m.query(ctx, "SELECT RELEASE_LOCK(?)", m.key); err != nil {
		m.log.Debug("lock not released, the connection is lost", "err", err)
	}
	return nil
}

func (m *mysqlDB) holder(ctx context.Context) string {
	rows, err := m.query(ctx, "SELECT IS_USED_LOCK(?)", m.key)
	switch {
	case err != nil:
		return fmt.Sprintf("unknown (%v)", err)
	case rows[0][0] == "":
		return "nobody any more"
	}
	text := "connection " + rows[0][0]
	rows, err = m.query(ctx, "SELECT user, host, COALESCE(command, ''), time FROM information_schema.processlist WHERE id = ?", rows[0][0])
	if err == nil && len(rows) > 0 {
		text += fmt.Sprintf(", user %s, client %s, %s for %s s", rows[0][0], rows[0][1], strings.ToLower(rows[0][2]), rows[0][3])
	}
	return text
}

func (m *mysqlDB) waiters(context.Context) []string { return nil }

func (m *mysqlDB) entered(context.Context, int64) error { return nil }

func (m *mysqlDB) held(ctx context.Context) error {
	if m.noLock {
		return nil
	}
	rows, err := m.query(ctx, "SELECT IS_USED_LOCK(?) = CONNECTION_ID()", m.key)
	if err != nil {
		return err
	}
	if rows[0][0] != "1" {
		return errors.New("the lock was lost while the migration ran")
	}
	return nil
}

func (m *mysqlDB) outside(context.Context, statement, bool) (bool, error) { return false, nil }

func (m *mysqlDB) activity(ctx context.Context) []any {
	var state, progress string
	row := m.db.QueryRowContext(ctx, "SELECT COALESCE(state, ''), COALESCE(time, '') FROM information_schema.processlist WHERE id = "+m.id)
	if err := row.Scan(&state, &progress); err != nil || state == "" {
		return nil
	}
	return []any{"state", state}
}

func (m *mysqlDB) reset(ctx context.Context) error {
	if err := m.exec(ctx, "USE `"+strings.ReplaceAll(m.name, "`", "``")+"`"); err != nil {
		return err
	}
	for _, name := range mysqlSettings {
		if err := m.exec(ctx, "SET SESSION "+name+" = ?", numeric(m.settings[name])); err != nil {
			return err
		}
	}
	return nil
}

// numeric makes a number of what is one: ON and OFF settings take no '1'.
func numeric(s string) any {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n
	}
	return s
}

func (m *mysqlDB) close() {
	if m.conn != nil {
		_ = m.conn.Close() // the server notices in any case
	}
	_ = m.db.Close()
}
