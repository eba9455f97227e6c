// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseStepFile(t *testing.T) {
	f, err := parseStepFile("10-a.yaml", []byte(`
# a comment
run: [/bin/x, --n, 5, true, 1.10, "${A:-b}", &p same, *p]
timeout: 90
retries: 2
backoff: 250ms
onFailure: continue
env: {PORT: 8080, NAME: "x y", OFF: off}
dir: ${HOME}/x
user: 65532:65532
`))
	require.NoError(t, err)
	assert.Equal(t, []string{"/bin/x", "--n", "5", "true", "1.10", "${A:-b}", "same", "same"}, f.run)
	assert.Equal(t, []envEntry{{"PORT", "8080"}, {"NAME", "x y"}, {"OFF", "off"}}, f.env)
	assert.Equal(t, "90", f.timeout)
	assert.Equal(t, "250ms", f.backoff)
	assert.Equal(t, 2, f.retries)
	assert.True(t, f.carryOn)
	assert.Equal(t, "${HOME}/x", f.dir)
	assert.Equal(t, "65532:65532", f.user)
}

func TestParseStepFileErrors(t *testing.T) {
	const runs = "run: [/x]\n"
	tests := []struct{ name, in, want string }{
		{"nothing", "", "s.yaml: nothing in it: run: [/path/of/program, argument] is needed"},
		{"only a comment", "# x\n", "s.yaml: nothing in it"},
		{"not a mapping", "- a\n", "s.yaml:1: not a mapping: accepted are the keys run, timeout"},
		{"not YAML", "run: [a\n", "s.yaml:"},
		{"two documents", runs + "---\n" + runs, "s.yaml:2: a second document"},
		{"no run", "timeout: 5s\n", "s.yaml:1: run is missing"},
		{"run is a string", "run: /x -y\n", `s.yaml:1: run: "/x -y": accepted is a list, one argument an item, there is no shell: run: [/path/of/program, argument]`},
		{"run is empty", "run: []\n", "s.yaml:1: run: an empty list"},
		{"run is null", "run:\n", "s.yaml:1: run: nothing: accepted is a list"},
		{"no program", "run: [\"\", x]\n", "s.yaml:1: run[0]: empty"},
		{"argument is a list", "run: [/x, [y]]\n", "s.yaml:1: run[1]: a list: accepted is a string"},
		{"argument is null", "run:\n- /x\n-\n", "s.yaml:3: run[1]: nothing: accepted is a string"},
		{"cycle", "run: &a [*a]\n", "s.yaml:1: run[0]: a list: accepted is a string"},
		{"NUL", `run: ["/x", "a\0"]`, "s.yaml:1: run[1]: a NUL character"},
		{"unknown key", runs + "retry: 3\n", `s.yaml:2: unknown key "retry": accepted are run, timeout, retries, backoff, onFailure, env, dir, user`},
		{"key twice", runs + "\n" + runs, "s.yaml:3: run: is there already (line 1)"},
		{"timeout", runs + "timeout: soon\n", `s.yaml:2: timeout: "soon": accepted are durations like 90s, 5m, 250ms, a number of seconds, and 0 for none`},
		{"negative timeout", runs + "timeout: -5\n", `s.yaml:2: timeout: "-5": accepted are durations`},
		{"timeout list", runs + "timeout: [5]\n", "s.yaml:2: timeout: a list: accepted are durations"},
		{"backoff", runs + "backoff: NaN\n", `s.yaml:2: backoff: "NaN"`},
		{"retries", runs + "retries: -1\n", `s.yaml:2: retries: "-1": accepted is a number, 0 or more`},
		{"retries word", runs + "retries: many\n", `s.yaml:2: retries: "many"`},
		{"onFailure", runs + "onFailure: ignore\n", `s.yaml:2: onFailure: "ignore": accepted are fail and continue`},
		{"env list", runs + "env: [A=b]\n", "s.yaml:2: env: a list: accepted is a mapping"},
		{"env null", runs + "env: {A: }\n", "s.yaml:2: env: A: nothing: accepted is a string"},
		{"env name", runs + "env: {\"A=B\": x}\n", `s.yaml:2: env: "A=B": not a variable's name`},
		{"env twice", runs + "env: {A: x, A: y}\n", "s.yaml:2: env: A: is there already"},
		{"dir", runs + "dir: \"\"\n", "s.yaml:2: dir: empty"},
		{"user", runs + "user: []\n", "s.yaml:2: user: a list: accepted is a string"},
		{"Kubernetes variable", "run:\n- /x\n- $(URL)\n", "s.yaml:3: run[1]: $(…) is not expanded: write ${VAR}"},
		{"open variable", runs + "env: {A: \"${B\"}\n", "s.yaml:2: env: A: ${ without its }"},
		{"large", strings.Repeat("#", largestStepFile+1), "s.yaml: larger than 1 MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseStepFile("s.yaml", []byte(tt.in))
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestParseStepFileReportsAll(t *testing.T) {
	_, err := parseStepFile("s.yaml", []byte("run: x\ntimeout: y\nextra: z\n"))
	require.Error(t, err)
	assert.Len(t, strings.Split(err.Error(), "\n"), 3)
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0": 0, "90": 90 * time.Second, "1.5": 1500 * time.Millisecond, "5m": 5 * time.Minute, "250ms": 250 * time.Millisecond,
	} {
		got, err := ParseDuration(in)
		require.NoError(t, err, in)
		assert.Equal(t, want, got, in)
	}
	for _, in := range []string{"", "-1", "-5s", "1e300", "1e3", "0x1p4", "Inf", "NaN", "5 m", "5m30", "x"} {
		_, err := ParseDuration(in)
		assert.Error(t, err, in)
	}
}

func FuzzStepFile(f *testing.F) {
	for _, s := range []string{
		"run: [/x]", "run: [a, \"${B:-c}\"]\ntimeout: 5s\nenv: {A: b}\nuser: \"1:2\"", "run: &a [*a]",
		"run: [x]\n---\nrun: [y]", "<<: {run: [x]}", "run: !!binary aGk=", "a: &b {c: *b}", "? [x]\n: y",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseStepFile("s.yaml", data)
		if err != nil {
			return
		}
		if len(got.run) == 0 || got.run[0] == "" || got.retries < 0 {
			t.Fatalf("accepted: %+v", got)
		}
		for _, argument := range got.run {
			if _, err := parseTemplate(argument); err != nil || strings.Contains(argument, "\x00") {
				t.Fatalf("accepted %q: %v", argument, err)
			}
		}
	})
}
