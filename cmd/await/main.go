// SPDX-License-Identifier: Apache-2.0

// Command await waits until services are ready, each asked by its own protocol,
// and then ends, or becomes the given command.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/cli"
	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/hooks/await"
	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

func main() { cli.Main(tool()) }

const exitTimeout = 124

// settings are the options as they were given.
type settings struct {
	flags    *cli.Flags
	services []string
	parsed   []await.Service
	options  await.Options
	json     bool
}

func tool() cli.Tool {
	s := settings{options: await.Options{}}
	return cli.Tool{
		Name: "await", Prefix: "AWAIT",
		Usage: "await [options] [--service] HOST:PORT|URL … [-- command [args…]]\n" +
			"check-deps [options] [--service] HOST:PORT|URL …     the same as await --once",
		About: about, Notes: notes,
		Codes: "  126  the command cannot be executed\n  127  the command is not found\n",
		Flags: s.register, Check: s.complete, Run: s.run,
	}
}

func (s *settings) register(f *cli.Flags) {
	s.flags = f
	o := &s.options
	f.StringArrayVar(&s.services, "service", nil, "`HOST:PORT|URL` a service to wait for; may be repeated, or given as a plain word")
	f.Duration(&o.Timeout, "timeout", 5*time.Minute, "how long to wait for all together; 0: for ever")
	f.Duration(&o.TryTimeout, "try-timeout", 3*time.Second, "how long one try may take; 0: for ever")
	f.Duration(&o.MaxInterval, "max-interval", 5*time.Second, "the longest pause between two tries; pauses are random and grow up to it")
	f.BoolVar(&o.Once, "once", false, "try each service once, and end with 124 when it is not ready")
	f.BoolVar(&o.Any, "any", false, "one ready service is enough")
	f.BoolVar(&o.Invert, "invert", false, "wait until the services are not ready")
	f.IntVar(&o.Stable, "stable", 1, "`N` how many good answers in a row make a service ready; they are a second apart")
	f.BoolVar(&o.RetryAuth, "retry-auth", false, "go on when credentials are rejected: they may become valid")
	f.Duration(&o.Heartbeat, "heartbeat", 10*time.Second, "how often the log says what is still being waited for; 0: never")
	f.BoolVar(&s.json, "json", false, "print the result on stdout, as JSON")
}

// complete reports all that is wrong with what was given.
func (s *settings) complete(p *cli.Process) error {
	var errs []error
	o := &s.options
	o.Once = o.Once || p.Name == "check-deps"
	if o.MaxInterval <= 0 {
		errs = append(errs, errors.New("--max-interval 0: accepted is more than that"))
	}
	if o.Stable < 1 {
		errs = append(errs, fmt.Errorf("--stable %d: accepted is a number from 1", o.Stable))
	}
	if o.TryTimeout == 0 {
		o.TryTimeout = math.MaxInt64
	}
	words, _ := split(p)
	schemes := await.Schemes(new(reaper.Reaper))
	for _, raw := range append(s.services, words...) {
		service, err := await.Parse(raw, p.Environ, schemes)
		errs = append(errs, err)
		s.parsed = append(s.parsed, service)
	}
	if len(s.parsed) == 0 {
		errs = append(errs, errors.New("nothing to wait for: give --service HOST:PORT or a URL, or AWAIT_SERVICE"))
	}
	return errors.Join(errs...)
}

// split returns the services among the words, and the command.
func split(p *cli.Process) (services, command []string) {
	if p.Dash < 0 {
		return p.Args, nil
	}
	return p.Args[:p.Dash], p.Args[p.Dash:]
}

func (s *settings) run(ctx context.Context, p *cli.Process) error {
	_, command := split(p)
	if len(command) > 0 {
		// Before the waiting, which a mistake would make for nothing.
		if _, err := hooks.Lookup(command[0], p.Environ, nil); err != nil {
			return commandError(err)
		}
	}
	if err := s.wait(ctx, p); err != nil {
		return err
	}
	if len(command) > 0 {
		return become(ctx, command, p.Environ)
	}
	return nil
}

// wait waits and says what came of it.
func (s *settings) wait(ctx context.Context, p *cli.Process) error {
	o, services := s.options, s.parsed
	o.Log = p.Log
	closeProgress := func() {}
	plainLog := s.flags.Lookup("log-format").Value.String() == "text"
	if p.Terminal && plainLog && !o.Once {
		progress := await.NewProgress(p.Stderr, terminalSize, services)
		o.Log, o.Heartbeat, o.Event, closeProgress = nil, 0, progress.Event, progress.Close
	} else {
		hintTCP(p, services)
	}
	rep := await.Run(ctx, services, o)
	closeProgress()

	var err error
	switch {
	case s.json:
		e := json.NewEncoder(p.Stdout)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		err = e.Encode(rep)
	case plainLog:
		err = rep.WriteTable(p.Stderr)
	}
	if rep.Err() != nil {
		err = rep.Err()
	}
	if errors.Is(err, await.ErrNotReady) {
		return cli.Exit(exitTimeout, err)
	}
	return err
}

// become replaces this process by the command.
func become(ctx context.Context, command, environ []string) error {
	path, err := hooks.Lookup(command[0], environ, nil)
	if err != nil {
		return commandError(err)
	}
	// From here on a signal ends us as it would end the command.
	signal.Reset(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err = reaper.Replace(reaper.Command{Path: path, Args: command, Env: environ})
	return commandError(hooks.StartError(path, err))
}

// commandError gives the exit code that a shell would.
func commandError(err error) error {
	var lookup *hooks.LookupError
	if errors.As(err, &lookup) {
		return cli.Exit(lookup.Code(), fmt.Errorf("command: %w", err))
	}
	return fmt.Errorf("command: %w", err)
}

func terminalSize() (columns, rows int) {
	size, err := unix.IoctlGetWinsize(2, unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(size.Col), int(size.Row)
}
