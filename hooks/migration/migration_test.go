// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// write makes a directory with these files.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, files)
	return dir
}

func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
}

// A buffer is a log that many may write to.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A bench runs commands on one database, each with a connection of its own.
type bench struct {
	t       *testing.T
	options Options
	log     *buffer
}

func newBench(t *testing.T, url, dir string) *bench {
	b := &bench{t: t, log: &buffer{}}
	b.options = Options{
		Database: url, Source: dir, LockTimeout: time.Minute, Heartbeat: 200 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	return b
}

// with opens the database and does something with it.
func (b *bench) with(do func(*Migrator) (Result, error)) (Result, error) {
	m, err := Open(b.t.Context(), b.options)
	if err != nil {
		return Result{}, err
	}
	defer m.Close()
	return do(m)
}

func (b *bench) up(n int) (Result, error) {
	return b.with(func(m *Migrator) (Result, error) { return m.Up(context.WithoutCancel(b.t.Context()), n) })
}

func (b *bench) down(n int) (Result, error) {
	return b.with(func(m *Migrator) (Result, error) { return m.Down(b.t.Context(), n) })
}

func (b *bench) goTo(v int64) (Result, error) {
	return b.with(func(m *Migrator) (Result, error) { return m.Goto(b.t.Context(), v) })
}

func (b *bench) resume(skip bool) (Result, error) {
	return b.with(func(m *Migrator) (Result, error) { return m.Resume(b.t.Context(), skip) })
}

func (b *bench) force(v int64) (Result, error) {
	return b.with(func(m *Migrator) (Result, error) { return m.Force(b.t.Context(), v) })
}

// version is as golang-migrate's table has it: "3", "3 dirty".
func (b *bench) version() string {
	b.t.Helper()
	text := ""
	_, err := b.with(func(m *Migrator) (Result, error) {
		number, dirty, err := m.Version(b.t.Context())
		text = fmt.Sprint(number)
		if dirty {
			text += " dirty"
		}
		return Result{}, err
	})
	require.NoError(b.t, err)
	return text
}

// states are those of the files.
func (b *bench) states() string {
	b.t.Helper()
	var states []string
	_, err := b.with(func(m *Migrator) (Result, error) {
		lines, _, _, err := m.Status(b.t.Context())
		for _, l := range lines {
			states = append(states, fmt.Sprintf("%d:%s", l.Version, l.State))
		}
		return Result{}, err
	})
	require.NoError(b.t, err)
	return strings.Join(states, " ")
}

// query runs a query beside the migrations.
func (b *bench) query(sql string) string {
	b.t.Helper()
	var text []string
	_, err := b.with(func(m *Migrator) (Result, error) {
		rows, err := m.store.query(b.t.Context(), sql)
		for _, r := range rows {
			text = append(text, strings.Join(r, "|"))
		}
		return Result{}, err
	})
	require.NoError(b.t, err)
	return strings.Join(text, "\n")
}

var threeFiles = map[string]string{
	"001_users.up.sql":   "CREATE TABLE users (id int primary key, name varchar(20));\nINSERT INTO users VALUES (1, 'a;b');\n",
	"001_users.down.sql": "DROP TABLE users;",
	"002_roles.sql":      "ALTER TABLE users ADD COLUMN role varchar(50) DEFAULT 'user'; -- no way back\nCREATE INDEX idx_role ON users(role);",
	"010_logs.up.sql":    "CREATE TABLE logs (id int primary key);", "010_logs.down.sql": "DROP TABLE logs;",
	"README.md": "no migration",
}

// on runs a test on each kind of database.
func on(t *testing.T, test func(t *testing.T, url string)) {
	t.Parallel()
	for name, database := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, database(t))
		})
	}
}

