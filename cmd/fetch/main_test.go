// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/cli"
)

// The test binary is the tool when this variable is set.
const roleVariable = "FETCH_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		os.Unsetenv(roleVariable)
		cli.Main(tool())
	}
	os.Exit(m.Run())
}

// start starts the tool as a process of its own.
func start(t *testing.T, environ []string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(environ, roleVariable+"=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, &out
}

func run(t *testing.T, environ []string, args ...string) (int, string) {
	t.Helper()
	cmd, out := start(t, environ, args...)
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), out.String()
}

func sha(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// The server of these tests wants the token for everything below /private.
const token = "hunter22-token"

func serve(t *testing.T, tls bool) *httptest.Server {
	t.Helper()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/private") && (r.Header.Get("Authorization") != "Bearer "+token || r.Header.Get("X-Tenant") != "hunter22-tenant") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, "content of %s", r.URL.Path)
	})
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = nil
	if tls {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func TestOptions(t *testing.T) {
	t.Parallel()
	s, dir := serve(t, false), t.TempDir()
	code, out := run(t, nil, "--url", s.URL+"/m", "--output", dir+"/m", "--sha256", sha([]byte("content of /m")), "--mode", "0600")
	require.Equal(t, 0, code, out)
	info, err := os.Stat(dir + "/m")
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	code, out = run(t, []string{"FETCH_URL=" + s.URL + "/v", "FETCH_OUTPUT=" + dir + "/v"})
	require.Equal(t, 0, code, out)
	assert.FileExists(t, dir+"/v")
}

// A file that somebody else has put in place is right all the same.
func TestModeOfSomebodyElsesFile(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file to somebody else")
	}
	s, out := serve(t, false), t.TempDir()+"/m"
	data := []byte("content of /m")
	require.NoError(t, os.WriteFile(out, data, 0o644))
	require.NoError(t, os.Chown(out, 65532, -1))
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "--url", s.URL+"/m", "--output", out, "--sha256", sha(data), "--mode", "0600")
	cmd.Env = []string{roleVariable + "=1"}
	only := []syscall.SysProcIDMap{{HostID: 0, Size: 1}} // so that root is no more than the owner of the directory
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: only, GidMappings: only}
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", text)
	assert.Contains(t, string(text), `level=WARN msg="mode not changed: the file is not ours" output=`+out+" mode=-rw-r--r-- wanted=-rw-------")
}

func TestBadSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/bad.yaml", []byte("files:\n- {url: https://h/x, outptu: a}\n"), 0o600))
	require.NoError(t, os.WriteFile(dir+"/two.yaml", []byte("files:\n- {url: https://h/x, output: a, sha256: abc}\n- {url: 'ftp://h/x', output: b, mode: '999'}\n"), 0o600))
	require.NoError(t, os.WriteFile(dir+"/dir.yaml", []byte("files:\n- {url: https://h/x, output: a/}\n- {url: https://h/y, output: b/, unpack: true}\n"), 0o600))
	require.NoError(t, os.WriteFile(dir+"/headers", []byte("# ours\nX-A: b\nhunter22\n"), 0o600))
	require.NoError(t, os.WriteFile(dir+"/empty", nil, 0o600))
	tests := []struct {
		args []string
		want []string
	}{
		{nil, []string{"nothing to do"}},
		{[]string{"x"}, []string{`unexpected word "x"`}},
		{[]string{"--url", "https://h/x"}, []string{"the output is missing"}},
		{[]string{"--url", "https://h/x", "--output", "a", "--sha256", "abc"}, []string{`sha256 "abc": accepted are the 64 hexadecimal digits`}},
		{[]string{"--url", "https://h/x", "--output", "a", "--manifest", "m"}, []string{"--url and --manifest"}},
		{[]string{"--manifest", dir + "/m.yaml", "--sha256", strings.Repeat("0", 64)}, []string{"are about one file: write them into the manifest"}},
		{[]string{"--manifest", dir + "/m.yaml", "--unpack"}, []string{"are about one file"}},
		{[]string{"--url", "https://h/x", "--output", "a", "--header", "X A: hunter22", "--header", "X-A: hunter22\x01"}, []string{"--header, number 1", "--header, number 2"}},
		{[]string{"--manifest", dir + "/bad.yaml"}, []string{"line 2: field outptu not found"}},
		{[]string{"--manifest", dir + "/two.yaml"}, []string{"accepted are the 64", `mode "999"`}},
		{[]string{"--manifest", dir + "/dir.yaml"}, []string{"output " + dir + "/a/ is a directory: name the file"}},
		{[]string{"--manifest", dir + "/empty"}, []string{"there are no files in it"}},
		{[]string{"--url", "https://h/x", "--output", "a", "--header-file", dir + "/headers", "--header", "hunter22", "--token-env", "NONE", "--ca", dir + "/empty"}, []string{"line 3: accepted is NAME: VALUE", "--header, number 1", "--token-env NONE: the variable is not set", "no certificate in it"}},
		{[]string{"--url", "http://user:hunter22@h/x", "--output", "a"}, []string{"credentials would be sent in clear text"}},
		{[]string{"--url", "https://h/x", "--output", "a", "--parallel", "0"}, []string{"from 1"}},
		{[]string{"--url", "https://h/x", "--output", "a", "--max-size", "much"}, []string{"accepted are sizes"}},
	}
	for _, tt := range tests {
		code, out := run(t, nil, tt.args...)
		assert.Equal(t, 125, code, "%v: %s", tt.args, out)
		for _, want := range tt.want {
			assert.Contains(t, out, want)
		}
		assert.NotContains(t, out, "hunter22")
	}
}

