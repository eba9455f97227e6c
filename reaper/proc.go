// SPDX-License-Identifier: Apache-2.0

package reaper

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Proc is a living process as /proc showed it.
type Proc struct {
	PID, PPID, PGID, SID int
	Start                uint64 // clock ticks after boot; tells a pid from its later reuse
	Name                 string // of the executable, at most 15 bytes
	State                string // R running, S sleeping, D uninterruptible, T stopped, …; ? where /proc hides it
	ended                bool
}

// String names the process for a log line: no arguments, they may be secret.
func (p Proc) String() string { return fmt.Sprintf("%d (%s, state %s)", p.PID, p.Name, p.State) }

// hidden tells whether /proc does not show the process, by hidepid, though it is
// a child of ours.
func (p Proc) hidden() bool { return p.State == "?" }

// same tells whether the pid is still that process's.
func (p Proc) same() bool {
	if p.hidden() {
		now, ok := hiddenChild(p.PID)
		return ok && now == p
	}
	now, err := statOf(p.PID)
	return err == nil && now.Start == p.Start
}

// errNoProc means that /proc does not show our pid namespace.
var errNoProc = errors.New("/proc is not usable")

// Descendants returns the living processes below this one, zombies left out:
// those that the chain of parents leads from to us. What `kubectl exec` starts
// has no parent in the pid namespace and is not among them, nor is what lives
// in other containers of a shared pid namespace.
func Descendants() ([]Proc, error) {
	if err := checkProc(); err != nil {
		return nil, err
	}
	procs, _, err := snapshot(nil)
	if err != nil {
		return nil, err
	}
	ours := below(procs, os.Getpid())
	return slices.DeleteFunc(ours, func(p Proc) bool { return p.ended }), nil
}

// snapshot reads every process from /proc, which has been checked, by pid. Where
// seen is not nil it is told of each as soon as it has been read, with those that
// were read before. Moved says that some have gone while it went on: what they
// forked can be missing.
func snapshot(seen func(procs map[int]Proc, p Proc)) (procs map[int]Proc, moved bool, err error) {
	dir, err := openRetry(unix.AT_FDCWD, "/proc", unix.O_DIRECTORY)
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", errNoProc, err)
	}
	defer unix.Close(dir)
	all, err := numbersIn(dir)
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", errNoProc, err)
	}
	procs = make(map[int]Proc, len(all)+8)
	add := func(p Proc) {
		procs[p.PID] = p
		if seen != nil {
			seen(procs, p)
		}
	}
	for _, pid := range all {
		p, err := readStat(dir, pid)
		switch {
		case err == nil:
			add(p)
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM):
			return nil, false, fmt.Errorf("%w: %w", errNoProc, err) // not "it has ended"
		default:
			moved = true
		}
	}
	// What was handed to us meanwhile, and what /proc hides from us.
	for _, pid := range ownChildren(dir) {
		if _, ok := procs[pid]; ok {
			continue
		}
		if p, err := readStat(dir, pid); err == nil {
			add(p)
		} else if p, ok := hiddenChild(pid); ok {
			add(p)
		} else {
			moved = true
		}
	}
	return procs, moved, nil
}

// readStat reads /proc/PID/stat. Dir is /proc.
func readStat(dir, pid int) (Proc, error) {
	var buf [1024]byte // the longest is below 400
	text, err := readAt(dir, strconv.Itoa(pid)+"/stat", buf[:], true)
	if err != nil {
		return Proc{}, err
	}
	p, ok := parseStat(text)
	if !ok {
		return Proc{}, errNoProc
	}
	return p, nil
}

// statOf reads the state of one process.
func statOf(pid int) (Proc, error) { return readStat(unix.AT_FDCWD, pid) }

// parseStat takes the fields that we need from a /proc/PID/stat; see
// proc_pid_stat(5). The name can have anything in it, closing parentheses too.
func parseStat(text []byte) (p Proc, ok bool) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 1 || end < open {
		return p, false
	}
	const ppid, pgrp, session, threads, start = 4, 5, 6, 20, 22
	number := [start + 1]int64{} // group and session are -1 of what has just ended
	field := 2
	for word := range bytes.FieldsSeq(text[end+1:]) {
		if field++; field == 3 {
			p.State = string(word)
			continue
		}
		if field > start {
			break
		}
		switch field {
		case ppid, pgrp, session, threads, start:
			n, err := strconv.ParseInt(string(word), 10, 64)
			if err != nil {
				return p, false
			}
			number[field] = n
		}
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text[:open])))
	if err != nil || field < start {
		return p, false
	}
	p.PID, p.PPID, p.PGID, p.SID = pid, int(number[ppid]), int(number[pgrp]), int(number[session])
	p.Start, p.Name = uint64(number[start]), string(text[open+1:end])
	// A process whose first thread has ended looks like a zombie, but it lives
	// while it has other threads.
	p.ended = (p.State == "Z" || p.State == "X") && number[threads] <= 1
	return p, true
}

