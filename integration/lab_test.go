// SPDX-License-Identifier: Apache-2.0

// Package integration tests the built programs from the outside: as a real
// PID 1 in new namespaces here, and in Docker in the docker_*_test.go files.
//
// [Run] is the small container engine of the first kind. It starts a program
// in some ten milliseconds, in the surroundings that the project promises to
// work in: a root file system without a shell, read-only, uid 65532, no
// capabilities, no new privileges. Everything else that runs in there is
// testprog, one static program with a statement for each thing that tests
// need; see its package comment.
//
// As root the namespaces are plain ones. An ordinary user gets a user
// namespace around them; the few tests that need more say so when they skip.
package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// patience bounds every wait for something that should happen soon. It is
// long, because a loaded machine is no reason to fail.
const patience = time.Minute

var binFlag = flag.String("bin", "", "test the programs in `DIR` instead of building ./cmd/...; if there is a testprog, it is taken too")

// binDir has the programs under test, and testprogPath is the helper.
var binDir, testprogPath string

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	// Descriptors that we inherited without close-on-exec would be in every
	// container.
	for fd := 3; fd < 1024; fd++ {
		unix.CloseOnExec(fd)
	}
	// Most tests wait most of the time.
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		if err := flag.Set("test.parallel", strconv.Itoa(4*runtime.GOMAXPROCS(0))); err != nil {
			return 1, err
		}
	}
	dir, err := os.MkdirTemp("", "integration-bin-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // the container's user must get in
		return 1, err
	}
	if *binFlag != "" {
		if binDir, err = filepath.Abs(*binFlag); err != nil {
			return 1, err
		}
	} else {
		binDir = dir
		if err := build(dir, "", "../cmd/..."); err != nil {
			return 1, err
		}
	}
	testprogPath = filepath.Join(binDir, "testprog")
	if _, err := os.Stat(testprogPath); err != nil {
		testprogPath = filepath.Join(dir, "testprog")
		// Preemption signals off: a trap then reports no SIGURG but one that
		// somebody sent.
		if err := build(dir, "-X=runtime.godebugDefault=asyncpreemptoff=1", "./testprog"); err != nil {
			return 1, err
		}
	}
	return m.Run(), nil
}

func build(dir, ldflags, pkg string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w "+ldflags, "-o", dir+"/", pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// unprivileged says that we need a user namespace for everything.
var unprivileged = os.Geteuid() != 0

// ownPIDMax says that each pid namespace has its own pid_max. Before Linux 6.14
// there was one, and a container that set it set the host's.
func ownPIDMax() bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	return err == nil && (major > 6 || major == 6 && minor >= 14)
}

// needsRoot skips a test that cannot be had in a user namespace with one
// mapped user.
func needsRoot(t *testing.T) {
	t.Helper()
	if unprivileged {
		t.Skip("needs root: several users or the host's limits")
	}
}

// Binary is the path of a program under test on the host.
func Binary(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(binDir, name)
	require.FileExists(t, path, "no such program among the built ones")
	return path
}

// Options is what Run starts, and in which surroundings. The zero value is
// cleanimg-init without arguments in a restricted container.
type Options struct {
	Program string   // path inside; default /bin/cleanimg-init
	Args    []string // without the program's name
	Env     []string // all of it; default PATH=/bin
	Files   []File   // in the root file system, besides /bin
	Mounts  []Mount  // host files and directories

	Root     bool  // uid 0 with all capabilities, and no_new_privs unset
	UID      int   // default 65532, or 0 with Root
	KeepCaps []int // capabilities that a Root container has, instead of all
	Writable bool  // the root file system; /tmp always is

	HostPrograms bool // /usr, /lib and /lib64 of the host, for programs that are not ours
	NProc        int  // RLIMIT_NPROC
	NoMessage    bool // no termination log
	NoProc       bool
	NoDev        bool
	PIDMax       int
	Dir          string
	Cgroup       *Cgroup  // that it is in; nil: that of the test
	Groups       []string // directories of others

	// Nil: stdin is empty, stdout and stderr are collected.
	Stdin, Stdout, Stderr *os.File
	TTY                   bool // all three are a terminal; Instance.Terminal is its other end
}

