// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// self is the path by which testprog starts itself again. It is not
// os.Executable, which needs /proc.
func self() string {
	if strings.Contains(os.Args[0], "testprog") {
		return os.Args[0]
	}
	return "/bin/testprog"
}

// exit CODE
func exit(args []string) error {
	code, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	os.Exit(code)
	return nil
}

// die SIGNAL: be killed by it.
func die(args []string) error {
	sig, err := parseSignal(args[0])
	if err != nil {
		return err
	}
	// The Go runtime has handlers for most signals and would turn some into
	// exit code 2, so the kernel's default action is put back first.
	var dfl [4]uint64
	syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&dfl)), 0, 8, 0, 0)
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		return err
	}
	time.Sleep(10 * time.Second)
	return fmt.Errorf("survived signal %d", sig)
}

// neglect N: start so many children that end at once, and never ask how.
func neglect(args []string) error {
	n, err := strconv.Atoi(args[0])
	for range n {
		if err == nil {
			err = exec.Command(self(), "exit", "0").Start()
		}
	}
	return err
}

// busy DURATION: work until so much CPU time was used.
func busy(args []string) error {
	d, err := time.ParseDuration(args[0])
	for err == nil {
		var used unix.Rusage
		if err = unix.Getrusage(unix.RUSAGE_SELF, &used); time.Duration(used.Utime.Nano()+used.Stime.Nano()) >= d {
			return err
		}
	}
	return err
}

// sleep DURATION
func sleep(args []string) error {
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	time.Sleep(d)
	return nil
}

// trap [-ready FILE] [-file FILE] [-on SIG=CODE]... [-delay D] [-write FILE] [-quiet]
//
// Prints "ready" (and makes the ready file) when its handlers are in place,
// then "got NAME" for each signal, also appended to the file. A signal named
// by -on ends it with the code: after the delay, and after the -write file was
// written. Without -on nothing but KILL ends it.
func trap(args []string) error {
	var ready, file, write string
	var delay time.Duration
	quiet := false
	ends := map[syscall.Signal]int{}
	for i := 0; i < len(args); i++ {
		if args[i] == "-quiet" {
			quiet = true
			continue
		}
		if i+1 == len(args) {
			return fmt.Errorf("%s needs a value", args[i])
		}
		value := args[i+1]
		var err error
		switch args[i] {
		case "-ready":
			ready = value
		case "-file":
			file = value
		case "-write":
			write = value
		case "-delay":
			delay, err = time.ParseDuration(value)
		case "-on":
			name, code, _ := strings.Cut(value, "=")
			var sig syscall.Signal
			if sig, err = parseSignal(name); err == nil {
				ends[sig], err = strconv.Atoi(code)
			}
		default:
			err = fmt.Errorf("unknown option %s", args[i])
		}
		if err != nil {
			return err
		}
		i++
	}

	caught := make(chan os.Signal, 4096)
	signal.Notify(caught)
	if !quiet {
		fmt.Println("ready")
	}
	if ready != "" {
		if err := os.WriteFile(ready, []byte("ready\n"), 0o666); err != nil {
			return err
		}
	}
	for s := range caught {
		sig := s.(syscall.Signal)
		line := "got " + signalName(sig) + "\n"
		if !quiet {
			os.Stdout.WriteString(line)
		}
		if file != "" {
			if err := appendText(file, line); err != nil {
				return err
			}
		}
		if code, ok := ends[sig]; ok {
			time.Sleep(delay)
			if write != "" {
				if err := os.WriteFile(write, []byte("done\n"), 0o666); err != nil {
					return err
				}
			}
			os.Exit(code)
		}
	}
	return nil
}

// bg STATEMENT: run it in a child, in our process group, and go on.
func background(args []string) error { return start(args, nil) }

// setsid STATEMENT: as bg, in a session of its own.
func backgroundSession(args []string) error {
	return start(args, &syscall.SysProcAttr{Setsid: true})
}

