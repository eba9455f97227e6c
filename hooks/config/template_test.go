// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const someValues = `
port: 8080
name: app
debug: false
empty: ""
nothing: null
ratio: 0.5
big: 12345678
list: [a, b]
db: {host: pg, password: s3cret-pw}
"a-b": {c: 1}
`

func TestTemplates(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ in, want string }{
		"values":                    {"{{ .Values.name }}:{{ .Values.port }} {{ .Values.db.host }}", "app:8080 pg"},
		"numbers are plain":         {"{{ .Values.big }} {{ .Values.ratio }} {{ mul .Values.big 1000000 }} {{ mul .Values.ratio 1e8 }}", "12345678 0.5 12345678000000 50000000"},
		"default of what is absent": {"{{ .Values.no | default 1 }} {{ default 2 .Values.db.no }} {{ .Values.no.no.no | default 3 }}", "1 2 3"},
		"default of empty and null": {"{{ .Values.empty | default 1 }} {{ .Values.nothing | default 2 }} {{ .Values.debug | default true }}", "1 2 true"},
		"if what is absent":         {"{{ if .Values.no }}a{{ else }}b{{ end }}{{ if and .Values.name .Values.no }}c{{ end }}{{ if not .Values.no }}d{{ end }}{{ if or .Values.no .Values.name }}e{{ end }}", "bde"},
		"with":                      {"{{ with .Values.db }}{{ .host }} {{ $.Values.name }}{{ end }}{{ with .Values.no }}x{{ else }}y{{ end }}", "pg appy"},
		"with index":                {`{{ with index .Values "no" }}x{{ else }}y{{ end }}`, "y"},
		"else if":                   {"{{ if .Values.no }}a{{ else if .Values.name }}b{{ end }}", "b"},
		"range":                     {"{{ range .Values.list }}{{ . }},{{ end }}{{ range $i, $v := .Values.list }}{{ $i }}{{ $v }}{{ end }}{{ range $k, $v := .Values.db }}{{ $k }} {{ end }}", "a,b,0a1bhost password "},
		"range of nothing":          {"{{ range .Values.no | default list }}a{{ else }}b{{ end }}", "b"},
		"range over .Env":           {"{{ range $k, $v := .Env }}{{ $k }}={{ $v }} {{ end }}", "GREETING=hello PLAIN_FILE=/nowhere "},
		"range over a number":       {"{{ range $i := until 3 }}{{ $i }}{{ end }}", "012"},
		"index":                     {`{{ index .Values "a-b" "c" }} {{ (index .Values "a-b").c }} {{ index .Values.list 1 }} {{ index .Values "no" | default "d" }}`, "1 1 b d"},
		"coalesce and ternary":      {`{{ coalesce .Values.no .Values.empty "c" }} {{ ternary "yes" "no" .Values.absent }} {{ .Values.debug | ternary "yes" "no" }}`, "c no no"},
		"env":                       {`{{ .Env.GREETING }} {{ env "GREETING" }} {{ env "NO" "d" }} {{ env "NO" | default "e" }} {{ getenv "NO" "f" }} {{ .Env.NO | default "g" }}`, "hello hello d e f g"},
		"if env":                    {`{{ if .Env.NO }}a{{ end }}{{ if env "NO" }}b{{ end }}{{ if .Env.GREETING }}c{{ end }}`, "c"},
		"environment and limits":    {"{{ .Environment }} {{ .Limits.CPU }} {{ .Limits.Memory }} {{ .Limits.Workers }} {{ div .Limits.Memory 4 }}", "production 1.5 268435456 2 67108864"},
		"define and include":        {"{{ define \"x\" }}<{{ .name }}>{{ end }}{{ include \"x\" .Values | upper }} {{ template \"x\" dict \"name\" 1 }}", "<APP> <1>"},
		"partials":                  {`{{ include "shared" . | indent 2 }}`, "  shared app\n  pg"},
		"variables":                 {"{{ $x := .Values.db }}{{ $x.host }}{{ $y := .Values.name }}{{ $y }}", "pgapp"},
		"trimmed":                   {"a\n{{- /* comment */ -}}\nb {{- 1 }}", "ab1"},
		"required":                  {`{{ required "no" .Values.name }} {{ .Values.name | required "no" }}`, "app app"},
		"a dot in a nested pipe":    {`{{ printf "%s-%d" .Values.name (len .Values.list) }} {{ (.Values.db).host }}`, "app-2 pg"},
		"break":                     {"{{ range .Values.list }}{{ . }}{{ break }}{{ end }}", "a"},
		"not a template":            {"{{ `{{ .x }}` }}", "{{ .x }}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setUp(t, map[string]string{"out.tmpl": tt.in, "values.yaml": someValues, "_shared.tpl": "{{ define \"shared\" }}shared {{ .Values.name }}\n{{ .Values.db.host }}{{ end }}"})
			f.Environ = []string{"GREETING=hello", "PLAIN_FILE=/nowhere"}
			f.Environment = "production"
			f.Limits = Limits{CPU: 1.5, Memory: 256 << 20, Cores: 4}
			assert.Equal(t, tt.want, f.content("out"))
		})
	}
}

func TestTemplateProblems(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		in   string
		want []string
	}{
		"all that is missing": {
			"{{ .Values.a }}\n{{ .Values.db.b }}{{ range .Values.c }}{{ end }}\n{{ add .Values.d 1 }}{{ .Values.e.f }}\n{{ .Secrets.g }} {{ .Env.H }}{{ .Values.nothing }}{{ $.Values.i }}{{ include \"x\" . }}{{ define \"x\" }}{{ .Values.j }}{{ end }}",
			[]string{
				`out.tmpl:1: .Values.a is missing: there is no "a"`,
				`out.tmpl:2: .Values.db.b is missing: there is no "b"`,
				`out.tmpl:2: .Values.c is missing: there is no "c"`,
				`out.tmpl:3: .Values.d is missing: there is no "d"`,
				`out.tmpl:3: .Values.e.f is missing: there is no "e"`,
				`out.tmpl:4: .Secrets.g is missing: there is no "g"`,
				`out.tmpl:4: .Env.H is missing: there is no "H"`,
				`out.tmpl:4: .Values.nothing is missing: "nothing" is null`,
				`out.tmpl:4: $.Values.i is missing: there is no "i"`,
				`out.tmpl:4: .Values.j is missing: there is no "j"`,
			},
		},
		"a map":            {"\n{{ .Values.db }}", []string{"out.tmpl:2: a map cannot be written as it is: use toYaml, toJson or join"}},
		"not a map":        {"{{ .Values.name.x }}", []string{`out.tmpl:1: there is no "x": "name" is a text and not a map`}},
		"no such root":     {"{{ .Vlaues.x }}", []string{"out.tmpl:1: there is no .Vlaues: there are .Values, .Env, .Secrets, .Environment and .Limits"}},
		"required":         {"{{ required \"name the region\" .Values.region }}", []string{"out.tmpl:1: name the region"}},
		"fail":             {"\n\n{{ fail \"no\" }}", []string{"out.tmpl:3: no"}},
		"syntax":           {"a\n{{ if }}", []string{"out.tmpl:2: missing value for if"}},
		"unknown function": {"{{ exec \"date\" }}", []string{`out.tmpl:1: function "exec" not defined`}},
		"an index":         {"{{ index .Values.list 7 }}", []string{"out.tmpl:1: there is no element 7: the list has 2"}},
		"no variable": {
			"{{ env \"NO\" }} {{ .Values.a }}\n{{ getenv \"NOT\" | upper }} {{ \"NEITHER\" | env }}", []string{
				`out.tmpl:1: the variable NO is not set: set it, or write env "NO" "default"`,
				`out.tmpl:1: .Values.a is missing: there is no "a"`,
				`out.tmpl:2: the variable NOT is not set: set it, or write env "NOT" "default"`,
				`out.tmpl:2: the variable NEITHER is not set: set it, or write env "NEITHER" "default"`,
			},
		},
		"dockerize's default":  {`{{ default .Env.NO "80" }}`, []string{"out.tmpl:1: default wants the default first, and then the value: default … .Env.NO"}},
		"in a partial":         {"\n{{ include \"shared\" . }}", []string{`_shared.tpl:2: .Values.no is missing: there is no "no"`}},
		"an endless include":   {`{{ define "x" }}{{ include "x" . }}{{ end }}{{ include "x" . }}`, []string{"out.tmpl:1: templates include each other without an end"}},
		"no value in a middle": {"{{ .Values.nothing.x }}", []string{"out.tmpl:1: .Values.nothing.x is missing: Values.nothing has no value"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setUp(t, map[string]string{"out.tmpl": tt.in, "values.yaml": someValues, "_shared.tpl": "{{ define \"shared\" }}\n{{ .Values.no }}{{ end }}"})
			assert.Equal(t, tt.want, f.fails())
		})
	}
}

func TestAllProblemsOfAllFiles(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{
		"a.conf":      "x ${ONE}\n\n${TWO:?name the second}",
		"b/c.tmpl":    "{{ .Values.x }}",
		"d.yaml.tmpl": "a: {{ 1 }}\nb: : {{ 2 }}\n",
		"e.json":      "{\"a\": 1,}",
	})
	problems := f.fails()
	require.Len(t, problems, 5)
	assert.Equal(t, "a.conf:1: ${ONE} is not set: set it, or write ${ONE:-} for empty", problems[0])
	assert.Equal(t, "a.conf:3: ${TWO}: name the second", problems[1])
	assert.Equal(t, `b/c.tmpl:1: .Values.x is missing: there is no "x"`, problems[2])
	assert.True(t, strings.HasPrefix(problems[3], "d.yaml.tmpl:2: d.yaml would not be valid: its line 2: "), problems[3])
	assert.True(t, strings.HasPrefix(problems[4], "e.json:1: e.json would not be valid: its line 1: "), problems[4])
	assert.NoDirExists(t, f.OutputDir)
}

func TestTree(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{
		"values.yaml": "a: 1", "values-more.yaml": "b: 2", "sub/values.extra.yaml": "c: 3", "_x.tpl": "", "app.schema.json": "{}",
		"..data/secret": "x", "..2024/y": "y", "sub/deep/file.tmpl": "{{ .Values.a }}", ".hidden": "h", "plain": "${X:-d}",
		"binary": "\x00${X}", "values.yaml.tmpl": "z: {{ .Values.a }}\n",
	})
	require.NoError(t, os.Symlink("plain", filepath.Join(f.TemplateDir, "linked")))
	require.NoError(t, os.Symlink("sub", filepath.Join(f.TemplateDir, "linkeddir")))
	writeFile(t, filepath.Join(f.TemplateDir, "run.sh"), "#!/x")
	require.NoError(t, os.Chmod(filepath.Join(f.TemplateDir, "run.sh"), 0o755))
	out := f.render()
	assert.Equal(t, []string{".hidden", "binary", "linked", "linkeddir/deep/file", "plain", "run.sh", "sub/deep/file", "values.yaml"}, out.Names())
	assert.Equal(t, "\x00${X}", f.content("binary"))
	assert.Equal(t, "d", f.content("linked"))
	f.commit()
	assert.EqualValues(t, 0o755, f.mode("run.sh"))
	assert.EqualValues(t, 0o644, f.mode("plain"))
	assert.Contains(t, f.log.String(), "app.schema.json")
}

func TestTreeProblems(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{"a": "", "a.tmpl": "", "b.tmpl": "", "b/c": ""})
	assert.ElementsMatch(t, []string{"a and a.tmpl both become a: remove one", "b.tmpl becomes the file b, which b/c needs as a directory"}, f.fails())

	f = setUp(t, map[string]string{"a": ""})
	for _, dir := range []string{f.TemplateDir, f.TemplateDir + "/out"} {
		f.OutputDir = dir
		assert.Contains(t, f.fails()[0], "is in the template directory")
	}

	f = setUp(t, map[string]string{"values.yaml": "a: 1"})
	assert.Contains(t, f.fails()[0], "has no templates: nothing to do")
	f.TemplateDir += "/no"
	assert.Contains(t, f.fails()[0], "no such file or directory")

	f = setUp(t, map[string]string{"a": ""})
	require.NoError(t, os.Symlink(".", filepath.Join(f.TemplateDir, "loop")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(f.TemplateDir, "dangling")))
	problems := strings.Join(f.fails(), "\n")
	assert.Contains(t, problems, "loop is a link to a directory that it is in")
	assert.Contains(t, problems, "template dangling: no such file or directory")
}
