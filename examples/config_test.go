// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// built is the path of generate-config, which is built once.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "generate-config-")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "generate-config")
	out, err := exec.Command("go", "build", "-o", program, "../cmd/generate-config").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return program, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if program, err := built(); err == nil {
		os.RemoveAll(filepath.Dir(program))
	}
	os.Exit(code)
}

// generate renders one of the examples with these variables and options, and
// returns the output directory, in which a server of another user may read.
func generate(t *testing.T, example string, env []string, options ...string) (dir string) {
	t.Helper()
	program, err := built()
	require.NoError(t, err)
	dir = filepath.Join(sharedDir(t), "out")
	cmd := exec.Command(program, append([]string{"--template-dir", filepath.Join("generate-config", example), "--output-dir", dir}, options...)...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	cmd = exec.Command(program, append([]string{"--check", "--template-dir", filepath.Join("generate-config", example), "--output-dir", dir}, options...)...)
	cmd.Env = env
	out, err = cmd.CombinedOutput()
	require.NoError(t, err, "the output is what it was: %s", out)
	return dir
}

// sharedDir is a directory of the test's that another user can get into.
func sharedDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "generate-config-test-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// server is the path of a program of this machine.
func server(t *testing.T, places ...string) string {
	t.Helper()
	for _, place := range places {
		if found, err := exec.LookPath(place); err == nil {
			return found
		}
	}
	t.Skipf("the program that judges the result is not installed: %s", places[0])
	return ""
}

func TestProductPageConfig(t *testing.T) {
	t.Parallel()
	dir := generate(t, "app", []string{"LOG_LEVEL=info"}, "--environment", "production")
	data, err := os.ReadFile(filepath.Join(dir, "config.yaml"))
	require.NoError(t, err)
	var config struct {
		Server   struct{ Host, Port any }
		Database struct{ Host, Port, Name, Username, SSL any }
		Logging  struct{ Level, Format string }
	}
	require.NoError(t, yaml.Unmarshal(data, &config))
	assert.Equal(t, "info", config.Logging.Level)
	assert.Equal(t, 8080, config.Server.Port)
	assert.Equal(t, true, config.Database.SSL)

	program, err := built()
	require.NoError(t, err)
	for _, tt := range []struct{ env, want string }{
		{"LOG_LEVEL=loud", "config.yaml:11: config.yaml would not be valid: its line 11: logging.level: value must be one of 'debug', 'info', 'warn', 'error'"},
		{"OTHER=1", "config.yaml:11: ${LOG_LEVEL} is not set"},
	} {
		cmd := exec.Command(program, "--template-dir", "generate-config/app", "--output-dir", dir)
		cmd.Env = []string{tt.env}
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		assert.Equal(t, 125, cmd.ProcessState.ExitCode())
		assert.Contains(t, string(out), tt.want)
	}
	again, err := os.ReadFile(filepath.Join(dir, "config.yaml"))
	require.NoError(t, err)
	assert.Equal(t, string(data), string(again), "what was good is not lost")
}

func TestNginxConfig(t *testing.T) {
	t.Parallel()
	nginx := server(t, "nginx", "/usr/sbin/nginx")
	for _, environment := range []string{"", "production"} {
		scratch := sharedDir(t)
		options := []string{}
		if environment != "" {
			options = append(options, "--environment", environment)
		}
		dir := generate(t, "nginx", []string{"SERVER_NAME=example.org", "GENERATE_CONFIG_VALUE_RUNTIME_DIR=" + scratch}, options...)
		out, err := exec.Command(nginx, "-t", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr").CombinedOutput()
		assert.NoError(t, err, "%s", out)
		text, err := os.ReadFile(filepath.Join(dir, "nginx.conf"))
		require.NoError(t, err)
		assert.Equal(t, environment == "production", strings.Contains(string(text), "server 10.0.0.11:9000 backup;"))
	}
}

func TestPostgreSQLConfig(t *testing.T) {
	t.Parallel()
	postgres := server(t, "postgres", "/usr/lib/postgresql/15/bin/postgres")
	dir := generate(t, "postgresql", []string{"GENERATE_CONFIG_VALUE_PORT=5499", "GENERATE_CONFIG_VALUE_MAX_CONNECTIONS=42"})
	for name, want := range map[string]string{"port": "5499", "max_connections": "42", "password_encryption": "scram-sha-256", "unix_socket_directories": "/tmp"} {
		cmd := exec.Command(postgres, "-C", name, "-D", dir)
		asOther(cmd)
		out, err := cmd.Output()
		require.NoError(t, err, "%s: %s", name, out)
		assert.Equal(t, want, strings.TrimSpace(string(out)), name)
	}
	hba, err := os.ReadFile(filepath.Join(dir, "pg_hba.conf"))
	require.NoError(t, err)
	assert.Contains(t, string(hba), "\nhost    all       all   10.0.0.0/8  scram-sha-256\n")
}

// asOther runs a program that refuses root as somebody else.
func asOther(cmd *exec.Cmd) {
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
}

func TestRedisConfig(t *testing.T) {
	t.Parallel()
	redis := server(t, "redis-server")
	scratch := sharedDir(t)
	password := filepath.Join(scratch, "password")
	require.NoError(t, os.WriteFile(password, []byte("correct-horse\n"), 0o600))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	_, port, _ := net.SplitHostPort(address)
	dir := generate(t, "redis", []string{"REDIS_PORT_NUMBER=" + port, "REDIS_DIR=" + scratch, "REDIS_PASSWORD_FILE=" + password, "REDIS_PORT=tcp://10.96.0.7:6379"})
	info, err := os.Stat(filepath.Join(dir, "redis.conf"))
	require.NoError(t, err)
	assert.EqualValues(t, 0o600, info.Mode().Perm())

	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, redis, filepath.Join(dir, "redis.conf"))
	var log strings.Builder
	cmd.Stdout = &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	require.Eventually(t, func() bool {
		return strings.Contains(ask(address, "AUTH correct-horse\r\nPING\r\nCONFIG GET maxmemory\r\n"), "+PONG")
	}, time.Minute, 50*time.Millisecond)
	assert.Contains(t, ask(address, "PING\r\n"), "NOAUTH")
}

// ask sends commands to a Redis server and returns what it answers.
func ask(address, commands string) string {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprint(c, commands+"QUIT\r\n")
	var answer strings.Builder
	buf := make([]byte, 1024)
	for {
		n, err := c.Read(buf)
		answer.Write(buf[:n])
		if err != nil {
			return answer.String()
		}
	}
}

func TestPrometheusConfig(t *testing.T) {
	t.Parallel()
	promtool := server(t, "promtool")
	secrets := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(secrets, "password"), []byte("p\"w: #x\n"), 0o600))
	dir := generate(t, "prometheus", nil, "--environment", "staging", "--secrets-dir", secrets)
	out, err := exec.Command(promtool, "check", "config", filepath.Join(dir, "prometheus.yml")).CombinedOutput()
	assert.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "1 rules found")
	rules, err := os.ReadFile(filepath.Join(dir, "rules.yml"))
	require.NoError(t, err)
	assert.Contains(t, string(rules), `summary: "{{ $labels.instance }} of {{ $labels.job }} is down since 5m"`)
}