// ownChildren are the pids of our children, ended ones too, as far as the kernel
// tells (CONFIG_PROC_CHILDREN): each thread has its own, and orphans are given
// to the first. Dir is /proc.
func ownChildren(dir int) (pids []int) {
	tasks, err := openRetry(dir, "self/task", unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer unix.Close(tasks)
	threads, err := numbersIn(tasks)
	if err != nil {
		return nil
	}
	buf := make([]byte, 32<<10)
	for _, tid := range threads {
		text, err := readAt(tasks, strconv.Itoa(tid)+"/children", buf, false)
		if errors.Is(err, unix.ENOENT) {
			continue // the thread has gone, or the kernel has no such file
		}
		for word := range bytes.FieldsSeq(text) {
			if pid, err := strconv.Atoi(string(word)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// hiddenChild is a child that /proc does not show. What the kernel tells about
// it anyway is enough to know whose it is.
func hiddenChild(pid int) (p Proc, ok bool) {
	p = Proc{PID: pid, PPID: os.Getpid(), Name: "hidden", State: "?"}
	var err error
	if p.PGID, err = unix.Getpgid(pid); err != nil {
		return p, false
	}
	p.SID, err = unix.Getsid(pid)
	return p, err == nil && isChild(pid)
}

// numbersIn are the names in a directory of /proc that are numbers, in the
// kernel's order, which is by pid.
func numbersIn(dir int) (numbers []int, err error) {
	buf := make([]byte, 16<<10)
	names := make([]string, 0, 256)
	for {
		n, err := unix.ReadDirent(dir, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			return numbers, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names[:0])
		for _, name := range names {
			if number, err := strconv.Atoi(name); err == nil {
				numbers = append(numbers, number)
			}
		}
	}
}

// readAt reads a file, as far as it fits into buf. Of one with a single record,
// which the kernel gives away whole, the end is not looked for.
func readAt(dir int, name string, buf []byte, single bool) ([]byte, error) {
	if dir == unix.AT_FDCWD {
		name = "/proc/" + name
	}
	fd, err := openRetry(dir, name, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for n := 0; ; {
		got, err := unix.Read(fd, buf[n:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, err
		case got == 0 || single || n+got == len(buf):
			return buf[:n+got], nil
		default:
			n += got
		}
	}
}

// readWhole reads a whole file of /proc, whose size nothing tells.
func readWhole(name string) ([]byte, error) {
	for size := 4 << 10; ; size *= 4 {
		text, err := readAt(unix.AT_FDCWD, name, make([]byte, size), false)
		if err != nil || len(text) < size {
			return text, err
		}
	}
}

func openRetry(dir int, name string, flags int) (fd int, err error) {
	for {
		fd, err = unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// checkProc finds out whether /proc is that of our pid namespace. Another one's,
// as after unshare without a mount, would make us signal strangers.
func checkProc() error {
	self, err := os.Readlink("/proc/self")
	if err != nil || self != strconv.Itoa(os.Getpid()) {
		return errNoProc
	}
	// The numbers can be equal by chance. NSpid has one for each namespace from
	// that of the mount down to ours.
	status, err := readWhole("self/status")
	if err != nil {
		return fmt.Errorf("%w: %w", errNoProc, err)
	}
	for line := range bytes.Lines(status) {
		if pids, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok && len(bytes.Fields(pids)) > 1 {
			return errNoProc
		}
	}
	return nil
}

// below returns the processes whose chain of parents contains root, by pid.
func below(procs map[int]Proc, root int) []Proc {
	var found []Proc
	for _, p := range procs {
		if p.PID != root && descendsFrom(procs, p, func(a Proc) bool { return a.PID == root }) {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b Proc) int { return a.PID - b.PID })
	return found
}

// descendsFrom tells whether p or one of its ancestors satisfies is. The walk
// is bounded because a snapshot is not atomic: pids reused while it was taken
// can form a ring.
func descendsFrom(procs map[int]Proc, p Proc, is func(Proc) bool) bool {
	for range len(procs) + 1 {
		if is(p) {
			return true
		}
		parent, ok := procs[p.PPID]
		if !ok {
			return false
		}
		p = parent
	}
	return false
}