// daemon STATEMENT: run it as a daemon does: its parent is gone, its session
// is its own. Its stdio is ours.
func daemon(args []string) error {
	cmd := exec.Command(self(), append([]string{"setsid"}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

func start(args []string, attr *syscall.SysProcAttr) error {
	var words []string
	for _, a := range args { // "," stands for ";" in a statement within a statement
		if a == "," {
			a = ";"
		}
		words = append(words, a)
	}
	cmd := exec.Command(self(), words...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // no zombie of ours among those that the tests count
	return nil
}

// storm N [DURATION]: make N orphans as fast as this machine can, spread over
// the duration if one is given.
func storm(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var spread time.Duration
	if len(args) > 1 {
		if spread, err = time.ParseDuration(args[1]); err != nil {
			return err
		}
	}
	const batch = 20
	begin := time.Now()
	for made := 0; made < n; {
		pid := forkOrphans(min(batch, n-made))
		if pid < 0 {
			time.Sleep(time.Millisecond) // a full pid namespace: let the reaper work
			continue
		}
		for {
			var status syscall.WaitStatus
			if _, err = syscall.Wait4(pid, &status, 0, nil); !errors.Is(err, syscall.EINTR) {
				made += status.ExitStatus()
				break
			}
		}
		if err != nil {
			return err
		}
		if ahead := spread*time.Duration(made)/time.Duration(n) - time.Since(begin); ahead > 0 {
			time.Sleep(ahead)
		}
	}
	return nil
}

// forkOrphans forks a process that forks n more and ends, so that they are
// PID 1's. The process exits with the number that it has made. No exec: a new
// program a time would limit the rate to some hundreds a second. After the
// raw fork only this thread exists, so nothing but raw system calls is allowed
// in the children.
//
//go:norace
//go:nosplit
func forkOrphans(n int) int {
	pid, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if e != 0 {
		return -1
	}
	if pid != 0 {
		return int(pid)
	}
	made := 0
	for range n {
		orphan, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if e != 0 {
			break
		}
		if orphan == 0 {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
		made++
	}
	syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(made), 0, 0)
	return 0
}

// fill: make processes until there is no room for one more, and hold all the
// room that there is, whoever else ends. TERM is ignored.
func fill([]string) error {
	signal.Ignore(syscall.SIGTERM)
	runtime.LockOSThread()
	holdAll()
	return nil
}

//go:norace
//go:nosplit
func holdAll() {
	for {
		pid, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		pause := syscall.Timespec{Nsec: 1e6}
		if pid == 0 && e == 0 {
			pause.Sec = 3600
		}
		if pid == 0 || e != 0 {
			syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
		}
	}
}

// exec PROGRAM ARGS...: become it.
func execProgram(args []string) error {
	return syscall.Exec(args[0], args, os.Environ())
}

// under PROGRAM ARGS...: run it as a child, so that it is not PID 1, forward
// TERM, INT and QUIT to it, print what is left of the namespace when it has
// ended, and end with its code. What it loses is reaped, but not by it.
func under(args []string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	caught := make(chan os.Signal, 16)
	signal.Notify(caught, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		for s := range caught {
			cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		return err
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	fmt.Printf("under: %s\n", cmd.ProcessState)
	for _, pid := range otherPIDs() {
		state, name := stateOf(pid)
		fmt.Printf("under: left %d %s %s\n", pid, state, name)
	}
	if status.Signaled() {
		os.Exit(128 + int(status.Signal()))
	}
	os.Exit(status.ExitStatus())
	return nil
}

// otherPIDs lists the processes that /proc shows, but us.
func otherPIDs() (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

func stateOf(pid int) (state, name string) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "gone", ""
	}
	open, end := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
	return string(text[end+2 : end+3]), string(text[open+1 : end])
}

// parseSignal reads 15, TERM or SIGTERM.
func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		return syscall.Signal(n), nil
	}
	sig := unix.SignalNum("SIG" + strings.TrimPrefix(s, "SIG"))
	if sig == 0 {
		return 0, fmt.Errorf("no signal is called %q", s)
	}
	return sig, nil
}

// signalName is TERM for 15, and the number where there is no name.
func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return strconv.Itoa(int(s))
}
