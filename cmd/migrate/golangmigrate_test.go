// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/integration/dbtest"
)

// golangMigrate is their own command, built from the version that we use of
// their library, in a module of its own: it needs modules that we don't.
var golangMigrate = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "golang-migrate-")
	if err != nil {
		return "", err
	}
	dbtest.Remove(dir)
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join("..", "..", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o644)
		}
		if err != nil {
			return "", err
		}
	}
	program := filepath.Join(dir, "golang-migrate")
	build := exec.Command("go", "build", "-mod=mod", "-tags", "pgx5,mysql,sqlite", "-o", program, "github.com/golang-migrate/migrate/v4/cmd/migrate")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return string(out), err
	}
	return program, nil
})

func theirs(t *testing.T) string {
	t.Helper()
	program, err := golangMigrate()
	if err != nil {
		t.Skipf("golang-migrate's command could not be built, which needs the module proxy: %v: %s", err, program)
	}
	return program
}

// A database can go back and forth between their command and ours.
func TestHalfByGolangMigrate(t *testing.T) {
	t.Parallel()
	program := theirs(t)
	for name, database := range map[string]func(t *testing.T) string{
		"postgres": func(t *testing.T) string { return strings.Replace(dbtest.NewPostgres(t), "postgres:", "pgx5:", 1) },
		"mariadb": func(t *testing.T) string {
			name := dbtest.NewMariaDB(t)
			return "mysql://root@unix(" + dbtest.MariaDB(t).Socket() + ")/" + name
		},
		"sqlite": func(t *testing.T) string { return "sqlite://" + filepath.Join(t.TempDir(), "app.db") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := database(t)
			dir := write(t, t.TempDir(), files)
			write(t, dir, map[string]string{
				"003_c.up.sql": "CREATE TABLE c (id int);\nINSERT INTO c VALUES (1);", "003_c.down.sql": "DROP TABLE c;",
				"004_d.up.sql": "CREATE TABLE d (id int);", "004_d.down.sql": "DROP TABLE d;",
			})
			their := func(args ...string) string {
				t.Helper()
				out, err := exec.Command(program, append([]string{"-path", dir, "-database", db}, args...)...).CombinedOutput()
				require.NoError(t, err, "%v: %s", args, out)
				return strings.TrimSpace(string(out))
			}
			ours := func(args ...string) string {
				t.Helper()
				code, stdout, stderr := migrate(nil, append([]string{"-path", dir, "-database", db}, args...)...)
				require.Equal(t, 0, code, "%v: %s", args, stderr)
				return strings.TrimSpace(stdout)
			}
			their("up", "1")
			assert.Equal(t, "1", ours("version"))
			ours("up", "1")
			assert.Equal(t, "2", their("version"))
			their("up")
			assert.Equal(t, "4", ours("version"))
			ours("down", "1")
			their("down", "1")
			ours("goto", "1")
			assert.Equal(t, "1", their("version"))
			ours("up", "2")
			their("up")
			ours("up")
			assert.NotContains(t, ours("status"), "pending")
			their("down", "-all")
			assert.Equal(t, "none", ours("version"))
			ours("up")
			assert.Equal(t, "4", their("version"))
			their("force", "2")
			assert.Equal(t, "2", ours("version"))
			ours("force", "4")
			// What they have applied is known to be applied from now on.
			write(t, dir, map[string]string{"000_late.up.sql": "SELECT 1;", "005_new.up.sql": "SELECT 1;"})
			code, _, stderr := migrate(nil, "-path", dir, "-database", db, "up")
			assert.Equal(t, 125, code)
			assert.Contains(t, stderr, "never applied, although the database is at version 4 already: 000_late.up.sql")
		})
	}
}

// Replicas of both, started together, keep each other out.
func TestReplicasOfBoth(t *testing.T) {
	t.Parallel()
	program := theirs(t)
	db := dbtest.NewPostgres(t)
	dir := write(t, t.TempDir(), map[string]string{
		"001_a.up.sql": "CREATE TABLE a (id int); SELECT pg_sleep(0.3);", "002_b.up.sql": "INSERT INTO a VALUES (1); SELECT pg_sleep(0.3);", "003_c.up.sql": "INSERT INTO a VALUES (2);",
	})
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			out, err := exec.Command(program, "-path", dir, "-database", strings.Replace(db, "postgres:", "pgx5:", 1), "up").CombinedOutput()
			assert.NoError(t, err, "%s", out)
		})
		wait.Go(func() {
			code, _, stderr := migrate(nil, "-path", dir, "-database", db, "up")
			assert.Equal(t, 0, code, stderr)
		})
	}
	wait.Wait()
	u, _ := url.Parse(db)
	assert.Equal(t, "1\n2", dbtest.Postgres(t).Psql(t, u.Path[1:], "SELECT id FROM a ORDER BY id"))
}
