// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/integration/dbtest"
)

var kills = flag.Int("kills", 4, "stop and kill a migration `N` times at random moments, on each database")

// A victim is a database in which migrations are killed.
type victim struct {
	url   string
	dir   string
	count func(sql string) string
	sqlDB bool // DDL cannot be rolled back
}

// TERM and KILL at random moments: the database is at a whole version, what is
// there is what the version says, and the next run completes it.
func TestKilledAtRandomMoments(t *testing.T) {
	t.Parallel()
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		db := dbtest.NewPostgres(t)
		u, _ := url.Parse(db)
		const pause = "SELECT pg_sleep(0.02);\n"
		v := victim{url: db, dir: t.TempDir(), count: func(sql string) string { return dbtest.Postgres(t).Psql(t, u.Path[1:], sql) }}
		for i := 1; i <= 6; i++ {
			body := fmt.Sprintf("CREATE TABLE m%[1]d (id int);\nINSERT INTO m%[1]d VALUES (1);\n%[2]sINSERT INTO m%[1]d VALUES (2);\n%[2]sINSERT INTO m%[1]d VALUES (3);\n", i, pause)
			if i == 3 || i == 6 {
				body += fmt.Sprintf("CREATE INDEX CONCURRENTLY i%[1]d ON m%[1]d (id);\nINSERT INTO m%[1]d VALUES (4);\nDROP INDEX CONCURRENTLY i%[1]d;\n", i)
			}
			v.file(t, i, body)
		}
		v.kill(t)
	})
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "app.db")
		v := victim{url: "sqlite://" + file, dir: t.TempDir(), count: func(query string) string { return sqliteQuery(t, file, query) }}
		for i := 1; i <= 6; i++ {
			v.file(t, i, fmt.Sprintf("CREATE TABLE m%[1]d (id int);\nINSERT INTO m%[1]d VALUES (1);\n"+
				"INSERT INTO m%[1]d SELECT 2 FROM (WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM r WHERE i < 3000) SELECT count(*) FROM r);\nINSERT INTO m%[1]d VALUES (3);\n", i))
		}
		v.kill(t)
	})
	t.Run("mariadb", func(t *testing.T) {
		t.Parallel()
		name := dbtest.NewMariaDB(t)
		server := dbtest.MariaDB(t)
		v := victim{url: "mysql://root@unix(" + server.Socket() + ")/" + name, dir: t.TempDir(), sqlDB: true, count: func(sql string) string { return server.Mariadb(t, name, sql) }}
		for i := 1; i <= 6; i++ {
			v.file(t, i, fmt.Sprintf("CREATE TABLE m%[1]d (id int);\nINSERT INTO m%[1]d VALUES (1);\nSELECT sleep(0.02);\nALTER TABLE m%[1]d ADD COLUMN x int;\n"+
				"INSERT INTO m%[1]d (id) VALUES (2);\nSELECT sleep(0.02);\nINSERT INTO m%[1]d (id) VALUES (3);\nCREATE INDEX i%[1]d ON m%[1]d (id);\n", i))
		}
		v.kill(t)
	})
}

func (v victim) file(t *testing.T, number int, body string) {
	t.Helper()
	write(t, v.dir, map[string]string{
		fmt.Sprintf("%d_m.up.sql", number):   body,
		fmt.Sprintf("%d_m.down.sql", number): fmt.Sprintf("DROP TABLE m%d;", number),
	})
}

// run runs the tool as a process and sends it a signal after a while.
func (v victim) run(t *testing.T, after time.Duration, sig syscall.Signal) (code int, stderr string) {
	t.Helper()
	cmd := command("--path", v.dir, "--database", v.url, "up")
	var text bytes.Buffer
	cmd.Stderr = &text
	require.NoError(t, cmd.Start())
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Signal(sig) })
	defer timer.Stop()
	_ = cmd.Wait()
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signaled() {
		return 128 + int(s.Signal()), text.String()
	}
	return cmd.ProcessState.ExitCode(), text.String()
}

func (v victim) kill(t *testing.T) {
	began := time.Now()
	code, stderr := v.run(t, patience, syscall.SIGKILL)
	require.Equal(t, 0, code, stderr)
	whole := time.Since(began)
	codes := map[int]int{}
	for range *kills {
		code, _, stderr := migrate(nil, "--path", v.dir, "--database", v.url, "down", "--all")
		require.Equal(t, 0, code, stderr)
		sig := syscall.SIGTERM
		if rand.N(2) == 0 {
			sig = syscall.SIGKILL
		}
		code, stderr = v.run(t, rand.N(whole), sig)
		codes[code]++
		require.Contains(t, []int{0, 128 + int(sig)}, code, stderr)
		v.wholeVersion(t, stderr)
		code, _, again := migrate(nil, "--path", v.dir, "--database", v.url, "up")
		if v.sqlDB && code != 0 && sig == syscall.SIGKILL {
			require.Contains(t, again, "then run: resume")
			code, _, again = migrate(nil, "--path", v.dir, "--database", v.url, "resume")
			require.Equal(t, 0, code, again)
			code, _, again = migrate(nil, "--path", v.dir, "--database", v.url, "up")
		}
		require.Equal(t, 0, code, "after %s: %s\nwhich had said: %s", sig, again, stderr)
		for i := 1; i <= 6; i++ {
			want := "3"
			if !v.sqlDB && strings.HasPrefix(v.url, "postgres") && i%3 == 0 {
				want = "4"
			}
			require.Equal(t, want, v.count(fmt.Sprintf("SELECT count(*) FROM m%d", i)), "m%d is whole, and nothing was run twice\n%s\n%s", i, stderr, again)
		}
		require.Equal(t, "6", v.count("SELECT version FROM schema_migrations"))
	}
	t.Logf("exit codes: %v", codes)
}

// wholeVersion looks at a database where a migration was just killed.
func (v victim) wholeVersion(t *testing.T, stderr string) {
	t.Helper()
	if v.sqlDB {
		return
	}
	code, stdout, again := migrate(nil, "--path", v.dir, "--database", v.url, "version")
	require.Equal(t, 0, code, again)
	assert.NotContains(t, stdout, "dirty", stderr)
}

// sqliteQuery asks with a connection of its own.
func sqliteQuery(t *testing.T, file, query string) string {
	t.Helper()
	db, err := openSQLite(file)
	require.NoError(t, err)
	defer db.Close()
	var text string
	require.NoError(t, db.QueryRow(query).Scan(&text))
	return text
}

func openSQLite(file string) (*sql.DB, error) {
	return sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)")
}
