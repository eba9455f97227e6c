// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// expandText expands text with the variables, and returns what was missing.
func expandText(text string, vars map[string]string, only ...string) (out string, missing []string) {
	e := expander{
		lookup: func(name string) (string, bool, error) { value, set := vars[name]; return value, set, nil },
		only: func(name string) bool {
			for _, o := range only {
				if o == name {
					return true
				}
			}
			return len(only) == 0
		},
		report: func(offset int, text string) { missing = append(missing, fmt.Sprintf("%d %s", offset, text)) },
		wrote:  func(int, int, bool) {},
	}
	return e.expand(text), missing
}

func TestExpand(t *testing.T) {
	t.Parallel()
	vars := map[string]string{"FOO": "banana", "EMPTY": "", "_x1": "under", "REC": "${FOO}"}
	for _, tt := range []struct{ in, want string }{
		{"${FOO}", "banana"},
		{"a${FOO}b${_x1}c", "abananabunderc"},
		{"${EMPTY}", ""},
		{"${REC}", "${FOO}"}, // a value is never expanded
		{"${NOT:-d}", "d"},
		{"${EMPTY:-d}", "d"},
		{"${FOO:-d}", "banana"},
		{"${NOT:-}", ""},
		{"${NOT:-${ALSO:-c}}", "c"},
		{"${NOT:-a${FOO}b${EMPTY:-e}}}", "abananabe}"},
		{"${NOT:-${FOO:+y}}", "y"},
		{"${FOO:?is needed}", "banana"},
		{"${FOO:+yes ${FOO}}", "yes banana"},
		{"${EMPTY:+yes}${NOT:+yes}", ""},
		{"${NOT:-two\nlines}", "two\nlines"},
		{"${NOT:-{a: 1}", "{a: 1"},

		// No syntax of ours.
		{"$uri $FOO $1 $ $$ $", "$uri $FOO $1 $ $$ $"},
		{"${1} ${sys:x} ${db.host} ${} ${-x} ${FOO-x} ${FOO#b} ${FOO:=x} ${FOO:1:2} ${FOO }", "${1} ${sys:x} ${db.host} ${} ${-x} ${FOO-x} ${FOO#b} ${FOO:=x} ${FOO:1:2} ${FOO }"},
		{"$(date) `date` $((1+1)) #{x} {{x}}", "$(date) `date` $((1+1)) #{x} {{x}}"},
		{`{"$ref": "x", "price": "$5"}`, `{"$ref": "x", "price": "$5"}`},
		{`\${FOO}`, `\banana`},
		{"${FOO", "${FOO"},
		{"${FOO:-x", "${FOO:-x"},
		{"${NOT:-${FOO}", "${NOT:-banana"},
		{"${A:-${A:-${A:-x", "${A:-${A:-${A:-x"},
		{"${é} ${FOOé}", "${é} ${FOOé}"},

		// The escape.
		{"$${FOO} $${sys:x} $$${FOO}", "${FOO} ${sys:x} $${FOO}"},
		{"${NOT:-$${FOO}}", "${FOO}"},
		{"$$FOO", "$$FOO"},
	} {
		got, missing := expandText(tt.in, vars)
		assert.Equal(t, tt.want, got, "%q", tt.in)
		assert.Empty(t, missing, "%q", tt.in)
	}
}

func TestExpandOnly(t *testing.T) {
	t.Parallel()
	got, missing := expandText("${A} ${B} ${B:-x} ${B:-${A}} ${B:?no}", map[string]string{"A": "1"}, "A")
	assert.Equal(t, "1 ${B} ${B:-x} ${B:-1} ${B:?no}", got)
	assert.Empty(t, missing)
}

func TestExpandReportsAll(t *testing.T) {
	t.Parallel()
	_, missing := expandText("${A} ${B:?has to be} ${C:?} ${E:?} ${D:-${F}} ${E:+${G}}", map[string]string{"E": ""})
	assert.Equal(t, []string{
		"0 ${A} is not set: set it, or write ${A:-} for empty",
		"5 ${B}: has to be",
		"21 ${C} is not set: set it, or write ${C:-} for empty",
		"28 ${E} is empty",
		"40 ${F} is not set: set it, or write ${F:-} for empty",
	}, missing)
}

func TestExpandIsDeepAndQuick(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("${X:-", deepest) + "d" + strings.Repeat("}", deepest)
	got, _ := expandText(deep, nil)
	assert.Equal(t, "d", got)
	// More than that is text; what matters is that it ends.
	for _, text := range []string{strings.Repeat("${X:-", 3000), strings.Repeat("${X:-", 3000) + strings.Repeat("}", 3000), strings.Repeat("${X:?", 3000)} {
		got, _ = expandText(text, map[string]string{"X": "x"})
		assert.NotEmpty(t, got)
	}
}

func FuzzExpand(f *testing.F) {
	for _, seed := range []string{"${A}", "${B:-${A:+x}}", "$${A}", "${A:?${B}", "a$b${1}{}", "${A:-}}", "\x00${A}\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<12 {
			return
		}
		vars := map[string]string{"A": "value", "C": ""}
		got, missing := expandText(text, vars)
		if !strings.Contains(text, "$") && got != text {
			t.Errorf("%q without a dollar sign became %q", text, got)
		}
		if !strings.Contains(text, "}") && strings.ReplaceAll(text, "$${", "${") != got {
			t.Errorf("%q without a brace that closes became %q", text, got)
		}
		if again, _ := expandText(text, vars); again != got {
			t.Errorf("%q became %q and %q", text, got, again)
		}
		if len(missing) > strings.Count(text, "${") {
			t.Errorf("%q: %d are missing: %q", text, len(missing), missing)
		}
		untouched, _ := expandText(text, vars, "no name of it")
		if untouched != strings.ReplaceAll(text, "$${", "${") {
			t.Errorf("%q with no name to expand became %q", text, untouched)
		}
	})
}
