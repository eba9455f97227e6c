// SPDX-License-Identifier: Apache-2.0

package reaper_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

func TestExitCodes(t *testing.T) {
	endAll(t)
	step := 1
	if testing.Short() {
		step = 17
	}
	children := map[int]*reaper.Child{}
	for code := 0; code <= 255; code += step {
		children[code] = start(t, "exit", code)
	}
	for code, child := range children {
		e := exitOf(t, child)
		assert.Equal(t, code, e.Code())
		assert.Zero(t, e.Signal(), "code %d", code)
		assert.True(t, e.Status.Exited(), "code %d", code)
	}
}

func TestKillingSignals(t *testing.T) {
	endAll(t)
	harmless := map[syscall.Signal]bool{
		unix.SIGCHLD: true, unix.SIGCONT: true, unix.SIGSTOP: true, unix.SIGTSTP: true,
		unix.SIGTTIN: true, unix.SIGTTOU: true, unix.SIGURG: true, unix.SIGWINCH: true,
	}
	children := map[syscall.Signal]*reaper.Child{}
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		if !harmless[sig] {
			children[sig] = start(t, "die", int(sig))
		}
	}
	for sig, child := range children {
		e := exitOf(t, child)
		assert.Equal(t, 128+int(sig), e.Code(), sig)
		assert.Equal(t, sig, e.Signal())
	}
}

func TestUsageAndTime(t *testing.T) {
	endAll(t)
	before := time.Now()
	e := exitOf(t, start(t, "burn", 50))
	assert.GreaterOrEqual(t, e.Usage.Utime.Nano()+e.Usage.Stime.Nano(), int64(50*time.Millisecond))
	assert.Positive(t, e.Usage.Maxrss)
	assert.WithinRange(t, e.At, before, time.Now())
}

func TestFailedStartLeavesNothing(t *testing.T) {
	endAll(t)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "plain"), nil, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "empty"), nil, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "script"), []byte("#!/missing/interpreter\n"), 0o755))
	tests := []struct {
		name, path string
		args       []string
		dir        string
		want       error
	}{
		{"missing", filepath.Join(dir, "missing"), nil, "", unix.ENOENT},
		{"missing interpreter", filepath.Join(dir, "script"), nil, "", unix.ENOENT},
		{"missing directory", "/proc/self/exe", nil, filepath.Join(dir, "missing"), unix.ENOENT},
		{"not executable", filepath.Join(dir, "plain"), nil, "", unix.EACCES},
		{"no format", filepath.Join(dir, "empty"), nil, "", unix.ENOEXEC},
		{"arguments too long", "/proc/self/exe", []string{strings.Repeat("x", 1<<22)}, "", unix.E2BIG},
		{"zero byte", "/proc/self\x00/exe", nil, "", unix.EINVAL},
	}
	pause := ready(t, "pause", "")
	orphans := shared.Orphans()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := program(t, "exit", 0)
			c.Path, c.Args, c.Dir = tt.path, append(c.Args, tt.args...), tt.dir
			for range 50 {
				child, err := shared.Start(c)
				require.ErrorIs(t, err, tt.want)
				require.Nil(t, child)
			}
		})
	}
	require.NoError(t, pause.Signal(unix.SIGKILL))
	exitOf(t, pause)
	requireEmpty(t)
	assert.Equal(t, orphans, shared.Orphans(), "a failed start was taken for an orphan")
}

func TestSignalAfterReaping(t *testing.T) {
	child := ready(t, "pause", "")
	require.NoError(t, child.Signal(0))
	require.NoError(t, child.SignalGroup(unix.SIGTERM))
	assert.Equal(t, 143, exitOf(t, child).Code())
	require.ErrorIs(t, child.Signal(unix.SIGTERM), unix.ESRCH)
	require.ErrorIs(t, child.SignalGroup(unix.SIGTERM), unix.ESRCH)
	requireEmpty(t)
}

func TestSignalGroupReachesTheGroup(t *testing.T) {
	endAll(t)
	child, lines := startReady(t, program(t, "group", 3), 4)
	require.Len(t, lines, 4)
	require.NoError(t, child.SignalGroup(unix.SIGKILL))
	assert.Equal(t, 137, exitOf(t, child).Code())
	requireEmpty(t)
}

