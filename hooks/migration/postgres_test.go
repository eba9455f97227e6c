// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/integration/dbtest"
)

// indexFiles have a statement that cannot run in a transaction.
var indexFiles = map[string]string{
	"1_big.up.sql":   "CREATE TABLE big AS SELECT i, i % 7 AS n FROM generate_series(1, 20000) i;",
	"2_index.up.sql": "ALTER TABLE big ADD COLUMN m int;\nUPDATE big SET m = n;\nCREATE INDEX CONCURRENTLY big_n ON big (n);\nALTER TABLE big ADD COLUMN k int;\n",
}

// indexes are those of the table, and whether they are valid.
const indexes = "SELECT indexrelid::regclass, indisvalid FROM pg_index WHERE indrelid = 'big'::regclass ORDER BY 1"

func TestCreateIndexConcurrently(t *testing.T) {
	t.Parallel()
	target := dbtest.NewPostgres(t)
	dir := write(t, indexFiles)
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			result, err := newBench(t, target, dir).up(0)
			assert.NoError(t, err)
			assert.EqualValues(t, 2, result.To)
		})
	}
	wait.Wait()
	b := newBench(t, target, dir)
	assert.Equal(t, "big_n|t", b.query(indexes))
	assert.Equal(t, "1:applied 2:applied", b.states())
}

const oldSnapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1"

// blocker is a transaction that CREATE INDEX CONCURRENTLY has to wait for.
func blocker(t *testing.T, target, sql string) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), target)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close(context.Background()) })
	_, err = execute(t.Context(), conn, sql)
	require.NoError(t, err)
	return conn
}

// What was done of a file that is not one transaction is not done again, and
// the invalid index is made anew.
func TestInterruptedIndexIsResumed(t *testing.T) {
	t.Parallel()
	b := newBench(t, dbtest.NewPostgres(t), write(t, indexFiles))
	_, err := b.up(1)
	require.NoError(t, err)
	in := blocker(t, b.options.Database, oldSnapshot)
	ctx, stop := context.WithCancel(t.Context())
	m, err := Open(ctx, b.options)
	require.NoError(t, err)
	defer m.Close()
	ended := make(chan error, 1)
	go func() { _, err := m.Up(ctx, 0); ended <- err }()
	require.Eventually(t, func() bool {
		log := b.log.String()
		return strings.Contains(log, "waiting for old snapshots") && strings.Contains(log, "waits_for=")
	}, time.Minute, 20*time.Millisecond, "the log tells what it waits for")
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)
	assert.Equal(t, "1", b.version(), "not dirty")
	assert.Equal(t, "1:applied 2:incomplete", b.states())
	assert.Equal(t, "big_n|f", b.query(indexes))
	_, err = b.down(1)
	require.ErrorContains(t, err, "begun and is incomplete (2 of 4 statements)")
	in.Close(t.Context())

	_, err = b.up(0)
	require.NoError(t, err)
	assert.Contains(t, b.log.String(), "dropping the invalid index")
	assert.Contains(t, b.log.String(), "resumed_after=2")
	assert.Equal(t, "big_n|t", b.query(indexes))
	assert.Equal(t, "2", b.version())
}

