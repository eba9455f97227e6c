// SPDX-License-Identifier: Apache-2.0

// Command child is what child.c.txt is, for machines without a C compiler.
package main

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	what := "clock"
	if len(os.Args) > 1 {
		what = os.Args[1]
	}
	if what == "clock" {
		clockLine()
		return
	}
	usr1 := make(chan os.Signal, 16)
	signal.Notify(usr1, unix.SIGUSR1)
	say("ready\n")
	switch what {
	case "signals":
		for range usr1 {
			clockLine()
		}
	case "storm":
		n, _ := strconv.Atoi(os.Args[2])
		const batch = 20
		for made := 0; made < n; made += batch {
			pid := forkOrphans(batch)
			for {
				if _, err := syscall.Wait4(pid, nil, 0, nil); err != unix.EINTR {
					break
				}
			}
		}
		say("done\n")
	}
	select {}
}

// forkOrphans forks a process that forks n more and ends. Only raw system
// calls are allowed in the children, which have one thread of a Go program.
//
//go:norace
//go:nosplit
func forkOrphans(n int) int {
	pid, _, _ := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 {
		return int(pid)
	}
	for range n {
		if orphan, _, _ := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0); orphan == 0 {
			break
		}
	}
	syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	return 0
}

func clockLine() {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	say(strconv.FormatInt(now.Nano(), 10) + "\n")
}

func say(text string) { _, _ = syscall.Write(1, []byte(text)) }
