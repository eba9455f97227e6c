// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/integration/bench/program"
)

// A waiter waits for TCP ports.
type waiter struct {
	name string
	size int64 // bytes of the program
	// command waits for all addresses.
	command func(addresses []string) *exec.Cmd

	noticed  []float64 // ms from when a port opens to the end of the program
	open     []float64 // ms of a run when the port is open
	rss      float64   // MB, while it waits for one port
	many     []float64 // ms for many open ports
	manyRSS  float64   // MB, while it waits for one more
	unusable bool      // for many
}

// manyPorts is a row of services that is longer than anybody's.
const manyPorts = 1000

// measure lets all take turns, so that a busy moment is nobody's alone.
func measure(waiters []*waiter, trials, runs, rounds int) error {
	fmt.Fprintln(os.Stderr, "bench: ports that open")
	if err := measureNotice(waiters, trials); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "bench: an open port")
	if err := measureOpen(waiters, runs); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "bench: %d open ports\n", manyPorts)
	return measureMany(waiters, rounds)
}

// allOff leaves only what needs no protocol of its own: tcp, unix, file, dns and
// exec.
const allOff = "no_http,no_postgres,no_mysql,no_redis,no_kafka,no_amqp,no_nats,no_mongodb"

// findWaiters builds ours and looks for the others: installed, or in the module
// proxy.
func findWaiters(dir string) (waiters []*waiter, err error) {
	add := func(name, program string, arguments func(addresses []string) []string) error {
		info, err := os.Stat(program)
		if err != nil {
			return err
		}
		waiters = append(waiters, &waiter{name: name, size: info.Size(), command: func(addresses []string) *exec.Cmd {
			return exec.Command(program, arguments(addresses)...)
		}})
		return nil
	}
	for _, ours := range []struct{ name, tags string }{{"await", ""}, {"await, only tcp, unix, file, dns and exec", allOff}} {
		path, err := build(dir, ours.tags)
		if err == nil {
			err = add(ours.name, path, func(addresses []string) []string { return append([]string{"--timeout", "1m"}, addresses...) })
		}
		if err != nil {
			return nil, err
		}
	}
	for _, p := range peers {
		path, err := exec.LookPath(p.name)
		if err != nil {
			path, err = program.Install(dir, p.module)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: no %s: %v\n", p.name, err)
			continue
		}
		if err := add(p.name, path, p.arguments); err != nil {
			return nil, err
		}
	}
	shell, err := exec.LookPath("bash")
	if err != nil {
		return nil, err
	}
	const loop = `for a in "$@"; do until (exec 3<>"/dev/tcp/${a%%:*}/${a##*:}") 2>/dev/null; do sleep $0; done; done`
	for _, seconds := range []string{"1", "2"} {
		err := add("bash loop, sleep "+seconds, shell, func(addresses []string) []string { return append([]string{"-c", loop, seconds}, addresses...) })
		if err != nil {
			return nil, err
		}
	}
	return waiters, nil
}

// peers are programs for the same purpose.
var peers = []struct {
	name, module string
	arguments    func(addresses []string) []string
}{
	{"wait4x", "wait4x.dev/v3/cmd/wait4x@latest", func(addresses []string) []string {
		return append([]string{"tcp", "--timeout", "1m"}, addresses...)
	}},
	{"dockerize", "github.com/jwilder/dockerize@latest", func(addresses []string) []string {
		args := []string{"-timeout", "1m"}
		for _, a := range addresses {
			args = append(args, "-wait", "tcp://"+a)
		}
		return args
	}},
}

// measureNotice starts the programs before a port opens, several at a time:
// nearly all of it is sleep.
func measureNotice(waiters []*waiter, trials int) error {
	const atOnce = 6
	var mu sync.Mutex
	var errs []error
	places := make(chan struct{}, atOnce)
	var running sync.WaitGroup
	for range trials {
		for _, w := range waiters {
			places <- struct{}{}
			running.Go(func() {
				defer func() { <-places }()
				ms, err := w.notice()
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", w.name, err))
				}
				w.noticed = append(w.noticed, ms)
			})
		}
	}
	running.Wait()
	return errors.Join(errs...)
}

func (w *waiter) notice() (ms float64, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	address := l.Addr().String()
	l.Close()
	cmd := w.command([]string{address})
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	time.Sleep(time.Second + time.Duration(rand.Float64()*float64(3*time.Second)))
	if l, err = net.Listen("tcp", address); err != nil {
		return 0, err
	}
	defer l.Close()
	opened := time.Now()
	err = cmd.Wait()
	return float64(time.Since(opened).Microseconds()) / 1000, err
}

// measureOpen is a run with nothing to wait for.
func measureOpen(waiters []*waiter, runs int) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	go drain(l)
	for range runs {
		for _, w := range waiters {
			ms, err := timed(w.command([]string{l.Addr().String()}))
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			w.open = append(w.open, ms)
		}
	}
	for _, w := range waiters {
		if w.rss, err = w.resident(nil); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return nil
}

// measureMany is a run with many open ports.
func measureMany(waiters []*waiter, rounds int) error {
	var addresses []string
	for range manyPorts {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("%d listeners (ulimit -n): %w", manyPorts, err)
		}
		defer l.Close()
		go drain(l)
		addresses = append(addresses, l.Addr().String())
	}
	for range rounds {
		for _, w := range waiters {
			ms, err := timed(w.command(addresses))
			w.unusable = err != nil // some take one address only
			w.many = append(w.many, ms)
		}
	}
	for _, w := range waiters {
		var err error
		if w.manyRSS, err = w.resident(addresses); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return nil
}

// resident is the memory that the program had at most, in MB, when it has
// looked at the addresses and at one more, on which nobody listens. What wait4
// says of a short run would be the memory of this program at the fork.
func (w *waiter) resident(addresses []string) (float64, error) {
	cmd := w.command(append(addresses[:len(addresses):len(addresses)], "127.0.0.1:1"))
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	time.Sleep(2 * time.Second)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // killed
	for line := range strings.Lines(string(status)) {
		var kB float64
		if _, scanErr := fmt.Sscanf(line, "VmHWM: %f kB", &kB); scanErr == nil {
			return kB * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("no VmHWM: %w", err)
}

func drain(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

// timed runs a program and returns its wall time.
func timed(cmd *exec.Cmd) (ms float64, err error) {
	start := time.Now()
	err = cmd.Run()
	return float64(time.Since(start).Microseconds()) / 1000, err
}
