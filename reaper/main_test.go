// SPDX-License-Identifier: Apache-2.0

package reaper_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// shared is the one Reaper of the test process. It takes the status of every
// child, so nothing in the tests themselves uses os/exec: the roles do.
var shared reaper.Reaper

const (
	envRole  = "TEST_ROLE"  // run roles[…] instead of the tests
	envArg   = "TEST_ARG"   // its argument
	envPlace = "TEST_PLACE" // the place that a test was started again in
	envSelf  = "TEST_SELF"  // the test binary, for where /proc cannot tell
)

func TestMain(m *testing.M) {
	reaper.Gate(os.Args)
	if name := os.Getenv(envRole); name != "" {
		role, ok := roles[name]
		if !ok {
			fmt.Fprintf(os.Stderr, "no role %q\n", name)
			os.Exit(125)
		}
		os.Exit(role(os.Getenv(envArg)))
	}
	if err := arrive(os.Getenv(envPlace)); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the place:", err)
		os.Exit(codeNotAllowed)
	}
	os.Exit(m.Run())
}

// program is the command that plays a role.
func program(t testing.TB, role string, arg any) reaper.Command {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { null.Close() })
	return reaper.Command{
		Path: self(), Args: []string{"cleanimg-" + role}, Env: roleEnv(role, arg),
		Files: []uintptr{null.Fd(), null.Fd(), os.Stderr.Fd()},
		Group: true, // where there is a gate: in a place with cgroups
	}
}

func roleEnv(role string, arg any) []string {
	return []string{
		envSelf + "=" + self(),
		envRole + "=" + role, envArg + "=" + fmt.Sprint(arg), "GOMAXPROCS=1",
		"GORACE=atexit_sleep_ms=0", // a program built with -race lingers otherwise
	}
}

// self is the path of the test binary.
func self() string {
	if path := os.Getenv(envSelf); path != "" {
		return path
	}
	path, err := os.Executable()
	check(err)
	return path
}

// start starts a role whose output nobody reads.
func start(t testing.TB, role string, arg any) *reaper.Child {
	t.Helper()
	child, err := shared.Start(program(t, role, arg))
	require.NoError(t, err)
	return child
}

// startReady starts a command and returns when ready lines have come from it,
// or from what it started. It returns them.
func startReady(t testing.TB, c reaper.Command, ready int) (*reaper.Child, []string) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	c.Files = append([]uintptr{}, c.Files...)
	c.Files[1] = w.Fd()
	child, err := shared.Start(c)
	require.NoError(t, w.Close())
	require.NoError(t, err)
	require.NoError(t, r.SetReadDeadline(time.Now().Add(time.Minute)))
	in := bufio.NewReader(r)
	var lines []string
	for range ready {
		line, err := in.ReadString('\n')
		require.NoError(t, err, "after %q", lines)
		lines = append(lines, strings.TrimSpace(line))
	}
	return child, lines
}

// ready starts a role that says so once it is.
func ready(t testing.TB, role string, arg any) *reaper.Child {
	t.Helper()
	child, _ := startReady(t, program(t, role, arg), 1)
	return child
}

// run starts a command and returns its output when it and all that holds its
// standard output have ended.
func run(t testing.TB, c reaper.Command) (string, reaper.Exit) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	c.Files = append([]uintptr{}, c.Files...)
	c.Files[1] = w.Fd()
	child, err := shared.Start(c)
	require.NoError(t, w.Close())
	require.NoError(t, err)
	out, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(out), exitOf(t, child)
}

// exitOf waits for a child, but not for ever.
func exitOf(t testing.TB, child *reaper.Child) reaper.Exit {
	t.Helper()
	select {
	case <-child.Done():
	case <-time.After(time.Minute):
		t.Fatalf("no status of %d", child.PID())
	}
	return child.Exit()
}

// endAll makes sure that a test leaves nothing behind, not even a zombie.
func endAll(t testing.TB) {
	t.Cleanup(func() {
		shared.End(reaper.Ending{})
		requireEmpty(t)
	})
}