func TestUpDownGoto(t *testing.T) {
	on(t, func(t *testing.T, url string) {
		b := newBench(t, url, write(t, threeFiles))
		result, err := b.up(1)
		require.NoError(t, err)
		assert.Equal(t, Result{From: -1, To: 1, Files: []string{"001_users.up.sql"}}, result)
		assert.Equal(t, "1:applied 2:pending 10:pending", b.states())

		result, err = b.up(0)
		require.NoError(t, err)
		assert.Equal(t, Result{From: 1, To: 10, Files: []string{"002_roles.sql", "010_logs.up.sql"}}, result)
		assert.Equal(t, "1|a;b|user", b.query("SELECT id, name, role FROM users"))

		result, err = b.up(0)
		require.NoError(t, err)
		assert.Equal(t, Result{From: 10, To: 10}, result)

		result, err = b.down(1)
		require.NoError(t, err)
		assert.Equal(t, Result{From: 10, To: 2, Files: []string{"010_logs.down.sql"}}, result)
		assert.Equal(t, "1:applied 2:applied 10:pending", b.states())

		_, err = b.down(-1)
		require.ErrorContains(t, err, "002_roles.sql has no way back")
		assert.Equal(t, "2", b.version(), "nothing is run when the whole is not possible")

		_, err = b.goTo(7)
		require.ErrorContains(t, err, "no file for it; it has 1, 2, 10")
		_, err = b.goTo(10)
		require.NoError(t, err)
		assert.Equal(t, "10", b.version())

		_, err = b.force(1)
		require.NoError(t, err)
		assert.Equal(t, "1:applied 2:pending 10:pending", b.states())
		_, err = b.force(-1)
		require.NoError(t, err)
		assert.Equal(t, "-1", b.version())
		_, err = b.force(10)
		require.NoError(t, err)
		assert.Equal(t, "1:applied 2:applied 10:applied", b.states())
	})
}

func TestManyReplicasAtOnce(t *testing.T) {
	on(t, func(t *testing.T, url string) {
		dir := write(t, threeFiles)
		var wait sync.WaitGroup
		ran := make([]int, 10)
		for i := range ran {
			wait.Go(func() {
				b := newBench(t, url, dir)
				result, err := b.up(0)
				assert.NoError(t, err)
				ran[i] = len(result.Files)
				assert.EqualValues(t, 10, result.To)
			})
		}
		wait.Wait()
		total := 0
		for _, n := range ran {
			total += n
		}
		assert.Equal(t, 3, total, "each migration is run once: %v", ran)
	})
}

func TestLateFile(t *testing.T) {
	on(t, func(t *testing.T, url string) {
		dir := write(t, threeFiles)
		b := newBench(t, url, dir)
		_, err := b.up(0)
		require.NoError(t, err)
		put(t, dir, map[string]string{"005_late.up.sql": "CREATE TABLE late (id int);", "011_new.up.sql": "CREATE TABLE new_one (id int);"})
		assert.Equal(t, "1:applied 2:applied 5:late 10:applied 11:pending", b.states())
		_, err = b.up(0)
		require.ErrorContains(t, err, "never applied, although the database is at version 10 already: 005_late.up.sql")
		assert.Equal(t, "10", b.version())
		b.options.OutOfOrder = true
		result, err := b.up(0)
		require.NoError(t, err)
		assert.Equal(t, []string{"005_late.up.sql", "011_new.up.sql"}, result.Files)
		b.options.OutOfOrder = false
		assert.Equal(t, "1:applied 2:applied 5:applied 10:applied 11:applied", b.states())
		assert.Equal(t, "11", b.version())
	})
}

func TestOlderImageAndChangedFile(t *testing.T) {
	on(t, func(t *testing.T, url string) {
		dir := write(t, threeFiles)
		b := newBench(t, url, dir)
		_, err := b.up(0)
		require.NoError(t, err)
		require.NoError(t, os.Remove(filepath.Join(dir, "010_logs.up.sql")))
		require.NoError(t, os.Remove(filepath.Join(dir, "010_logs.down.sql")))
		put(t, dir, map[string]string{"002_roles.sql": "-- rewritten\nSELECT 1;"})
		result, err := b.up(0)
		require.NoError(t, err)
		assert.Empty(t, result.Files)
		assert.Contains(t, b.log.String(), "this image is older than the database")
		assert.Contains(t, b.log.String(), "002_roles.sql has changed since it was applied")
		assert.Equal(t, "1:applied 2:changed", b.states())
		_, err = b.down(1)
		require.ErrorContains(t, err, "version 10, which "+dir+" has no file for")
		b.options.Strict = true
		_, err = b.up(0)
		require.ErrorContains(t, err, "--strict")
	})
}