func TestSecretsAreSentAndNotShown(t *testing.T) {
	t.Parallel()
	s, dir := serve(t, true), t.TempDir()
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for name, data := range map[string]string{"ca.pem": string(cert), "headers": "\ufeffX-Tenant: hunter22-tenant\n", "token": token + "\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600))
	}
	args := []string{"--url", s.URL + "/private/m?X-Amz-Signature=hunter22-signature", "--output", dir + "/m", "--ca", dir + "/ca.pem", "--header-file", dir + "/headers", "--log-level", "debug"}
	code, out := run(t, []string{"MODEL_TOKEN_FILE=" + dir + "/token"}, append(args, "--token-env", "MODEL_TOKEN")...)
	require.Equal(t, 0, code, out)
	assert.NotContains(t, out, "hunter22")
	code, out = run(t, []string{"MODEL_TOKEN=hunter22-wrong"}, append(args, "--token-env", "MODEL_TOKEN", "--output", dir+"/n")...)
	assert.Equal(t, 125, code, out)
	assert.Contains(t, out, "401 Unauthorized")
	assert.NotContains(t, out, "hunter22")
	code, out = run(t, nil, "--url", s.URL+"/x", "--output", dir+"/o", "--tries", "1")
	assert.Equal(t, 125, code)
	assert.Contains(t, out, "certificate")
}

func TestProxy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var asked atomic.Value
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.URL.String())
		fmt.Fprint(w, "by proxy")
	}))
	t.Cleanup(proxy.Close)
	code, out := run(t, []string{"http_proxy=" + proxy.URL}, "--url", "http://models.invalid/m", "--output", dir+"/m")
	require.Equal(t, 0, code, out)
	assert.Equal(t, "http://models.invalid/m", asked.Load())
	code, _ = run(t, []string{"http_proxy=" + proxy.URL, "NO_PROXY=.invalid"}, "--url", "http://models.invalid/m", "--output", dir+"/n", "--tries", "1")
	assert.Equal(t, 125, code)
}

func TestManifest(t *testing.T) {
	t.Parallel()
	s, dir := serve(t, false), t.TempDir()
	var text strings.Builder
	text.WriteString("files:\n")
	for i := range 20 {
		fmt.Fprintf(&text, "- {url: '%s/%d', output: d/%d, sha256: %s}\n", s.URL, i, i, sha(fmt.Appendf(nil, "content of /%d", i)))
	}
	fmt.Fprintf(&text, "- {url: '%s/x', output: %s/elsewhere, sha256: %s}\n", s.URL, dir, sha(nil))
	require.NoError(t, os.WriteFile(dir+"/manifest.yaml", []byte(text.String()), 0o600))
	code, out := run(t, nil, "--manifest", dir+"/manifest.yaml", "--output", dir+"/out", "--parallel", "3")
	assert.Equal(t, 125, code)
	assert.Contains(t, out, "fetch "+dir+"/elsewhere from "+s.URL+"/x: wrong content")
	for i := range 20 {
		got, err := os.ReadFile(fmt.Sprintf("%s/out/d/%d", dir, i))
		require.NoError(t, err, "one that fails does not keep the others")
		assert.Equal(t, fmt.Sprintf("content of /%d", i), string(got))
	}
}