func TestSignalChildren(t *testing.T) {
	endAll(t)
	a, b := ready(t, "pause", ""), ready(t, "pause", "")
	shared.SignalChildren(unix.SIGHUP)
	for _, child := range []*reaper.Child{a, b} {
		assert.Equal(t, unix.SIGHUP, exitOf(t, child).Signal())
	}
}

// In a namespace with few pids, a pid comes back soon.
func TestSignalNeverReachesTheNextOwnerOfThePID(t *testing.T) {
	if !rerun(t, "pid1 pid_max=400") {
		return
	}
	endAll(t)
	exitOf(t, start(t, "chains", "1 400")) // the kernel gives pids under 300 only once
	requireEmpty(t)
	child := ready(t, "pause", "")
	pid := child.PID()
	require.NoError(t, child.Signal(unix.SIGKILL))
	exitOf(t, child)
	ready(t, "reuse", pid)
	require.True(t, alive(pid), "pid %d has a new owner", pid)
	for _, sig := range []syscall.Signal{0, unix.SIGTERM, unix.SIGKILL} {
		require.ErrorIs(t, child.Signal(sig), unix.ESRCH)
		require.ErrorIs(t, child.SignalGroup(sig), unix.ESRCH)
	}
	assert.Empty(t, shared.End(reaper.Ending{Of: child}))
	assert.True(t, alive(pid), "the new owner of pid %d lives", pid)
}

// What ends while no child of ours is left must not stay a zombie: a process
// that has entered the namespace can leave an orphan there at any time.
func TestOrphanArrivesWhileChildless(t *testing.T) {
	for _, filter := range []string{"pidfd", "waitid"} {
		t.Run(filter, func(t *testing.T) {
			if !rerun(t, "pid1 filter="+filter) {
				return
			}
			assert.Equal(t, 7, exitOf(t, start(t, "exit", 7)).Code())
			requireEmpty(t)
			for i := range 5 {
				neighbour(t, "orphan", 20*i)
				eventually(t, "orphan reaped", func() bool { return shared.Orphans() == i+1 })
			}
			assert.Equal(t, 8, exitOf(t, start(t, "exit", 8)).Code(), "children are waited for as before")
			requireEmpty(t)
		})
	}
}

func TestEmptyKnowsTheAdopted(t *testing.T) {
	if !rerun(t, "pid1") {
		return
	}
	exitOf(t, start(t, "exit", 0))
	requireEmpty(t)
	neighbour(t, "orphan", 300)
	eventually(t, "the orphan is ours and Empty says so", func() bool {
		select {
		case <-shared.Empty():
			return false
		default:
			return true
		}
	})
	assert.Zero(t, shared.Orphans(), "it lives")
	requireEmpty(t)
	assert.Equal(t, 1, shared.Orphans())
}

func TestNoWakeUpsWhileIdle(t *testing.T) {
	for _, state := range []string{"childless", "waiting"} {
		t.Run(state, func(t *testing.T) {
			endAll(t)
			// A process of its own: the tests' runtime has other things to do.
			child := ready(t, "idle", state)
			// The runtime calms down first.
			eventually(t, "200 ms without a wake-up", func() bool {
				before := contextSwitches(t, child.PID())
				time.Sleep(200 * time.Millisecond)
				return contextSwitches(t, child.PID()) == before
			})
			before := contextSwitches(t, child.PID())
			time.Sleep(time.Second)
			assert.Equal(t, before, contextSwitches(t, child.PID()))
		})
	}
}

// idle has a reaper with nothing to do.
func idle(state string) int {
	var r reaper.Reaper
	cmd := roleCommand("pause", "")
	if state == "childless" {
		cmd = roleCommand("exit", 0)
	}
	child, err := r.Start(reaper.Command{Path: cmd.Path, Args: cmd.Args, Env: cmd.Env, Files: []uintptr{0, 2, 2}})
	check(err)
	if state == "childless" {
		<-child.Done()
		<-r.Empty()
	}
	return stay()
}

func contextSwitches(t *testing.T, pid int) (n uint64) {
	t.Helper()
	threads, err := procfs.AllThreads(pid)
	require.NoError(t, err)
	for _, thread := range threads {
		status, err := thread.NewStatus()
		require.NoError(t, err)
		n += status.VoluntaryCtxtSwitches + status.NonVoluntaryCtxtSwitches
	}
	return n
}

