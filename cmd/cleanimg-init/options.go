// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/layout"
	"github.com/cleanstart-dev/cleanimg-init/supervisor"
)

// A verb is what to do instead of running. Verbs are options, so that every
// word can be a command.
type verb string

const (
	verbRun     verb = ""
	verbHelp    verb = "--help"
	verbVersion verb = "--version"
	verbCheck   verb = "--check"
	verbProbe   verb = "--probe"
	verbInstall verb = "--install"
)

// options is the command line.
type options struct {
	verb     verb
	probe    string            // startup, live or ready
	settings map[string]string // by the name of the variable without the prefix
	flags    supervisor.Flags
	rest     []string // the command; for --install the directory and the tools
	wrong    []error  // the values of letters

	help, version string // of a personality, for its verbs
	onStderr      bool   // where it writes them
}

// parseOptions takes the words up to the first one that is not an option; what
// follows is the command, whatever it looks like.
func parseOptions(args []string) (o options, err error) {
	o.settings = map[string]string{}
	for len(args) > 0 {
		word := args[0]
		if word == "--" {
			args = args[1:]
			break
		}
		if len(word) < 2 || word[0] != '-' {
			break
		}
		if strings.HasPrefix(word, "--") {
			args, err = o.long(word, args[1:])
		} else {
			args, err = o.letters(word[1:], args[1:])
		}
		if err != nil {
			return o, errors.Join(append(o.wrong, err)...)
		}
	}
	o.rest = args
	if o.verb == verbInstall && len(o.rest) == 0 {
		return o, errors.New("--install needs the directory to install into")
	}
	return o, errors.Join(o.wrong...)
}

// long takes one --option and, where it has one, its value, which may follow an
// equals sign or be the next word. It returns the words after that.
func (o *options) long(word string, args []string) ([]string, error) {
	name, value, hasValue := strings.Cut(word, "=")
	next := func(what string) error {
		if hasValue {
			return nil
		}
		if len(args) == 0 {
			return fmt.Errorf("option %s needs %s", name, what)
		}
		value, args = args[0], args[1:]
		return nil
	}
	switch v := verb(name); v {
	case verbHelp, verbVersion, verbCheck, verbInstall, "--no-hooks":
		if hasValue {
			return nil, fmt.Errorf("option %s takes no value", name)
		}
		if name == "--no-hooks" {
			o.flags.NoHooks = true
			return args, nil
		}
		return args, o.setVerb(v)
	case verbProbe:
		if err := errors.Join(o.setVerb(v), next("startup, live or ready")); err != nil {
			return nil, err
		}
		if !slices.Contains([]string{"startup", "live", "ready"}, value) {
			return nil, fmt.Errorf("option --probe %q: want startup, live or ready", value)
		}
		o.probe = value
		return args, nil
	}
	variable, ok := variableOf(name)
	if !ok {
		return nil, unknownOption(name)
	}
	if err := next("a value"); err != nil {
		return nil, err
	}
	o.settings[variable] = value
	return args, nil
}

func (o *options) setVerb(v verb) error {
	if o.verb != verbRun && o.verb != v {
		return fmt.Errorf("options %s and %s exclude each other", o.verb, v)
	}
	o.verb = v
	return nil
}

// letters takes a word of tini's letters, which mean what they mean there.
func (o *options) letters(word string, args []string) ([]string, error) {
	for i, letter := range word {
		switch letter {
		case 's': // we always are a subreaper where we are not PID 1
		case 'g':
			o.settings["SIGNAL_TARGET"] = string(supervisor.TargetGroup)
		case 'v':
			o.settings["LOG_LEVEL"] = "debug"
		case 'w':
			o.flags.WarnReaped = true
		case 'h':
			if err := o.setVerb(verbHelp); err != nil {
				return nil, err
			}
		case 'p', 'e':
			value := word[i+1:]
			if value == "" {
				if len(args) == 0 {
					return nil, fmt.Errorf("option -%c needs a value", letter)
				}
				value, args = args[0], args[1:]
			}
			if err := o.letterValue(letter, value); err != nil {
				o.wrong = append(o.wrong, err)
			}
			return args, nil
		default:
			return nil, unknownOption("-" + string(letter))
		}
	}
	return args, nil
}

