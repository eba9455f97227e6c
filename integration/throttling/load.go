// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
	"golang.org/x/sys/unix"
)

// A load is what a process does under a CPU limit.
type load struct {
	What       string // in words
	Millicores int64

	Threads int           // that are busy
	Busy    time.Duration // in wall time
	Work    time.Duration // or longer, until so much CPU time was used
	Sleep   time.Duration // afterwards

	Curve time.Duration // how often the clock is looked at; 0: at the end
}

func (l load) limit() string { return cgroup.Millicores(float64(l.Millicores) / 1000) }

// rows are the lines of the table.
func rows() []load {
	const all = 3 * time.Second
	return []load{
		{What: "one busy thread", Millicores: 250, Threads: 1, Busy: all},
		{What: "four busy threads", Millicores: 250, Threads: 4, Busy: all},
		{What: "two busy threads", Millicores: 100, Threads: 2, Busy: all},
		{What: "asleep", Millicores: 250, Sleep: all},
		{What: "one second busy, two asleep", Millicores: 250, Threads: 1, Busy: time.Second, Sleep: 2 * time.Second},
		{What: "four busy threads", Millicores: 1500, Threads: 4, Busy: all},
	}
}

// curves are the lines of the picture, which has a timeout of two seconds.
func curves() []load {
	const often = 100 * time.Millisecond
	return []load{
		{What: "it only waits", Millicores: 250, Sleep: 2 * time.Second, Curve: often},
		{What: "1 s of work", Millicores: 250, Threads: 1, Work: time.Second, Curve: often},
		{What: "work without end", Millicores: 250, Threads: 1, Busy: 8500 * time.Millisecond, Curve: often},
	}
}

// observed is how it went.
type observed struct {
	load
	Charged, Wall time.Duration
	CPUTime       time.Duration // by the kernel's account, all of the process
	Found         float64       // the limit that the process has found, in cores

	Periods, Throttled int64
	Points             []point `json:",omitempty"`
}

// starved says that a busy load got less of the CPU than a limit of less than
// one allows.
func (o observed) starved() bool { return o.Threads > 0 && o.Found < 1 && o.Throttled*10 < o.Periods*8 }

// A point of a curve.
type point struct{ Wall, Charged time.Duration }

// loadVariable makes the program the process under load.
const loadVariable = "THROTTLING_LOAD"

// measure runs a load in a group of its own.
func measure(l load) (o observed, err error) {
	g, err := newGroup(l.Millicores)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, g.remove()) }()
	text, err := json.Marshal(l)
	if err != nil {
		return o, err
	}
	self, err := os.Executable()
	if err != nil {
		return o, err
	}
	// It begins when there is something on its standard input: in its group.
	stdin, gate, err := os.Pipe()
	if err != nil {
		return o, err
	}
	defer gate.Close()
	cmd := exec.Command(self)
	// As many threads as are asked for, and one that looks at the clock.
	cmd.Env = []string{loadVariable + "=" + string(text), "GOMAXPROCS=" + strconv.Itoa(l.Threads+1)}
	cmd.Stdin, cmd.Stderr = stdin, os.Stderr
	if g.dir != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(g.dir.Fd())}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return o, err
	}
	err = cmd.Start()
	stdin.Close()
	if err != nil {
		return o, err
	}
	err = g.add(cmd.Process.Pid)
	if err == nil {
		_, err = gate.Write([]byte{'\n'})
	}
	if err == nil {
		err = json.NewDecoder(out).Decode(&o)
	}
	if err != nil {
		_ = cmd.Process.Kill()
	}
	if err = errors.Join(err, cmd.Wait()); err == nil {
		o.CPUTime, err = g.cpuTime()
	}
	return o, err
}

// underLoad is the process: it finds its own group, starts a clock and goes on
// until its load is done.
func underLoad() int {
	var l load
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return 2
	}
	if err := json.Unmarshal([]byte(os.Getenv(loadVariable)), &l); err != nil {
		return 2
	}
	box := cgroup.Where{}.Find()
	o := observed{load: l, Found: box.Limits().CPU}
	clock := cgroup.Rule{}.Start(box, time.Hour, nil)
	done := make(chan struct{})
	var looking sync.WaitGroup
	if l.Curve > 0 {
		o.Points = []point{{}}
		looking.Go(func() { o.look(box, done) })
	}
	o.toil()
	spent := clock.Stop()
	close(done)
	looking.Wait()
	o.Charged, o.Wall, o.Periods, o.Throttled = spent.Charged, spent.Wall, spent.Periods, spent.Throttled
	if o.Points != nil {
		o.Points = append(o.Points, point{o.Wall, o.Charged})
	}
	if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}

// look takes the points of the curve. A clock tells only at its end how the time
// was spent, so as many as there are points start together.
func (o *observed) look(box *cgroup.Box, done <-chan struct{}) {
	var clocks []*cgroup.Clock
	for range 100 {
		clocks = append(clocks, cgroup.Rule{}.Start(box, time.Hour, nil))
	}
	ticker := time.NewTicker(o.Curve)
	defer ticker.Stop()
	for i, clock := range clocks {
		select {
		case <-ticker.C:
			spent := clock.Stop()
			o.Points = append(o.Points, point{spent.Wall, spent.Charged})
		case <-done: // the last point is that of the clock for all of it
			for _, clock := range clocks[i:] {
				clock.Stop()
			}
			return
		}
	}
}

func (o *observed) toil() {
	until := time.Now().Add(o.Busy)
	var spinning sync.WaitGroup
	for range o.Threads {
		spinning.Go(func() {
			for time.Now().Before(until) || cpuTime() < o.Work { //nolint:revive // to be busy is what it is for
			}
		})
	}
	spinning.Wait()
	time.Sleep(o.Sleep)
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
