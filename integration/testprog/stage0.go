// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Box describes the container that stage0 makes around itself. It is the
// JSON that the harness passes as stage0's only argument.
type Box struct {
	Groups   []string // directories of control groups to begin in
	Root     string   // becomes /; empty: the mounts of the host stay
	ReadOnly bool     // remount / read-only
	Binds    []Bind   // into Root, before anything else
	Proc     bool     // mount a fresh /proc; else an empty directory hides it
	PIDMax   int      // of the new pid namespace; 0: unchanged
	Loopback bool     // bring lo up
	UID, GID int      // -1: unchanged
	KeepCaps []int    // capabilities that stay; everything else is dropped
	AllCaps  bool     // drop nothing
	Dir      string   // working directory of the program
	Path     string   // the program
	Args     []string // its argv
	Env      []string
	NProc    int  // RLIMIT_NPROC; 0: unchanged
	Clock    bool // print the monotonic clock and our page faults just before the exec

	Cgroup   string // mount cgroup v2: "ro" or "rw"; empty: don't
	CgroupNS bool   // a cgroup namespace of its own: the group that we are in is the root
}

// Bind is a bind mount from a path of the host to one below the root.
type Bind struct {
	From, To string
	ReadOnly bool
}

// stage0 JSON: what a container engine does between clone and exec. It is
// PID 1 of new namespaces already and stays it: the last thing that it does is
// to become the program.
func stage0(args []string) error {
	// Capabilities, the parent-death signal and the working directory's mount
	// belong to a thread or are simplest to reason about on one.
	runtime.LockOSThread()
	var box Box
	if err := json.Unmarshal([]byte(args[0]), &box); err != nil {
		return err
	}
	for _, step := range []func(*Box) error{groups, cgroupNS, mounts, loopback, pidMax, limitProcesses, dropPrivileges} {
		if err := step(&box); err != nil {
			return fmt.Errorf("stage0: %w", err)
		}
	}
	if box.Dir != "" {
		if err := os.Chdir(box.Dir); err != nil {
			return err
		}
	}
	// Set anew, because a change of the user clears it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if box.Clock {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			return err
		}
		var now unix.Timespec
		line := make([]byte, 0, 64)
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
		line = strconv.AppendInt(line, now.Nano(), 10)
		line = append(line, ' ')
		line = strconv.AppendInt(line, int64(usage.Minflt), 10)
		line = append(line, '\n')
		syscall.Write(1, line)
	}
	return fmt.Errorf("exec %s: %w", box.Path, syscall.Exec(box.Path, box.Args, box.Env))
}

// cgroupNS is not made with the other namespaces: it would have the group of
// stage0's parent as its root.
func cgroupNS(b *Box) error {
	if !b.CgroupNS {
		return nil
	}
	// That of this thread, which is the one that becomes the program.
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("make a cgroup namespace: %w", err)
	}
	return nil
}

func groups(b *Box) error {
	for _, dir := range b.Groups {
		if err := os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0); err != nil {
			return err
		}
	}
	return nil
}

func mounts(b *Box) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if b.Root != "" {
		// A mount point of its own, so that it can be pivoted to and remounted.
		if err := unix.Mount(b.Root, b.Root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", b.Root, err)
		}
	}
	for _, m := range b.Binds {
		if err := bind(m.From, filepath.Join(b.Root, m.To), m.ReadOnly); err != nil {
			return err
		}
	}
	proc := filepath.Join("/", b.Root, "proc")
	if b.Proc {
		if err := unix.Mount("proc", proc, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mount /proc: %w", err)
		}
	} else if err := unix.Mount("tmpfs", proc, "tmpfs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("hide /proc: %w", err)
	}
	if b.Cgroup != "" {
		flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RELATIME)
		if b.Cgroup == "ro" {
			flags |= unix.MS_RDONLY
		}
		// Of the mount only: the file system is one with the others' of it.
		point := filepath.Join("/", b.Root, "sys/fs/cgroup")
		if err := unix.Mount("cgroup2", point, "cgroup2", flags&^unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("mount cgroup v2: %w", err)
		}
		if err := unix.Mount("", point, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
			return fmt.Errorf("remount cgroup v2: %w", err)
		}
	}
	if b.Root == "" {
		return nil
	}
	if b.ReadOnly {
		if err := remountReadOnly(b.Root); err != nil {
			return err
		}
	}
	if err := os.Chdir(b.Root); err != nil {
		return err
	}
	// The new root is put over the old one, which is then the upper of the
	// two mounts on "." and can be let go.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the old root: %w", err)
	}
	return os.Chdir("/")
}

func bind(from, to string, readOnly bool) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", from, to, err)
	}
	if readOnly {
		return remountReadOnly(to)
	}
	return nil
}

// remountReadOnly keeps the other flags of the mount: in a user namespace the
// kernel refuses to clear them.
func remountReadOnly(path string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return err
	}
	keep := uintptr(fs.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME)
	if err := unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|keep, ""); err != nil {
		return fmt.Errorf("remount %s read-only: %w", path, err)
	}
	return nil
}

func loopback(b *Box) error {
	if !b.Loopback {
		return nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

func pidMax(b *Box) error {
	if b.PIDMax == 0 {
		return nil
	}
	return os.WriteFile("/proc/sys/kernel/pid_max", []byte(strconv.Itoa(b.PIDMax)), 0)
}

func limitProcesses(b *Box) error {
	if b.NProc == 0 {
		return nil
	}
	most := uint64(b.NProc)
	return unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: most, Max: most})
}

// dropPrivileges ends as a container of the restricted Pod Security level
// starts: another user, no capability anywhere, no way to get one.
func dropPrivileges(b *Box) error {
	keep := map[int]bool{}
	for _, c := range b.KeepCaps {
		keep[c] = true
	}
	if !b.AllCaps {
		for c := 0; c <= unix.CAP_LAST_CAP; c++ {
			if !keep[c] {
				// Fails for capabilities that this kernel doesn't know.
				_ = unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
			}
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
			return err
		}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	if b.GID >= 0 {
		if err := syscall.Setgroups([]int{}); err != nil {
			return fmt.Errorf("setgroups: %w", err)
		}
		if err := syscall.Setresgid(b.GID, b.GID, b.GID); err != nil {
			return fmt.Errorf("setgid: %w", err)
		}
	}
	if b.UID >= 0 {
		if err := syscall.Setresuid(b.UID, b.UID, b.UID); err != nil {
			return fmt.Errorf("setuid: %w", err)
		}
	}
	if b.AllCaps {
		return nil
	}
	var set [2]unix.CapUserData
	for c := range keep {
		set[c/32].Permitted |= 1 << (c % 32)
		set[c/32].Effective |= 1 << (c % 32)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&header, &set[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
