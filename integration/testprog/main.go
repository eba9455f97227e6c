// SPDX-License-Identifier: Apache-2.0

// Command testprog is every program that the integration tests need inside a
// container that holds nothing else: the application, the hook, the daemon,
// the troublemaker. It is one static binary that runs from scratch, as any
// user.
//
// Its arguments are statements separated by ";", run one after another:
//
//	testprog write /tmp/ran yes ";" trap -on TERM=3
//
// As an interpreter ("#!/bin/testprog script") it runs the statements of a
// file, one a line, so that a hook needs no shell either. A statement that
// goes wrong ends the program with code 99 and a line on stderr; after the
// last one the code is 0.
package main

import (
	"fmt"
	"os"
	"sort"
	"strings"
)

// exitBroken is the code of a testprog that could not do what it was told, a
// code that no test uses for anything else.
const exitBroken = 99

// verbs are the statements that testprog knows. A verb that ends the process
// does so itself.
var verbs map[string]func(args []string) error

func init() {
	verbs = map[string]func([]string) error{
		// process.go
		"exit":    exit,
		"die":     die,
		"sleep":   sleep,
		"busy":    busy,
		"trap":    trap,
		"bg":      background,
		"setsid":  backgroundSession,
		"daemon":  daemon,
		"storm":   storm,
		"exec":    execProgram,
		"neglect": neglect,
		"under":   under,
		"fill":    fill,

		// escape.go
		"respawn": respawn,
		"nest":    nest,

		// state.go
		"env":    printEnv,
		"args":   printArgs,
		"fds":    printFDs,
		"props":  printProps,
		"status": printStatus,
		"tty":    printTTY,
		"ps":     printProcesses,
		"ignore": ignore,
		"block":  block,
		"umask":  umask,
		"nice":   nice,
		"chdir":  chdir,
		"nofile": nofile,
		"oom":    oom,
		"close":  closeFDs,

		// files.go
		"print":    printText,
		"err":      printErr,
		"errpart":  errPart,
		"errlines": errLines,
		"spam":     spam,
		"write":    writeFile,
		"append":   appendFile,
		"cat":      cat,
		"touch":    touch,
		"mkfifo":   mkfifo,
		"await":    awaitFile,
		"install":  install,
		"export":   export,
		"counter":  counter,

		// limits.go
		"eat":    eat,
		"run":    runBeside,
		"spawn":  spawn,
		"litter": litter,

		// refuse.go
		"refuse": refuse,

		// net.go
		"listen":  listen,
		"connect": connect,
		"get":     get,
		"answer":  answer,
		"notify":  notify,

		"stage0": stage0,
		"guest":  guest,
	}
}

func main() {
	args := os.Args[1:]
	if len(args) >= 2 && args[0] == "script" {
		script(args[1])
	} else {
		run(args)
	}
	os.Exit(0)
}

// run executes the statements in args.
func run(args []string) {
	for len(args) > 0 {
		end := len(args)
		for i, a := range args {
			if a == ";" {
				end = i
				break
			}
		}
		// What starts another program takes the rest of the line, statements
		// included: they are the other program's.
		if end > 0 && takesAll[args[0]] {
			end = len(args)
		}
		if end > 0 {
			statement(args[:end])
		}
		args = args[min(end+1, len(args)):]
	}
}

// takesAll are the verbs whose arguments are themselves statements.
var takesAll = map[string]bool{"exec": true, "under": true, "args": true, "run": true, "refuse": true}

func script(path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		broken("script", err)
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) > 0 && !strings.HasPrefix(words[0], "#") {
			statement(words)
		}
	}
}

func statement(words []string) {
	verb, ok := verbs[words[0]]
	if !ok {
		var known []string
		for name := range verbs {
			known = append(known, name)
		}
		sort.Strings(known)
		broken(words[0], fmt.Errorf("no such verb (have %s)", strings.Join(known, " ")))
	}
	if err := verb(words[1:]); err != nil {
		broken(words[0], err)
	}
}

func broken(verb string, err error) {
	fmt.Fprintf(os.Stderr, "testprog: %s: %v\n", verb, err)
	os.Exit(exitBroken)
}
