// SPDX-License-Identifier: Apache-2.0

// Package dbtest starts real database servers for tests: those that Debian
// packages, on 127.0.0.1 and on unix sockets, once per test binary. A test gets
// a database of its own in them.
package dbtest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds what should take a second or two.
const patience = time.Minute

// nobody runs the servers that refuse to be root's.
const nobody = 65534

var servers struct {
	sync.Mutex
	running  []*exec.Cmd
	dirs     []string
	postgres func() (*Server, error)
	mariadb  func() (*Server, error)
}

func init() {
	servers.postgres = sync.OnceValues(startPostgres)
	servers.mariadb = sync.OnceValues(startMariaDB)
}

// Main runs the tests and stops the servers that they started. It is for
// TestMain, and returns the exit code.
func Main(m *testing.M) int {
	code := m.Run()
	servers.Lock()
	defer servers.Unlock()
	for _, cmd := range slices.Backward(servers.running) {
		_ = cmd.Process.Signal(syscall.SIGQUIT) // to PostgreSQL: at once
		killer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		killer.Stop()
	}
	for _, dir := range servers.dirs {
		_ = os.RemoveAll(dir)
	}
	return code
}

// Remove lets a directory be removed at the end.
func Remove(dir string) {
	servers.Lock()
	defer servers.Unlock()
	servers.dirs = append(servers.dirs, dir)
}

// A Server is a running database server.
type Server struct {
	Dir    string // of its sockets
	Port   int
	Binary string // directory of its programs
	last   atomic.Int64
}

// Name returns a name for a new database.
func (s *Server) Name() string { return fmt.Sprintf("t%d", s.last.Add(1)) }

// Postgres returns a PostgreSQL server with the user postgres, who needs no
// password. A test is skipped where there is none.
func Postgres(t testing.TB) *Server {
	t.Helper()
	return need(t, servers.postgres, "postgresql-15")
}

// MariaDB returns a MariaDB server with the user root, who needs no password.
func MariaDB(t testing.TB) *Server {
	t.Helper()
	return need(t, servers.mariadb, "mariadb-server")
}

