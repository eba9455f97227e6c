// SPDX-License-Identifier: Apache-2.0

package config

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDocumentedFunctions runs every example of the documentation, and checks
// that every function has one.
func TestDocumentedFunctions(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/generate-config.md")
	require.NoError(t, err)
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| `(\\{\\{.*?)` \\| `(.*?)` \\|$")
	documented := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		name, example, want := m[1], strings.ReplaceAll(m[2], `\|`, "|"), m[3]
		documented[name] = true
		assert.Regexp(t, `\b`+name+`\b`, example, "the example of another function")
		f := setUp(t, map[string]string{"out.tmpl": example, "values.yaml": "{name: app, debug: false, list: [x, \"y\"], a-b: {c: 1}}"})
		f.Environ = []string{"HOME=/home/app"}
		assert.Equal(t, want, f.content("out"), "%s: %s", name, example)
	}
	all := library()
	maps.Copy(all, (&execution{}).functions())
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !strings.HasSuffix(name, optional) {
			assert.True(t, documented[name], "%s has no example in docs/generate-config.md", name)
		}
	}
}

func TestFunctionProblems(t *testing.T) {
	t.Parallel()
	for example, want := range map[string]string{
		`{{ int "x" }}`:                          "a text that is not a number",
		`{{ int 1e300 }}`:                        "the result is too large for a whole number",
		`{{ add 9223372036854775807 1 }}`:        "the result is too large for a whole number",
		`{{ mul 9223372036854775807 2 }}`:        "the result is too large for a whole number",
		`{{ sub -9223372036854775807 2 }}`:       "the result is too large for a whole number",
		`{{ div 1 0 }}`:                          "division by zero",
		`{{ mod 1 0 }}`:                          "division by zero",
		`{{ div 1.0 0 }}`:                        "the result is no number: division by zero?",
		`{{ add "a" 1 }}`:                        "a text that is not a number",
		`{{ add (list) 1 }}`:                     "a list is not a number",
		`{{ bool "maybe" }}`:                     "bool: accepted are",
		`{{ b64dec "%" }}`:                       "b64dec: what it got is not base64",
		`{{ fromJson "{" }}`:                     "fromJson: line 1: it ends too early",
		`{{ fromYaml "a: : b" }}`:                "fromYaml: line 1: mapping values",
		`{{ fromToml "a" }}`:                     "fromToml: line 1:",
		`{{ regexMatch "(" "a" }}`:               "missing closing )",
		`{{ dict "a" }}`:                         "dict: every key needs a value",
		`{{ dict 1 2 }}`:                         "dict: a key is a text, not a number",
		`{{ toToml (list 1) }}`:                  "a list is not a map",
		`{{ join "," "a" }}`:                     "join: a text is not a list",
		`{{ join "," (list (dict)) }}`:           "a map cannot be written",
		`{{ indent -1 "a" }}`:                    "indent -1",
		`{{ repeat 1000000000 "aaaaaaaaaaaa" }}`: "the result has to be of",
		`{{ until 10000000 }}`:                   "until: more than",
		`{{ seq 1 10000000 }}`:                   "seq: more than",
		`{{ dig "a" }}`:                          "dig: wanted are keys, a default and a map",
		`{{ dig "a" "b" 0 (dict "a" 1) }}`:       `there is no "b"`,
		`{{ merge (dict) 1 }}`:                   "merge: a number is not a map",
		`{{ index (dict) 1 }}`:                   "index: a map has no element 1",
		`{{ first (list) }}`:                     "there is no value to write",
		`{{ hasKey "a" "b" }}`:                   "a text is not a map",
	} {
		f := setUp(t, map[string]string{"out.tmpl": example})
		assert.Contains(t, f.fails()[0], want, example)
	}
}
