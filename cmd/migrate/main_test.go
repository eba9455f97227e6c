// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/cli"
	"github.com/cleanstart-dev/cleanimg-init/integration/dbtest"
)

// The test binary is the tool itself when this variable is set.
const role = "RUN_MIGRATE"

func TestMain(m *testing.M) {
	if os.Getenv(role) != "" {
		cli.Main(tool())
	}
	os.Exit(dbtest.Main(m))
}

// patience bounds every wait for something that should happen soon.
const patience = time.Minute

// migrate runs the tool in this process.
func migrate(environ []string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = tool().Execute(append([]string{"migrate"}, args...), environ, nil, &out, &err)
	return code, out.String(), err.String()
}

// command is the tool as a process of its own.
func command(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = []string{role + "=1"}
	return cmd
}

func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return dir
}

var files = map[string]string{
	"001_a.up.sql": "CREATE TABLE a (id int);", "001_a.down.sql": "DROP TABLE a;",
	"002_b.up.sql": "CREATE TABLE b (id int);", "002_b.down.sql": "DROP TABLE b;",
}

// Everything that golang-migrate takes, and what the product's page has.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	dir := write(t, t.TempDir(), files)
	db := "sqlite://" + filepath.Join(t.TempDir(), "app.db")
	secret := filepath.Join(t.TempDir(), "url")
	require.NoError(t, os.WriteFile(secret, []byte(db+"\n"), 0o600))
	steps := []struct {
		args    []string
		environ []string
		version string
	}{
		{args: []string{"-source", "file://" + dir, "-database", db, "-lock-timeout", "15", "-prefetch", "10", "-verbose", "up", "1"}, version: "1"},
		{args: []string{"-path", dir, "-database", db, "goto", "2"}, version: "2"},
		{args: []string{"--path=" + dir, "--database=" + db, "down", "1"}, version: "1"},
		{args: []string{"-path", dir, "-database", db, "down", "-all"}, version: "none"},
		{args: []string{"--source", dir, "--direction", "up"}, environ: []string{"DATABASE_URL=" + db}, version: "3"},
		{args: []string{"-path", dir, "-database", db, "force", "1"}, version: "1"},
		{args: []string{"-path", dir, "-database", db, "force", "--", "-1"}, version: "none"},
		{args: []string{"force", "2"}, environ: []string{"MIGRATE_PATH=" + dir, "DATABASE_URL_FILE=" + secret}, version: "2"},
		{args: []string{"--path", dir, "--direction=down", "2"}, environ: []string{"MIGRATE_DATABASE=" + db, "DATABASE_URL=postgres://nowhere"}, version: "none"},
		{args: []string{"--up"}, environ: []string{"MIGRATE_PATH=" + dir, "MIGRATE_DATABASE_FILE=" + secret}, version: "3"},
		{args: []string{"--up"}, environ: []string{"MIGRATE_PATH=" + dir, "DATABASE_URL= " + db + "\r\n"}, version: "3"},
	}
	for i, s := range steps {
		if i == 4 {
			write(t, dir, map[string]string{"003_c.up.sql": "CREATE TABLE c (id int);", "003_c.down.sql": "DROP TABLE c;"})
		}
		if i == 7 || i == 9 { // what was forced is not there
			require.NoError(t, os.Remove(strings.TrimPrefix(db, "sqlite://")))
		}
		if i == 8 {
			require.NoError(t, os.Remove(strings.TrimPrefix(db, "sqlite://")))
			code, _, stderr := migrate(nil, "--path", dir, "--database", db, "up", "2")
			require.Equal(t, 0, code, stderr)
		}
		code, _, stderr := migrate(s.environ, s.args...)
		require.Equal(t, 0, code, "%v: %s", s.args, stderr)
		code, stdout, stderr := migrate(nil, "-path", dir, "-database", db, "version")
		require.Equal(t, 0, code, stderr)
		assert.Equal(t, s.version+"\n", stdout, "%v", s.args)
	}
	code, stdout, _ := migrate(nil, "-path", dir, "-database", db, "status")
	assert.Equal(t, 0, code)
	assert.Regexp(t, `(?m)^3 +003_c\.up\.sql +applied +20\S+Z`, stdout)
	assert.Contains(t, stdout, "database version: 3\n")
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	dir := write(t, t.TempDir(), files)
	db := "sqlite://" + filepath.Join(t.TempDir(), "app.db")
	tests := map[string]struct {
		args []string
		want string
	}{
		"no command":       {nil, "no command: accepted are up [N], down N"},
		"unknown":          {[]string{"sideways"}, `unknown command "sideways"`},
		"drop":             {[]string{"drop"}, "drop: not for a container's start"},
		"down":             {[]string{"down"}, "down: give N, how many migrations to take back, or --all"},
		"down -1":          {[]string{"down", "--", "-1"}, `down "-1": accepted is N`},
		"down both":        {[]string{"down", "1", "--all"}, "only one of them can be meant"},
		"up all":           {[]string{"up", "--all"}, "up applies all of them by itself"},
		"goto":             {[]string{"goto", "x"}, `goto "x": accepted is V`},
		"too much":         {[]string{"up", "1", "2"}, `unexpected word "2"`},
		"direction":        {[]string{"--direction", "left"}, `--direction "left": accepted are up and down`},
		"two directions":   {[]string{"--up", "--direction", "down"}, "only one of them can be meant"},
		"no such option":   {[]string{"-lock", "up"}, "see --help"},
		"not a duration":   {[]string{"-lock-timeout", "soon", "up"}, `option --lock-timeout "soon"`},
		"skip":             {[]string{"up", "--skip-statement"}, "only with resume"},
		"password file":    {[]string{"--password-file", "/nowhere", "up"}, "open /nowhere"},
		"source and path":  {[]string{"--path", dir, "--source", dir, "up"}, "--source and --path are both set"},
		"no such version":  {[]string{"--path", dir, "goto", "9"}, "version 9: " + dir + " has no file for it; it has 1, 2"},
		"no such database": {[]string{"--path", dir, "--database", "oracle://u:hunter22@h/d", "up"}, "database scheme oracle://: accepted are postgres"},
		"x- parameters":    {[]string{"--path", dir, "--database", "postgres://u:hunter22@h/d?x-lock-strategy=table", "up"}, "x-lock-strategy is not supported for PostgreSQL"},
		"a bad port":       {[]string{"--path", dir, "--database", "postgres://u:hunter22@h:hunter22/d", "up"}, "the database URL is not valid"},
		"no such CA":       {[]string{"--path", dir, "--database", "postgres://u:hunter22@h/d?sslrootcert=/tls/ca.pem", "up"}, "unable to read CA file: open /tls/ca.pem: no such file"},
		"sslmode":          {[]string{"--path", dir, "--database", "postgres://u:hunter22@h/d?sslmode=always", "up"}, "PGSSLMODE and the like): failed to configure TLS (sslmode is invalid)"},
		"MySQL's timeout":  {[]string{"--path", dir, "--database", "mysql://u:hunter22@h/d?parseTime=true&timeout=5&tls=hunter22", "up"}, "after the ?: not valid is timeout, tls; values"},
		"MySQL's password": {[]string{"--path", dir, "--database", "mysql://u:hun?hunter22=1@h/d?timeout=5", "up"}, "after the ?: not valid is timeout; values"},
		"and its rest":     {[]string{"--path", dir, "--database", "mysql://u:p/w?hunter22@h/d", "up"}, "the database URL is not valid"},
		"bad port of two":  {[]string{"--path", dir, "--database", "postgres://u:hunter22@h:1,h:hunter22/d", "up"}, "the database URL is not valid"},
		"no scheme":        {[]string{"--path", dir, "--database", "hunter22", "up"}, "has no scheme"},
		"no source":        {[]string{"--path", "/nowhere", "up"}, "open /nowhere"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			environ := []string{"DATABASE_URL=" + db}
			code, stdout, stderr := migrate(environ, tt.args...)
			assert.Equal(t, 125, code)
			assert.Empty(t, stdout)
			assert.Contains(t, stderr, tt.want)
			assert.NotContains(t, stderr, "hunter22")
		})
	}
	code, _, stderr := migrate(nil, "--path", dir, "up")
	assert.Equal(t, 125, code)
	assert.Contains(t, stderr, "no database: give --database, MIGRATE_DATABASE or DATABASE_URL")
}

