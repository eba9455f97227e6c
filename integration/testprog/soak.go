// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The verbs of the soak test. main.go's init has made the map: the files'
// init functions run in the order of their names.
func init() {
	verbs["soak"] = soak
	verbs["leave"] = leave
	verbs["adopt"] = adopt
	takesAll["adopt"] = true
}

// soak: the command of the soak test. It prints "got NUMBER" for every signal
// that arrives, and does at the same time what it reads from stdin, a line
// "ID ACTION ARGUMENTS..." each. To each it answers, when all of it is over,
//
//	done ID ok N      N orphans were left to whoever reaps here
//	done ID bad WHY   a status was not what it must be
//
// The line "ID end CODE" or "ID end SIGNAL" (a name) ends it.
func soak(args []string) error {
	if len(args) == 0 {
		// Blocked before the runtime starts, so that all its threads inherit it.
		if err := block([]string{realTimeList()}); err != nil {
			return err
		}
		return syscall.Exec(self(), []string{self(), "soak", "blocked"}, os.Environ())
	}
	if err := countRealTime(); err != nil {
		return err
	}
	caught := make(chan os.Signal, 4096)
	var others []os.Signal
	for sig := syscall.Signal(1); sig < 32; sig++ {
		if sig != syscall.SIGCHLD { // its own children's
			others = append(others, sig)
		}
	}
	signal.Notify(caught, others...)
	say("ready")
	go func() {
		for s := range caught {
			say("got", strconv.Itoa(int(s.(syscall.Signal))))
		}
	}()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		words := strings.Fields(in.Text())
		if words[1] == "end" {
			if _, err := strconv.Atoi(words[2]); err == nil {
				return exit(words[2:])
			}
			return die(words[2:])
		}
		go func() {
			orphans, err := soakAction(words[1], words[2:])
			if err != nil {
				say("done", words[0], "bad", err.Error())
				return
			}
			say("done", words[0], "ok", strconv.Itoa(orphans))
		}()
	}
	return errors.New("nobody tells us what to do")
}

const (
	firstRealTime = 35
	lastRealTime  = 64
)

func realTimeList() string {
	var all []string
	for sig := firstRealTime; sig <= lastRealTime; sig++ {
		all = append(all, strconv.Itoa(sig))
	}
	return strings.Join(all, ",")
}

// countRealTime says "got" for each real-time signal that was sent: the kernel
// queues them. Package os/signal makes one of two that come close together.
func countRealTime() error {
	var set unix.Sigset_t
	for sig := firstRealTime; sig <= lastRealTime; sig++ {
		set.Val[(sig-1)/64] |= 1 << ((sig - 1) % 64)
	}
	fd, err := unix.Signalfd(-1, &set, unix.SFD_CLOEXEC)
	if err != nil {
		return err
	}
	go func() {
		for {
			var info unix.SignalfdSiginfo
			n, err := unix.Read(fd, unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info)))
			if err == nil && n == int(unsafe.Sizeof(info)) {
				say("got", strconv.Itoa(int(info.Signo)))
			} else if !errors.Is(err, unix.EINTR) {
				say("cannot read signals:", fmt.Sprint(n, err))
				return
			}
		}
	}()
	return nil
}

// say prints a line with one system call, so that lines do not mix.
func say(words ...string) { os.Stdout.WriteString(strings.Join(words, " ") + "\n") }

// soakAction returns how many orphans it has left.
func soakAction(action string, args []string) (orphans int, err error) {
	if action == "daemon" || action == "stopped" || action == "exec" {
		return soakPrograms(action, args)
	}
	n := make([]int, 3)
	for i, a := range args {
		if n[i], err = strconv.Atoi(a); err != nil {
			return 0, err
		}
	}
	ms := int64(time.Millisecond)
	switch action {
	case "children": // N, LIFE: with known codes, or killed by a signal
		return 0, children(n[0], int64(n[1])*ms)
	case "stops": // N, CODE: a child that stops itself N times
		return 0, stops(n[0], n[1])
	case "orphans": // N, LIFE
		return (&brood{n: n[0], life: int64(n[1]) * ms}).make()
	case "session": // N, LIFE: of a session leader that ends before them
		return (&brood{n: n[0], life: int64(n[1]) * ms, setsid: 1}).make()
	case "bequeath": // N, LINGER: zombies of a parent that does not care, and ends later
		return (&brood{n: n[0], linger: int64(n[1]) * ms}).make()
	case "subreaper": // N, LIFE, LINGER: of a subreaper that does not reap
		return (&brood{n: n[0], life: int64(n[1]) * ms, linger: int64(n[2]) * ms, subreaper: 1}).make()
	}
	return 0, fmt.Errorf("no such action: %s", action)
}

