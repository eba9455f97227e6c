// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The Docker tests make their images from files of this machine: no registry
// is asked, and an image holds an application, its libraries and our binaries,
// but no shell. Containers run as Kubernetes' "restricted" profile wants them;
// their ports are published on 127.0.0.1 only.

// hardened are the options of every container, those of a hardened image's
// deployment. The seccomp profile is the engine's default.
var hardened = []string{
	"--user", "65532:65532", "--read-only", "--cap-drop", "ALL",
	"--security-opt", "no-new-privileges", "--tmpfs", "/tmp",
}

// labLabel marks the images that these tests have made.
const labLabel = "dev.cleanstart.cleanimg-init.test"

// engineMissing says why no Docker Engine can be used, or is empty.
var engineMissing = sync.OnceValue(func() string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", "info").CombinedOutput()
	if err == nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return fmt.Sprintf("no Docker Engine answers: docker info: %v: %s", err, lines[len(lines)-1])
})

// needDocker skips the test where there is no engine, or where a program that
// belongs into an image is not installed.
func needDocker(t *testing.T, programs ...string) {
	t.Helper()
	if why := engineMissing(); why != "" {
		t.Skip(why)
	}
	for _, p := range programs {
		if _, err := os.Stat(p); err != nil {
			t.Skipf("an application of the test is not installed: %v", err)
		}
	}
}

// docker runs the client, which must succeed, and returns its trimmed output.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, code := dockerTry(args...)
	require.Zero(t, code, "docker %s: %s", strings.Join(args, " "), out)
	return out
}

// dockerTry returns standard output and error, trimmed, and the client's exit
// code.
func dockerTry(args ...string) (out string, code int) {
	data, err := exec.Command("docker", args...).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		return err.Error(), -1
	}
	return strings.TrimSpace(string(data)), code
}

// An imageRoot collects the files of an image. It needs no privilege: owner
// and mode are written to the archive, not to a folder.
type imageRoot struct {
	t    *testing.T
	out  *os.File // an image with the Go toolchain is too big for memory
	tar  *tar.Writer
	have map[string]bool
}

func newImageRoot(t *testing.T) *imageRoot {
	file, err := os.CreateTemp(t.TempDir(), "image-*.tar")
	require.NoError(t, err)
	t.Cleanup(func() { _ = file.Close() })
	return &imageRoot{t: t, out: file, tar: tar.NewWriter(file), have: map[string]bool{"/": true}}
}

// newAppRoot holds what the Dockerfile of an application's image adds: the
// entrypoint, and here testprog, which plays the hooks' programs.
func newAppRoot(t *testing.T) *imageRoot {
	r := newImageRoot(t)
	r.copy(Binary(t, "cleanimg-init"), "/usr/local/bin/cleanimg-init")
	r.copy(testprogPath, "/bin/testprog")
	return r
}

// file adds a file of root's with its parent directories.
func (r *imageRoot) file(name string, mode fs.FileMode, content string) {
	r.t.Helper()
	r.entry(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode), Size: int64(len(content))}, strings.NewReader(content))
}

// owned adds a file of uid's.
func (r *imageRoot) owned(name string, mode fs.FileMode, uid int, content string) {
	r.t.Helper()
	r.entry(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode), Uid: uid, Gid: uid, Size: int64(len(content))}, strings.NewReader(content))
}

// hook adds a hook: a step file where the name says so, else a script of
// testprog's statements, one a line.
func (r *imageRoot) hook(name, content string) {
	r.t.Helper()
	if strings.HasSuffix(name, ".yaml") {
		r.file(hooksDir+name, 0o644, content)
		return
	}
	r.file(hooksDir+name, 0o755, "#!/bin/testprog script\n"+content)
}

// dir adds a directory that belongs to uid.
func (r *imageRoot) dir(name string, mode fs.FileMode, uid int) {
	r.t.Helper()
	r.entry(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: int64(mode), Uid: uid, Gid: uid}, nil)
}