func TestSpringConfig(t *testing.T) {
	t.Parallel()
	dir := generate(t, "spring", []string{"DB_HOST=db", "DB_PASSWORD=p@ss", "DB_PORT=tcp://10.96.0.8:5432"})
	data, err := os.ReadFile(filepath.Join(dir, "application.yaml"))
	require.NoError(t, err)
	var config map[string]any
	require.NoError(t, yaml.Unmarshal(data, &config))
	datasource := config["spring"].(map[string]any)["datasource"].(map[string]any)
	assert.Equal(t, "jdbc:postgresql://db:5432/${DB_NAME:webapp}", datasource["url"])
	assert.Equal(t, "p@ss", datasource["password"])
	assert.Equal(t, map[string]any{"pool-name": "${spring.application.name}-pool"}, datasource["hikari"])
}

// TestNoServiceLinks: Kubernetes sets NAME_PORT=tcp://10.96.0.7:6379 and
// NAME_SERVICE_HOST for a Service called name. What users copy must not take
// such a variable for a setting.
func TestNoServiceLinks(t *testing.T) {
	t.Parallel()
	linked := regexp.MustCompile(`(?:\$\{|env "|\.Env\.)\w+(?:_PORT|_PORT_\d+_\w+|_SERVICE_\w+)\b`)
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, ".go") || path == "compose/compose.yaml" { // its variables are no container's
			return err
		}
		text, err := os.ReadFile(path)
		assert.Empty(t, linked.FindAllString(string(text), -1), path)
		return err
	}))
}