// soakPrograms are the actions that execute programs.
func soakPrograms(action string, args []string) (orphans int, err error) {
	switch action {
	case "daemon", "stopped": // FILE STATEMENT...: a daemon that makes FILE.ready
		file := args[0]
		if err := program(append([]string{"leave", "-pid", file + ".pid"}, args[1:]...)...); err != nil {
			return 0, err
		}
		if err := awaitFile([]string{file + ".ready"}); err != nil {
			return 0, err
		}
		if action == "stopped" {
			return 1, stop(file + ".pid")
		}
		return 1, nil
	case "exec": // CODE
		err := program("exit", args[0])
		var exited *exec.ExitError
		if want := "exit status " + args[0]; err != nil && (!errors.As(err, &exited) || err.Error() != want) {
			return 0, fmt.Errorf("a program's %v instead of %s", err, want)
		}
		if err == nil && args[0] != "0" {
			return 0, fmt.Errorf("a program's 0 instead of %s", args[0])
		}
		return 0, nil
	}
	return 0, errors.New(action)
}

func program(words ...string) error {
	cmd := exec.Command(self(), words...)
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// stop stops the process whose pid is in the file, and waits until it is.
func stop(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if state, _ := stateOf(pid); state == "T" {
			return nil
		}
	}
	return fmt.Errorf("%d does not stop", pid)
}

// children forks n children that live for some time up to life, and compares
// how they end with how they must.
func children(n int, life int64) error {
	signals := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1}
	want := map[int]syscall.WaitStatus{}
	for i := range n {
		code, sig := i*37%256, syscall.Signal(0)
		status := syscall.WaitStatus(code << 8)
		if i%4 == 3 {
			sig = signals[i/4%len(signals)]
			status = syscall.WaitStatus(sig)
		}
		if pid := forkChild(life*int64(i*7%n)/int64(n), uintptr(code), uintptr(sig)); pid > 0 {
			want[pid] = status
		}
	}
	var wrong error
	for pid, status := range want {
		if got, err := await(pid, 0); err != nil || got != status {
			wrong = fmt.Errorf("child %d: status %#x %v instead of %#x", pid, int(got), err, int(status))
		}
	}
	return wrong
}

// stops forks a child that stops itself n times, and continues it each time.
func stops(n, code int) error {
	pid := forkStopping(n, uintptr(code))
	if pid < 0 {
		return nil
	}
	for i := range n {
		status, err := await(pid, syscall.WUNTRACED)
		if err != nil || !status.Stopped() || status.StopSignal() != syscall.SIGSTOP {
			return fmt.Errorf("child %d: status %#x %v at stop %d", pid, int(status), err, i)
		}
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			return err
		}
	}
	if status, err := await(pid, 0); err != nil || status.ExitStatus() != code {
		return fmt.Errorf("child %d: status %#x %v instead of code %d", pid, int(status), err, code)
	}
	return nil
}

func await(pid, options int) (status syscall.WaitStatus, err error) {
	for {
		if _, err = syscall.Wait4(pid, &status, options, nil); !errors.Is(err, syscall.EINTR) {
			return status, err
		}
	}
}

// A brood is what a process leaves behind that forks and does not wait. The
// times are in nanoseconds. As with forkOrphans, all that the forked processes
// may do is raw system calls.
type brood struct {
	n                 int
	life              int64 // of the last; the first ends after an nth of it
	linger            int64 // of the parent, after it has forked them
	setsid, subreaper uintptr
}

// make returns how many there are, which is what their parent exits with.
func (b *brood) make() (orphans int, err error) {
	pid := b.fork()
	if pid < 0 {
		return 0, nil // no pid is free
	}
	status, err := await(pid, 0)
	if err == nil && !status.Exited() {
		err = fmt.Errorf("a parent ended with %#x", int(status))
	}
	return status.ExitStatus(), err
}