// Mount is a host path that appears inside.
type Mount struct {
	Host, Inside string
	ReadOnly     bool
}

// An Instance is a running container. Its Stdout and Stderr may be read at any
// time.
type Instance struct {
	Stdout, Stderr *Output

	Terminal *os.File // to type on, with Options.TTY; what is shown is in Stdout

	PID  int    // of its PID 1, on the host
	Root string // its root file system, on the host

	t       *testing.T
	process *os.Process
	pidNS   *os.File
	netNS   *os.File
	done    chan struct{}
	state   *os.ProcessState
	started time.Time
	ended   time.Time
}

// spawner starts every container from one thread that lives as long as we do,
// because a child that asked for a parent-death signal dies with the thread
// that started it.
var spawner = sync.OnceValue(func() chan func() {
	jobs := make(chan func())
	go func() {
		runtime.LockOSThread()
		for job := range jobs {
			job()
		}
	}()
	return jobs
})

// Run starts a container. The test's end kills what is left of it.
func Run(t *testing.T, o Options) *Instance {
	t.Helper()
	in := &Instance{t: t, Stdout: &Output{}, Stderr: &Output{}, done: make(chan struct{})}
	in.Root = filepath.Join(t.TempDir(), "root")
	box := buildRoot(t, in.Root, &o)
	config, err := json.Marshal(box)
	require.NoError(t, err)

	cmd := exec.Command(testprogPath, "stage0", string(config))
	cmd.Env = []string{} // the runtime of stage0 shall not be tuned by ours
	cmd.SysProcAttr = namespaces(&o)
	if o.Cgroup != nil {
		// Not moved there afterwards: kernels with a coarse clock, such as the
		// guest's, let threads that are moved before they have run wait for as
		// long as all others have.
		group, err := os.Open(o.Cgroup.Dir)
		require.NoError(t, err)
		defer group.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	}
	var reading sync.WaitGroup
	if o.TTY {
		in.Terminal, o.Stdin = openTerminal(t)
		o.Stdout, o.Stderr = o.Stdin, o.Stdin
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
		// Reading fails when the last holder of the other end is gone.
		reading.Go(func() { _, _ = io.Copy(in.Stdout, in.Terminal) })
	}
	cmd.Stdin = o.Stdin
	cmd.Stdout = collect(t, &reading, o.Stdout, in.Stdout)
	cmd.Stderr = collect(t, &reading, o.Stderr, in.Stderr)
	started := make(chan error)
	spawner() <- func() { in.started = time.Now(); started <- cmd.Start() }
	err = <-started
	for _, f := range []any{cmd.Stdout, cmd.Stderr} {
		if f != any(o.Stdout) && f != any(o.Stderr) {
			f.(*os.File).Close()
		}
	}
	if o.TTY {
		o.Stdin.Close()
	}
	require.NoError(t, err, "start a process in new namespaces")
	// Signals go through os.Process, which knows when it has been waited for:
	// the bare number may by then be a stranger's.
	in.process = cmd.Process
	in.PID = cmd.Process.Pid
	// A short-lived one may have ended: it has no network to enter any more,
	// and there is nothing to list. Held open, because the number of a
	// namespace that is gone is given to the next.
	in.pidNS, _ = os.Open(fmt.Sprintf("/proc/%d/ns/pid", in.PID))
	if !unprivileged {
		in.netNS, _ = os.Open(fmt.Sprintf("/proc/%d/ns/net", in.PID))
	}

	go func() {
		_ = cmd.Wait() // its error is the state
		in.ended = time.Now()
		in.state = cmd.ProcessState
		reading.Wait()
		close(in.done)
	}()
	t.Cleanup(in.cleanup)
	return in
}

// openTerminal makes a pseudo-terminal.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0), "unlock the terminal")
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	return master, slave
}

