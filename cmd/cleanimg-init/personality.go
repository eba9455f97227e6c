// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/version"
	"github.com/cleanstart-dev/cleanimg-init/supervisor"
)

// A personality is the command line of another init, which this program takes
// when it is linked under that one's name, so that an image can switch by
// changing a link. Hooks run if there are any; probes are served only if an
// address was set.
type personality struct {
	parse func(args, environ []string) (options, error)
	// implied are settings by variable, for what neither the command line nor a
	// variable says.
	implied map[string]string
}

// personalityOf returns that of the name in argv[0], or nil when it is our own.
func personalityOf(argv0 string) *personality {
	quiet := map[string]string{"HTTP_LISTEN": "off", "LOG_LEVEL": "warn"}
	switch filepath.Base(argv0) {
	case "tini", "tini-static", "docker-init":
		quiet["SIGNAL_REWRITE"] = "TTIN:,TTOU:" // it leaves these to the terminal
		return &personality{parse: parseTini, implied: quiet}
	case "dumb-init":
		return &personality{parse: parseDumbInit, implied: quiet}
	}
	return nil
}

// imply completes the settings of a command line.
func (p *personality) imply(o *options, environ []string) {
	for name, value := range p.implied {
		_, said := o.settings[name]
		if set, _ := lookup(environ, supervisor.Prefix+"_"+name); set == "" && !said {
			o.settings[name] = value
		}
	}
}

// A usageError is wrong usage of a personality: the text and the exit code that
// scripts expect there.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// exitUsage is the code of both programs for wrong usage.
const exitUsage = 1

const tiniUsage = `Usage: tini [OPTIONS] PROGRAM -- [ARGS] | --version

Options:
  -s            become a child subreaper (always done where we are not PID 1)
  -g            send signals to the process group of PROGRAM
  -p SIGNAL     signal to get when our parent dies
  -e CODE       exit code to report as 0; may be repeated
  -w            warn of each orphan that is reaped
  -v            more messages; may be repeated
  -l            show the license
  -h, --version

Variables: TINI_SUBREAPER, TINI_KILL_PROCESS_GROUP, TINI_VERBOSITY (0 to 3).
This is cleanimg-init under another name: its settings, CLEANIMG_INIT_*, apply.
`

// parseTini reads tini's command line. Unlike tini it stops at the first word
// that is not an option, so that "tini sh -c x" works.
func parseTini(args, environ []string) (o options, err error) {
	o.settings = map[string]string{}
	o.flags.Compat = supervisor.Compat{KeepSignals: true, ForwardMore: true}
	wrong := func(format string, a ...any) (options, error) {
		return o, usageError{fmt.Sprintf("tini: "+format+"\n", a...) + tiniUsage}
	}
	verbosity := 1
	if text, ok := lookup(environ, "TINI_VERBOSITY"); ok {
		verbosity, _ = strconv.Atoi(text) // as atoi(3) there
	}
	if _, ok := lookup(environ, "TINI_KILL_PROCESS_GROUP"); ok {
		o.settings["SIGNAL_TARGET"] = string(supervisor.TargetGroup)
	}
	dashes := false
	for !dashes && len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		word := args[0]
		args = args[1:]
		if dashes = word == "--"; dashes {
			break
		}
		if word == "--version" {
			o.verb, o.version = verbVersion, "tini version 0.19.0 - cleanimg-init "+version.Version
			return o, nil
		}
		if i := strings.IndexFunc(word[1:], func(r rune) bool { return !strings.ContainsRune("sgvwhpel", r) }); i >= 0 && !strings.ContainsAny(word[1:1+i], "pe") {
			return wrong("invalid option -- '%s'", word[1+i:2+i])
		}
		if strings.ContainsRune(word, 'l') && !strings.ContainsAny(word, "pe") {
			o.verb, o.version = verbVersion, "Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0"
			return o, nil
		}
		if !strings.ContainsAny(word, "pe") {
			verbosity += strings.Count(word, "v")
		}
		if args, err = o.letters(word[1:], args); err == nil {
			err = errors.Join(o.wrong...)
		}
		if err != nil {
			return wrong("%v", err)
		}
	}
	if o.verb == verbHelp {
		o.help = tiniUsage
		return o, nil
	}
	levels := []string{"error", "warn", "info", "debug"}
	delete(o.settings, "LOG_LEVEL") // -v counts here
	if verbosity != 1 {
		o.settings["LOG_LEVEL"] = levels[max(0, min(verbosity, len(levels)-1))]
	}
	if !dashes && len(args) > 1 && args[1] == "--" { // PROGRAM -- ARGS
		args = slices.Delete(slices.Clone(args), 1, 2)
	}
	if o.rest = args; len(args) == 0 {
		return o, usageError{tiniUsage}
	}
	return o, nil
}

// dumbInitVersion is what that program calls itself.
const dumbInitVersion = "dumb-init v1.2.5"

const dumbInitShort = "Usage: dumb-init [option] program [args]\nTry dumb-init --help for full usage.\n"

const dumbInitUsage = `Usage: dumb-init [option] command [[arg] ...]

Options:
  -c, --single-child   signals go to the program only, not to its session
  -r, --rewrite S:R    send signal R where S was received, by number; 0 drops it;
                       may be repeated
  -v, --verbose        say what happens
  -h, --help, -V, --version

Variables: DUMB_INIT_SETSID=0 is --single-child, DUMB_INIT_DEBUG=1 is --verbose.
This is cleanimg-init under another name: its settings, CLEANIMG_INIT_*, apply.
`

