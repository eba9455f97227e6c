// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// Flags are the options of a tool. Every option has a variable too. Options may
// stand before, between and after the other words, until a "--".
type Flags struct {
	*pflag.FlagSet
	help, version bool
	format        logFormat
	level         logLevel
}

// Duration registers an option that is a duration as Go writes it, or a bare
// number of seconds.
func (f *Flags) Duration(d *time.Duration, name string, value time.Duration, usage string) {
	*d = value
	f.Var((*duration)(d), name, usage)
}

// Size registers an option that is a number of bytes as Kubernetes writes them,
// 0 unless it is given.
func (f *Flags) Size(n *int64, name, usage string) {
	*n = 0
	f.Var((*size)(n), name, usage)
}

func newFlags(t Tool) *Flags {
	f := &Flags{FlagSet: pflag.NewFlagSet(t.Name, pflag.ContinueOnError), format: "text"}
	f.SortFlags = false
	f.Usage = func() {}
	if t.Flags != nil {
		t.Flags(f)
	}
	f.Var(&f.format, "log-format", "`text|json` how log lines look")
	f.Var(&f.level, "log-level", "`debug|info|warn|error` the least that is logged")
	f.BoolVarP(&f.help, "help", "h", false, "print this help")
	f.BoolVar(&f.version, "version", false, "print the version")
	return f
}

// parsed is what became of a command line.
type parsed struct {
	given    map[string]bool // the options
	problems []error
	whole    bool // read to the end
}

// words reads the command line into the flags, and the words that are no
// options into p.
func (f *Flags) words(t Tool, args []string, p *Process) parsed {
	if t.SingleDash {
		args = f.doubleDashes(args)
	}
	out := parsed{given: map[string]bool{}}
	err := f.ParseAll(args, func(flag *pflag.Flag, value string) error {
		out.given[flag.Name] = true
		if err := f.Set(flag.Name, value); err != nil {
			out.problems = append(out.problems, fmt.Errorf("option --%s %q: %w", flag.Name, value, accepted(flag, value, err)))
			flag.Changed = true // it was given, though wrongly
		}
		return nil
	})
	if err != nil {
		out.problems = append(out.problems, fmt.Errorf("%w: see --help", err))
	}
	out.whole = err == nil
	p.Args, p.Dash = f.Args(), f.ArgsLenAtDash()
	return out
}

// variables sets the options that were not given from their variables. It
// returns the environment with what _FILE variables name, and all problems.
func (f *Flags) variables(t Tool, p *Process, words parsed) (environ []string, problems []error) {
	environ, err := hooks.EnvFiles(p.Environ, f.withFiles(t))
	problems = append(words.problems, err)
	p.Redact.Add(environ)
	f.VisitAll(func(flag *pflag.Flag) {
		if !words.given[flag.Name] {
			problems = append(problems, f.fromVariable(flag, t.variable(flag.Name), environ)...)
		}
	})
	return environ, problems
}

// variable is the name of an option's variable.
func (t Tool) variable(option string) string {
	return t.Prefix + "_" + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// withFiles returns the variables that may be given by a file: those whose twin
// with _FILE is not an option itself.
func (f *Flags) withFiles(t Tool) (names []string) {
	f.VisitAll(func(flag *pflag.Flag) {
		if f.Lookup(flag.Name+"-file") == nil {
			names = append(names, t.variable(flag.Name))
		}
	})
	return names
}

// fromVariable sets an option from its variable. Several values are separated
// by white space.
func (f *Flags) fromVariable(flag *pflag.Flag, variable string, environ []string) (problems []error) {
	value := lookup(environ, variable)
	if value == "" || flag.Name == "help" || flag.Name == "version" {
		return nil
	}
	values := []string{value}
	if _, ok := flag.Value.(pflag.SliceValue); ok {
		values = strings.Fields(value)
	}
	for _, value := range values {
		if err := f.Set(flag.Name, value); err != nil {
			problems = append(problems, fmt.Errorf("%s=%q: %w", variable, value, accepted(flag, value, err)))
			flag.Changed = true
		}
	}
	return problems
}

// unknown warns of variables with the tool's prefix that mean nothing, which
// are most often spelled wrongly. Kubernetes sets some itself for a Service
// that is called like the tool.
func (f *Flags) unknown(t Tool, environ []string) (warnings []string) {
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		rest, ok := strings.CutPrefix(name, t.Prefix+"_")
		if !ok || rest == "PORT" || strings.HasPrefix(rest, "PORT_") || strings.HasPrefix(rest, "SERVICE_") || t.Known != nil && t.Known(name) {
			continue
		}
		option := strings.ToLower(strings.ReplaceAll(rest, "_", "-"))
		if f.Lookup(option) == nil {
			warnings = append(warnings, "unknown variable "+name+": see --help for those that there are")
		}
	}
	return warnings
}