// Killed after the index was made and before that was recorded.
func TestIndexThatWasCompletedIsNotMadeTwice(t *testing.T) {
	t.Parallel()
	b := newBench(t, dbtest.NewPostgres(t), write(t, indexFiles))
	_, err := b.up(1)
	require.NoError(t, err)
	in := blocker(t, b.options.Database, oldSnapshot)
	m, err := Open(t.Context(), b.options)
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { _, err := m.Up(t.Context(), 0); ended <- err }()
	require.Eventually(t, func() bool { return strings.Contains(b.log.String(), "for old snapshots") }, time.Minute, 20*time.Millisecond)
	kill(t, m)
	require.Error(t, <-ended)
	m.Close()
	in.Close(t.Context())
	_, err = b.up(0)
	require.NoError(t, err)
	assert.Equal(t, "big_n|t", b.query(indexes))

	// As if the connection had been lost a moment later.
	_, err = b.with(func(m *Migrator) (Result, error) {
		return Result{}, m.store.together(t.Context(), func(ctx context.Context) error {
			all, err := split(postgreSQL, indexFiles["2_index.up.sql"])
			require.NoError(t, err)
			require.NoError(t, m.store.exec(ctx, "ALTER TABLE big DROP COLUMN k"))
			require.NoError(t, m.store.setVersion(ctx, 1, false))
			return m.store.put(ctx, record{version: 2, name: "2_index.up.sql", progress: within, direction: up, previous: 1, done: 2, total: 4, doneSum: sumOf(all[:2])})
		})
	})
	require.NoError(t, err)
	_, err = b.up(0)
	require.NoError(t, err)
	assert.Contains(t, b.log.String(), "statement had taken effect before")
	assert.Equal(t, "big_n|t", b.query(indexes))
}

// kill ends a migrator's backend, so that its connection is lost.
func kill(t *testing.T, m *Migrator) {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), m.options.Database)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = execute(t.Context(), conn, fmt.Sprintf("SELECT pg_terminate_backend(%d)", m.database.(*postgres).pid))
	require.NoError(t, err)
}

// A golang-migrate replica waits for the lock in a transaction, and CREATE INDEX
// CONCURRENTLY waits for that.
func TestGolangMigrateWaitsForTheLock(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before", "meanwhile"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			const gate = 4242
			b := newBench(t, dbtest.NewPostgres(t), write(t, map[string]string{
				"1_big.up.sql":   indexFiles["1_big.up.sql"],
				"2_index.up.sql": fmt.Sprintf("SELECT pg_advisory_xact_lock(%d);\nCREATE INDEX CONCURRENTLY big_n ON big (n);", gate),
			}))
			_, err := b.up(1)
			require.NoError(t, err)
			m, err := Open(t.Context(), b.options)
			require.NoError(t, err)
			defer m.Close()
			// Before the statement ours waits at the gate, and meanwhile for this lock.
			sql, waits := fmt.Sprintf("SELECT pg_advisory_lock(%d)", gate), fmt.Sprintf("objid = %d AND NOT granted", gate)
			if when == "meanwhile" {
				sql, waits = "BEGIN; LOCK TABLE big IN ROW EXCLUSIVE MODE", fmt.Sprintf("locktype = 'virtualxid' AND NOT granted AND pid = %d", m.database.(*postgres).pid)
			}
			in := blocker(t, b.options.Database, sql)
			ended := make(chan error, 1)
			go func() { _, err := m.Up(t.Context(), 0); ended <- err }()
			locks := func(where string) func() bool {
				return func() bool { return b.query("SELECT count(*) > 0 FROM pg_locks WHERE "+where) == "t" }
			}
			require.Eventually(t, locks(waits), time.Minute, 10*time.Millisecond)
			theirs, err := pgconn.Connect(t.Context(), b.options.Database)
			require.NoError(t, err)
			defer theirs.Close(context.Background())
			_, err = execute(t.Context(), theirs, "SET deadlock_timeout = '1h'") // so that it is ours that finds it
			require.NoError(t, err)
			theirLock := make(chan error, 1)
			go func() { // as golang-migrate does when it opens a database
				key := m.database.(*postgres).keys[0]
				_, err := execute(t.Context(), theirs, "SELECT pg_advisory_lock(?)", key)
				if err == nil {
					_, err = execute(t.Context(), theirs, "SELECT pg_advisory_unlock(?)", key)
				}
				theirLock <- err
			}()
			require.Eventually(t, locks(fmt.Sprintf("locktype = 'advisory' AND NOT granted AND pid = %d", theirs.PID())), time.Minute, 10*time.Millisecond)
			in.Close(t.Context())
			require.NoError(t, <-ended)
			require.NoError(t, <-theirLock)
			assert.Contains(t, b.log.String(), "letting another tool pass")
			assert.Contains(t, b.log.String(), fmt.Sprintf("pid %d", theirs.PID()))
			assert.Equal(t, "big_n|t", b.query(indexes))
			assert.Equal(t, "2", b.version())
		})
	}
}

