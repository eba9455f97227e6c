// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// nonroot is the user inside, that of hardened images.
const nonroot = 65532

// isolated returns a command that becomes cleanimg-init in new namespaces with
// the folder as its root; its arguments are cleanimg-init's. surroundings
// tells people what it is like in there. The error says why there are no
// namespaces for us: it has been tried.
func isolated(root string) (cmd *exec.Cmd, surroundings string, err error) {
	attr := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	surroundings = "as PID 1 of its own PID and mount namespaces, as uid 65532, read-only, without capabilities"
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(root, "out"), nonroot, nonroot); err != nil {
			return nil, "", err
		}
	} else {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: nonroot, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: nonroot, HostID: os.Getegid(), Size: 1}}
		// Whoever is not uid 0 loses the new namespace's capabilities at exec,
		// unless they are ambient.
		attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT}
		surroundings += ", in a user namespace"
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(root, "demo"), append([]string{"enter", root}, args...)...)
		cmd.SysProcAttr = attr
		return cmd
	}
	if out, err := command("/demo", "exit").CombinedOutput(); err != nil {
		return nil, "", fmt.Errorf("%w %s", err, bytes.TrimSpace(out))
	}
	return command("/cleanimg-init"), surroundings, nil
}

// enter is the first program in the namespaces. It makes the folder the root,
// gives up every privilege and becomes the program that it is told.
func enter(args []string) int {
	// What follows is about this thread, the one that execs.
	runtime.LockOSThread()
	root, program := args[0], args[1:]
	out := filepath.Join(root, "out")
	for _, step := range []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return unix.Mount(root, root, "", unix.MS_BIND, "") },
		func() error { return unix.Mount(out, out, "", unix.MS_BIND, "") }, // stays writable
		func() error { return readOnly(root) },
		func() error {
			return unix.Mount("proc", filepath.Join(root, "proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		},
		func() error { return unix.Chroot(root) },
		func() error { return unix.Chdir("/") },
		dropPrivileges,
		func() error { return unix.Exec(program[0], program, os.Environ()) },
	} {
		if err := step(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			break
		}
	}
	return 125
}

// readOnly keeps the mount's other flags: a user namespace may not take back
// what its parent has set, such as nosuid.
func readOnly(path string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return err
	}
	const kept = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME
	return unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|uintptr(fs.Flags)&kept, "")
}

// dropPrivileges becomes the container's user, if we are not it already. The
// capabilities go at the exec.
func dropPrivileges() error {
	err := errors.Join(
		unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0),
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
	)
	if os.Geteuid() == 0 {
		err = errors.Join(err, syscall.Setgroups(nil), syscall.Setgid(nonroot), syscall.Setuid(nonroot))
	}
	return err
}