func requireEmpty(t testing.TB) {
	t.Helper()
	select {
	case <-shared.Empty():
	case <-time.After(time.Minute):
		left, err := reaper.Descendants()
		t.Fatalf("not empty: %v, %v", left, err)
	}
	err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	require.Error(t, err, "Empty is closed, but the kernel knows a child")
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// alive tells whether a process runs: a zombie does not.
func alive(pid int) bool {
	proc, err := procfs.NewProc(pid)
	if err != nil {
		return false
	}
	stat, err := proc.Stat()
	return err == nil && stat.State != "Z" && stat.State != "X"
}

// codeNotAllowed is the exit code of a stage when the machine does not allow it.
const codeNotAllowed = 77

// A place is where a test runs again, in the words of [rerun].
type place map[string]string

func parsePlace(s string) place {
	p := place{}
	for word := range strings.FieldsSeq(s) {
		key, value, _ := strings.Cut(word, "=")
		p[key] = value
	}
	return p
}

// rerun runs the calling test again in a place and returns false: there is
// nothing else to do; in the place itself it returns true. The words of where:
//
//	pid1        the test binary is PID 1 of a new pid namespace
//	sub         it is another process there, a subreaper
//	pid_max=N   of the namespace
//	proc=none   nothing is mounted at /proc
//	proc=outer  /proc is that of the pid namespace above
//	proc=hidden /proc shows only what we could trace, and that are our own
//	cgroup      we are in a cgroup v2 group that we may make others in
//	filter=X    a seccomp filter: pidfd, waitid
func rerun(t *testing.T, where string) bool {
	t.Helper()
	if os.Getenv(envPlace) != "" {
		return true
	}
	c := program(t, "stage", where)
	name := "^" + strings.ReplaceAll(regexp.QuoteMeta(t.Name()), "/", "$/^") + "$"
	c.Env = append(c.Env, "TEST_RUN="+name, fmt.Sprintf("TEST_SHORT=%t", testing.Short()), "TMPDIR="+os.TempDir())
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	c.Files = []uintptr{c.Files[0], w.Fd(), w.Fd()}
	child, err := shared.Start(c)
	w.Close()
	require.NoError(t, err)
	output, err := io.ReadAll(r)
	require.NoError(t, err)
	switch code := exitOf(t, child).Code(); {
	case code == codeNotAllowed, code == 0 && bytes.Contains(output, []byte("--- SKIP: ")):
		t.Skipf("%s: %s", where, output)
	case code != 0:
		t.Fatalf("%s: exit code %d\n%s", where, code, output)
	case !bytes.Contains(output, []byte("--- PASS: ")):
		t.Fatalf("%s: no test has run\n%s", where, output)
	}
	t.Logf("%s:\n%s", where, output)
	return false
}

// stage makes the place and runs the test in it. Then it serves the test: a
// line "ROLE ARG" at the socket starts that role in the test's pid namespace
// as `kubectl exec` would, without a parent there, and answers with its pid.
func stage(where string) int {
	runtime.LockOSThread() // Pdeathsig is sent when the thread ends
	p := parsePlace(where)
	if os.Geteuid() != 0 {
		cmd := exec.Command(self())
		cmd.Env = os.Environ()
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
			Pdeathsig:   syscall.SIGKILL,
		}
		return codeOf(cmd.Run())
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(err)
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	cmd := exec.Command(self(), "-test.v", "-test.count=1", "-test.timeout=2m",
		"-test.run="+os.Getenv("TEST_RUN"), "-test.short="+os.Getenv("TEST_SHORT"))
	cmd.Env = append(os.Environ(), envRole+"=", envPlace+"="+where, "GOMAXPROCS=")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if _, sub := p["sub"]; sub {
		cmd.Env = append(cmd.Env, envRole+"=init")
	}
	if _, boxed := p["cgroup"]; boxed {
		dir, err := os.MkdirTemp(cgroup.Where{}.Unified(), "cleanimg-init-test-")
		if err != nil {
			fmt.Println("make a cgroup v2 group:", err)
			return codeNotAllowed
		}
		defer os.Remove(dir) // fails where a test left something in it
		box, err := os.Open(dir)
		check(err)
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(box.Fd())
	}
	if err := cmd.Start(); err != nil {
		fmt.Println("start in new namespaces:", err)
		return codeNotAllowed
	}
	theirs.Close()
	go serveNeighbours(ours, cmd.Process.Pid)
	return codeOf(cmd.Wait())
}

func serveNeighbours(requests *os.File, init int) {
	runtime.LockOSThread() // not undone: the thread makes children elsewhere
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", init))
	check(err)
	check(unix.Setns(int(ns.Fd()), unix.CLONE_NEWPID))
	check(ns.Close())
	lines := bufio.NewScanner(requests)
	for lines.Scan() {
		role, arg, _ := strings.Cut(lines.Text(), " ")
		cmd := roleCommand(role, arg)
		check(cmd.Start())
		proc, err := procfs.NewProc(cmd.Process.Pid)
		check(err)
		status, err := proc.NewStatus()
		check(err)
		fmt.Fprintln(requests, status.NSpids[len(status.NSpids)-1])
		go cmd.Wait()
	}
}

// neighbour starts a role beside a test that runs in a pid namespace: not a
// child of anybody there.
func neighbour(t *testing.T, role string, arg any) (pid int) {
	t.Helper()
	const stageFD = 3
	_, err := syscall.Write(stageFD, fmt.Appendf(nil, "%s %v\n", role, arg))
	require.NoError(t, err)
	answer := make([]byte, 32)
	n, err := syscall.Read(stageFD, answer)
	require.NoError(t, err)
	pid, err = strconv.Atoi(strings.TrimSpace(string(answer[:n])))
	require.NoError(t, err)
	return pid
}

// arrive prepares the place that the test binary was started in.
func arrive(where string) error {
	// What qemu-user does not know is invalid; the parsers are tested there.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	if where == "" {
		return nil
	}
	p := parsePlace(where)
	if _, sub := p["sub"]; !sub {
		if err := mountProc(p["proc"], p["pid_max"]); err != nil {
			return err
		}
	}
	syscall.CloseOnExec(3)
	if _, boxed := p["cgroup"]; boxed {
		shared.Gate = self()
	}
	return installFilter(p["filter"])
}