func TestNoTransaction(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"1_a.up.sql": "-- a comment\n-- migrate:no-transaction\nSET lock_timeout = '9s';\nCREATE TABLE a (id int);\nINSERT INTO a VALUES (1);\n" +
			"CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO a VALUES (2); COMMIT; END $$;\nCALL p();\nINSERT INTO nowhere VALUES (1);",
	})
	b := newBench(t, dbtest.NewPostgres(t), dir)
	_, err := b.up(0)
	require.ErrorContains(t, err, "1_a.up.sql:8")
	assert.Equal(t, "-1", b.version())
	assert.Equal(t, "1\n2", b.query("SELECT id FROM a ORDER BY id"))
	put(t, dir, map[string]string{"1_a.up.sql": strings.Replace(read(t, dir, "1_a.up.sql"), "INSERT INTO nowhere VALUES (1)", "INSERT INTO a SELECT 3 WHERE current_setting('lock_timeout') = '9s'", 1)})
	_, err = b.up(0)
	require.NoError(t, err)
	assert.Equal(t, "1\n2\n3", b.query("SELECT id FROM a ORDER BY id"), "settings of the session are there again")

	put(t, dir, map[string]string{"2_b.up.sql": "CALL p();"})
	_, err = b.up(0)
	require.Error(t, err)
	put(t, dir, map[string]string{"2_b.up.sql": "CREATE TABLE v (id int);\nVACUUM a;\nALTER SYSTEM SET work_mem = '5MB';\nDO $$ BEGIN END $$;"})
	_, err = b.up(0)
	require.NoError(t, err)
}

func TestErrorsOfPostgreSQL(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		sql  string
		want []string
	}{
		"position":  {"CREATE TABLE a (\n  id int,\n  nam varchar,,\n  x int);", []string{"1_a.up.sql:3: syntax error", "(ERROR 42601)", ": CREATE TABLE a ( id int, nam varchar,, x int)"}},
		"detail":    {"CREATE TABLE a (id int primary key);\nINSERT INTO a\nVALUES (1), (1);", []string{"1_a.up.sql:2:", "Key (id)=(1) already exists"}},
		"at commit": {"CREATE TABLE a (id int primary key, b int REFERENCES a DEFERRABLE INITIALLY DEFERRED);\nINSERT INTO a VALUES (1, 7);", []string{"1_a.up.sql:2: commit: ", "violates foreign key"}},
		"hint":      {"CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;\nCALL p();", []string{"1_a.up.sql:2: invalid transaction termination"}},
		"password":  {"CREATE ROLE x LOGIN PASSWORD 'hunter22' PASSWORD 'hunter22' bogus 'hunter22';", []string{"1_a.up.sql:1:", "PASSWORD '***'"}},
		"lock lost": {"SELECT pg_advisory_unlock_all();", []string{"the lock was lost"}},
		"unended":   {"CREATE TABLE a (id int);\n\nINSERT INTO a VALUES ('x);\n", []string{"1_a.up.sql: line 3: the string that begins here has no end"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, dbtest.NewPostgres(t), write(t, map[string]string{"1_a.up.sql": tt.sql}))
			_, err := b.up(0)
			for _, want := range tt.want {
				require.ErrorContains(t, err, want)
			}
			assert.NotContains(t, err.Error(), "hunter22")
			assert.Equal(t, "-1", b.version())
		})
	}
}