func (r *imageRoot) link(name, target string) {
	r.t.Helper()
	r.entry(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

// copy adds the file that src is, or leads to.
func (r *imageRoot) copy(src, dst string) {
	r.t.Helper()
	if r.have[dst] {
		return
	}
	f, err := os.Open(src)
	require.NoError(r.t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(r.t, err)
	r.entry(tar.Header{Typeflag: tar.TypeReg, Name: dst, Mode: int64(info.Mode().Perm()), Size: info.Size()}, f)
}

// program adds a program and every shared library that it needs, at the paths
// that they have here.
func (r *imageRoot) program(file string) {
	r.t.Helper()
	r.copy(file, file)
	out, err := exec.Command("ldd", file).CombinedOutput()
	if strings.Contains(string(out), "not a dynamic executable") {
		return
	}
	require.NoError(r.t, err, "ldd %s: %s", file, out)
	for _, lib := range sharedLibrary.FindAllStringSubmatch(string(out), -1) {
		r.copy(lib[1], path.Clean(lib[1])) // a JVM's are at "bin/../lib"
	}
}

// sharedLibrary finds the paths in a line of ldd's, "libm.so.6 => /lib/… (0x…)"
// or "/lib64/ld-linux… (0x…)".
var sharedLibrary = regexp.MustCompile(`(?m)(/\S+) \(0x`)

// tree adds a folder, links as links, but nothing that skip says.
func (r *imageRoot) tree(src, dst string, skip func(name string, dir bool) bool) {
	r.t.Helper()
	err := filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(src, p)
		to := path.Join(dst, filepath.ToSlash(rel))
		switch {
		case skip != nil && rel != "." && skip(rel, d.IsDir()):
			if d.IsDir() {
				return filepath.SkipDir
			}
		case d.IsDir():
			r.parents(to + "/x")
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			r.link(to, target)
		default:
			r.copy(p, to)
		}
		return nil
	})
	require.NoError(r.t, err)
}

func (r *imageRoot) entry(h tar.Header, content io.Reader) {
	r.t.Helper()
	r.parents(h.Name)
	r.have[h.Name] = true
	h.Name = strings.TrimPrefix(h.Name, "/")
	require.NoError(r.t, r.tar.WriteHeader(&h))
	if content != nil {
		_, err := io.Copy(r.tar, content)
		require.NoError(r.t, err)
	}
}

// parents adds the directories above name: those that an archive leaves out
// get a mode that shuts everybody but root out.
func (r *imageRoot) parents(name string) {
	r.t.Helper()
	if dir := path.Dir(name); !r.have[dir] {
		r.dir(dir, 0o755, 0)
	}
}

// image makes an image of the files and returns its name. Changes are
// Dockerfile instructions. The image goes when the test ends.
func (r *imageRoot) image(changes ...string) string {
	r.t.Helper()
	name := "cleanimg-init-test/" + labName(r.t)
	r.imageNamed(name, changes...)
	return name
}

func (r *imageRoot) imageNamed(name string, changes ...string) {
	r.t.Helper()
	require.NoError(r.t, r.tar.Close())
	args := []string{"import", "--change", "LABEL " + labLabel + "=1"}
	for _, c := range changes {
		args = append(args, "--change", c)
	}
	cmd := exec.Command("docker", append(args, "-", name)...)
	_, err := r.out.Seek(0, io.SeekStart)
	require.NoError(r.t, err)
	cmd.Stdin = r.out
	out, err := cmd.CombinedOutput()
	require.NoError(r.t, err, "docker import: %s", out)
	r.t.Cleanup(func() { dockerTry("rmi", "--force", name) })
}

// appImage makes an image of the files with our entrypoint.
func (r *imageRoot) appImage(changes ...string) string {
	r.t.Helper()
	return r.image(append([]string{`ENTRYPOINT ["/usr/local/bin/cleanimg-init"]`}, changes...)...)
}

// labName is a name for an image or a container: that of the test, with our
// pid, because two runs may share an engine.
func labName(t *testing.T) string {
	clean := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "-")
	return clean + "-" + strconv.Itoa(os.Getpid())
}