func mountProc(kind, pidMax string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if pidMax != "" {
		if err := setPIDMax(pidMax); err != nil {
			return err
		}
	}
	switch kind {
	case "outer", "mounted":
		return nil
	case "none":
		return unix.Mount("none", "/proc", "tmpfs", 0, "")
	case "hidden":
		if err := unix.Mount("proc", "/proc", "proc", 0, "hidepid=2,gid=65532"); err != nil {
			return err
		}
		return execWithout(unix.CAP_SYS_PTRACE)
	default:
		return unix.Mount("proc", "/proc", "proc", 0, "")
	}
}

// execWithout begins the program anew without a capability, in a place where
// there is nothing left to mount.
func execWithout(capability uintptr) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil {
		return err
	}
	if err := os.Setenv(envPlace, strings.Replace(os.Getenv(envPlace), "proc=hidden", "proc=mounted", 1)); err != nil {
		return err
	}
	return syscall.Exec(self(), os.Args, os.Environ())
}

// setPIDMax sets kernel.pid_max, and makes sure that it is the namespace's own.
func setPIDMax(value string) error {
	const file = "/proc/sys/kernel/pid_max" // answers for the namespace of who opens it
	before, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &major, &minor); err != nil {
		return err
	}
	if major < 6 || major == 6 && minor < 14 {
		return fmt.Errorf("pid_max is %s for the whole machine before Linux 6.14", bytes.TrimSpace(before))
	}
	return os.WriteFile(file, []byte(value), 0)
}

func roleCommand(role string, arg any) *exec.Cmd {
	cmd := exec.Command(self())
	cmd.Args[0] = "cleanimg-" + role
	cmd.Env = roleEnv(role, arg)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return cmd
}

func codeOf(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode()
	case errors.As(err, &exit):
		return 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
	default:
		fmt.Println(err)
		return codeNotAllowed
	}
}

// check ends a role that cannot be played.
func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Getenv(envRole)+":", err)
		os.Exit(125)
	}
}