// A password gets to the server from wherever it may come, and to no message.
func TestPasswords(t *testing.T) {
	t.Parallel()
	db := dbtest.NewPostgres(t)
	u, err := url.Parse(db)
	require.NoError(t, err)
	name := u.Path[1:]
	const password = "p@ss:w/rd?#%zz hunter22"
	dbtest.Postgres(t).Psql(t, name, "SET password_encryption = 'scram-sha-256'; CREATE ROLE secretive LOGIN PASSWORD '"+password+"'; GRANT ALL ON SCHEMA public TO secretive")
	dbtest.Postgres(t).AskPassword(t, "secretive")
	dir := write(t, t.TempDir(), files)
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
	without := "postgres://secretive@" + u.Host + u.Path + "?sslmode=disable"
	good := map[string]struct{ environ, args []string }{
		"as it is":        {nil, []string{"--database", "postgresql://secretive:" + password + "@" + u.Host + u.Path + "?sslmode=disable"}},
		"encoded":         {nil, []string{"--database", "pgx5://secretive:" + url.QueryEscape(strings.ReplaceAll(password, " ", "\x00")) + "@" + u.Host + u.Path + "?sslmode=disable"}},
		"PGPASSWORD":      {[]string{"PGPASSWORD=" + password, "DATABASE_URL=" + without}, nil},
		"PGPASSWORD_FILE": {[]string{"PGPASSWORD_FILE=" + file, "MIGRATE_DATABASE=" + without}, nil},
		"--password-file": {nil, []string{"--database", strings.Replace(without, "secretive", "secretive:wrong", 1), "-password-file", file}},
	}
	for name, tt := range good {
		t.Run(name, func(t *testing.T) {
			for i, arg := range tt.args {
				tt.args[i] = strings.ReplaceAll(arg, "%00", "%20")
			}
			code, _, stderr := migrate(tt.environ, append(tt.args, "--path", dir, "up")...)
			assert.Equal(t, 0, code, stderr)
			assert.NotContains(t, stderr, "hunter22")
		})
	}
	code, _, stderr := migrate([]string{"PGPASSWORD=hunter22wrong"}, "--database", without, "--path", dir, "--wait", "1m", "up")
	assert.Equal(t, 125, code, "a wrong password does not get better")
	assert.Contains(t, stderr, "password authentication failed")
	assert.NotContains(t, stderr, "hunter22")
	assert.NotContains(t, stderr, "none was given")
	code, _, stderr = migrate(nil, "--database", without, "--path", dir, "up")
	assert.Equal(t, 125, code)
	assert.Contains(t, stderr, "(none was given: the URL, --password-file or PGPASSWORD may have it)")
}

