// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestOutputIsParsed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, content, want string }{
		{"a.yaml", "a: 1\n---\nb: 2\n", ""},
		{"a.yaml", "", ""},
		{"a.yml", "a: 1\nb: : 2\n", "a.yml:2: a.yml would not be valid: its line 2: mapping values are not allowed"},
		{"a.yaml", "a: 1\nb: 2\na: 3\n", `a.yaml:3: a.yaml would not be valid: its line 3: mapping key "a" already defined at line 1`},
		{"a.yaml", "a: 1\n---\n- x\n\ty\n", "a.yaml:3: a.yaml would not be valid: its line 3: found"},
		{"a.json", `{"a": [1, 2.5, "x", null, true]}`, ""},
		{"a.json", "{\n\"a\": 1,\n\"a\": 2}", `a.json:3: a.json would not be valid: its line 3: the key "a" is there twice`},
		{"a.json", "{\"a\": 1}\n{}", "a.json:2: a.json would not be valid: its line 2: something follows the end of the document"},
		{"a.json", "{\n\"a\": 1,\n}", "a.json:3: a.json would not be valid: its line 3: invalid character '}'"},
		{"a.json", "{\n\"a\": [1,\n", "a.json:3: a.json would not be valid: its line 3: it ends too early"},
		{"a.json", "", "a.json:1: a.json would not be valid: its line 1: it ends too early"},
		{"a.toml", "[a]\nb = 1\n", ""},
		{"a.toml", "[a]\nb = 1\nb = 2\n", "a.toml:3: a.toml would not be valid: its line 3:"},
		{"a.toml", "[a]\nb = \n", "a.toml:2: a.toml would not be valid: its line 2:"},
		{"a.ini", "; c\n[s]\nkey = v\nskip-networking\n# x\n", ""},
		{"a.ini", "[s\nk=v\n= x\n", "a.ini:1: a.ini would not be valid: its line 1: a section needs its ]|a.ini:3: a.ini would not be valid: its line 3: there is no key before the ="},
		{"a.properties", "a=\\u00e9\n# \\u12\nb: x\\\n  y\n", ""},
		{"a.properties", "a=1\npath=C:\\users\n", `a.properties:2: a.properties would not be valid: its line 2: \u needs four hexadecimal digits`},
		{"a.conf", "{{{ : anything", ""},
	} {
		f := setUp(t, map[string]string{tt.name: tt.content})
		if tt.want == "" {
			f.render()
			continue
		}
		problems := f.fails()
		wants := strings.Split(tt.want, "|")
		if assert.Len(t, problems, len(wants), "%s: %q", tt.name, problems) {
			for i, want := range wants {
				assert.True(t, strings.HasPrefix(problems[i], want), "%s: %q", tt.name, problems[i])
			}
		}
		f.Unchecked = []string{"a.*"}
		f.render()
	}
}

// TestLinesAreTheTemplates: what is wrong in the output is reported where the
// template made it.
func TestLinesAreTheTemplates(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{
		"a.yaml.tmpl": "{{- $x := 1 -}}\n{{- /* two\nlines */}}\nlist:\n{{- range until 5 }}\n  - a{{ . }}\n{{- end }}\nmany: |\n{{ \"1\\n2\\n3\" | indent 2 }}\n\nbad: : {{ $x }}\n",
		"b.yaml":      "a: \"${LONG}\"\nb: [\nc: 1\n",
	})
	f.Environ = []string{"LONG=1\n\n\n 2\n\n 3"}
	problems := f.fails()
	assert.Contains(t, problems[0], "a.yaml.tmpl:11: a.yaml would not be valid: its line 13: ")
	assert.Regexp(t, `^b\.yaml:[123]: b\.yaml would not be valid: its line [6789]: `, problems[1])
}

const serverSchema = `{
  "$schema": "http://json-schema.org/draft-07/schema#",
  "type": "object",
  "required": ["server"],
  "additionalProperties": false,
  "properties": {
    "server": {
      "type": "object",
      "required": ["host", "port"],
      "properties": {"port": {"$ref": "#/definitions/port"}, "host": {"type": "string"}, "mode": {"enum": ["a", "b"]}}
    },
    "ports": {"type": "array", "items": {"$ref": "common.schema.json#/definitions/port"}}
  },
  "definitions": {"port": {"type": "integer", "minimum": 1, "maximum": 65535}}
}`

func TestSchema(t *testing.T) {
	t.Parallel()
	common := `{"definitions": {"port": {"type": "integer"}}}`
	for _, name := range []string{"app.yaml.schema.json", "app.schema.json"} {
		f := setUp(t, map[string]string{"app.yaml.tmpl": "server:\n  host: {{ .Values.host }}\n  port: 80\nports: [1, 2]\n", name: serverSchema, "common.schema.json": common, "values.yaml": "host: h"})
		assert.Equal(t, []string{"app.yaml"}, f.render().Names())
	}
	f := setUp(t, map[string]string{
		"app.yaml.tmpl":      "# app\nserver:\n  port: {{ .Values.port }}\n  mode: c\nports:\n  - 1\n  - x\nother: 1\n",
		"app.schema.json":    serverSchema,
		"common.schema.json": common,
		"app.json":           "{\"server\": {\n\"host\": 1,\n\"port\": 1}}",
		"app.toml":           "server = 1\n",
		"values.yaml":        "port: 70000",
	})
	problems := f.fails()
	assert.ElementsMatch(t, []string{
		"app.json:2: app.json would not be valid: its line 2: server.host: got number, want string (app.schema.json)",
		"app.toml:1: app.toml would not be valid: server: got number, want object (app.schema.json)",
		"app.yaml.tmpl:8: app.yaml would not be valid: its line 8: the document: additional properties 'other' not allowed (app.schema.json)",
		"app.yaml.tmpl:3: app.yaml would not be valid: its line 3: server: missing property 'host' (app.schema.json)",
		"app.yaml.tmpl:3: app.yaml would not be valid: its line 3: server.port: maximum: got 70,000, want 65,535 (app.schema.json)",
		"app.yaml.tmpl:4: app.yaml would not be valid: its line 4: server.mode: value must be one of 'a', 'b' (app.schema.json)",
		"app.yaml.tmpl:7: app.yaml would not be valid: its line 7: ports.1: got string, want integer (app.schema.json)",
	}, problems)
}

func TestSchemaProblems(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{
		"a.json": "{}", "a.json.schema.json": `{"type": "strin"}`,
		"b.json": "{}", "b.json.schema.json": `{"$ref": "https://example.com/x.json"}`,
		"c.json": "{}", "c.json.schema.json": "{",
		"d.conf": "", "d.conf.schema.json": "{}",
		"f.yaml": "# empty\n", "f.yaml.schema.json": `{"type": "object"}`,
		"e.json": "5", "e.json.schema.json": `{"anyOf": [{"type": "string"}, {"type": "object"}]}`,
	})
	problems := strings.Join(f.fails(), "\n")
	for _, want := range []string{
		"its schema a.json.schema.json:", "https://example.com/x.json is not beside the templates", "c.json.schema.json:1:",
		"f.yaml:1: f.yaml would not be valid: the document: got null, want object (f.yaml.schema.json)",
		"d.conf.schema.json is for YAML, JSON and TOML only", "the document: 'anyOf' failed: got number, want string; or got number, want object",
	} {
		assert.Contains(t, problems, want)
	}
}