// parseDumbInit reads dumb-init's command line.
func parseDumbInit(args, environ []string) (o options, err error) {
	o.settings = map[string]string{}
	o.flags.Compat = supervisor.Compat{Setsid: true, SuspendSelf: true, ForwardMore: true, ForwardFaults: true, DropStops: true, ExecFailure: 2}
	o.onStderr = true
	var rewrites []string
	if text, _ := lookup(environ, "DUMB_INIT_SETSID"); text == "0" {
		o.flags.Setsid = false
	}
	if text, _ := lookup(environ, "DUMB_INIT_DEBUG"); text == "1" {
		o.settings["LOG_LEVEL"] = "debug"
	}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		words, err := splitDumbInit(args[0])
		if err != nil {
			return o, err
		}
		args = args[1:]
		if words[0] == "--" {
			break
		}
		for _, word := range words {
			name, value, hasValue := strings.Cut(word, "=")
			switch name {
			case "-c", "--single-child":
				o.flags.Setsid = false
			case "-v", "--verbose":
				o.settings["LOG_LEVEL"] = "debug"
			case "-h", "--help":
				o.verb, o.help = verbHelp, dumbInitVersion+"\n"+dumbInitUsage
				return o, nil
			case "-V", "--version":
				o.verb, o.version = verbVersion, dumbInitVersion+" - cleanimg-init "+version.Version
				return o, nil
			case "-r", "--rewrite":
				if !hasValue {
					if len(args) == 0 {
						if name == "-r" {
							return o, usageError{"dumb-init: option requires an argument -- 'r'\n"}
						}
						return o, usageError{"dumb-init: option '--rewrite' requires an argument\n"}
					}
					value, args = args[0], args[1:]
				}
				rewrite, ok := parseRewrite(value)
				if !ok {
					return o, usageError{"Usage: -r option takes <signum>:<signum>, where <signum> is between 1 and 31.\nUse --help for full usage.\n"}
				}
				rewrites = append(rewrites, rewrite)
			}
		}
	}
	o.rewrite(rewrites)
	if o.rest = args; len(args) == 0 {
		return o, usageError{dumbInitShort}
	}
	return o, nil
}

// splitDumbInit takes a word of options apart: "-cv" is "-c" and "-v", "-r15:2"
// and "--rewrite=15:2" become an option with "=" and its value, and a long option
// may be abbreviated, as getopt_long(3) has it.
func splitDumbInit(word string) ([]string, error) {
	if word == "--" {
		return []string{word}, nil
	}
	if strings.HasPrefix(word, "--") {
		given, value, hasValue := strings.Cut(word, "=")
		var names []string
		for _, name := range []string{"--single-child", "--rewrite", "--verbose", "--help", "--version"} {
			if strings.HasPrefix(name, given) {
				names = append(names, name)
			}
		}
		switch {
		case len(names) == 0:
			return nil, usageError{fmt.Sprintf("dumb-init: unrecognized option '%s'\n", word)}
		case len(names) > 1:
			return nil, usageError{fmt.Sprintf("dumb-init: option '%s' is ambiguous\n", word)}
		case hasValue && names[0] != "--rewrite":
			return nil, usageError{fmt.Sprintf("dumb-init: option '%s' doesn't allow an argument\n", names[0])}
		case hasValue:
			return []string{names[0] + "=" + value}, nil
		}
		return names, nil
	}
	var words []string
	for i, letter := range word[1:] {
		switch {
		case letter == 'r' && i+2 < len(word):
			return append(words, "-r="+word[i+2:]), nil
		case strings.ContainsRune("crvhV", letter):
			words = append(words, "-"+string(letter))
		default:
			return nil, usageError{fmt.Sprintf("dumb-init: invalid option -- '%c'\n", letter)}
		}
	}
	return words, nil
}

// parseRewrite turns dumb-init's S:R into ours, where nothing drops.
func parseRewrite(value string) (rewrite string, ok bool) {
	from, to, _ := strings.Cut(value, ":")
	received, err := strconv.Atoi(from)
	sent, err2 := strconv.Atoi(to)
	if err != nil || err2 != nil || received < 1 || received > 31 || sent < 0 || sent > 31 {
		return "", false
	}
	if sent == 0 {
		return from + ":", true
	}
	return value, true
}

// rewrite sets what is sent for what is received. A child that leads a session
// of its own ignores the terminal's stop signals, so there STOP is sent. The
// last word on a signal counts, and what never reaches us can be left out.
func (o *options) rewrite(rewrites []string) {
	if o.flags.Setsid {
		o.settings["SIGNAL_TARGET"] = string(supervisor.TargetGroup)
		rewrites = append([]string{"20:19", "21:19", "22:19"}, rewrites...) // TSTP, TTIN, TTOU
	}
	last := map[string]string{}
	for _, r := range rewrites {
		from, _, _ := strings.Cut(r, ":")
		if number, err := strconv.Atoi(from); err == nil && supervisor.CanReceive(number) {
			last[strconv.Itoa(number)] = r
		}
	}
	if len(last) > 0 {
		var all []string
		for _, r := range last {
			all = append(all, r)
		}
		slices.Sort(all)
		o.settings["SIGNAL_REWRITE"] = strings.Join(all, ",")
	}
}