// The pod's status says in one line which statement failed.
func TestFailure(t *testing.T) {
	t.Parallel()
	dir := write(t, t.TempDir(), map[string]string{"001_a.up.sql": "CREATE TABLE a (id int);\nINSERT INTO a\nVALUES ('x');"})
	code, stdout, stderr := migrate(nil, "--database", dbtest.NewPostgres(t), "--path", dir, "up")
	assert.Equal(t, 125, code)
	assert.Empty(t, stdout)
	assert.Equal(t, "migrate: 001_a.up.sql:3: invalid input syntax for type integer: \"x\" (ERROR 22P02): INSERT INTO a VALUES ('x'); 0 of 1 migrations done, the database is at version -1\n", stderr)
}

// waitFor waits for a condition.
func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, 10*time.Millisecond, what)
}

// TERM in the middle of a statement: it is cancelled on the server, the lock is
// free at once, the exit code is 143, the next run succeeds.
func TestTerm(t *testing.T) {
	t.Parallel()
	db := dbtest.NewPostgres(t)
	u, _ := url.Parse(db)
	pg, name := dbtest.Postgres(t), u.Path[1:]
	dir := write(t, t.TempDir(), map[string]string{"001_a.sql": "CREATE TABLE a (id int);", "002_b.sql": "CREATE TABLE b (id int);\nSELECT pg_sleep(1000);"})
	cmd := command("--database", db, "--path", dir, "up")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	const sleeping = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(1000)' AND datname = current_database()"
	waitFor(t, "it sleeps", func() bool { return pg.Psql(t, name, sleeping) == "1" })
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	_ = cmd.Wait()
	assert.Equal(t, 143, cmd.ProcessState.ExitCode(), stderr.String())
	assert.Contains(t, stderr.String(), "migrate: stopped by SIGTERM\n")
	assert.Contains(t, stderr.String(), "002_b.sql:2: cancelled on the server: ")
	assert.Contains(t, stderr.String(), "1 of 2 migrations done, the database is at version 1")
	waitFor(t, "nothing of it is left", func() bool {
		return pg.Psql(t, name, sleeping) == "0" && pg.Psql(t, name, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") == "0"
	})
	assert.Equal(t, "1|f", pg.Psql(t, name, "SELECT version, dirty FROM schema_migrations"))
	write(t, dir, map[string]string{"002_b.sql": "CREATE TABLE b (id int);"})
	code, _, out := migrate(nil, "--database", db, "--path", dir, "up")
	assert.Equal(t, 0, code, out)
}

// While a lock holder hangs, the exit code is that of a timeout, and it is named.
func TestLockTimeout(t *testing.T) {
	t.Parallel()
	db := dbtest.NewPostgres(t)
	u, _ := url.Parse(db)
	dir := write(t, t.TempDir(), map[string]string{"001_a.sql": "SELECT pg_sleep(1000);"})
	cmd := command("--database", db+"&application_name=web-7", "--path", dir, "up")
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	waitFor(t, "it sleeps", func() bool {
		return dbtest.Postgres(t).Psql(t, u.Path[1:], "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000);' OR query = 'SELECT pg_sleep(1000)' AND datname = current_database()") == "1"
	})
	code, _, stderr := migrate(nil, "--database", db, "--path", dir, "-lock-timeout", "1", "up")
	assert.Equal(t, 124, code)
	assert.Contains(t, stderr, "waited 1s; it is held by pid ")
	assert.Contains(t, stderr, "application web-7")
}

// The database comes up while it is waited for.
func TestWait(t *testing.T) {
	t.Parallel()
	port, err := dbtest.FreePort()
	require.NoError(t, err)
	dir := write(t, t.TempDir(), files)
	nowhere := fmt.Sprintf("postgres://postgres@127.0.0.1:%d/app?sslmode=disable", port)
	code, _, stderr := migrate(nil, "--database", nowhere, "--path", dir, "up")
	assert.Equal(t, 125, code)
	assert.Contains(t, stderr, fmt.Sprintf("connect to PostgreSQL at 127.0.0.1:%d", port))
	code, _, stderr = migrate(nil, "--database", nowhere, "--path", dir, "--wait", "1s", "up")
	assert.Equal(t, 124, code)
	assert.Contains(t, stderr, "the database was not up within 1s")
	assert.Contains(t, stderr, fmt.Sprintf("connect to PostgreSQL at 127.0.0.1:%d", port))

	db := dbtest.NewPostgres(t)
	u, _ := url.Parse(db)
	u.Path = "/later_" + u.Path[1:]
	time.AfterFunc(time.Second, func() { dbtest.Postgres(t).Psql(t, "postgres", "CREATE DATABASE "+u.Path[1:]) })
	code, _, stderr = migrate(nil, "--database", u.String(), "--path", dir, "--wait", "1m", "up")
	assert.Equal(t, 0, code, stderr)
}

// The URL may be the application's, with what is for its own client.
func TestApplicationsURL(t *testing.T) {
	t.Parallel()
	db := dbtest.NewPostgres(t) + "&keepalives=1&gssencmode=disable&fallback_application_name=shop&binary_parameters=yes&pool_max_conns=3&default_query_exec_mode=exec"
	code, _, stderr := migrate(nil, "--database", db, "--path", write(t, t.TempDir(), files), "up")
	assert.Equal(t, 0, code, stderr)
}
