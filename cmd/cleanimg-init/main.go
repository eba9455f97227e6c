// SPDX-License-Identifier: Apache-2.0

// Command cleanimg-init is the entrypoint of a container image without a shell:
// as PID 1 it runs the hooks, then the real command, passes signals on, reaps
// zombies, answers probes and ends the whole process tree gracefully.
//
// See --help for the options, the settings and the exit codes.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/version"
	"github.com/cleanstart-dev/cleanimg-init/probes"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
	"github.com/cleanstart-dev/cleanimg-init/reaper"
	"github.com/cleanstart-dev/cleanimg-init/supervisor"
)

func main() {
	reaper.Gate(os.Args) // does not return where we were started to become a step
	os.Exit(run(os.Args, os.Environ(), os.Stdout, os.Stderr))
}

// run is the program without the process around it; argv[0] is the name that it
// was called by. It returns the exit code: the command's, or one of ours.
func run(argv, environ []string, stdout, stderr io.Writer) int {
	o, wrong := commandLine(argv, environ)
	var usage usageError
	switch {
	case errors.As(wrong, &usage):
		fmt.Fprint(stderr, shown(environ, usage.text))
		return exitUsage
	case wrong != nil && o.verb != verbRun && o.verb != verbCheck:
		return fail(environ, stderr, wrong)
	}
	asked := stdout
	if o.onStderr {
		asked = stderr
	}
	switch o.verb {
	case verbHelp:
		printHelp(asked, o.help)
		return 0
	case verbVersion:
		fmt.Fprintln(asked, cmp.Or(o.version, "cleanimg-init "+version.Describe()))
		return 0
	case verbInstall:
		if err := install(o.rest[0], o.rest[1:], stdout); err != nil {
			return fail(environ, stderr, err)
		}
		return 0
	}
	cfg, warnings, err := supervisor.ParseConfig(environ, o.settings, o.flags, o.rest)
	settings := supervisor.Options{Environ: environ, Version: version.Version, Warnings: warnings, Invalid: errors.Join(wrong, err), Stderr: 2, Exit: os.Exit}
	switch {
	case o.verb == verbCheck:
		return supervisor.Check(cfg, settings, stdout, stderr)
	case o.verb == verbProbe && cfg.HTTPListen == "":
		return fail(environ, stderr, err)
	case o.verb == verbProbe:
		code, answered := probe(cfg, o.probe, stdout, stderr)
		if err != nil && !answered { // else the instance has options that make up for it
			return fail(environ, stderr, err)
		}
		return code
	}
	ownRuntime(environ)
	return supervisor.Run(cfg, settings)
}

// commandLine reads the command line as the name that we were called by says.
func commandLine(argv, environ []string) (options, error) {
	if len(argv) == 0 {
		return parseOptions(nil)
	}
	p := personalityOf(argv[0])
	if p == nil {
		return parseOptions(argv[1:])
	}
	o, err := p.parse(argv[1:], environ)
	if err == nil {
		p.imply(&o, environ)
	}
	return o, err
}

// probe asks the running instance of this container, and returns 0 or 1, and
// whether it has answered.
func probe(cfg supervisor.Config, name string, stdout, stderr io.Writer) (code int, answered bool) {
	if cfg.HTTPListen == "off" {
		fmt.Fprintf(stderr, "cleanimg-init: --probe %s: %s_HTTP_LISTEN is off, so there is nobody to ask\n", name, supervisor.Prefix)
		return 1, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	status, body, err := probes.Ask(ctx, string(cfg.HTTPListen), "/health/"+name, probes.InstanceID())
	if err != nil {
		fmt.Fprintf(stderr, "cleanimg-init: --probe %s: %v\n", name, err)
		return 1, false
	}
	fmt.Fprintf(stdout, "%d %s\n", status, strings.TrimSpace(body))
	if status != 200 {
		return 1, true
	}
	return 0, true
}

func fail(environ []string, stderr io.Writer, err error) int {
	supervisor.PrintProblems(stderr, errors.New(shown(environ, err.Error())))
	return supervisor.ExitOwn
}

// shown is a text as it may be seen: without secrets.
func shown(environ []string, text string) string { return report.NewRedactor(environ).String(text) }

// ownRuntime undoes what the image's variables for its own Go program did to
// us.
func ownRuntime(environ []string) {
	if _, ok := lookup(environ, "GOGC"); ok {
		debug.SetGCPercent(100)
	}
	if _, ok := lookup(environ, "GOMEMLIMIT"); ok {
		debug.SetMemoryLimit(math.MaxInt64)
	}
}

func lookup(environ []string, name string) (string, bool) {
	for _, entry := range environ {
		if len(entry) > len(name) && entry[len(name)] == '=' && entry[:len(name)] == name {
			return entry[len(name)+1:], true
		}
	}
	return "", false
}
