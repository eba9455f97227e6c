// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refusable are the system calls that refuse can take away. A clone that makes a
// thread is let through: fork is the making of processes.
var refusable = map[string][]uint32{
	"fork":              {unix.SYS_CLONE},
	"clone3":            {unix.SYS_CLONE3},
	"pidfd_open":        {unix.SYS_PIDFD_OPEN},
	"pidfd_send_signal": {unix.SYS_PIDFD_SEND_SIGNAL},
	"memfd_create":      {unix.SYS_MEMFD_CREATE},
	"waitid":            {unix.SYS_WAITID},
}

var refusals = map[string]syscall.Errno{"EPERM": unix.EPERM, "ENOSYS": unix.ENOSYS, "EAGAIN": unix.EAGAIN, "ENOMEM": unix.ENOMEM}

// refuse ERROR CALL... -- PROGRAM ARGS...: become the program, with a seccomp
// filter that answers those system calls with the error.
func refuse(args []string) error {
	end := slices.Index(args, "--")
	if end < 1 || end == len(args)-1 {
		return fmt.Errorf("%q is not ERROR CALL... -- PROGRAM ARGS", args)
	}
	failure, ok := refusals[args[0]]
	if !ok {
		return fmt.Errorf("unknown error %q", args[0])
	}
	var filter []unix.SockFilter
	add := func(code uint16, k uint32, yes, no uint8) {
		filter = append(filter, unix.SockFilter{Code: code, K: k, Jt: yes, Jf: no})
	}
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equals = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		hasBit = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		answer = unix.BPF_RET | unix.BPF_K

		numberAt, firstArgumentAt = 0, 16 // in struct seccomp_data; the argument's low half
	)
	for _, name := range args[1:end] {
		numbers, ok := refusable[name]
		if !ok {
			return fmt.Errorf("cannot refuse %q", name)
		}
		for _, number := range numbers {
			add(load, numberAt, 0, 0)
			if name == "fork" {
				add(equals, number, 0, 3)
				add(load, firstArgumentAt, 0, 0)
				add(hasBit, unix.CLONE_THREAD, 1, 0)
			} else {
				add(equals, number, 0, 1)
			}
			add(answer, unix.SECCOMP_RET_ERRNO|uint32(failure), 0, 0)
		}
	}
	add(answer, unix.SECCOMP_RET_ALLOW, 0, 0)

	runtime.LockOSThread() // the filter is this thread's, which becomes the program
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, e := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program))); e != 0 {
		return fmt.Errorf("refuse %s: %w", strings.Join(args[1:end], ", "), e)
	}
	return syscall.Exec(args[end+1], args[end+1:], os.Environ())
}