// cleanup kills PID 1, and with it, by the kernel's hand, the namespace.
func (in *Instance) cleanup() {
	_ = in.process.Kill()
	select {
	case <-in.done:
	case <-time.After(patience):
		in.t.Errorf("container %d cannot be killed", in.PID)
	}
	if in.t.Failed() {
		in.t.Logf("stdout:\n%s", tail(in.Stdout.String()))
		in.t.Logf("stderr:\n%s", tail(in.Stderr.String()))
	}
	if left := in.Processes(); len(left) > 0 {
		in.t.Errorf("the namespace outlived its PID 1: %v", left)
	}
	in.pidNS.Close() // nil is harmless
	in.netNS.Close()
}

func tail(s string) string {
	const most = 4000
	if len(s) > most {
		return "..." + s[len(s)-most:]
	}
	return s
}

func namespaces(o *Options) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	if unprivileged {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: o.UID, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: o.UID, HostID: os.Getegid(), Size: 1}}
		// Only uid 0 keeps its capabilities over the exec of stage0 by itself.
		attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SETPCAP, unix.CAP_SYS_CHROOT}
	}
	return attr
}

// buildRoot makes the root file system and says how stage0 is to use it.
func buildRoot(t *testing.T, root string, o *Options) map[string]any {
	t.Helper()
	if o.Program == "" {
		o.Program = "/bin/cleanimg-init"
	}
	if o.Env == nil {
		o.Env = []string{"PATH=/bin"}
	}
	if o.UID == 0 && !o.Root {
		o.UID = 65532
	}
	for _, dir := range []string{"bin", "proc", "dev", "etc", "tmp", "roles"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	require.NoError(t, os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky))

	mounts := []Mount{{Host: testprogPath, Inside: "/bin/testprog", ReadOnly: true}, {Host: filepath.Join(root, "tmp"), Inside: "/tmp"}}
	if strings.HasPrefix(o.Program, "/bin/") && o.Program != "/bin/testprog" || slices.Contains(o.Args, "/bin/cleanimg-init") {
		mounts = append(mounts, Mount{Host: Binary(t, "cleanimg-init"), Inside: "/bin/cleanimg-init", ReadOnly: true})
	}
	if !o.NoDev {
		for _, dev := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
			mounts = append(mounts, Mount{Host: "/dev/" + dev, Inside: "/dev/" + dev})
		}
	}
	if o.HostPrograms {
		for _, dir := range []string{"/usr", "/lib", "/lib64"} {
			if _, err := os.Stat(dir); err == nil {
				mounts = append(mounts, Mount{Host: dir, Inside: dir, ReadOnly: true})
			}
		}
	}
	if !o.NoMessage {
		// As the kubelet does it: a file of the host that anybody may write.
		log := File{Path: messagePath, Mode: 0o666}
		log.create(t, filepath.Dir(root))
		mounts = append(mounts, Mount{Host: filepath.Join(filepath.Dir(root), messagePath), Inside: messagePath})
	}
	for _, f := range o.Files {
		f.create(t, root)
	}
	var binds []map[string]any
	for _, m := range append(mounts, o.Mounts...) {
		makeMountPoint(t, m.Host, filepath.Join(root, m.Inside))
		binds = append(binds, map[string]any{"From": m.Host, "To": m.Inside, "ReadOnly": m.ReadOnly})
	}
	pidMax := o.PIDMax
	if pidMax == 0 && ownPIDMax() && !unprivileged && !o.NoProc {
		pidMax = 8192 // a storm that is not reaped shall not take the host's pids
	}
	uid := o.UID
	if unprivileged {
		uid = -1 // the mapping has made us that user
	}
	box := map[string]any{
		"Groups": o.Groups, "Root": root, "Binds": binds, "ReadOnly": !o.Writable, "Proc": !o.NoProc, "PIDMax": pidMax, "Loopback": true,
		"UID": uid, "GID": uid, "KeepCaps": o.KeepCaps, "AllCaps": o.Root && o.KeepCaps == nil,
		"NProc": o.NProc, "Dir": o.Dir, "Path": o.Program, "Args": append([]string{o.Program}, o.Args...), "Env": o.Env,
	}
	if o.Cgroup != nil {
		o.Cgroup.show(t, root, o.UID, box)
	}
	return box
}

