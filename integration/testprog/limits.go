// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// held is what eat has eaten.
var held [][]byte

// eat MIB: use so much memory, and keep it.
func eat(args []string) error {
	mib, err := strconv.Atoi(args[0])
	for range mib {
		var b []byte
		if b, err = unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE); err != nil {
			return err
		}
		if unix.Madvise(b, unix.MADV_POPULATE_WRITE) != nil { // before Linux 5.14
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
		}
		held = append(held, b)
	}
	return err
}

// run STATEMENTS...: run testprog beside us until it has ended, however.
func runBeside(args []string) error {
	cmd := exec.Command(self(), args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	var ended *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &ended) {
		return err
	}
	return nil
}

// spawn N: start so many processes that sleep, as far as it is allowed, and print
// how often it was not.
func spawn(args []string) error {
	n, err := strconv.Atoi(args[0])
	refused := 0
	for range n {
		if _, err := syscall.ForkExec(self(), []string{self(), "sleep", "1h"}, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}}); err != nil {
			refused++
		}
	}
	fmt.Printf("refused %d of %d\n", refused, n)
	return err
}

// litter N: leave so many zombies, made one after another.
func litter(args []string) error {
	n, err := strconv.Atoi(args[0])
	for range n {
		pid, err := syscall.ForkExec(self(), []string{self(), "exit", "0"}, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
		if err != nil {
			return err
		}
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			return err
		}
	}
	return err
}
