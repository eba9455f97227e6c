// SPDX-License-Identifier: Apache-2.0

package reaper_test

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// roles are the programs that the test binary can pretend to be. Those that
// stay say so with one line, once they are what they want to be.
var roles map[string]func(arg string) (code int)

func init() {
	if os.Getenv(envRole) == "thread" {
		runtime.LockOSThread() // this is the first thread; main stays on it
	}
	roles = map[string]func(arg string) (code int){
		"stage":    stage,
		"init":     plainInit,
		"exit":     number,
		"die":      die,
		"burn":     burn,
		"pause":    func(string) int { return stay() },
		"stubborn": stubborn,
		"stopped":  stopped,
		"zombies":  zombies,
		"thread":   firstThreadEnds,
		"group":    group,
		"hermits":  hermits,
		"daemon":   daemon,
		"cleared":  cleared,
		"orphan":   orphan,
		"chains":   chains,
		"respawn":  respawn,
		"settle":   settle,
		"reuse":    reuse,
		"masked":   masked,
		"handover": handover,
		"limits":   limits,
		"fds":      fds,
		"where":    where,
		"terminal": terminal,
		"idle":     idle,
		"inherits": inherits,
	}
}

func number(arg string) int {
	n, err := strconv.Atoi(arg)
	check(err)
	return n
}

// stay says that it is ready and lives until it is killed.
func stay() int {
	fmt.Println("ready", os.Getpid())
	for {
		time.Sleep(time.Hour)
	}
}

func die(arg string) int {
	sig := syscall.Signal(number(arg))
	check(unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}))
	// Past the Go runtime, which would print a goroutine dump for some.
	var dfl [8]uintptr
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&dfl)), 0, 8, 0, 0)
	check(syscall.Kill(os.Getpid(), sig))
	return stay()
}

// burn uses CPU time: arg milliseconds of it.
func burn(arg string) int {
	for {
		var use unix.Rusage
		check(unix.Getrusage(unix.RUSAGE_SELF, &use))
		if used := time.Duration(use.Utime.Nano() + use.Stime.Nano()); used > time.Duration(number(arg))*time.Millisecond {
			return 0
		}
	}
}

func stubborn(string) int {
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	return stay()
}

// stopped starts a role and stops it, and itself.
func stopped(role string) int {
	cmd := roleCommand(role, "")
	cmd.Stdout = nil
	check(cmd.Start())
	check(cmd.Process.Signal(unix.SIGSTOP))
	fmt.Println("ready", os.Getpid())
	check(syscall.Kill(os.Getpid(), unix.SIGSTOP))
	return stay()
}

// zombies has arg children that have ended and that it does not wait for.
func zombies(arg string) int {
	signal.Ignore(unix.SIGTERM)
	for range number(arg) {
		check(roleCommand("exit", 0).Start())
	}
	return stay()
}

// firstThreadEnds lives on without its first thread, which makes it look like
// a zombie.
func firstThreadEnds(string) int {
	signal.Ignore(unix.SIGTERM)
	for range 4 {
		go func() {
			runtime.LockOSThread()
			_ = unix.Nanosleep(&unix.Timespec{Sec: 3600}, nil)
		}()
	}
	time.Sleep(10 * time.Millisecond) // the others are made
	_, _ = syscall.Write(1, []byte("ready\n"))
	exitThread()
	return 1
}

//go:norace
func exitThread() { _, _, _ = syscall.RawSyscall(unix.SYS_EXIT, 0, 0, 0) }

// group starts arg stubborn members of its group, and leaves when told.
func group(arg string) int {
	for range number(arg) {
		check(roleCommand("stubborn", "").Start())
	}
	return stay()
}

// hermits is the root of thirteen processes that ignore TERM: itself, four
// leaders of sessions, and for each of these two double forks in sessions of
// their own.
func hermits(string) int {
	signal.Ignore(unix.SIGTERM)
	for range 4 {
		cmd := inherit(roleCommand("daemon", "stay"))
		cmd.SysProcAttr.Setsid = true
		check(cmd.Start())
	}
	return stay()
}

// daemon double-forks: arg "stay" is the session leader that makes two,
// "leave" the process between that ends, and a file's name makes one that
// writes its pid there.
func daemon(arg string) int {
	switch arg {
	case "stay":
		signal.Ignore(unix.SIGTERM)
		for range 2 {
			check(inherit(roleCommand("daemon", "leave")).Run())
		}
		return stay()
	case "leave":
		cmd := inherit(roleCommand("stubborn", ""))
		cmd.SysProcAttr.Setsid = true
		check(cmd.Start())
		return 0
	default:
		check(fmt.Errorf("no daemon %q", arg))
		return 1
	}
}