// A dockerContainer is one that runs, or has ended.
type dockerContainer struct {
	t    *testing.T
	name string
}

// startContainer runs a hardened container in the background. It goes when the
// test ends; when the test has failed its log is shown.
func startContainer(t *testing.T, image string, options []string, command ...string) *dockerContainer {
	t.Helper()
	c := &dockerContainer{t: t}
	args := append([]string{"run", "--detach", "--publish", "127.0.0.1::10101"}, hardened...)
	args = append(append(append(args, options...), image), command...)
	out := docker(t, args...)
	c.name = out[strings.LastIndexByte(out, '\n')+1:] // the id is the last line, after any warning
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the container:\n%s", c.log())
		}
		dockerTry("rm", "--force", "--volumes", c.name)
	})
	return c
}

// log is all that the container has written so far, to both outputs.
func (c *dockerContainer) log() string {
	out, _ := dockerTry("logs", c.name)
	return out
}

// exec runs a command in the container and returns what it wrote.
func (c *dockerContainer) exec(command ...string) (out string, code int) {
	return dockerTry(append([]string{"exec", c.name}, command...)...)
}

// open lets a hook that does "await /tmp/gate" go on.
func (c *dockerContainer) open() {
	c.t.Helper()
	out, code := c.exec("/bin/testprog", "touch", "/tmp/gate")
	require.Zero(c.t, code, out)
}

// address is where a port of the container can be reached.
func (c *dockerContainer) address(port int) string {
	c.t.Helper()
	return docker(c.t, "port", c.name, strconv.Itoa(port))
}

// inspect returns a field of the container, such as {{.State.Status}}.
func (c *dockerContainer) inspect(field string) string {
	c.t.Helper()
	return docker(c.t, "inspect", "--format", field, c.name)
}

// wait blocks until the container has ended, and returns its exit code.
func (c *dockerContainer) wait() int {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", "wait", c.name).Output()
	require.NoError(c.t, err, "the container did not end")
	code, err := strconv.Atoi(strings.TrimSpace(string(out)))
	require.NoError(c.t, err)
	return code
}

// stop runs "docker stop" with a long grace and returns the exit code and what
// it took.
func (c *dockerContainer) stop() (code int, took time.Duration) {
	c.t.Helper()
	begin := time.Now()
	docker(c.t, "stop", "-t", "30", c.name)
	return c.wait(), time.Since(begin)
}

// stopping sends the stop signal as "docker stop" does, but returns at once.
func (c *dockerContainer) stopping() {
	c.t.Helper()
	docker(c.t, "kill", "--signal", "TERM", c.name)
}

// prober asks the probes of a container.
type prober struct {
	t      *testing.T
	base   string
	client http.Client
}

func (c *dockerContainer) prober() *prober {
	c.t.Helper()
	return &prober{
		t: c.t, base: "http://" + c.address(10101),
		// As the kubelet does it: no connection is kept.
		client: http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
}

// get returns the status code and the body, or 0 when nothing answers.
func (p *prober) get(path string) (code int, body string) {
	resp, err := p.client.Get(p.base + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data)
}

// becomes waits until the path answers with the code.
func (p *prober) becomes(path string, want int) {
	p.t.Helper()
	require.EventuallyWithT(p.t, func(ct *assert.CollectT) {
		code, body := p.get(path)
		assert.Equal(ct, want, code, "%s: %s", path, body)
	}, patience, 20*time.Millisecond)
}

// answers checks the three probes now, in the order startup, live, ready.
func (p *prober) answers(startup, live, ready int) {
	p.t.Helper()
	for i, path := range []string{"/health/startup", "/health/live", "/health/ready"} {
		want := []int{startup, live, ready}[i]
		code, body := p.get(path)
		require.Equal(p.t, want, code, "%s: %s", path, body)
	}
}

// exchange sends a line to a TCP service and returns its first line.
func exchange(address, line string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
		return "", err
	}
	answer := make([]byte, 256)
	n, err := conn.Read(answer)
	return strings.TrimSpace(string(answer[:n])), err
}