// drip serves size bytes of nothing, slowly if it has a pause.
func drip(t *testing.T, size int64, pause time.Duration) (*httptest.Server, *sync.Map) {
	t.Helper()
	var ranges sync.Map
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranges.Store(r.Header.Get("Range"), true)
		f := io.NewSectionReader(zeros{}, 0, size)
		http.ServeContent(slow{w, pause}, r, "", time.Time{}, f)
	}))
	t.Cleanup(s.Close)
	return s, &ranges
}

type zeros struct{}

func (zeros) ReadAt(b []byte, _ int64) (int, error) {
	clear(b)
	return len(b), nil
}

type slow struct {
	http.ResponseWriter
	pause time.Duration
}

func (s slow) Write(b []byte) (int, error) {
	time.Sleep(s.pause)
	return s.ResponseWriter.Write(b)
}

func TestTermAndTimeout(t *testing.T) {
	t.Parallel()
	s, _ := drip(t, 1<<30, 10*time.Millisecond)
	out := t.TempDir() + "/out"
	partial := filepath.Dir(out) + "/.out.partial"
	cmd, text := start(t, nil, "--url", s.URL, "--output", out, "--sha256", sha(nil))
	waitForSize(t, partial, 1)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	_ = cmd.Wait()
	assert.Equal(t, 143, cmd.ProcessState.ExitCode(), text.String())
	assert.Contains(t, text.String(), "fetch: stopped by SIGTERM\n")
	assert.NoFileExists(t, out)
	code, log := run(t, nil, "--url", s.URL, "--output", out, "--timeout", "200ms")
	assert.Equal(t, 124, code, log)
	assert.Contains(t, log, "not done within 200ms (--timeout)")
}

func waitForSize(t *testing.T, path string, size int64) {
	t.Helper()
	require.Eventually(t, func() bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() >= size
	}, time.Minute, time.Millisecond)
}

// Killed again and again, it comes to its end with what it had.
func TestKilled(t *testing.T) {
	t.Parallel()
	const size = 24 << 20
	s, ranges := drip(t, size, time.Millisecond)
	out := t.TempDir() + "/out"
	args := []string{"--url", s.URL, "--output", out, "--sha256", sha(make([]byte, size))}
	partial := filepath.Dir(out) + "/.out.partial"
	for i := range int64(4) {
		cmd, _ := start(t, nil, args...)
		waitForSize(t, partial, (i+1)*(4<<20))
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		assert.NoFileExists(t, out)
	}
	code, text := run(t, nil, args...)
	require.Equal(t, 0, code, text)
	info, err := os.Stat(out)
	require.NoError(t, err)
	assert.EqualValues(t, size, info.Size())
	n := 0
	ranges.Range(func(any, any) bool { n++; return true })
	assert.Equal(t, 5, n, "each run asked for another part")
}

// What a large file costs does not grow with it.
func TestMemory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system for a gibibyte")
	}
	const size = 1 << 30
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1100M"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	bin := filepath.Join(t.TempDir(), "fetch")
	build := exec.Command("go", "build", "-o", bin, ".") // without the race detector, which takes memory of its own
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	text, err := build.CombinedOutput()
	require.NoError(t, err, "%s", text)
	cmd := exec.Command(bin, "--url", stream(t, size), "--output", dir+"/out")
	var out bytes.Buffer
	cmd.Stderr = &out
	require.NoError(t, cmd.Start())
	waitForSize(t, dir+"/.out.partial", size/2)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	require.NoError(t, err)
	require.NoError(t, cmd.Wait(), out.String())
	// The peak so far; wait4's counts that of whoever forked, too.
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	var kib int64
	_, err = fmt.Sscan(peak, &kib)
	require.NoError(t, err, "%s", status)
	t.Logf("%d MiB resident at most", kib>>10)
	assert.Less(t, kib, int64(32<<10))
}

// stream serves size bytes as fast as they are taken.
func stream(t *testing.T, size int) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Read(make([]byte, 4096))
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		block := make([]byte, 1<<20)
		for range size / len(block) {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	}()
	return "http://" + l.Addr().String()
}