func TestFailureInTheMiddleOfAFile(t *testing.T) {
	on(t, func(t *testing.T, url string) {
		dir := write(t, map[string]string{
			"1_a.up.sql": "CREATE TABLE a (id int);",
			"2_b.up.sql": "CREATE TABLE b (id int);\n\nINSERT INTO b\n  VALUES (1);\nINSERT INTO nowhere VALUES ('it''s; here');\nCREATE TABLE c (id int);\n",
		})
		b := newBench(t, url, dir)
		_, err := b.up(0)
		var failed *StatementError
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, "2_b.up.sql", failed.File)
		assert.Equal(t, 5, failed.Line)
		assert.Equal(t, "INSERT INTO nowhere VALUES ('it''s; here')", failed.Statement)
		assert.Contains(t, err.Error(), "nowhere")
		if strings.HasPrefix(url, "mysql") {
			assert.Contains(t, err.Error(), "1 of 2 migrations done, the database is dirty at version 2, from where resume goes on")
		} else {
			assert.Contains(t, err.Error(), "1 of 2 migrations done, the database is at version 1")
		}

		put(t, dir, map[string]string{"2_b.up.sql": "CREATE TABLE b (id int);\n\nINSERT INTO b VALUES (1);\nCREATE TABLE c (id int);\n"})
		if !strings.HasPrefix(url, "mysql") {
			assert.Equal(t, "1", b.version(), "rolled back, and not dirty")
			_, err = b.up(0)
			require.NoError(t, err)
			assert.Equal(t, "1", b.query("SELECT count(*) FROM b"))
			return
		}
		assert.Equal(t, "2 dirty", b.version(), "what took effect cannot be rolled back")
		assert.Equal(t, "1:applied 2:incomplete", b.states())
		_, err = b.up(0)
		require.ErrorContains(t, err, "2 of its 4 statements took effect, the next one failed")
		require.ErrorContains(t, err, "then run: resume")
		put(t, dir, map[string]string{"2_b.up.sql": "CREATE TABLE b (id int);\n\nINSERT INTO b VALUES (2);\nCREATE TABLE c (id int);\n"})
		_, err = b.resume(false)
		require.ErrorContains(t, err, "first 2 statements took effect, and have been changed since")
		put(t, dir, map[string]string{"2_b.up.sql": "CREATE TABLE b (id int); -- as it was\nINSERT INTO b\n  VALUES (1);\nCREATE TABLE c (id int);\n"})
		_, err = b.resume(false)
		require.NoError(t, err)
		assert.Equal(t, "2", b.version())
		assert.Equal(t, "1", b.query("SELECT count(*) FROM b"), "no statement was run twice")
		assert.Equal(t, "0", b.query("SELECT count(*) FROM c"))
	})
}

// Where everything in a file can be rolled back, so is everything.
func TestFailureOfDataIsRolledBack(t *testing.T) {
	on(t, func(t *testing.T, url string) {
		b := newBench(t, url, write(t, map[string]string{
			"1_a.up.sql": "CREATE TABLE a (id int);",
			"2_b.up.sql": "INSERT INTO a VALUES (1); INSERT INTO a VALUES (2); INSERT INTO nowhere VALUES (3);",
		}))
		_, err := b.up(0)
		require.Error(t, err)
		assert.Equal(t, "1", b.version())
		assert.Equal(t, "0", b.query("SELECT count(*) FROM a"))
	})
}