func TestPgBouncer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mode string
		size int
		want string
	}{{"transaction", 20, "transaction mode"}, {"transaction", 1, "transaction mode"}, {"statement", 5, "transaction mode"}, {"session", 20, ""}, {"session", 1, ""}} {
		t.Run(fmt.Sprintf("%s %d", tt.mode, tt.size), func(t *testing.T) {
			t.Parallel()
			direct, err := url.Parse(dbtest.NewPostgres(t))
			require.NoError(t, err)
			b := newBench(t, dbtest.PgBouncer(t, direct.Path[1:], tt.mode, tt.size), write(t, threeFiles))
			_, err = b.up(0)
			if tt.want == "" {
				require.NoError(t, err)
				assert.Contains(t, b.log.String(), "pooler in session mode")
				return
			}
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, "the address of PostgreSQL itself")
			b.options.Database = direct.String()
			assert.Equal(t, "-1", b.version(), "nothing was run")
		})
	}
}

// A connection that is cut loses the migration, whole, and the next run does it.
func TestConnectionIsCut(t *testing.T) {
	t.Parallel()
	target := dbtest.NewPostgres(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	u, err := url.Parse(target)
	require.NoError(t, err)
	cut, host := make(chan struct{}), u.Host
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", host)
			if err != nil {
				client.Close()
				return
			}
			go func() { <-cut; client.Close(); server.Close() }()
			go copyUntilError(server, client)
			go copyUntilError(client, server)
		}
	}()
	u.Host = l.Addr().String()
	dir := write(t, map[string]string{"1_a.up.sql": "CREATE TABLE a (id int);\nSELECT pg_sleep(1000);"})
	b := newBench(t, u.String(), dir)
	direct := newBench(t, target, dir)
	ended := make(chan error, 1)
	go func() { _, err := b.up(0); ended <- err }()
	require.Eventually(t, func() bool {
		return direct.query("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT pg_sleep(1000)'") == "1"
	}, time.Minute, 20*time.Millisecond)
	close(cut)
	err = <-ended
	require.ErrorContains(t, err, "1_a.up.sql:2")
	b = newBench(t, target, dir)
	put(t, dir, map[string]string{"1_a.up.sql": "CREATE TABLE a (id int);"})
	assert.Equal(t, "-1", b.version())
	// The server has found out that nobody waits for the sleep to end.
	_, err = b.up(0)
	require.NoError(t, err)
}

func copyUntilError(to, from net.Conn) {
	buffer := make([]byte, 8192)
	for {
		n, err := from.Read(buffer)
		if _, errWrite := to.Write(buffer[:n]); err != nil || errWrite != nil {
			return
		}
	}
}

// A table in a schema of its own, as golang-migrate spells it.
func TestQuotedTable(t *testing.T) {
	t.Parallel()
	target := dbtest.NewPostgres(t)
	b := newBench(t, target, write(t, threeFiles))
	_ = b.query("CREATE SCHEMA \"My Schema\"")
	b.options.Database += `&x-migrations-table=%22My%20Schema%22.%22the%20versions%22&x-migrations-table-quoted=true&x-multi-statement=true`
	_, err := b.up(0)
	require.NoError(t, err)
	assert.Equal(t, "10|f", b.query(`SELECT version, dirty FROM "My Schema"."the versions"`))
	assert.Equal(t, "3", b.query(`SELECT count(*) FROM "My Schema"."the versions_history"`))
}

func TestStatementTimeout(t *testing.T) {
	t.Parallel()
	for _, target := range []string{dbtest.NewPostgres(t) + "&", mariadbURL(t, dbtest.NewMariaDB(t)) + "?"} {
		slow := "SELECT pg_sleep(100);"
		if strings.HasPrefix(target, "mysql") {
			slow = "SELECT sleep(100);"
		}
		b := newBench(t, target+"x-statement-timeout=300", write(t, map[string]string{"1_a.up.sql": slow}))
		_, err := b.up(0)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "longer than 300ms")
		assert.Equal(t, "-1", b.version())
	}
}
