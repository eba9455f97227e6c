// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A container is a candidate as PID 1, with the command under it.
type container struct {
	pid    int
	cmd    *exec.Cmd
	output *bufio.Reader
	pipe   *os.File
}

// start runs the command under c. With clock, stage0's last act is to print
// the time and its page faults.
func (b *bench) start(c *candidate, clock bool, command ...string) (*container, error) {
	argv := append(append([]string{}, c.before...), b.child)
	argv = append(argv, command...)
	config, err := json.Marshal(map[string]any{
		"Proc": true, "UID": -1, "GID": -1, "AllCaps": true, "Clock": clock,
		"Path": argv[0], "Args": argv, "Env": append([]string{"PATH=/usr/bin:/bin"}, c.env...),
	})
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	cmd := exec.Command(b.stage0, "stage0", string(config))
	// One CPU's worth of threads: each has to be stopped before the exec can
	// go on, and that is none of the candidate's business.
	cmd.Env = []string{"GOMAXPROCS=1"}
	cmd.Stdout = w
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	return &container{pid: cmd.Process.Pid, cmd: cmd, output: bufio.NewReader(r), pipe: r}, nil
}

// numbers reads a line of numbers of what the command prints.
func (c *container) numbers(want int) ([]int64, error) {
	line, err := c.output.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("read what the command prints: %w", err)
	}
	var numbers []int64
	for word := range strings.FieldsSeq(line) {
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the command printed %q", line)
		}
		numbers = append(numbers, n)
	}
	if len(numbers) != want {
		return nil, fmt.Errorf("the command printed %q", line)
	}
	return numbers, nil
}

// await reads lines until the given one.
func (c *container) await(text string) error {
	for {
		line, err := c.output.ReadString('\n')
		if err != nil {
			return fmt.Errorf("wait for %q of the command: %w", text, err)
		}
		if line == text+"\n" {
			return nil
		}
	}
}

func (c *container) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	c.pipe.Close()
}

// peekExit waits until PID 1 has ended and leaves it a zombie, so that /proc
// still has its counters.
func (c *container) peekExit() error {
	for {
		err := unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err
		}
	}
}

// faults is the number of page faults of PID 1 and of the children that it has
// waited for, as a wait4 for PID 1 would return it.
func (c *container) faults() (total int64, err error) {
	fields, err := statFields(c.pid)
	if err != nil {
		return 0, err
	}
	for _, field := range fields[7:9] { // minflt, cminflt
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// statFields is /proc/PID/stat from the state on.
func statFields(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])), nil
}

// cpu is the CPU time that PID 1's threads have used, in nanoseconds.
func (c *container) cpu() (total int64) {
	c.eachTask(func(dir string) {
		text, err := os.ReadFile(dir + "/schedstat")
		if err == nil {
			var ns int64
			_, _ = fmt.Sscan(string(text), &ns)
			total += ns
		}
	})
	return total
}

// switches is how often PID 1's threads went to sleep.
func (c *container) switches() (total int64) {
	c.eachTask(func(dir string) { total += statusField(dir+"/status", "voluntary_ctxt_switches") })
	return total
}

func (c *container) eachTask(do func(dir string)) {
	dirs, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", c.pid))
	for _, dir := range dirs {
		do(dir)
	}
}

// statusField reads the first number after "NAME:" in a file like
// /proc/PID/status.
func statusField(path, name string) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			var n int64
			_, _ = fmt.Sscan(value, &n)
			return n
		}
	}
	return 0
}

// zombies counts PID 1's children that have ended and were not reaped.
func (c *container) zombies() int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if f, err := statFields(pid); err == nil && f[0] == "Z" && f[1] == strconv.Itoa(c.pid) {
			n++
		}
	}
	return n
}

func monotonic() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return now.Nano()
}