// A file with a transaction of its own is still one with its version.
func TestTransactionsInFiles(t *testing.T) {
	on(t, func(t *testing.T, url string) {
		dir := write(t, map[string]string{
			"1_a.up.sql": "CREATE TABLE a (id int);",
			"2_b.up.sql": "BEGIN;\nINSERT INTO a VALUES (1);\nINSERT INTO nowhere VALUES (1);\nCOMMIT;",
		})
		b := newBench(t, url, dir)
		_, err := b.up(0)
		require.Error(t, err)
		assert.Equal(t, "1", b.version())
		assert.Equal(t, "0", b.query("SELECT count(*) FROM a"))

		put(t, dir, map[string]string{"2_b.up.sql": "BEGIN;\nINSERT INTO a VALUES (1);\nCOMMIT;\nSTART TRANSACTION;\nINSERT INTO a VALUES (2);\nCOMMIT;\nBEGIN;\nINSERT INTO nowhere VALUES (1);\nCOMMIT;"})
		if strings.HasPrefix(url, "sqlite") {
			put(t, dir, map[string]string{"2_b.up.sql": "BEGIN;\nINSERT INTO a VALUES (1);\nCOMMIT;\nBEGIN EXCLUSIVE TRANSACTION;\nINSERT INTO a VALUES (2);\nEND;\nBEGIN;\nINSERT INTO nowhere VALUES (1);\nCOMMIT;"})
		}
		_, err = b.up(0)
		require.Error(t, err)
		assert.Equal(t, "1:applied 2:incomplete", b.states())
		assert.Equal(t, "1\n2", b.query("SELECT id FROM a ORDER BY id"), "as the file says: two transactions were complete")
		put(t, dir, map[string]string{"2_b.up.sql": strings.ReplaceAll(read(t, dir, "2_b.up.sql"), "nowhere", "a")})
		_, err = b.with(func(m *Migrator) (Result, error) {
			if strings.HasPrefix(url, "mysql") {
				return m.Resume(t.Context(), false)
			}
			return m.Up(t.Context(), 0)
		})
		require.NoError(t, err)
		assert.Equal(t, "1\n1\n2", b.query("SELECT id FROM a ORDER BY id"))
		assert.Equal(t, "2", b.version())
	})
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return string(text)
}

func TestDirtyByAnotherTool(t *testing.T) {
	on(t, func(t *testing.T, url string) {
		b := newBench(t, url, write(t, threeFiles))
		_, err := b.up(2)
		require.NoError(t, err)
		_, err = b.with(func(m *Migrator) (Result, error) {
			return Result{}, m.store.together(t.Context(), func(ctx context.Context) error { return m.store.setVersion(ctx, 2, true) })
		})
		require.NoError(t, err)
		for _, do := range []func() (Result, error){func() (Result, error) { return b.up(0) }, func() (Result, error) { return b.down(1) }, func() (Result, error) { return b.goTo(10) }, func() (Result, error) { return b.resume(false) }} {
			_, err = do()
			require.ErrorContains(t, err, "dirty at version 2: another tool")
		}
		_, err = b.force(2)
		require.NoError(t, err)
		_, err = b.up(0)
		require.NoError(t, err)
	})
}

// A lock that is held elsewhere is waited for, its holder is named, and with
// nothing to do it is not waited for.
func TestHeldLock(t *testing.T) {
	on(t, func(t *testing.T, url string) {
		dir := write(t, threeFiles)
		b := newBench(t, url, dir)
		_, err := b.up(1)
		require.NoError(t, err)
		other := b.options
		other.Application = "hanging replica"
		holder, err := Open(t.Context(), other)
		require.NoError(t, err)
		ok, err := holder.database.tryLock(t.Context())
		require.NoError(t, err)
		require.True(t, ok)

		b.options.LockTimeout = time.Second
		_, err = b.up(0)
		require.ErrorIs(t, err, ErrLockTimeout)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Contains(t, b.log.String(), "waiting for the lock")
		switch {
		case strings.HasPrefix(url, "postgres"):
			assert.Regexp(t, `held by pid \d+, application hanging replica, client 127.0.0.1, user postgres, state idle, connected since \d+`, err.Error())
		case strings.HasPrefix(url, "mysql"):
			assert.Regexp(t, `held by connection \d+, user root, client localhost, sleep for \d+ s`, err.Error())
		default:
			assert.Contains(t, err.Error(), fmt.Sprintf("held by process %d", os.Getpid()))
		}
		assert.Equal(t, "1", b.version())

		require.NoError(t, os.Remove(filepath.Join(dir, "002_roles.sql")))
		require.NoError(t, os.Remove(filepath.Join(dir, "010_logs.up.sql")))
		require.NoError(t, os.Remove(filepath.Join(dir, "010_logs.down.sql")))
		_, err = b.up(0)
		require.NoError(t, err, "with nothing to do no lock is taken")

		put(t, dir, threeFiles)
		b.options.LockTimeout = time.Minute
		released := time.AfterFunc(500*time.Millisecond, holder.Close)
		defer released.Stop()
		_, err = b.up(0)
		require.NoError(t, err)
	})
}

