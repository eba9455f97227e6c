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
)

// prepared is everything that is known before anything runs.
type prepared struct {
	plan     hooks.Plan
	env      []string // of hooks and command, ENV_FILES read
	path     string   // of the command, if there is one
	identity *hooks.Identity
}

// prepare checks all that can be checked without running anything, and returns
// everything that is wrong at once.
func prepare(c Config, environ []string) (p prepared, err error) {
	var problems []error
	add := func(err error) {
		if err != nil {
			problems = append(problems, err)
		}
	}
	p.env, err = hooks.EnvFiles(environ, c.EnvFiles)
	add(err)
	p.plan, err = hooks.Load(hookOptions(c))
	add(err)
	if c.User != "" {
		var id hooks.Identity
		if id, err = hooks.ResolveUser(c.User); err == nil {
			_, err = id.Credential()
		}
		if err != nil {
			add(fmt.Errorf("%s_USER=%q: %w", Prefix, c.User, err))
		}
		p.identity = &id
	}
	if len(c.Command) > 0 {
		if p.path, err = hooks.Lookup(c.Command[0], p.env); err != nil {
			add(fmt.Errorf("command: %w", err))
		}
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

// errorCode is the exit code for what prepare found: a command that is missing
// or cannot be executed has its own, everything else is 125.
func errorCode(err error) int {
	var lookup *hooks.LookupError
	if problems, ok := err.(interface{ Unwrap() []error }); ok && len(problems.Unwrap()) == 1 &&
		errors.As(problems.Unwrap()[0], &lookup) {
		return lookup.Code()
	}
	return ExitOwn
}

// Check validates settings and hooks, prints what would be run to stdout and
// what is wrong to stderr, and returns the exit code that a run would have if
// it could not start, or 0. It runs and touches nothing.
func Check(c Config, environ []string, stdout, stderr io.Writer) int {
	p, err := prepare(c, environ)
	for _, warning := range p.plan.Warnings {
		fmt.Fprintf(stderr, "cleanimg-init: warning: %s\n", warning)
	}
	if err != nil {
		PrintProblems(stderr, err)
		return errorCode(err)
	}
	for _, stage := range append(p.plan.Stages, p.plan.Stop) {
		for _, step := range stage {
			if err := step.Missing(p.env); err != nil {
				fmt.Fprintf(stderr, "cleanimg-init: warning: step %s: %v\n", step.Name, err)
			}
		}
	}
	printPlan(stdout, c, p)
	return 0
}

func printPlan(w io.Writer, c Config, p prepared) {
	fmt.Fprintf(w, "hooks: %d, %s\n", p.plan.Len(), atMost(p.plan.Longest()))
	for i, stage := range p.plan.Stages {
		for _, step := range stage {
			fmt.Fprintf(w, "  %d. %s (%s), timeout %s\n", i+1, step.Name, step.File, orNone(step.Timeout))
		}
	}
	for _, name := range p.plan.Skipped {
		fmt.Fprintf(w, "  -  %s: skipped (%s_HOOKS_SKIP)\n", name, Prefix)
	}
	switch {
	case len(c.Command) == 0:
		fmt.Fprintln(w, "command: none, ends after the hooks")
	default:
		fmt.Fprintf(w, "command: %s\n", p.path)
	}
	fmt.Fprintf(w, "stop hooks: %d\n", len(p.plan.Stop))
	for _, step := range p.plan.Stop {
		fmt.Fprintf(w, "  -  %s (%s), timeout %s\n", step.Name, step.File, orNone(step.Timeout))
	}
	listen := "off"
	if c.HTTP() {
		listen = c.HTTPListen
	}
	fmt.Fprintf(w, "probes: %s\n", listen)
	fmt.Fprintf(w, "grace period: %s\n", orNone(c.GracePeriod.Duration))
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

// ExplainProblems puts what is wrong with the settings where the pod's status
// shows it. The settings need not be valid.
func ExplainProblems(c Config, err error) {
	f := report.Failure{Cause: report.Invalid, Code: ExitOwn, Reason: err.Error()}
	terminationLog{string(c.TerminationLog)}.write(f.Message(messageMax))
}

// commandName is how the command is called in logs: arguments may be secret.
func commandName(c Config) string {
	if len(c.Command) == 0 {
		return ""
	}
	return filepath.Base(c.Command[0])
}
