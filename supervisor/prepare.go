// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// prepared is everything that is known before anything runs.
type prepared struct {
	plan     hooks.Plan
	env      []string // of hooks and command, ENV_FILES read
	path     string   // of the command, if there is one
	identity *hooks.Identity
	box      *cgroup.Box // nil: none is visible
}

// prepare checks all that can be checked without running anything, and returns
// everything that is wrong at once, the settings (invalid) included.
func prepare(c Config, environ []string, invalid error) (p prepared, err error) {
	problems := []error{invalid}
	add := func(err error) { problems = append(problems, err) }
	p.env, err = hooks.EnvFiles(environ, c.EnvFiles)
	add(err)
	p.env = withoutLimits(p.env)
	p.box = cgroup.Where{}.Find(cgroup.CPU, cgroup.Memory)
	p.plan, err = hooks.Load(hookOptions(c))
	add(err)
	if c.User != "" {
		var id hooks.Identity
		if id, err = hooks.ResolveUser(string(c.User)); err == nil {
			_, err = id.Credential()
		}
		if err != nil {
			add(fmt.Errorf("%s_USER=%q: %w", Prefix, c.User, err))
		} else {
			p.identity = &id
		}
	}
	switch {
	case len(c.Command) > 0:
		if p.path, err = hooks.Lookup(c.Command[0], p.env, p.identity); err != nil {
			add(commandError{err})
		}
	case c.Mode == ModeExec && invalid == nil: // after a wrong option nobody knows what the command is
		add(fmt.Errorf("%s_MODE=exec: there is no command to become", Prefix))
	}
	return p, errors.Join(problems...)
}

func hookOptions(c Config) hooks.Options {
	skip := []string(c.HooksSkip)
	if c.NoHooks {
		skip = []string{"*"}
	}
	return hooks.Options{
		Dirs: c.HooksDir, StopDirs: c.StopHooksDir,
		DirsNamed: c.Named("HOOKS_DIR"), StopDirsNamed: c.Named("STOP_HOOKS_DIR"),
		Skip: skip, Timeout: c.StepTimeout.Duration, Timeouts: c.StepTimeouts, Parallel: int(c.HooksParallel),
	}
}

// commandError is why the command cannot be started.
type commandError struct{ error }

func (e commandError) Error() string { return "command: " + e.error.Error() }

func (e commandError) Unwrap() error { return e.error }

// Code is 126 or 127 where the program is to blame, else 125.
func (e commandError) Code() int {
	var lookup *hooks.LookupError
	if errors.As(e.error, &lookup) {
		return lookup.Code()
	}
	return ExitOwn
}

// errorCode is the exit code for what prepare found: that of the command if
// nothing else is wrong.
func errorCode(err error) int {
	var command commandError
	if problems := flatten(err); len(problems) == 1 && errors.As(problems[0], &command) {
		return command.Code()
	}
	return ExitOwn
}

// flatten returns the errors that were joined, in order.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

// Check validates settings and hooks, prints what would be run to stdout and
// what is wrong to stderr, and returns the exit code that a run would have if
// it could not start, or 0. It runs and touches nothing.
func Check(c Config, o Options, stdout, stderr io.Writer) int {
	p, err := prepare(c, o.Environ, o.Invalid)
	redact := report.NewRedactor(o.Environ)
	redact.Add(p.env) // contents of ENV_FILES
	warn := func(format string, args ...any) {
		fmt.Fprintf(stderr, "cleanimg-init: warning: %s\n", redact.String(fmt.Sprintf(format, args...)))
	}
	for _, name := range o.Warnings {
		warn("unknown variable %s, it does nothing: see --help", name)
	}
	for _, text := range p.plan.Warnings {
		warn("%s", text)
	}
	if err != nil {
		PrintProblems(stderr, errors.New(redact.String(err.Error())))
		return errorCode(err)
	}
	for _, text := range c.idle(p.plan) {
		warn("%s", text)
	}
	names, checks := c.namedChecks()
	for i, check := range checks {
		if program := check.Program(); program != "" {
			if _, err := hooks.Lookup(program, p.env, p.identity); err != nil {
				warn("%s check: %v", names[i], err)
			}
		}
	}
	for _, stage := range append(p.plan.Stages, p.plan.Stop) {
		for _, step := range stage {
			if err := step.Missing(p.env); err != nil {
				warn("step %s: %v", step.Name, err)
			}
		}
	}
	printPlan(stdout, c, p)
	return 0
}

func printPlan(w io.Writer, c Config, p prepared) {
	limit := p.box.Limits().CPU
	if memory := p.box.Limits().Memory; memory > 0 {
		fmt.Fprintf(w, "memory limit: %s\n", cgroup.Bytes(memory))
	}
	if p.box.KillsTogether() {
		fmt.Fprintln(w, "out of memory: ends the whole container (memory.oom.group is 1)")
	}
	fmt.Fprintf(w, "hooks: %d, %s\n", p.plan.Len(), atMost(c.hooksLongest(p.plan, limit)))
	for i, stage := range p.plan.Stages {
		for _, step := range stage {
			fmt.Fprintf(w, "  %d. %s (%s), timeout %s\n", i+1, step.Name, step.File, stretched(&c, step.Timeout, limit))
		}
	}
	for _, name := range p.plan.Skipped {
		fmt.Fprintf(w, "  -  %s: skipped (%s_HOOKS_SKIP)\n", name, Prefix)
	}
	switch {
	case len(c.Command) == 0:
		fmt.Fprintln(w, "command: none, ends after the hooks")
	default:
		fmt.Fprintf(w, "command: %s, timeout %s\n", p.path, stretched(&c, c.commandTimeout(), limit))
	}
	fmt.Fprintf(w, "stop hooks: %d\n", len(p.plan.Stop))
	for _, step := range p.plan.Stop {
		fmt.Fprintf(w, "  -  %s (%s), timeout %s\n", step.Name, step.File, stretched(&c, step.Timeout, limit))
	}
	listen := "off"
	if c.HTTP() {
		listen = string(c.HTTPListen)
	}
	fmt.Fprintf(w, "probes: %s\n", listen)
	printWatch(w, c)
	fmt.Fprintf(w, "grace period: %s\n", orNone(c.GracePeriod.Duration))
}

func printWatch(w io.Writer, c Config) {
	names, checks := c.namedChecks()
	for i, check := range checks {
		fmt.Fprintf(w, "%s check: %s, every %s, timeout %s, successes %d, failures %d\n", names[i], check, check.Period, check.Timeout, check.Success, check.Failure)
	}
	if c.Notify != NotifyOff {
		fmt.Fprintf(w, "notify: %s, watchdog %s\n", c.Notify, orNone(c.Watchdog.Duration))
	}
}

// atMost is what a startup probe has to allow for.
func atMost(d time.Duration) string {
	if d == 0 {
		return "no time limit"
	}
	return "at most " + d.String()
}

func orNone(d time.Duration) string {
	if d == 0 {
		return "none"
	}
	return d.String()
}

// PrintProblems prints each problem of err as a line of its own.
func PrintProblems(w io.Writer, err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(w, "cleanimg-init: %s\n", line)
	}
}

// commandName is how the command is called in logs: arguments may be secret.
func commandName(c Config) string {
	if len(c.Command) == 0 {
		return ""
	}
	return filepath.Base(c.Command[0])
}
