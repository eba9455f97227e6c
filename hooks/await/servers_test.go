// SPDX-License-Identifier: Apache-2.0

package await

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// patience bounds every wait for something that should happen soon. It is
// long, because a loaded machine is no reason to fail.
const patience = time.Minute

const password = "s3cr3t/pass word#1"

// nobody is who runs the servers that refuse to be root.
const nobodyID = 65534

func TestMain(m *testing.M) {
	if role := os.Getenv("AWAIT_TEST_ROLE"); role != "" {
		os.Exit(roles[role]())
	}
	code := m.Run()
	shared.stop()
	os.Exit(code)
}

// shared are the servers that several tests use. They live until the last test
// has ended.
var shared servers

type servers struct {
	mu      sync.Mutex
	cleanup []func()
}

func (s *servers) later(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanup = append(s.cleanup, f)
}

func (s *servers) stop() {
	for _, f := range s.cleanup {
		f()
	}
}

// scratch is a directory of a server's own, which nobody may write to.
func scratch(later func(func())) (string, error) {
	dir, err := os.MkdirTemp("", "await-")
	if err != nil {
		return "", err
	}
	later(func() { os.RemoveAll(dir) })
	if os.Geteuid() == 0 {
		return dir, os.Chown(dir, nobodyID, nobodyID)
	}
	return dir, nil
}

// command is a program that runs as nobody in dir, and dies with us.
func command(dir, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/usr/lib/postgresql/15/bin", "HOME=" + dir, "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobodyID, Gid: nobodyID}
	}
	return cmd
}

