// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// guestJob is what the guest is to run: the JSON in /job of its root file
// system.
type guestJob struct {
	Args []string
	Env  []string
}

// guest: PID 1 of a guest kernel. It mounts what a program can expect, with all
// controllers on cgroup v2, runs the job on the second console, and powers the
// guest off. The last line there is "guest: exit CODE": a kernel has no code.
func guest([]string) error {
	err := guestMounts()
	code := exitBroken
	if err == nil {
		code, err = runJob()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "guest: %v\n", err)
	}
	fmt.Fprintf(os.Stderr, "guest: exit %d\n", code)
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func guestMounts() error {
	const (
		none   = 0
		shared = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	)
	for _, m := range []struct {
		system, point, options string
		flags                  uintptr
	}{
		{"proc", "/proc", "", shared},
		{"sysfs", "/sys", "", shared},
		{"devtmpfs", "/dev", "", none},
		{"tmpfs", "/tmp", "", none},
		{"cgroup2", "/sys/fs/cgroup", "nsdelegate", shared},
	} {
		if err := os.MkdirAll(m.point, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.system, m.point, m.system, m.flags, m.options); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.point, err)
		}
	}
	if err := os.MkdirAll("/dev/pts", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("devpts", "/dev/pts", "devpts", 0, "ptmxmode=0666"); err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(controllers)) {
		if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+"+name), 0o644); err != nil {
			return fmt.Errorf("enable the controller %s: %w", name, err)
		}
	}
	return loopback(&Box{Loopback: true})
}

// runJob runs the job and reaps what comes to PID 1 meanwhile.
func runJob() (code int, err error) {
	text, err := os.ReadFile("/job")
	if err != nil {
		return exitBroken, err
	}
	var job guestJob
	if err := json.Unmarshal(text, &job); err != nil {
		return exitBroken, err
	}
	console, err := os.OpenFile("/dev/tty1", os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return exitBroken, err
	}
	defer console.Close()
	cmd := exec.Command(job.Args[0], job.Args[1:]...)
	cmd.Env = job.Env
	cmd.Dir = "/tmp"
	cmd.Stdout, cmd.Stderr = console, console
	if err := cmd.Start(); err != nil {
		return exitBroken, err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return exitBroken, err
		case pid == cmd.Process.Pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		case pid == cmd.Process.Pid && status.Exited():
			return status.ExitStatus(), nil
		}
	}
}