// A stop cancels the statement on the server.
func TestStop(t *testing.T) {
	slow := map[string]string{
		"postgres": "SELECT pg_sleep(100)",
		"mysql":    "SELECT sleep(100)",
		"sqlite":   "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM r) SELECT count(*) FROM r",
	}
	on(t, func(t *testing.T, url string) {
		scheme, _, _ := strings.Cut(url, ":")
		b := newBench(t, url, write(t, map[string]string{"1_a.up.sql": "CREATE TABLE a (id int);\n" + slow[scheme] + ";\nCREATE TABLE b (id int);"}))
		ctx, stop := context.WithCancelCause(t.Context())
		m, err := Open(ctx, b.options)
		require.NoError(t, err)
		ended := make(chan error, 1)
		go func() { _, err := m.Up(ctx, 0); ended <- err }()
		require.Eventually(t, func() bool { return strings.Contains(b.log.String(), "statement still running") }, time.Minute, 10*time.Millisecond)
		began := time.Now()
		stop(context.Canceled)
		err = <-ended
		m.Close()
		require.ErrorIs(t, err, context.Canceled)
		assert.Contains(t, err.Error(), "1_a.up.sql:2")
		assert.Less(t, time.Since(began), 30*time.Second)
		if scheme == "mysql" {
			assert.Equal(t, "1 dirty", b.version())
			assert.Equal(t, "0", b.query("SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT sleep(100)%'"))
		} else {
			assert.Equal(t, "-1", b.version())
		}
		put(t, b.options.Source, map[string]string{"1_a.up.sql": "CREATE TABLE a (id int);\nCREATE TABLE b (id int);"})
		_, err = b.up(0)
		require.NoError(t, err, "a stop is known to have cancelled the statement, so that the next run goes on")
		assert.Equal(t, "1", b.version())
	})
}

func TestDryRun(t *testing.T) {
	on(t, func(t *testing.T, url string) {
		b := newBench(t, url, write(t, threeFiles))
		var out bytes.Buffer
		b.options.DryRun = &out
		_, err := b.up(0)
		require.NoError(t, err)
		assert.Contains(t, out.String(), "001_users.up.sql (up, to version 1): 2 statements, in")
		assert.Contains(t, out.String(), "  2: INSERT INTO users VALUES (1, 'a;b')\n")
		assert.Equal(t, "-1", b.version())
		b.options.DryRun = nil
		_, err = b.up(0)
		require.NoError(t, err)
		b.options.DryRun, out = &out, bytes.Buffer{}
		_, err = b.up(0)
		require.NoError(t, err)
		assert.Equal(t, "nothing to do at version 10\n", out.String())
	})
}

// What a migration sets for its session is gone for the next one, and for us.
func TestSettingsOfAMigrationEndWithIt(t *testing.T) {
	on(t, func(t *testing.T, url string) {
		scheme, _, _ := strings.Cut(url, ":")
		files := map[string]map[string]string{
			"postgres": {
				"1_a.up.sql": "CREATE ROLE " + lowly(url) + "; CREATE SCHEMA other; SET search_path = other; SET ROLE " + lowly(url) + "; SELECT pg_catalog.set_config('lock_timeout', '77s', false);",
				"2_b.up.sql": "CREATE TABLE seen AS SELECT current_setting('lock_timeout') || current_schema() || current_user AS s;",
			},
			"mysql": {
				"1_a.up.sql": "SET foreign_key_checks = 0; SET sql_mode = 'ANSI_QUOTES'; USE mysql;",
				"2_b.up.sql": "CREATE TABLE seen (s varchar(20)); INSERT INTO seen SELECT CONCAT(@@foreign_key_checks, @@sql_mode LIKE '%ANSI_QUOTES%');",
			},
			"sqlite": {
				"1_a.up.sql": "PRAGMA foreign_keys = ON; CREATE TABLE a (id int);",
				"2_b.up.sql": "CREATE TABLE seen AS SELECT foreign_keys AS s FROM pragma_foreign_keys;",
			},
		}[scheme]
		b := newBench(t, url, write(t, files))
		_, err := b.up(0)
		require.NoError(t, err)
		want := map[string]string{"postgres": "0publicpostgres", "mysql": "ON0", "sqlite": "0"}[scheme]
		assert.Equal(t, want, b.query("SELECT s FROM seen"))
	})
}

// lowly is a role of one test: roles are of the whole server.
func lowly(url string) string {
	return "lowly_" + url[strings.LastIndex(url, "/")+1:][:2] + strings.NewReplacer("?", "", "=", "", "/", "").Replace(url[len(url)-20:])
}