//go:norace
//go:nosplit
func (b *brood) fork() int {
	pid := rawFork()
	if pid != 0 {
		return pid
	}
	rawDefault(uintptr(syscall.SIGCHLD)) // a handler would cut the sleep short
	if b.setsid != 0 {
		syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0)
	}
	if b.subreaper != 0 {
		syscall.RawSyscall(syscall.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 1, 0)
		// The brood is a child's, which ends: then it is ours, for a while.
		if child := rawFork(); child != 0 {
			var status uint32
			for {
				_, _, e := syscall.RawSyscall6(syscall.SYS_WAIT4, uintptr(child), uintptr(unsafe.Pointer(&status)), 0, 0, 0, 0)
				if e != syscall.EINTR {
					break
				}
			}
			rawSleep(b.linger)
			rawExit(uintptr(status >> 8 & 0xff))
		}
	}
	made := uintptr(0)
	for i := range b.n {
		child := rawFork()
		if child < 0 {
			break
		}
		if child == 0 {
			rawSleep(b.life / int64(b.n) * int64(i+1))
			rawExit(uintptr(i))
		}
		made++
	}
	if b.subreaper == 0 {
		rawSleep(b.linger)
	}
	rawExit(made)
	return 0
}

//go:norace
//go:nosplit
func forkChild(life int64, code, sig uintptr) int {
	pid := rawFork()
	if pid != 0 {
		return pid
	}
	rawSleep(life)
	if sig != 0 {
		rawDefault(sig)
		rawKill(sig)
		rawSleep(int64(10 * time.Second))
	}
	rawExit(code)
	return 0
}

//go:norace
//go:nosplit
func forkStopping(n int, code uintptr) int {
	pid := rawFork()
	if pid != 0 {
		return pid
	}
	rawDefault(uintptr(syscall.SIGCONT))
	for range n {
		rawKill(uintptr(syscall.SIGSTOP))
	}
	rawExit(code)
	return 0
}

//go:norace
//go:nosplit
func rawFork() int {
	pid, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if e != 0 {
		return -1
	}
	return int(pid)
}

//go:norace
//go:nosplit
func rawSleep(d int64) {
	if d > 0 {
		t := [2]int64{d / 1e9, d % 1e9}
		syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
	}
}

//go:norace
//go:nosplit
func rawExit(code uintptr) { syscall.RawSyscall(syscall.SYS_EXIT_GROUP, code, 0, 0) }

//go:norace
//go:nosplit
func rawDefault(sig uintptr) {
	var dfl [4]uint64
	syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&dfl)), 0, 8, 0, 0)
}

//go:norace
//go:nosplit
func rawKill(sig uintptr) {
	pid, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
	syscall.RawSyscall(syscall.SYS_KILL, pid, sig, 0)
}

// leave [-pid FILE] STATEMENT: start it in a session of its own, and end at
// once. It is an orphan however soon it ends, for nobody here waits for it.
// "," stands for ";" in it.
func leave(args []string) error {
	file := ""
	if args[0] == "-pid" {
		file, args = args[1], args[2:]
	}
	words := []string{self()}
	for _, a := range args {
		if a == "," {
			a = ";"
		}
		words = append(words, a)
	}
	pid, err := syscall.ForkExec(self(), words, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	if file != "" {
		if err := os.WriteFile(file, []byte(strconv.Itoa(pid)+"\n"), 0o666); err != nil {
			return err
		}
	}
	os.Exit(0)
	return nil
}

// adopt PROGRAM ARGS...: as "under", but it reaps what others leave to it, and
// passes no signals on. What has not ended when the program has is printed,
// "left STATE NAME ARGUMENTS" a line.
func adopt(args []string) error {
	pid, err := syscall.ForkExec(args[0], args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		return err
	}
	var ended syscall.WaitStatus
	options := 0
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, options, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case got == pid:
			ended, options = status, syscall.WNOHANG
		case err != nil || got == 0:
			for _, other := range otherPIDs() {
				state, name := stateOf(other)
				cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", other))
				say("left", state, name, strings.ReplaceAll(strings.Trim(string(cmdline), "\x00"), "\x00", " "))
			}
			if ended.Signaled() {
				os.Exit(128 + int(ended.Signal()))
			}
			os.Exit(ended.ExitStatus())
		}
	}
}
