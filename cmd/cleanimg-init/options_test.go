// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/layout"
	"github.com/cleanstart-dev/cleanimg-init/supervisor"
)

func TestParseOptions(t *testing.T) {
	none := map[string]string{}
	tests := []struct {
		line string
		want options
	}{
		{"", options{settings: none}},
		{"sh -c x", options{settings: none, rest: []string{"sh", "-c", "x"}}},
		{"-- -x --check", options{settings: none, rest: []string{"-x", "--check"}}},
		{"--step-timeout 5m sh --step-timeout 6m", options{settings: map[string]string{"STEP_TIMEOUT": "5m"}, rest: []string{"sh", "--step-timeout", "6m"}}},
		{"--step-timeout=5m -- sh", options{settings: map[string]string{"STEP_TIMEOUT": "5m"}, rest: []string{"sh"}}},
		{"--signal-rewrite= sh", options{settings: map[string]string{"SIGNAL_REWRITE": ""}, rest: []string{"sh"}}},
		{"--no-hooks sh", options{settings: none, flags: supervisor.Flags{NoHooks: true}, rest: []string{"sh"}}},
		{"-sg -vvv sh", options{settings: map[string]string{"SIGNAL_TARGET": "group", "LOG_LEVEL": "debug"}, rest: []string{"sh"}}},
		{"-p KILL -e 143 -e3 -w sh", options{settings: none, flags: supervisor.Flags{ParentDeath: syscall.SIGKILL, Remap: []int{143, 3}, WarnReaped: true}, rest: []string{"sh"}}},
		{"-pSIGTERM sh", options{settings: none, flags: supervisor.Flags{ParentDeath: syscall.SIGTERM}, rest: []string{"sh"}}},
		{"- sh", options{settings: none, rest: []string{"-", "sh"}}},
		{"--check sh", options{verb: verbCheck, settings: none, rest: []string{"sh"}}},
		{"--probe ready", options{verb: verbProbe, probe: "ready", settings: none}},
		{"--install /bin await", options{verb: verbInstall, settings: none, rest: []string{"/bin", "await"}}},
		{"-h", options{verb: verbHelp, settings: none}},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			got, err := parseOptions(strings.Fields(tt.line))
			require.NoError(t, err)
			if len(got.rest) == 0 {
				got.rest = nil
			}
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestWrongOptions(t *testing.T) {
	for line, want := range map[string]string{
		"--nonsense sh":             "unknown option --nonsense",
		"-x sh":                     "unknown option -x",
		"--http-listen :1 sh":       "CLEANIMG_INIT_HTTP_LISTEN",
		"--step-timeout":            "--step-timeout needs a value",
		"--probe":                   "needs startup, live or ready",
		"--probe alive":             `"alive"`,
		"--check=yes":               "takes no value",
		"--check --version":         "exclude each other",
		"--install":                 "needs the directory",
		"-p":                        "needs a value",
		"-p NOSUCH sh":              "not a signal",
		"-e 256 sh":                 "from 0 to 255",
		"--step-timeout=1s --no=x":  "unknown option --no",
		"--no-hooks=false -- sleep": "takes no value",
	} {
		_, err := parseOptions(strings.Fields(line))
		assert.ErrorContains(t, err, want, line)
	}
}

// Every setting but the address of the probes has an option that is parsed, and
// is in the help with its default.
func TestHelpAndOptionsCoverEverySetting(t *testing.T) {
	var help bytes.Buffer
	require.Zero(t, run([]string{"cleanimg-init", "--help"}, nil, &help, &help))
	_, variables, _ := strings.Cut(help.String(), "\nVariables")
	for line := range strings.Lines(variables) {
		assert.LessOrEqual(t, utf8.RuneCountInString(line), 1+layout.Columns, line)
	}
	for _, v := range supervisor.Variables() {
		assert.Contains(t, help.String(), "  "+v.Name+" ")
		if v.Default != "" {
			assert.Contains(t, help.String(), "default: "+v.Default+"\n")
		}
		if v.Name != "HTTP_LISTEN" {
			o, err := parseOptions([]string{supervisor.OptionName(v.Name), "value"})
			require.NoError(t, err)
			assert.Equal(t, map[string]string{v.Name: "value"}, o.settings)
		}
	}
}

// Of the letters and the long options, the help has those that are taken, and
// the reference too, because its table is made from the help.
func TestHelpHasEveryOption(t *testing.T) {
	var help bytes.Buffer
	require.Zero(t, run([]string{"cleanimg-init", "--help"}, nil, &help, &help))
	listed := func(option string) bool {
		return regexp.MustCompile(`(?m)^  (cleanimg-init .*)?` + option + `( |$)`).MatchString(help.String())
	}
	for letter := '0'; letter <= 'z'; letter++ {
		if !unicode.IsLetter(letter) && !unicode.IsDigit(letter) {
			continue
		}
		_, err := parseOptions([]string{"-" + string(letter), "9"})
		assert.Equal(t, err == nil, listed("-"+string(letter)), "-%c", letter)
	}
	for _, m := range regexp.MustCompile(`--[a-z-]+`).FindAllString(help.String(), -1) {
		_, err := parseOptions([]string{m, "ready"})
		assert.NoError(t, err, m)
	}
	for _, v := range []verb{verbHelp, verbVersion, verbCheck, verbProbe, verbInstall, "--no-hooks"} {
		assert.True(t, listed(string(v)), v)
	}
}

func TestWrongUsageIsOurOwnFault(t *testing.T) {
	var stdout, stderr bytes.Buffer
	assert.Equal(t, supervisor.ExitOwn, run([]string{"cleanimg-init", "--check", "--nonsense"}, nil, &stdout, &stderr))
	assert.Empty(t, stdout.String())
	assert.Equal(t, "cleanimg-init: unknown option --nonsense: see --help; a command that begins with a dash goes after --\n", stderr.String())
}

func FuzzParseOptions(f *testing.F) {
	for _, seed := range []string{"--step-timeout 5m -- sh -c x", "-sgvvv -p KILL -e 143 x", "--probe=ready", "--install /x a b", "-", "--", "--="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, " ")
		o, err := parseOptions(args)
		if err != nil {
			assert.NotEmpty(t, err.Error())
			return
		}
		// What is left is a tail of what was given: no word of the command is
		// changed, dropped or taken for an option.
		require.LessOrEqual(t, len(o.rest), len(args))
		assert.Equal(t, args[len(args)-len(o.rest):], append([]string{}, o.rest...))
		for name := range o.settings {
			_, ok := variableOf(supervisor.OptionName(name))
			assert.True(t, ok, name)
		}
	})
}
