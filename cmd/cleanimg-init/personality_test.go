// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/supervisor"
)

func TestPersonalities(t *testing.T) {
	tini := supervisor.Compat{KeepSignals: true, ForwardMore: true}
	dumb := supervisor.Compat{Setsid: true, SuspendSelf: true, ForwardMore: true, ForwardFaults: true, DropStops: true, ExecFailure: 2}
	single := dumb
	single.Setsid = false
	const stops = "20:19,21:19,22:19"
	tests := []struct {
		line, environ string
		settings      map[string]string
		flags         supervisor.Flags
		rest          string
	}{
		{
			line: "/sbin/tini -- app -g", rest: "app -g", flags: supervisor.Flags{Compat: tini},
			settings: map[string]string{"HTTP_LISTEN": "off", "LOG_LEVEL": "warn", "SIGNAL_REWRITE": "TTIN:,TTOU:"},
		},
		{
			line: "docker-init -sgvv -p KILL -e143 -w app", rest: "app",
			flags:    supervisor.Flags{Compat: tini, ParentDeath: syscall.SIGKILL, Remap: []int{143}, WarnReaped: true},
			settings: map[string]string{"HTTP_LISTEN": "off", "LOG_LEVEL": "debug", "SIGNAL_TARGET": "group", "SIGNAL_REWRITE": "TTIN:,TTOU:"},
		},
		{
			line: "tini-static sh -c x", rest: "sh -c x", flags: supervisor.Flags{Compat: tini},
			environ:  "TINI_VERBOSITY=0 TINI_KILL_PROCESS_GROUP=1 CLEANIMG_INIT_HTTP_LISTEN=:80",
			settings: map[string]string{"LOG_LEVEL": "error", "SIGNAL_TARGET": "group", "SIGNAL_REWRITE": "TTIN:,TTOU:"},
		},
		{
			line: "tini app -- -g", rest: "app -g", flags: supervisor.Flags{Compat: tini},
			settings: map[string]string{"HTTP_LISTEN": "off", "LOG_LEVEL": "warn", "SIGNAL_REWRITE": "TTIN:,TTOU:"},
		},
		{
			line: "dumb-init --single app", rest: "app", flags: supervisor.Flags{Compat: single},
			settings: map[string]string{"HTTP_LISTEN": "off", "LOG_LEVEL": "warn"},
		},
		{
			line: "dumb-init app -c", rest: "app -c", flags: supervisor.Flags{Compat: dumb},
			settings: map[string]string{"HTTP_LISTEN": "off", "LOG_LEVEL": "warn", "SIGNAL_TARGET": "group", "SIGNAL_REWRITE": stops},
		},
		{
			line: "dumb-init -cv -r15:2 --rewrite 2:0 -r 17:1 app", rest: "app", flags: supervisor.Flags{Compat: single},
			settings: map[string]string{"HTTP_LISTEN": "off", "LOG_LEVEL": "debug", "SIGNAL_REWRITE": "15:2,2:"},
		},
		{
			line: "dumb-init --rewrite=20:1 app", rest: "app", flags: supervisor.Flags{Compat: dumb}, environ: "DUMB_INIT_DEBUG=1",
			settings: map[string]string{"HTTP_LISTEN": "off", "LOG_LEVEL": "debug", "SIGNAL_TARGET": "group", "SIGNAL_REWRITE": "20:1,21:19,22:19"},
		},
		{
			line: "dumb-init app", rest: "app", flags: supervisor.Flags{Compat: single}, environ: "DUMB_INIT_SETSID=0",
			settings: map[string]string{"HTTP_LISTEN": "off", "LOG_LEVEL": "warn"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			environ := strings.Fields(tt.environ)
			o, err := commandLine(strings.Fields(tt.line), environ)
			require.NoError(t, err)
			assert.Equal(t, tt.settings, o.settings)
			assert.Equal(t, tt.flags, o.flags)
			assert.Equal(t, strings.Fields(tt.rest), o.rest)
			_, _, err = supervisor.ParseConfig(environ, o.settings, o.flags, o.rest)
			require.NoError(t, err, "what a personality sets is valid")
		})
	}
}

func TestWrongUsageOfPersonalities(t *testing.T) {
	for line, want := range map[string]string{
		"tini":                    "Usage: tini",
		"tini -x app":             "invalid option -- 'x'",
		"tini -e":                 "-e needs a value",
		"tini -e 256 app":         "256",
		"tini -p FOO app":         "FOO",
		"dumb-init":               "Usage: dumb-init",
		"dumb-init -x app":        "invalid option -- 'x'",
		"dumb-init --bogus app":   "unrecognized option '--bogus'",
		"dumb-init --verbose=1 x": "doesn't allow an argument",
		"dumb-init --ver x":       "ambiguous",
		"dumb-init -r":            "option requires an argument",
		"dumb-init -r 15 app":     "<signum>:<signum>",
		"dumb-init -r 15:32 app":  "<signum>:<signum>",
		"dumb-init -r TERM:2 app": "<signum>:<signum>",
	} {
		var stdout, stderr bytes.Buffer
		assert.Equal(t, 1, run(strings.Fields(line), nil, &stdout, &stderr), line)
		assert.Contains(t, stderr.String(), want, line)
		assert.Empty(t, stdout.String(), line)
	}
}

func TestVersionsOfPersonalities(t *testing.T) {
	for line, want := range map[string]string{
		"docker-init --version": "tini version 0.19.0", // what the Docker Engine asks for
		"dumb-init -V":          "dumb-init v1.2.5",
		"tini -h":               "TINI_SUBREAPER",
		"dumb-init --help":      "DUMB_INIT_SETSID",
	} {
		var stdout, stderr bytes.Buffer
		assert.Zero(t, run(strings.Fields(line), nil, &stdout, &stderr), line)
		assert.Contains(t, stdout.String()+stderr.String(), want, line)
		assert.Equal(t, strings.HasPrefix(line, "dumb-init"), stdout.Len() == 0, "%s: on stdout", line)
	}
}

func FuzzPersonalities(f *testing.F) {
	for _, seed := range []string{"tini -sgvvv -p KILL -e 143 x", "dumb-init -cvr15:2 x", "tini --", "dumb-init --rewrite=15:0 -- x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		argv := strings.Split(line, " ")
		o, err := commandLine(argv, nil)
		if err != nil || len(o.rest) == 0 {
			return
		}
		given := argv[len(argv)-len(o.rest):]
		if o.rest[0] != given[0] { // PROGRAM -- ARGS
			given = append([]string{argv[len(argv)-len(o.rest)-1]}, given[1:]...)
		}
		assert.Equal(t, given, o.rest, "the command is as it was given")
		_, _, err = supervisor.ParseConfig(nil, o.settings, o.flags, o.rest)
		if personalityOf(argv[0]) != nil {
			require.NoError(t, err, "what a personality sets is valid")
		}
	})
}