func makeMountPoint(t *testing.T, host, path string) {
	t.Helper()
	info, err := os.Stat(host)
	require.NoError(t, err)
	if info.IsDir() {
		require.NoError(t, os.MkdirAll(path, 0o755))
		return
	}
	if _, err := os.Lstat(path); err == nil {
		return
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, nil, 0o644))
}

// A File is something in the root file system.
type File struct {
	Path    string
	Content string
	Mode    os.FileMode // 0: 0644
	Link    string      // target; makes the file a symbolic link
	Folder  bool
}

func (f File) create(t *testing.T, root string) {
	t.Helper()
	path := filepath.Join(root, f.Path)
	if f.Mode == 0 {
		f.Mode = 0o644
		if f.Folder {
			f.Mode = 0o755
		}
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	switch {
	case f.Link != "":
		require.NoError(t, os.Symlink(f.Link, path))
	case f.Folder:
		require.NoError(t, os.MkdirAll(path, 0o755))
		require.NoError(t, os.Chmod(path, f.Mode))
	default:
		require.NoError(t, os.WriteFile(path, []byte(f.Content), 0o600))
		require.NoError(t, os.Chmod(path, f.Mode)) // no umask
	}
}

// The default paths.
const (
	messagePath = "/dev/termination-log"

	hooksDir = "/etc/cleanimg-init/hooks.d/"
	stopDir  = "/etc/cleanimg-init/stop.d/"
)

// Hook is an executable hook of testprog statements, one a line.
func Hook(name string, statements ...string) File {
	return Script(hooksDir+name, statements...)
}

// StopHook is the same in stop.d.
func StopHook(name string, statements ...string) File {
	return Script(stopDir+name, statements...)
}

// Script is an executable of testprog statements.
func Script(path string, statements ...string) File {
	return File{Path: path, Mode: 0o755, Content: "#!/bin/testprog script\n" + strings.Join(statements, "\n") + "\n"}
}

// Step is a step file in hooks.d. Its name needs the suffix.
func Step(name string, lines ...string) File {
	return File{Path: hooksDir + name, Content: strings.Join(lines, "\n") + "\n"}
}

// runs is the run line of a step file.
func runs(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	return "run: [/bin/testprog, " + strings.Join(quoted, ", ") + "]"
}

// do is the command line that runs testprog statements under cleanimg-init.
func do(words ...string) []string { return append([]string{"/bin/testprog"}, words...) }

// env is the environment of a container: PATH and the given settings.
func env(settings ...string) []string { return append([]string{"PATH=/bin"}, settings...) }

// Path is the host's name for a path inside.
func (in *Instance) Path(inside string) string { return filepath.Join(in.Root, inside) }

// File reads a file inside; a missing one is empty.
func (in *Instance) File(inside string) string {
	in.t.Helper()
	text, err := os.ReadFile(in.Path(inside))
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(in.t, err)
	}
	return string(text)
}

// touch makes a file inside, for those who wait for it.
func (in *Instance) touch(inside string) {
	in.t.Helper()
	require.NoError(in.t, os.WriteFile(in.Path(inside), nil, 0o666))
}

// ran says that there is a file inside.
func (in *Instance) ran(marker string) bool {
	_, err := os.Stat(in.Path(marker))
	return err == nil
}

// Message is what the termination log holds.
func (in *Instance) Message() string {
	in.t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(in.Root), messagePath))
	require.NoError(in.t, err)
	return string(text)
}

// Signal sends a signal to PID 1 from outside, as an engine does.
func (in *Instance) Signal(s syscall.Signal) {
	in.t.Helper()
	require.NoError(in.t, in.process.Signal(s), "signal %v", s)
}

// Running says that PID 1 has not ended.
func (in *Instance) Running() bool {
	select {
	case <-in.done:
		return false
	default:
		return true
	}
}

// Wait returns the exit code of PID 1; minus the signal's number when one
// killed it. It waits for patience.
func (in *Instance) Wait() int {
	in.t.Helper()
	return in.WaitFor(patience)
}

// WaitFor is Wait with another bound.
func (in *Instance) WaitFor(d time.Duration) int {
	in.t.Helper()
	select {
	case <-in.done:
	case <-time.After(d):
		require.FailNow(in.t, "the container did not end", "within %v; it has %v", d, in.Processes())
	}
	return in.code()
}