func (o *options) letterValue(letter rune, value string) (err error) {
	if letter == 'p' {
		if o.flags.ParentDeath, err = supervisor.ParseSignal(value); err != nil {
			return fmt.Errorf("option -p: %w", err)
		}
		return nil
	}
	code, err := strconv.Atoi(value)
	if err != nil || code < 0 || code > 255 {
		return fmt.Errorf("option -e %q: want an exit code from 0 to 255", value)
	}
	o.flags.Remap = append(o.flags.Remap, code)
	return nil
}

// variableOf returns the variable of an option. The address of the probes has
// none: an exec probe could not know it.
func variableOf(option string) (string, bool) {
	for _, v := range supervisor.Variables() {
		if v.Name != "HTTP_LISTEN" && supervisor.OptionName(v.Name) == option {
			return v.Name, true
		}
	}
	return "", false
}

func unknownOption(name string) error {
	if name == "--http-listen" {
		return fmt.Errorf("unknown option %s: set the variable %s_HTTP_LISTEN, so that --probe knows the address too", name, supervisor.Prefix)
	}
	return fmt.Errorf("unknown option %s: see --help; a command that begins with a dash goes after --", name)
}

const helpHead = `Usage:
  cleanimg-init [options] [--] [command [args...]]
  cleanimg-init --check                     validate settings and hooks, print the plan, run nothing
  cleanimg-init --probe startup|live|ready  ask the running instance; exit 0 or 1
  cleanimg-init --install DIR [TOOL...]     copy this binary, and the named ones beside it, into DIR
  cleanimg-init --version | --help

Runs the hooks, then the command, as PID 1 of a container: reaps zombies, passes
signals on, answers startup, liveness and readiness probes, and ends the whole
process tree gracefully. Without a command it ends after the hooks.

Options end at the first word that is not one. Every setting below is a variable
and, but for HTTP_LISTEN, an option: ` + supervisor.Prefix + `_STEP_TIMEOUT is --step-timeout.
The option wins. Durations: 5m, 250ms, or a number of seconds; 0 is none.

Options that are no settings; the letters mean what they mean in tini:
  --no-hooks  run no hooks, as with --hooks-skip '*'
  -g          signals go to the command's process group: --signal-target group
  -v          log more: --log-level debug
  -w          warn of each orphan that is reaped
  -e CODE     report this exit code of the command as 0; may be repeated
  -p SIGNAL   get this signal when the parent dies
  -s          nothing: where it is not PID 1 it always is a subreaper
  -h          the same as --help

Variables, each after ` + supervisor.Prefix + `_:
`

const helpTail = `
Exit codes:
  the command's own, or 128+n when signal n killed it; of a failed hook the same
  124  a step, the hooks or the command ran into a timeout
  125  a bad setting, a bad hook, an address in use
  126  cannot be executed
  127  not found

Example:
  ENTRYPOINT ["/usr/local/bin/cleanimg-init", "--"]
  CMD ["/usr/bin/redis-server", "/etc/redis.conf"]
`

// printHelp prints our help, or that of a personality.
func printHelp(w io.Writer, other string) {
	if other != "" {
		io.WriteString(w, other)
		return
	}
	io.WriteString(w, helpHead)
	indent := strings.Repeat(" ", 19)
	for _, v := range supervisor.Variables() {
		def := v.Default
		if def == "" {
			def = "none"
		}
		described := layout.Wrap(indent, v.Desc)
		fmt.Fprintf(w, "  %-16s %s%sdefault: %s\n", v.Name, described[len(indent):], indent, def)
	}
	io.WriteString(w, helpTail)
}
