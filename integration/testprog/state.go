// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// env [FILE]: the environment, sorted, a variable a line.
func printEnv(args []string) error {
	env := os.Environ()
	slices.Sort(env)
	text := strings.Join(env, "\n") + "\n"
	if len(args) > 0 {
		return os.WriteFile(args[0], []byte(text), 0o666)
	}
	_, err := os.Stdout.WriteString(text)
	return err
}

// args ...: its arguments, one a line, quoted.
func printArgs(args []string) error {
	for _, a := range args {
		fmt.Printf("%q\n", a)
	}
	return nil
}

// fds [FILE]: the open descriptors that we were started with, "N target".
// Go's own (epoll, and the directory being read) are close-on-exec, so what
// is not is inherited.
func printFDs(args []string) error {
	var out strings.Builder
	for fd := range 256 {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			target = "?"
		}
		fmt.Fprintf(&out, "%d %s\n", fd, target)
	}
	if len(args) > 0 {
		return os.WriteFile(args[0], []byte(out.String()), 0o666)
	}
	_, err := os.Stdout.WriteString(out.String())
	return err
}

// status FIELD...: lines of /proc/self/status, such as Uid and CapEff. The
// signal sets and the limit of open files are the Go runtime's own here: ask a
// program that is not written in Go for what was inherited.

func printStatus(names []string) error {
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		if slices.Contains(names, name) {
			fmt.Printf("%s %s\n", name, strings.Join(strings.Fields(value), " "))
		}
	}
	return nil
}

// props: what a child inherits besides descriptors and environment.
func printProps([]string) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	mask := syscall.Umask(0)
	syscall.Umask(mask)
	nice, _, _ := syscall.RawSyscall(syscall.SYS_GETPRIORITY, 0, 0, 0)
	oom, _ := os.ReadFile("/proc/self/oom_score_adj")
	fmt.Printf("cwd %s\numask %03o\nnice %d\noom %s\n", dir, mask, 20-int(nice), strings.TrimSpace(string(oom)))
	return nil
}

// ps [FILE]: the processes but PID 1 and us, "STATE ARGUMENTS" a line.
func printProcesses(args []string) error {
	var out strings.Builder
	for _, pid := range otherPIDs() {
		if pid == 1 {
			continue
		}
		state, name := stateOf(pid)
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		fmt.Fprintf(&out, "%s %s %s\n", state, name, strings.ReplaceAll(strings.Trim(string(cmdline), "\x00"), "\x00", " "))
	}
	if len(args) > 0 {
		return os.WriteFile(args[0], []byte(out.String()), 0o666)
	}
	_, err := os.Stdout.WriteString(out.String())
	return err
}

// tty: whether 0, 1 and 2 are terminals, and whether we are in the foreground.
func printTTY([]string) error {
	for fd := range 3 {
		_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		fmt.Printf("fd %d tty %t\n", fd, err == nil)
	}
	group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	fmt.Printf("foreground %t\n", err == nil && group == syscall.Getpgrp())
	return nil
}

// ignore SIG,...: in this process, and so in what it execs.
func ignore(args []string) error {
	for name := range strings.SplitSeq(args[0], ",") {
		sig, err := parseSignal(name)
		if err != nil {
			return err
		}
		signal.Ignore(sig)
	}
	return nil
}

// block SIG,...: in this thread, and so in what it execs: the statements run
// on one thread from here on.
func block(args []string) error {
	runtime.LockOSThread()
	var set uint64
	for name := range strings.SplitSeq(args[0], ",") {
		sig, err := parseSignal(name)
		if err != nil {
			return err
		}
		set |= 1 << (sig - 1)
	}
	const sigBlock = 0
	_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigBlock, uintptr(unsafe.Pointer(&set)), 0, 8, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// umask OCTAL
func umask(args []string) error {
	mask, err := strconv.ParseInt(args[0], 8, 32)
	syscall.Umask(int(mask))
	return err
}

// nice N
func nice(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread() // Linux keeps a nice value for each thread
	return syscall.Setpriority(syscall.PRIO_PROCESS, 0, n)
}

// chdir DIR
func chdir(args []string) error { return os.Chdir(args[0]) }

// nofile SOFT HARD
func nofile(args []string) error {
	soft, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	hard, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: soft, Max: hard})
}

// oom N: our oom_score_adj.
func oom(args []string) error {
	return os.WriteFile("/proc/self/oom_score_adj", []byte(args[0]), 0)
}

// close FD...: before an exec.
func closeFDs(args []string) error {
	for _, a := range args {
		fd, err := strconv.Atoi(a)
		if err != nil {
			return err
		}
		if err := syscall.Close(fd); err != nil {
			return err
		}
	}
	return nil
}