// code is for when done is closed.
func (in *Instance) code() int {
	status := in.state.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return -int(status.Signal())
	}
	return status.ExitStatus()
}

// soon is what takes a moment, on the slowest machine. What a test compares
// with it would else take a minute, or for ever.
const soon = 20 * time.Second

// Lived is the time from the start to the end.
func (in *Instance) Lived() time.Duration { return in.ended.Sub(in.started) }

// WaitFile waits until there is a file inside.
func (in *Instance) WaitFile(inside string) {
	in.t.Helper()
	in.eventually("file "+inside, func() bool {
		_, err := os.Stat(in.Path(inside))
		return err == nil
	})
}

// WaitStdout waits until stdout has the text, and WaitStderr does that for
// stderr.
func (in *Instance) WaitStdout(text string) {
	in.t.Helper()
	in.eventually(strconv.Quote(text)+" on stdout", func() bool { return strings.Contains(in.Stdout.String(), text) })
}

func (in *Instance) WaitStderr(text string) {
	in.t.Helper()
	in.eventually(strconv.Quote(text)+" on stderr", func() bool { return strings.Contains(in.Stderr.String(), text) })
}

// eventually polls until the condition holds. The end of the container ends
// the wait too.
func (in *Instance) eventually(what string, holds func() bool) {
	in.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		ended := !in.Running()
		if holds() {
			return
		}
		if ended {
			require.FailNow(in.t, "the container ended", "with %d while the test waited for %s", in.code(), what)
		}
		if time.Now().After(deadline) {
			require.FailNow(in.t, "waited in vain", "for %s; the container has %v", what, in.Processes())
		}
	}
}

// Get asks PID 1's default port for a path, from inside its network.
func (in *Instance) Get(path string) (status int, body string, err error) {
	return in.GetFrom("127.0.0.1:10101", path)
}

// GetFrom asks an address.
func (in *Instance) GetFrom(address, path string) (status int, body string, err error) {
	if in.netNS == nil {
		return in.getByHelper(address, path)
	}
	type answer struct {
		status int
		body   string
		err    error
	}
	got := make(chan answer)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		err := unix.Setns(int(in.netNS.Fd()), unix.CLONE_NEWNET)
		var a answer
		if err == nil {
			// Again, as the kubelet does it: a client that gets no CPU for two
			// seconds after it has connected is taken for one that says nothing.
			for try := 0; try < 5; try++ {
				if a.status, a.body, err = getHere(address, path); err == nil || errors.Is(err, unix.ECONNREFUSED) {
					break
				}
			}
		}
		a.err = err
		got <- a
	}()
	a := <-got
	return a.status, a.body, a.err
}

