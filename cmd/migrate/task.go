// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"text/tabwriter"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/cli"
	"github.com/cleanstart-dev/cleanimg-init/hooks/migration"
)

const commands = "up [N], down N, down --all, goto V, resume, force V, version and status"

// task reads the command: its words, or the options that stand for it.
func (s *settings) task(words []string) (task, error) {
	if s.up {
		if s.direction != "" && s.direction != "up" {
			return task{}, fmt.Errorf("--up and --direction %s: only one of them can be meant", s.direction)
		}
		s.direction = "up"
	}
	if s.direction != "" {
		if s.direction != "up" && s.direction != "down" {
			return task{}, fmt.Errorf("--direction %q: accepted are up and down", s.direction)
		}
		if len(words) == 0 || words[0] != s.direction {
			words = append([]string{s.direction}, words...)
		}
	}
	if len(words) == 0 {
		return task{}, fmt.Errorf("no command: accepted are %s", commands)
	}
	t, args := task{name: words[0]}, words[1:]
	if t.name != "down" && s.all {
		return t, fmt.Errorf("--all: only with down; %s", all(t.name))
	}
	if t.name != "resume" && s.skip {
		return t, errors.New("--skip-statement: only with resume")
	}
	switch t.name {
	case "up":
		return t.number(args, true, 1, "N, how many migrations to apply")
	case "down":
		if s.all {
			if len(args) > 0 {
				return t, errors.New("down: a number and --all: only one of them can be meant")
			}
			t.n = -1
			return t, nil
		}
		return t.number(args, false, 1, "N, how many migrations to take back, or --all")
	case "goto":
		return t.number(args, false, 0, "V, the version to go to")
	case "force":
		return t.number(args, false, -1, "V, the version to write (-1: none)")
	case "resume", "version", "status":
		if len(args) > 0 {
			return t, fmt.Errorf("%s: unexpected word %q", t.name, args[0])
		}
		return t, nil
	case "create", "drop":
		return t, fmt.Errorf("%s: not for a container's start; for development there is golang-migrate. Accepted are %s", t.name, commands)
	}
	return t, fmt.Errorf("unknown command %q: accepted are %s", t.name, commands)
}

func all(name string) string {
	if name == "up" {
		return "up applies all of them by itself"
	}
	return name + " has no use for it"
}

// number reads the command's argument.
func (t task) number(args []string, optional bool, least int64, what string) (task, error) {
	switch {
	case len(args) == 0 && optional:
		return t, nil
	case len(args) == 0:
		return t, fmt.Errorf("%s: give %s", t.name, what)
	case len(args) > 1:
		return t, fmt.Errorf("%s: unexpected word %q", t.name, args[1])
	}
	var err error
	if t.n, err = strconv.ParseInt(args[0], 10, 64); err != nil || t.n < least {
		return t, fmt.Errorf("%s %q: accepted is %s", t.name, args[0], what)
	}
	return t, nil
}

func printVersion(ctx context.Context, m *migration.Migrator, p *cli.Process) error {
	number, dirty, err := m.Version(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.Stdout, versionText(number, dirty))
	return err
}

// versionText is a version as golang-migrate prints it.
func versionText(number int64, dirty bool) string {
	text := strconv.FormatInt(number, 10)
	if number < 0 {
		text = "none"
	}
	if dirty {
		text += " (dirty)"
	}
	return text
}

func printStatus(ctx context.Context, m *migration.Migrator, p *cli.Process) error {
	lines, number, dirty, err := m.Status(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(p.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tFILE\tSTATE\tAT\tNOTE")
	for _, l := range lines {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", l.Version, l.File, l.State, l.At, p.Redact.String(l.Note))
	}
	fmt.Fprintf(w, "database version: %s\n", versionText(number, dirty))
	return w.Flush()
}

// loud makes a logger show everything.
type loud struct{ slog.Handler }

func (loud) Enabled(context.Context, slog.Level) bool { return true }