// inherit passes the mark of the tests on, which a role's environment lacks.
func inherit(cmd *exec.Cmd) *exec.Cmd {
	if value := os.Getenv("TEST_MARK"); value != "" {
		cmd.Env = append(cmd.Env, "TEST_MARK="+value)
	}
	return cmd
}

// cleared is a session leader with a double fork below it, in the session but
// with no environment that could tell where it came from.
func cleared(arg string) int {
	switch arg {
	case "":
		cmd := inherit(roleCommand("cleared", "leader"))
		cmd.SysProcAttr.Setsid = true
		check(cmd.Start())
		return stay()
	case "leader":
		signal.Ignore(unix.SIGTERM)
		check(roleCommand("cleared", "leave").Run())
		return stay()
	default:
		cmd := roleCommand("stubborn", "")
		cmd.SysProcAttr.Setpgid = true
		check(cmd.Start())
		return 0
	}
}

// orphan leaves a process behind that ends after arg milliseconds.
func orphan(arg string) int {
	syscall.ForkLock.Lock() // nobody else's descriptors; it is not undone
	forkSleeper(int64(number(arg)) * 1e6)
	return 0
}

// plainInit is PID 1 of a place: it runs the test beside itself and reaps.
func plainInit(string) int {
	p := parsePlace(os.Getenv(envPlace))
	if err := mountProc(p["proc"], p["pid_max"]); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the place:", err)
		return codeNotAllowed
	}
	check(os.Unsetenv(envRole))
	pid, err := syscall.ForkExec(self(), os.Args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2, 3}})
	check(err)
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		if err == nil && got == pid {
			return status.ExitStatus()
		}
	}
}

// chains starts "WIDTH LENGTH" chains of orphans: WIDTH chains of processes
// that fork the next and end.
func chains(arg string) int {
	var width, length int
	_, err := fmt.Sscan(arg, &width, &length)
	check(err)
	for range width {
		forkChain(length, 0)
	}
	return 0
}

// respawn leaves arg daemons behind, each in a session of its own, that fork
// themselves again and again and live for two milliseconds each.
func respawn(arg string) int {
	signal.Ignore(unix.SIGTERM)
	for range number(arg) {
		forkChain(math.MaxInt, 2e6)
	}
	return stay()
}

// settle moves itself into a group that it makes in its own, and stays there
// with a child.
func settle(string) int {
	signal.Ignore(unix.SIGTERM)
	dir, err := os.MkdirTemp(cgroup.Where{}.Unified(), "nested-")
	check(err)
	check(os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0o600))
	cmd := roleCommand("stubborn", "")
	cmd.SysProcAttr.Setsid = true
	check(cmd.Start())
	return stay()
}

// reuse makes processes until one has the pid arg. That one stays.
func reuse(arg string) int {
	if !forkUntil(number(arg)) {
		return 1
	}
	return stay()
}

// The functions below fork without the runtime's help. In the child there is
// no other thread, so it may only make system calls: no allocation, no growing
// of the stack, no scheduling, no race detector.

//go:norace
//go:nosplit
func rawFork() (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	return pid, errno
}

//go:norace
//go:nosplit
func rawExit(code uintptr) {
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, code, 0, 0)
	}
}

//go:norace
//go:nosplit
func rawSleep(ns int64) {
	ts := unix.Timespec{Sec: ns / 1e9, Nsec: ns % 1e9}
	_, _, _ = syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// forkChain forks a process that sleeps, forks the next of its kind and ends,
// length times. They exit with all codes there are, so that a status that goes
// to the wrong child is seen. With a pause they are in a session of their own.
//
//go:norace
//go:nosplit
func forkChain(length int, pause int64) {
	if pid, errno := rawFork(); pid != 0 || errno != 0 {
		return
	}
	if pause > 0 {
		_, _, _ = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
	}
	for n := length; n > 0; n-- {
		if pause > 0 {
			rawSleep(pause)
		}
		pid, errno := rawFork()
		for errno != 0 { // EAGAIN: no pid is free
			rawSleep(1e5)
			pid, errno = rawFork()
		}
		if pid != 0 {
			rawExit(uintptr(n & 0xff))
		}
	}
	rawExit(0)
}

//go:norace
//go:nosplit
func forkSleeper(ns int64) {
	if pid, errno := rawFork(); pid != 0 || errno != 0 {
		return
	}
	rawSleep(ns)
	rawExit(3)
}

//go:norace
//go:nosplit
func forkUntil(want int) bool {
	for range 100_000 {
		pid, errno := rawFork()
		if pid == 0 && errno == 0 {
			self, _, _ := syscall.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
			if int(self) != want {
				rawExit(0)
			}
			for {
				rawSleep(1e12)
			}
		}
		if errno == 0 && int(pid) == want {
			return true
		}
		if errno == 0 {
			_, _, _ = syscall.RawSyscall6(unix.SYS_WAIT4, pid, 0, 0, 0, 0, 0)
		}
	}
	return false
}

// masked blocks and ignores what it can and executes the role arg.
func masked(arg string) int {
	runtime.LockOSThread()
	var blocked unix.Sigset_t
	for sig := 1; sig <= 64; sig++ {
		blocked.Val[(sig-1)/64] |= 1 << ((sig - 1) % 64)
		ignore := [8]uintptr{1}
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&ignore)), 0, 8, 0, 0)
	}
	check(unix.PthreadSigmask(unix.SIG_SETMASK, &blocked, nil))
	check(syscall.Exec(self(), os.Args, roleEnv("handover", arg)))
	return 1
}

