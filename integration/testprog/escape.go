// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

// respawn: leave a daemon behind, in a session of its own, that is another
// process every five milliseconds. TERM is ignored.
func respawn([]string) error {
	signal.Ignore(syscall.SIGTERM)
	runtime.LockOSThread()
	if pid := forkRespawning(); pid < 0 {
		return syscall.Errno(-pid)
	}
	return nil
}

// forkRespawning is raw for the reason that forkOrphans is.
//
//go:norace
//go:nosplit
func forkRespawning() int {
	pid, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if e != 0 {
		return -int(e)
	}
	if pid != 0 {
		return int(pid)
	}
	syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0)
	for {
		pause := syscall.Timespec{Nsec: 5e6}
		syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
		pid, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if e == 0 && pid != 0 {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
}

// nest: make a cgroup v2 group below ours, and go there.
func nest([]string) error {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	_, ours, _ := strings.Cut(strings.TrimSpace(string(text)), "::")
	dir := filepath.Join("/sys/fs/cgroup", ours, "nested")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
}
