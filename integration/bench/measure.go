// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// start is one run of a command that does nothing. Times in microseconds.
type start struct {
	toMain float64 // from the exec of PID 1 to the command's main
	exit   float64 // from the command's end to PID 1's
	faults float64
}

// measureStarts runs each candidate once a round, so that a slow moment of the
// machine is everybody's.
func (b *bench) measureStarts() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for round := range b.starts + 1 {
		for _, c := range b.candidates {
			s, err := b.oneStart(c)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 { // the first one fills the page cache
				c.starts = append(c.starts, s)
			}
		}
	}
	return nil
}

func (b *bench) oneStart(c *candidate) (s start, err error) {
	box, err := b.start(c, true, "clock")
	if err != nil {
		return s, err
	}
	defer box.kill()
	if err := box.peekExit(); err != nil {
		return s, err
	}
	ended := monotonic()
	faults, err := box.faults()
	if err != nil {
		return s, err
	}
	before, err := box.numbers(2)
	if err != nil {
		return s, err
	}
	inMain, err := box.numbers(1)
	if err != nil {
		return s, err
	}
	return start{
		toMain: float64(inMain[0]-before[0]) / 1e3,
		exit:   float64(ended-inMain[0]) / 1e3,
		faults: float64(faults - before[1]),
	}, nil
}

// footprint is what PID 1 takes while the command idles. Sizes in kB.
type footprint struct {
	rss, dirty, threads, switches float64
}

func (b *bench) measureFootprints() error {
	watch := 5 * time.Second
	if b.short {
		watch = time.Second
	}
	for range b.footprints {
		boxes, stop, err := b.startAll("idle")
		if err != nil {
			return err
		}
		time.Sleep(time.Second) // whatever comes after the start has come
		var before []int64
		for _, box := range boxes {
			before = append(before, box.switches())
		}
		begin := time.Now()
		time.Sleep(watch)
		for i, box := range boxes {
			rollup := fmt.Sprintf("/proc/%d/smaps_rollup", box.pid)
			c := b.candidates[i]
			c.foot = append(c.foot, footprint{
				switches: float64(box.switches()-before[i]) / time.Since(begin).Seconds(),
				rss:      float64(statusField(rollup, "Rss")),
				dirty:    float64(statusField(rollup, "Private_Dirty")),
				threads:  float64(statusField(fmt.Sprintf("/proc/%d/status", box.pid), "Threads")),
			})
		}
		stop()
	}
	return nil
}

// startAll starts all candidates with the same command, and waits until the
// command runs.
func (b *bench) startAll(command ...string) (boxes []*container, stop func(), err error) {
	stop = func() {
		for _, box := range boxes {
			box.kill()
		}
	}
	for _, c := range b.candidates {
		box, err := b.start(c, false, command...)
		if err == nil {
			boxes = append(boxes, box)
			err = box.await("ready")
		}
		if err != nil {
			stop()
			return nil, nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return boxes, stop, nil
}

// measureSignals sends USR1 to PID 1 and reads from the command when it came.
func (b *bench) measureSignals() error {
	boxes, stop, err := b.startAll("signals")
	if err != nil {
		return err
	}
	defer stop()
	time.Sleep(time.Second) // a Go program asks for USR1 after its start
	for range b.signals {
		for i, box := range boxes {
			time.Sleep(500 * time.Microsecond) // let all fall asleep again
			sent := monotonic()
			if err := syscall.Kill(box.pid, syscall.SIGUSR1); err != nil {
				return err
			}
			got, err := box.numbers(1)
			if err != nil {
				return fmt.Errorf("%s: %w", b.candidates[i].name, err)
			}
			b.candidates[i].signal = append(b.candidates[i].signal, float64(got[0]-sent)/1e3)
		}
	}
	return nil
}

// storm is how PID 1 copes with orphans that end as fast as they can be made.
type storm struct {
	left, most float64 // zombies: at the end, and at the worst moment
	cpu        float64 // microseconds an orphan
	rate       float64 // orphans a second
}

func (b *bench) measureStorms() error {
	for range b.storms {
		for _, c := range b.candidates {
			if c.name == "none" {
				continue // nobody reaps
			}
			s, err := b.oneStorm(c)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.storms = append(c.storms, s)
		}
	}
	return nil
}

func (b *bench) oneStorm(c *candidate) (s storm, err error) {
	box, err := b.start(c, false, "storm", fmt.Sprint(b.orphans))
	if err != nil {
		return s, err
	}
	defer box.kill()
	if err := box.await("ready"); err != nil {
		return s, err
	}
	cpu, begin := box.cpu(), time.Now()
	done := make(chan error, 1)
	go func() { done <- box.await("done") }()
	watch := time.NewTicker(10 * time.Millisecond)
	defer watch.Stop()
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				return s, err
			}
			running = false
		case <-watch.C:
			s.most = max(s.most, float64(box.zombies()))
		}
	}
	s.rate = float64(b.orphans) / time.Since(begin).Seconds()
	for wait := time.Now().Add(2 * time.Second); time.Now().Before(wait); time.Sleep(10 * time.Millisecond) {
		if s.left = float64(box.zombies()); s.left == 0 {
			break
		}
	}
	s.cpu = float64(box.cpu()-cpu) / 1e3 / float64(b.orphans)
	return s, nil
}

// median of a figure over several runs; 0 of none.
func median[T any](all []T, figure func(T) float64) float64 {
	return quantile(all, figure, 0.5)
}

func quantile[T any](all []T, figure func(T) float64, q float64) float64 {
	if len(all) == 0 {
		return 0
	}
	values := make([]float64, len(all))
	for i, a := range all {
		values[i] = figure(a)
	}
	slices.Sort(values)
	return values[min(int(q*float64(len(values))), len(values)-1)]
}

// most of a figure over several runs.
func most[T any](all []T, figure func(T) float64) (worst float64) {
	for _, a := range all {
		worst = max(worst, figure(a))
	}
	return worst
}