func need(t testing.TB, start func() (*Server, error), debian string) *Server {
	t.Helper()
	s, err := start()
	if os.IsNotExist(err) {
		t.Skipf("needs Debian's %s: %v", debian, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// NewPostgres makes a database and returns its URL by TCP.
func NewPostgres(t testing.TB) string {
	t.Helper()
	s := Postgres(t)
	name := s.Name()
	s.Psql(t, "postgres", "CREATE DATABASE "+name)
	return s.URL(name)
}

// URL is that of a database.
func (s *Server) URL(name string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", s.Port, name)
}

// Psql runs SQL with PostgreSQL's own client, and returns the rows.
func (s *Server) Psql(t testing.TB, name, sql string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(s.Binary, "psql"), "-X", "-v", "ON_ERROR_STOP=1", "-qAt", "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port), "-U", "postgres", name, "-c", sql).CombinedOutput()
	if err != nil {
		t.Fatalf("psql: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// AskPassword makes the server want a role's password.
func (s *Server) AskPassword(t testing.TB, role string) {
	t.Helper()
	file := filepath.Join(s.Dir, "data", "pg_hba.conf")
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, append([]byte("host all "+role+" 127.0.0.1/32 scram-sha-256\n"), text...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Psql(t, "postgres", "SELECT pg_reload_conf()")
}

// NewMariaDB makes a database and returns its name.
func NewMariaDB(t testing.TB) string {
	t.Helper()
	s := MariaDB(t)
	name := s.Name()
	s.Mariadb(t, "", "CREATE DATABASE "+name)
	return name
}

// Socket is MariaDB's.
func (s *Server) Socket() string { return filepath.Join(s.Dir, "sock") }

// Mariadb runs SQL with MariaDB's own client, and returns the rows.
func (s *Server) Mariadb(t testing.TB, name, sql string) string {
	t.Helper()
	out, err := exec.Command("mariadb", "--no-defaults", "-S", s.Socket(), "-u", "root", "-BN", "-e", sql, name).CombinedOutput()
	if err != nil {
		t.Fatalf("mariadb: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func startPostgres() (*Server, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		return nil, fmt.Errorf("postgres: %w", os.ErrNotExist)
	}
	s, err := newServer(filepath.Dir(found[len(found)-1]))
	if err != nil {
		return nil, err
	}
	data := filepath.Join(s.Dir, "data")
	if out, err := asNobody(exec.Command(filepath.Join(s.Binary, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	cmd := exec.Command(filepath.Join(s.Binary, "postgres"), "-D", data, "-p", strconv.Itoa(s.Port), "-k", s.Dir,
		"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=32MB", "-c", "log_statement=all")
	return s, s.start(cmd, func() bool {
		return exec.Command(filepath.Join(s.Binary, "pg_isready"), "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port)).Run() == nil
	})
}

func startMariaDB() (*Server, error) {
	binary, err := exec.LookPath("mariadbd")
	if err != nil {
		if binary = "/usr/sbin/mariadbd"; !exists(binary) {
			return nil, fmt.Errorf("mariadbd: %w", os.ErrNotExist)
		}
	}
	s, err := newServer(filepath.Dir(binary))
	if err != nil {
		return nil, err
	}
	data := filepath.Join(s.Dir, "data")
	// In a common directory its temporary tables can meet those of another one.
	tmp := "--tmpdir=" + s.Dir
	if out, err := asNobody(exec.Command("mariadb-install-db", "--no-defaults", tmp, "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mariadb-install-db: %w: %s", err, out)
	}
	cmd := exec.Command(binary, "--no-defaults", tmp, "--datadir="+data, "--socket="+s.Socket(), "--pid-file="+filepath.Join(s.Dir, "pid"),
		"--port="+strconv.Itoa(s.Port), "--bind-address=127.0.0.1", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M", "--max-connections=300")
	return s, s.start(cmd, func() bool {
		return exec.Command("mariadb-admin", "--no-defaults", "-S", s.Socket(), "-u", "root", "ping").Run() == nil
	})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// newServer makes a directory for a server, not as long as those of tests: the
// path of a unix socket has 107 bytes.
func newServer(binary string) (*Server, error) {
	dir, err := os.MkdirTemp("", "dbtest-")
	if err != nil {
		return nil, err
	}
	Remove(dir)
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			return nil, err
		}
	}
	port, err := FreePort()
	return &Server{Dir: dir, Port: port, Binary: binary}, err
}

// FreePort returns a TCP port that was free a moment ago.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// asNobody lets a command run as an ordinary user when we are root.
func asNobody(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		cmd.Dir = "/"
	}
	return cmd
}

// start starts a server and waits until it is ready. It is killed when we die:
// the kernel does that at the end of the thread that started it, so that a
// thread stays for it.
func (s *Server) start(cmd *exec.Cmd, ready func() bool) error {
	asNobody(cmd)
	log, err := os.Create(filepath.Join(s.Dir, "log"))
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		started <- cmd.Start()
		select {}
	}()
	if err := <-started; err != nil {
		return err
	}
	servers.Lock()
	servers.running = append(servers.running, cmd)
	servers.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for !ready() {
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%s is not ready: %s", cmd.Path, text)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// PgBouncer starts a pooler in front of PostgreSQL and returns the URL of a
// database through it. It ends with the test.
func PgBouncer(t testing.TB, name, mode string, poolSize int) string {
	t.Helper()
	binary := "/usr/sbin/pgbouncer"
	if !exists(binary) {
		t.Skip("needs Debian's pgbouncer")
	}
	pg := Postgres(t)
	s, err := newServer("")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(s.Dir, "pgbouncer.ini")
	text := fmt.Sprintf("[databases]\n* = host=127.0.0.1 port=%d\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port=%d\nauth_type=any\npool_mode=%s\ndefault_pool_size=%d\nunix_socket_dir=\n",
		pg.Port, s.Port, mode, poolSize)
	text = strings.Replace(text, "port="+strconv.Itoa(pg.Port)+"\n", "port="+strconv.Itoa(pg.Port)+" user=postgres\n", 1)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.start(exec.Command(binary, config), func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(s.Port))
		if err == nil {
			conn.Close()
		}
		return err == nil
	}); err != nil {
		t.Fatal(err)
	}
	return s.URL(name)
}
