// SPDX-License-Identifier: Apache-2.0

// Package cli is the frame that the init tools share: options and their
// variables, help, logs, signals and exit codes. A tool says what it is with a
// [Tool]; its main is one call of [Main].
package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/version"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// The exit codes that are the same for every tool. See also [Exit].
const (
	exitTimeout = 124 // a context's deadline has passed
	exitOwn     = 125 // a bad setting, or the tool could not do its job
)

// Tool is one init tool.
type Tool struct {
	Name   string // what messages begin with
	Prefix string // of its variables: --lock-timeout of MIGRATE is MIGRATE_LOCK_TIMEOUT
	Usage  string // the lines under "Usage:"
	About  string // what it does: in the help before the options
	Notes  string // in the help after the options: examples, more variables
	Codes  string // lines of the help about exit codes that only it has: "  1    different"
	// SingleDash reads -word as --word.
	SingleDash bool
	// Secret names options whose values the list of processes must not show.
	// It never shows passwords of URLs and what follows password= and the like.
	Secret []string
	// Flags registers the options. It is called once for each run.
	Flags func(*Flags)
	// Known tells of a variable with the prefix that is no option whether it
	// means something all the same. Nil: none does.
	Known func(variable string) bool
	// Check looks at the settings as a whole, and may complete them. It is called
	// when single values are bad too, so that all problems are reported at once.
	// It must not change anything outside. Nil: there is nothing to check.
	Check func(*Process) error
	// Run does the work. Its context ends with a stop signal. An error is
	// printed; see [Exit] for the exit code.
	Run func(context.Context, *Process) error
}

// Process is what a tool sees of its surroundings.
type Process struct {
	Name     string   // the base name of what it was called by
	Args     []string // the words that are no options
	Dash     int      // index in Args of the first word after "--"; -1 without one
	Environ  []string
	Stdin    *os.File
	Stdout   io.Writer
	Stderr   io.Writer
	Terminal bool // stderr is one
	Log      *slog.Logger
	// Redact knows the secrets in Environ. The logger uses it; what goes to
	// Stdout or Stderr otherwise is the tool's to redact.
	Redact *report.Redactor
}

// Main runs the tool and ends the process with its exit code.
func Main(t Tool) {
	os.Exit(t.Execute(hideSecrets(os.Args, t.Secret...), os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// Execute runs the tool and returns its exit code. It takes over INT, TERM, HUP
// and QUIT for that time: the first one cancels the context of Run, the second
// one ends the process at once.
func (t Tool) Execute(argv, environ []string, stdin *os.File, stdout, stderr io.Writer) int {
	p := &Process{Name: t.Name, Environ: environ, Stdin: stdin, Stdout: stdout, Stderr: stderr, Redact: report.NewRedactor(environ)}
	if len(argv) > 0 {
		p.Name, argv = filepath.Base(argv[0]), argv[1:]
	}
	if f, ok := stderr.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		p.Terminal = err == nil
	}
	f := newFlags(t)
	words := f.words(t, argv, p)
	var err error
	switch {
	case f.help:
		err = f.printHelp(stdout, t)
	case f.version:
		_, err = io.WriteString(stdout, t.Name+" "+version.Describe()+"\n")
	default:
		if err = t.settings(f, p, words); err == nil {
			err = t.run(p)
		}
	}
	return t.fail(p, f, err)
}

// settings reads the variables too, warns of the unknown ones, and returns all
// problems at once. The words' are known already.
func (t Tool) settings(f *Flags, p *Process, words parsed) error {
	environ, problems := f.variables(t, p, words)
	p.Log = newLogger(p.Stderr, p.Redact, f.format, slog.Level(f.level))
	for _, text := range f.unknown(t, environ) {
		p.Log.Warn(text)
	}
	f.warnUnreplaced(p)
	if t.Check != nil && words.whole {
		problems = append(problems, t.Check(p))
	}
	return errors.Join(problems...)
}

// run calls Run. What was interrupted is not done, whatever Run says of it.
func (t Tool) run(p *Process) error {
	ctx, stopped := untilSignal(context.Background())
	err := t.Run(ctx, p)
	sig := stopped()
	if sig == 0 {
		return err
	}
	var by Signal
	if err == nil || errors.Is(err, context.Canceled) || errors.As(err, &by) {
		err = Signal{sig}
	}
	return Exit(128+int(sig), err)
}

// fail says why and returns the exit code.
func (t Tool) fail(p *Process, f *Flags, err error) int {
	if err == nil {
		return 0
	}
	code := exitOwn
	var exit exitError
	switch {
	case errors.As(err, &exit):
		if code = exit.code; exit.err == nil {
			return code
		}
	case errors.Is(err, context.DeadlineExceeded):
		code = exitTimeout
	}
	text := p.Redact.String(report.Clean(err.Error()))
	complain(p.Stderr, t.Name, text, f.format)
	if os.Getpid() == 1 {
		writeTermination(terminationLog, t.Name+": "+text)
	}
	return code
}

// Exit is err with an exit code of its own. With a nil err nothing is printed.
func Exit(code int, err error) error { return exitError{code, err} }

type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

// lookup returns the value of a variable, of several of one name the last.
func lookup(environ []string, name string) (value string) {
	for _, entry := range environ {
		if len(entry) > len(name) && entry[len(name)] == '=' && entry[:len(name)] == name {
			value = entry[len(name)+1:]
		}
	}
	return value
}