// doubleDashes spells -word as --word, where there is such an option. A negative
// number is an option's value, or a word like others, and so is what follows it.
func (f *Flags) doubleDashes(args []string) (out []string) {
	valued := false // the word before wants a value
	for i, word := range args {
		if valued {
			out, valued = append(out, word), false
			continue
		}
		name, _, assigned := strings.Cut(strings.TrimLeft(word, "-"), "=")
		if flag := f.Lookup(name); flag != nil && strings.HasPrefix(word, "-") {
			valued = !assigned && flag.NoOptDefVal == ""
		}
		_, notNumber := strconv.Atoi(word)
		switch {
		case word == "--":
			return append(out, args[i:]...)
		case strings.HasPrefix(word, "-") && notNumber == nil:
			return append(append(out, "--"), args[i:]...)
		case strings.HasPrefix(word, "-") && !strings.HasPrefix(word, "--") && len(name) > 1 && f.Lookup(name) != nil:
			word = "-" + word
		}
		out = append(out, word)
	}
	return out
}

// accepted says what an option takes, in the place of what the parser of the
// value says to programmers.
func accepted(flag *pflag.Flag, value string, err error) error {
	switch flag.Value.Type() {
	case "bool":
		return errors.New("accepted are true and false")
	case "int", "int64", "uint", "uint64":
		var number *strconv.NumError
		if errors.As(err, &number) && errors.Is(number.Err, strconv.ErrRange) {
			return errors.New("the number is out of range")
		}
		return errors.New("accepted is a whole number")
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		err = invalid.Unwrap()
	}
	if rest, ok := strings.CutPrefix(err.Error(), strconv.Quote(value)+": "); ok {
		return errors.New(rest) // the value has been said
	}
	return err
}

type duration time.Duration

// String is the duration as people write it: 5m, not 5m0s.
func (d *duration) String() string {
	if *d == 0 {
		return "0"
	}
	s := time.Duration(*d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (d *duration) Type() string { return "duration" }

func (d *duration) Set(s string) error {
	value, err := hooks.ParseDuration(s)
	if err == nil {
		*d = duration(value)
	}
	return err
}

type size int64

func (n *size) String() string { return cgroup.Bytes(int64(*n)) }

func (n *size) Type() string { return "size" }

func (n *size) Set(s string) error {
	value, err := hooks.ParseSize(s)
	if err == nil {
		*n = size(value)
	}
	return err
}

type logFormat string

func (l *logFormat) String() string { return string(*l) }
func (l *logFormat) Type() string   { return "format" }

func (l *logFormat) Set(s string) error {
	if s != "text" && s != "json" {
		return errors.New("accepted are text and json")
	}
	*l = logFormat(s)
	return nil
}

type logLevel slog.Level

func (l *logLevel) String() string { return strings.ToLower(slog.Level(*l).String()) }
func (l *logLevel) Type() string   { return "level" }

func (l *logLevel) Set(s string) error {
	var level slog.Level
	if level.UnmarshalText([]byte(s)) != nil {
		return errors.New("accepted are debug, info, warn and error")
	}
	*l = logLevel(level)
	return nil
}
