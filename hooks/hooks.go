// SPDX-License-Identifier: Apache-2.0

// Package hooks finds the programs that run before the real command (and, at
// the end, after it), checks them, and runs them.
//
// [Load] turns directories into a [Plan] without running anything: it reports
// every problem at once, in words that say what to do. A [Runner] then runs the
// plan: each try of a hook has a timeout, a fresh environment file on
// descriptor 3, and a standard error whose last lines are remembered. What
// happens is told as [Event] values; the package writes no report.
//
// A hook is an executable file or a step file ("NAME.yaml"), which says in a
// few keys what a shell script would say in an image that has a shell.
//
// Values of environment variables and arguments never appear in the errors and
// log lines of this package, only their names.
package hooks

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Options says where hooks are looked for and how they are to be run.
type Options struct {
	// Dirs and StopDirs are read in order; a file in a later directory
	// overrides the one of the same name in an earlier directory.
	Dirs, StopDirs []string
	// DirsNamed and StopDirsNamed say that the user named the directories: a
	// missing one is then an error.
	DirsNamed, StopDirsNamed bool
	// Skip has the names of hooks that are not to run, or "*" for all. They are
	// not checked either.
	Skip []string
	// Timeout is the limit of a try for which nothing else is said; 0 is none.
	Timeout time.Duration
	// Timeouts, by name of the hook, go over the step file's own timeout, and
	// that over Timeout.
	Timeouts map[string]time.Duration
	// Parallel is how many hooks may run at once. Over 1, hooks with the same
	// leading number form a stage.
	Parallel int
}

// A Plan is what is going to run. Its zero value runs nothing.
type Plan struct {
	Stages   [][]Step // one after another
	Stop     []Step   // at the end, one after another
	Skipped  []string // names left out because of Options.Skip; worth a warning
	Warnings []string // one line each

	parallel int
}

// A Step is a hook that is ready to run.
type Step struct {
	Name    string        // what logs and settings call it
	File    string        // where it was found
	Timeout time.Duration // per try; 0 is none

	// program is what to run, word for word when raw, else with ${VAR} in it.
	program  []string
	raw      bool
	retries  int
	backoff  time.Duration
	carryOn  bool // a failure does not end the run
	env      []envEntry
	dir      string
	identity *Identity // nil: ours
}

// envEntry is a variable that a step file sets, in the file's order.
type envEntry struct{ name, value string }

// Load finds and checks the hooks. All problems are in the error, which is then
// a join of one line each; nothing is run in any case.
func Load(o Options) (Plan, error) {
	l := loader{Options: o}
	before := l.load(o.Dirs, o.DirsNamed, "hooks")
	plan := Plan{
		Stages:   stages(before, o.Parallel),
		Stop:     l.load(o.StopDirs, o.StopDirsNamed, "stop hooks"),
		parallel: o.Parallel,
	}
	l.warnUnknown()
	plan.Skipped, plan.Warnings = l.skipped, l.warnings
	return plan, errors.Join(l.problems...)
}

// stages groups hooks, which are in order, into stages. One without a leading
// number is a stage of its own.
func stages(steps []Step, parallel int) [][]Step {
	var grouped [][]Step
	last := ""
	for _, s := range steps {
		number := leadingNumber(s.Name)
		if parallel > 1 && number != "" && number == last {
			grouped[len(grouped)-1] = append(grouped[len(grouped)-1], s)
		} else {
			grouped = append(grouped, []Step{s})
		}
		last = number
	}
	return grouped
}

// leadingNumber returns the digits that name starts with, without leading
// zeros, or "" when there are none.
func leadingNumber(name string) string {
	end := 0
	for end < len(name) && '0' <= name[end] && name[end] <= '9' {
		end++
	}
	start := 0
	for start < end-1 && name[start] == '0' {
		start++
	}
	return name[start:end]
}

// Len is the number of hooks that run before the command.
func (p Plan) Len() int {
	n := 0
	for _, stage := range p.Stages {
		n += len(stage)
	}
	return n
}

// Longest is the longest time that the hooks before the command may take by
// their timeouts: all tries and the pauses between them. It is 0 when a hook has
// no timeout. The grace that a timed-out try gets is not in it. atMost, which may
// be nil, is the wall time that a timeout can become.
func (p Plan) Longest(atMost func(time.Duration) time.Duration) time.Duration {
	var total time.Duration
	for _, stage := range p.Stages {
		var sum, longest time.Duration
		for _, s := range stage {
			one := s.longest(atMost)
			if one == 0 {
				return 0
			}
			sum = times(sum, one, 1)
			longest = max(longest, one)
		}
		total = times(total, longest, 1)
		// With fewer places than hooks, whoever comes last finds a place when
		// the others' work, evenly spread, is done.
		if p.parallel > 0 && len(stage) > p.parallel {
			total = times(total, (sum-longest)/time.Duration(p.parallel), 1)
		}
	}
	return total
}

func (s Step) longest(atMost func(time.Duration) time.Duration) time.Duration {
	if s.Timeout == 0 {
		return 0
	}
	timeout := s.Timeout
	if atMost != nil {
		timeout = atMost(timeout)
	}
	total := timeout
	for failed := 1; failed <= s.retries; failed++ {
		pause := pauseAfter(s.backoff, failed, 1)
		if pause == pauseAfter(s.backoff, failed+1, 1) { // it grows no more
			left := s.retries - failed + 1
			return times(times(total, timeout, left), pause, left)
		}
		total = times(times(total, timeout, 1), pause, 1)
	}
	return total
}

// times adds d to the sum n times, or as often as it fits.
func times(sum, d time.Duration, n int) time.Duration {
	if d > (math.MaxInt64-sum)/time.Duration(n) {
		return math.MaxInt64
	}
	return sum + d*time.Duration(n)
}

// Missing tells why the program of a step file can't be started with env as
// things are now, or returns nil. It is a matter for a warning: an earlier hook
// may bring the program, and a variable that is not set here may be set there.
func (s Step) Missing(env []string) error {
	if s.raw {
		return nil // checked by Load
	}
	// Only the program counts here: an argument may well need a variable that
	// is not set where the image is built.
	program, err := expand(s.program[0], lookupIn(env))
	if err != nil {
		return nil
	}
	in := invocation{program: []string{program}, env: env, shownDir: s.dir}
	if in.dir, err = expand(s.dir, lookupIn(env)); err != nil {
		return nil
	}
	if _, err := s.find(in); err != nil {
		return fmt.Errorf("%s: %w", s.File, err)
	}
	return nil
}