// handover is a program with a reaper: it starts or becomes cat, which shows
// what it was given.
func handover(arg string) int {
	cat, err := exec.LookPath("cat")
	if err != nil {
		cat = "/bin/cat"
	}
	reaper.ResetIgnored()
	c := reaper.Command{
		Path: cat, Args: []string{"cat", "/proc/self/status"},
		Files: []uintptr{0, 1, 2},
	}
	if arg == "replace" {
		c.Dir = "/"
		check(reaper.Replace(c))
	}
	var r reaper.Reaper
	child, err := r.Start(c)
	check(err)
	<-child.Done()
	<-r.Empty()
	return child.Exit().Code()
}

// limits sets a low soft limit for descriptors, and shows what a child that the
// reaper starts has.
func limits(arg string) int {
	var limit unix.Rlimit
	check(unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	switch arg {
	case "set":
		limit.Cur = 77
		check(syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit.Cur, Max: limit.Max}))
		check(syscall.Exec(self(), os.Args, roleEnv("limits", "start")))
	case "start":
		var r reaper.Reaper
		child, err := r.Start(reaper.Command{
			Path: "/bin/cat", Args: []string{"cat", "/proc/self/limits"}, Files: []uintptr{0, 1, 2},
		})
		check(err)
		return child.Exit().Code()
	}
	return 1
}

// fds prints the descriptors that it was started with.
func fds(string) int {
	fmt.Print(descriptors(opened(0, 1, 2)...))
	return 0
}

func opened(fds ...int) []int {
	return slices.DeleteFunc(fds, func(fd int) bool {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		return err != nil
	})
}

func where(string) int {
	dir, err := os.Getwd()
	check(err)
	fmt.Println(dir, strings.Join(os.Environ(), " "))
	return 0
}

// terminal tells whether a child that is started with Foreground has the
// terminal. It makes a pseudo terminal and a session for it first.
func terminal(arg string) int {
	switch arg {
	case "session":
		master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
		check(err)
		check(unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
		n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
		check(err)
		tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
		check(err)
		cmd := roleCommand("terminal", "leader")
		cmd.Stdin = tty
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		return codeOf(cmd.Run())
	case "leader":
		var r reaper.Reaper
		cmd := roleCommand("terminal", "child")
		for range 2 { // the second time we are in the background ourselves
			child, err := r.Start(reaper.Command{
				Path: cmd.Path, Args: cmd.Args, Env: cmd.Env, Files: []uintptr{0, 1, 2}, Foreground: true,
			})
			check(err)
			if code := child.Exit().Code(); code != 0 {
				return code
			}
		}
		fmt.Println("foreground")
		return 0
	default:
		pgid, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
		check(err)
		if pgid != unix.Getpgrp() {
			return 1
		}
		return 0
	}
}

// installFilter makes system calls fail as a seccomp profile would.
func installFilter(kind string) error {
	denied := map[string][][2]uint32{
		"":       nil,
		"pidfd":  {{unix.SYS_PIDFD_OPEN, uint32(unix.EPERM)}, {unix.SYS_CLONE3, uint32(unix.ENOSYS)}},
		"waitid": {{unix.SYS_WAITID, uint32(unix.EPERM)}},
	}[kind]
	if denied == nil {
		return nil
	}
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the call's number
	for _, d := range denied {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: d[0], Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | d[1]})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("install the seccomp filter: %w", errno)
	}
	return nil
}