func getHere(address, path string) (int, string, error) {
	c, err := net.DialTimeout("tcp", address, 30*time.Second)
	if err != nil {
		return 0, "", err
	}
	client := http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext:       func(context.Context, string, string) (net.Conn, error) { return c, nil },
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       30 * time.Second,
	}
	response, err := client.Get("http://" + address + path)
	if err != nil {
		c.Close()
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// getByHelper is for the user without the privilege to enter a network
// namespace: nsenter goes through the user namespace first.
func (in *Instance) getByHelper(address, path string) (int, string, error) {
	out, err := exec.Command("nsenter", "--preserve-credentials", "-U", "-n", "-t", strconv.Itoa(in.PID),
		testprogPath, "get", address, path).Output()
	if err != nil {
		return 0, "", err
	}
	first, body, _ := strings.Cut(string(out), "\n")
	status, err := strconv.Atoi(first)
	return status, body, err
}

// Status is the status code that a path is answered with, 0 without answer.
func (in *Instance) Status(path string) int {
	status, _, err := in.Get(path)
	if err != nil {
		return 0
	}
	return status
}

// WaitStatus waits until a path is answered with a status.
func (in *Instance) WaitStatus(path string, want int) {
	in.t.Helper()
	last := 0
	in.eventually(fmt.Sprintf("%s to answer %d", path, want), func() bool {
		last = in.Status(path)
		return last == want
	})
}

// Exec runs a program inside, as kubectl exec does: in all namespaces, not a
// child of PID 1. It returns the program's output and code.
func (in *Instance) Exec(args ...string) (output string, code int) {
	in.t.Helper()
	cmd := in.execCommand(args...)
	out, err := cmd.CombinedOutput()
	var exited *exec.ExitError
	if !errors.As(err, &exited) {
		require.NoError(in.t, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// ExecStart starts a program inside, and leaves it running until the
// container's end.
func (in *Instance) ExecStart(args ...string) *exec.Cmd {
	in.t.Helper()
	cmd := in.execCommand(args...)
	require.NoError(in.t, cmd.Start())
	in.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func (in *Instance) execCommand(args ...string) *exec.Cmd {
	in.t.Helper()
	if !in.Running() {
		require.FailNow(in.t, "nothing to enter", "the container has ended with %d", in.code())
	}
	enter := []string{"-t", strconv.Itoa(in.PID), "-m", "-p", "-n", "-i", "-u", "-r", "-w"}
	if unprivileged {
		enter = append(enter, "-U", "--preserve-credentials")
	} else {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", in.PID))
		require.NoError(in.t, err)
		uid := regexp.MustCompile(`(?m)^Uid:\t(\d+)`).FindSubmatch(text)
		enter = append(enter, "-S", string(uid[1]), "-G", string(uid[1]))
	}
	cmd := exec.Command("nsenter", append(append(enter, "--"), args...)...)
	cmd.Env = []string{"PATH=/bin:/usr/bin"}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", in.PID))
	require.NoError(in.t, err)
	for v := range strings.SplitSeq(string(environ), "\x00") {
		if v != "" && !strings.HasPrefix(v, "PATH=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	return cmd
}

// A Process is one process in the container.
type Process struct {
	Host, PID, PPID int // outside, inside, and its parent outside
	Name            string
	State           string // R, S, D, T, Z
	Args            []string
}

func (p Process) String() string {
	return fmt.Sprintf("%d(%s %s %s)", p.PID, p.Name, p.State, strings.Join(p.Args, " "))
}

// Processes lists what is in the container's pid namespace, and not in one
// nested in it.
func (in *Instance) Processes() []Process {
	var own, other unix.Stat_t
	if in.pidNS == nil || unix.Fstat(int(in.pidNS.Fd()), &own) != nil {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []Process
	for _, e := range entries {
		host, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		err = unix.Stat(fmt.Sprintf("/proc/%d/ns/pid", host), &other)
		if err != nil || other.Ino != own.Ino {
			continue
		}
		if p, ok := process(host); ok {
			all = append(all, p)
		}
	}
	return all
}

func process(host int) (Process, bool) {
	p := Process{Host: host}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", host))
	if err != nil {
		return p, false
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		switch {
		case len(f) == 0:
		case name == "Name":
			p.Name = f[0]
		case name == "State":
			p.State = f[0]
		case name == "PPid":
			p.PPID, _ = strconv.Atoi(f[0])
		case name == "NSpid":
			p.PID, _ = strconv.Atoi(f[len(f)-1])
		}
	}
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", host))
	for a := range bytes.SplitSeq(bytes.TrimRight(cmdline, "\x00"), []byte{0}) {
		p.Args = append(p.Args, string(a))
	}
	return p, true
}

// Zombies counts the dead that nobody has reaped.
func (in *Instance) Zombies() int {
	n := 0
	for _, p := range in.Processes() {
		if p.State == "Z" {
			n++
		}
	}
	return n
}

// An Output collects what a container writes.
type Output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write appends.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// String is all so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Lines is all so far, without the last line feed.
func (o *Output) Lines() []string {
	text := strings.TrimSuffix(o.String(), "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// collect returns the write end of a pipe that is read into out, or given.
func collect(t *testing.T, reading *sync.WaitGroup, given *os.File, out *Output) *os.File {
	t.Helper()
	if given != nil {
		return given
	}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	reading.Go(func() {
		defer r.Close()
		_, _ = io.Copy(out, r)
	})
	return w
}