func TestFiles(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files map[string]string
		want  string
	}{
		"none":           {map[string]string{"readme.txt": "", "init.sql": ""}, "not recognised: init.sql"},
		"twice":          {map[string]string{"1_a.up.sql": "", "01_b.up.sql": ""}, "two files for version 1 up"},
		"two forms":      {map[string]string{"1_a.up.sql": "", "1_a.sql": ""}, "two files for version 1 up"},
		"goose":          {map[string]string{"1_a.sql": "-- +goose Up\nCREATE TABLE a (id int);\n-- +goose Down\nDROP TABLE a;"}, "another tool's format"},
		"dbmate":         {map[string]string{"1_a.sql": "-- migrate:up\nCREATE TABLE a (id int);\n-- migrate:down\nDROP TABLE a;"}, "split it into 1_a.up.sql and 1_a.down.sql"},
		"too large":      {map[string]string{"18446744073709551615_a.up.sql": ""}, "too large"},
		"several faults": {map[string]string{"1_a.up.sql": "", "01_b.up.sql": "", "99999999999999999999_a.sql": ""}, "value out of range"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := readFiles(write(t, tt.files))
			require.ErrorContains(t, err, tt.want)
		})
	}
	_, err := readFiles("/nowhere")
	require.ErrorContains(t, err, "read migrations: open /nowhere")
	_, err = readFiles("s3://bucket/x")
	require.ErrorContains(t, err, "only directories are read")
}

// As the kubelet mounts a ConfigMap.
func configMap(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "..2026_01_01"), 0o755))
	put(t, filepath.Join(dir, "..2026_01_01"), files)
	require.NoError(t, os.Symlink("..2026_01_01", filepath.Join(dir, "..data")))
	for name := range files {
		require.NoError(t, os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
	}
	return dir
}

func TestConfigMap(t *testing.T) {
	t.Parallel()
	b := newBench(t, "sqlite://"+filepath.Join(t.TempDir(), "app.db"), "file://"+configMap(t, threeFiles))
	_, err := b.up(0)
	require.NoError(t, err)
	assert.Equal(t, "10", b.version())
}

func TestPipeAmongTheFiles(t *testing.T) {
	t.Parallel()
	dir := write(t, threeFiles)
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "99_pipe.up.sql"), 0o600))
	_, err := readFiles(dir)
	require.EqualError(t, err, "migration "+dir+"/99_pipe.up.sql is not a regular file")
}

// Something else may listen there, and greet with less than a MySQL server has
// to say.
func TestNoMySQLServer(t *testing.T) {
	t.Parallel()
	for _, greeting := range []string{"\x01\x00\x00\x00\x0a", "\x05\x00\x00\x00\x0a5.5.5", "SSH-2.0-OpenSSH\r\n"} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Write([]byte(greeting))
				conn.Close()
			}
		}()
		url := "mysql://app:hunter22@tcp(" + listener.Addr().String() + ")/app"
		_, err = Open(t.Context(), Options{Source: write(t, threeFiles), Database: url, Log: slog.New(slog.DiscardHandler)})
		var connect *ConnectError
		require.ErrorAs(t, err, &connect, "%q", greeting)
		assert.False(t, connect.Permanent, "it may be replaced by one")
	}
}

func TestPasswordsAreEscaped(t *testing.T) {
	t.Parallel()
	for rest, want := range map[string]string{
		"u:p@h:1/d?a=b@c":       "u:p@h:1/d?a=b@c",
		"u:p%40q@h/d":           "u:p%40q@h/d",
		"u:p@q@h/d?x=1":         "u:p%40q@h/d?x=1",
		"u:a/b?c#d%zz@h/d?x=1":  "u:a%2Fb%3Fc%23d%25zz@h/d?x=1",
		"u:ä@@h":                "u:%C3%A4%40@h",
		"u@h/d":                 "u@h/d",
		"/d?host=/run/postgres": "/d?host=/run/postgres",
		"u:p@h1:1,h2:2/d":       "u:p@h1:1,h2:2/d",
		"u:12/a@h:1/d":          "u:12%2Fa@h:1/d",
		"u:12?a@h:1/d":          "u:12%3Fa@h:1/d",
		"h:1/d%40d":             "h:1/d%40d",
	} {
		assert.Equal(t, want, escapePassword(rest))
	}
}