// start starts a server. What it writes is returned as it comes.
func start(cmd *exec.Cmd, later func(func())) (*syncBuffer, error) {
	out := &syncBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second // one that PostgreSQL started may spin for minutes on a lock of one that was killed
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	later(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	return out, nil
}

// installed finds a server, or skips the test.
func installed(t *testing.T, name string) string {
	t.Helper()
	if filepath.IsAbs(name) {
		_, err := os.Stat(name)
		if err != nil {
			t.Skipf("%s is not installed", name)
		}
		return name
	}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/lib/postgresql/15/bin") {
		if path := filepath.Join(dir, name); exec.Command("test", "-x", path).Run() == nil {
			return path
		}
	}
	t.Skipf("%s is not installed", name)
	return ""
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// freePort is one on which nobody listens now.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// listen is a server whose every connection is given to serve.
func listen(t *testing.T, serve func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var serving sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			serving.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	return l.Addr().String()
}

// ask asks a service once. The environment is only what is given.
func ask(t *testing.T, url string, environ ...string) error {
	t.Helper()
	s, err := Parse(url, environ, Schemes(new(reaper.Reaper)))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	rep := Run(ctx, []Service{s}, Options{Once: true, TryTimeout: patience})
	return rep.Err()
}

// become waits for a service of the test's own.
func become(url string, environ ...string) error {
	s, err := Parse(url, environ, Schemes(new(reaper.Reaper)))
	if err != nil {
		return err
	}
	return Run(context.Background(), []Service{s}, Options{Timeout: patience}).Err()
}

// A sqlServer is a running database with a user "app" and the password.
type sqlServer struct {
	port string
	dir  string
}

// postgres is a PostgreSQL with scram-sha-256. Tests don't change it.
var postgres = sync.OnceValues(func() (sqlServer, error) {
	dir, err := scratch(shared.later)
	if err != nil {
		return sqlServer{}, err
	}
	if err := initPostgres(dir); err != nil {
		return sqlServer{}, err
	}
	port, _, err := startPostgres(dir, shared.later)
	if err != nil {
		return sqlServer{}, err
	}
	if err := become("postgres://127.0.0.1:" + port); err != nil {
		return sqlServer{}, err
	}
	psql := command(dir, "psql", "-h", dir, "-p", port, "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c", `
		CREATE ROLE app LOGIN PASSWORD '`+password+`';
		CREATE TABLE public.users (id int);
		CREATE TABLE schema_migrations (version bigint primary key, dirty boolean not null);
		INSERT INTO schema_migrations VALUES (7, false);
		GRANT SELECT ON ALL TABLES IN SCHEMA public TO app;`)
	if out, err := psql.CombinedOutput(); err != nil {
		return sqlServer{}, fmt.Errorf("psql: %w: %s", err, out)
	}
	return sqlServer{port: port, dir: dir}, nil
})

func initPostgres(dir string) error {
	init := command(dir, "/usr/lib/postgresql/15/bin/initdb", "-D", dir+"/data", "-U", "postgres", "-N",
		"--auth-host=scram-sha-256", "--auth-local=trust", "-E", "UTF8", "--no-locale")
	if out, err := init.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

// startPostgres starts the server of an initialized directory.
func startPostgres(dir string, later func(func()), settings ...string) (port string, out *syncBuffer, err error) {
	if port, err = freePort(); err != nil {
		return "", nil, err
	}
	args := []string{
		"-D", dir + "/data", "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + dir,
		"-c", "fsync=off", "-c", "shared_buffers=1MB", "-c", "log_connections=on",
	}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	out, err = start(command(dir, "/usr/lib/postgresql/15/bin/postgres", args...), later)
	return port, out, err
}

// mariadb is a MariaDB. Tests don't change it.
var mariadb = sync.OnceValues(func() (sqlServer, error) {
	dir, err := scratch(shared.later)
	if err != nil {
		return sqlServer{}, err
	}
	install := command(dir, "mariadb-install-db", "--no-defaults", "--tmpdir="+dir, "--datadir="+dir+"/data", "--auth-root-authentication-method=normal", "--skip-test-db")
	if out, err := install.CombinedOutput(); err != nil {
		return sqlServer{}, fmt.Errorf("mariadb-install-db: %w: %s", err, out)
	}
	init := filepath.Join(dir, "init.sql")
	sql := "CREATE DATABASE shop; CREATE USER 'app'@'%' IDENTIFIED BY '" + password + "'; GRANT ALL ON shop.* TO 'app'@'%';" +
		"CREATE TABLE shop.users (id int); CREATE TABLE shop.schema_migrations (version bigint primary key, dirty boolean not null);" +
		"INSERT INTO shop.schema_migrations VALUES (7, false);"
	if err := os.WriteFile(init, []byte(strings.ReplaceAll(sql, ";", ";\n")), 0o644); err != nil {
		return sqlServer{}, err
	}
	port, err := freePort()
	if err != nil {
		return sqlServer{}, err
	}
	_, err = start(command(dir, "/usr/sbin/mariadbd", "--no-defaults", "--datadir="+dir+"/data", "--socket="+dir+"/sock", "--port="+port,
		"--bind-address=127.0.0.1", "--init-file="+init, "--innodb-flush-log-at-trx-commit=0", "--pid-file="+dir+"/pid"), shared.later)
	if err != nil {
		return sqlServer{}, err
	}
	return sqlServer{port: port, dir: dir}, become("mysql://127.0.0.1:" + port)
})

// startRedis starts a Redis of the test's own, with lines for its configuration,
// and waits until it listens.
func startRedis(t *testing.T, settings ...string) (port string) {
	t.Helper()
	server := installed(t, "redis-server")
	port, err := freePort()
	require.NoError(t, err)
	dir, err := scratch(t.Cleanup)
	require.NoError(t, err)
	settings = append([]string{"bind 127.0.0.1", "port " + port, "dir " + dir, `save ""`}, settings...)
	conf := command(dir, server, "-")
	conf.Stdin = strings.NewReader(strings.Join(settings, "\n"))
	out, err := start(conf, t.Cleanup)
	require.NoError(t, err)
	require.NoError(t, become("tcp://127.0.0.1:"+port), "%s", out)
	return port
}