func TestNoThreadPerChild(t *testing.T) {
	endAll(t)
	n := 200
	if testing.Short() {
		n = 50
	}
	threads := func() int {
		proc, err := procfs.NewProc(os.Getpid())
		require.NoError(t, err)
		stat, err := proc.Stat()
		require.NoError(t, err)
		return stat.NumThreads
	}
	ready(t, "pause", "")
	before := threads()
	goroutines := runtime.NumGoroutine()
	for range n {
		start(t, "pause", "")
	}
	assert.LessOrEqual(t, threads(), before+8, "%d children", n)
	assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines+1)
}

func TestConcurrentUse(t *testing.T) {
	endAll(t)
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 10 {
				code := worker*10 + i
				child := start(t, "exit", code)
				_ = child.Signal(0)
				_ = child.SignalGroup(unix.SIGCONT)
				shared.Orphans()
				shared.Empty()
				if i%5 == 0 {
					shared.SignalDescendants(unix.SIGCONT)
					shared.End(reaper.Ending{Of: start(t, "pause", ""), Grace: time.Second})
				}
				assert.Equal(t, code, exitOf(t, child).Code())
			}
		})
	}
	all.Wait()
	requireEmpty(t)
}

// An execve can take long, of a program on a network file system say. What
// happens then is seen with fanotify, which asks us before anybody may execute
// the file.
func TestSlowStartStopsNobodyElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("fanotify's permission events need CAP_SYS_ADMIN in the first user namespace")
	}
	endAll(t)
	slow := filepath.Join(t.TempDir(), "slow")
	binary, err := os.ReadFile(self())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(slow, binary, 0o755))
	fan, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		t.Skip("fanotify_init:", err)
	}
	defer unix.Close(fan)
	require.NoError(t, unix.FanotifyMark(fan, unix.FAN_MARK_ADD, unix.FAN_OPEN_EXEC_PERM, unix.AT_FDCWD, slow))

	pause, other := ready(t, "pause", ""), ready(t, "pause", "")
	c := program(t, "exit", 42)
	c.Path = slow
	started := make(chan *reaper.Child)
	go func() {
		child, err := shared.Start(c)
		assert.NoError(t, err)
		started <- child
	}()
	var event struct {
		unix.FanotifyEventMetadata
		_ [64]byte
	}
	_, err = unix.Read(fan, unsafe.Slice((*byte)(unsafe.Pointer(&event)), unsafe.Sizeof(event)))
	require.NoError(t, err)

	begun := time.Now()
	require.NoError(t, pause.Signal(unix.SIGTERM))
	assert.Equal(t, 143, exitOf(t, pause).Code())
	assert.Empty(t, shared.End(reaper.Ending{Of: other, Grace: 10 * time.Second}))
	assert.Equal(t, 143, exitOf(t, other).Code())
	assert.Less(t, time.Since(begun), 5*time.Second)
	select {
	case <-started:
		t.Fatal("the execve was not held up")
	default:
	}

	answer := unix.FanotifyResponse{Fd: event.Fd, Response: unix.FAN_ALLOW}
	_, err = unix.Write(fan, unsafe.Slice((*byte)(unsafe.Pointer(&answer)), unsafe.Sizeof(answer)))
	require.NoError(t, err)
	require.NoError(t, unix.Close(int(event.Fd)))
	assert.Equal(t, 42, exitOf(t, <-started).Code())
}

// What a program leaves running before it executes us is ours, too.
func TestInheritedChildren(t *testing.T) {
	out, e := run(t, program(t, "inherits", "before"))
	assert.Zero(t, e.Code())
	assert.Equal(t, "empty: false, reaped: 1\n", out)
	requireEmpty(t)
}

func inherits(arg string) int {
	if arg == "before" {
		syscall.ForkLock.Lock()
		forkSleeper(200e6)
		check(syscall.Exec(self(), os.Args, roleEnv("inherits", "after")))
	}
	var r reaper.Reaper
	empty := r.Empty()
	select {
	case <-empty:
		fmt.Print("empty: true")
	default:
		fmt.Print("empty: false")
	}
	<-empty
	fmt.Printf(", reaped: %d\n", r.Orphans())
	return 0
}
