// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// showAll prints the values as JSON.
const showAll = "{{ .Values | toJson }}"

func TestValuesAreLayered(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{
		"out.tmpl":               showAll,
		"values.yaml":            "db: {host: base, port: 5432, pool: {min: 1, max: 5}}\nlist: [1, 2]\nname: base\nsecret: base\nkeep: 1\n",
		"values.production.yaml": "db: {host: prod, pool: {max: 50}}\nlist: [3]\n",
		"values.staging.yaml":    "db: {host: staging}\n",
	})
	extra := filepath.Join(t.TempDir(), "extra.json")
	writeFile(t, extra, `{"db": {"pool": {"min": 2}}, "name": "extra"}`)
	more := filepath.Join(t.TempDir(), "more.toml")
	writeFile(t, more, "[extra]\nsince = 2024-05-06\nf = 1.0\n")
	f.Values = []string{extra, more}
	f.Environment = "production"
	f.Environ = []string{"GENERATE_CONFIG_VALUE_DB__HOST=variable", "GENERATE_CONFIG_VALUE_EMPTY=", "GENERATE_CONFIG_VALUE_SECRET=variable"}
	f.secrets(map[string]string{"secret": "from a file\n", "db.password": "pw", "db/user": "u", "API__KEY": "k"})
	assert.JSONEq(t, `{
		"db": {"host": "variable", "port": 5432, "pool": {"min": 2, "max": 50}, "password": "pw", "user": "u"},
		"list": [3], "name": "extra", "secret": "from a file", "keep": 1, "api": {"key": "k"}, "extra": {"since": "2024-05-06", "f": 1}
	}`, f.content("out"))
}

func TestVariablesHaveTypes(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{
		"out.tmpl":    showAll,
		"values.yaml": "text: '1'\nport: 80\nmaxConnections: 1\ntags: [a]\nmap: {a: 1}\nlog-level: info\n",
	})
	f.Environ = []string{
		"GENERATE_CONFIG_VALUE_TEXT=2", "GENERATE_CONFIG_VALUE_PORT=81", "GENERATE_CONFIG_VALUE_MAX_CONNECTIONS=7", "GENERATE_CONFIG_VALUE_TAGS=[x, y]",
		"GENERATE_CONFIG_VALUE_MAP={b: 2}", "GENERATE_CONFIG_VALUE_LOG_LEVEL=debug",
		"GENERATE_CONFIG_VALUE_NEW=12", "GENERATE_CONFIG_VALUE_OCTAL=0123", "GENERATE_CONFIG_VALUE_VERSION=1.10", "GENERATE_CONFIG_VALUE_HALF=0.5", "GENERATE_CONFIG_VALUE_YES=true",
		"GENERATE_CONFIG_VALUE_E=1e5", "GENERATE_CONFIG_VALUE_LIST=[1]",
	}
	assert.JSONEq(t, `{
		"text": "2", "port": 81, "maxConnections": 7, "tags": ["x", "y"], "map": {"a": 1, "b": 2}, "log-level": "debug",
		"new": 12, "octal": "0123", "version": "1.10", "half": 0.5, "yes": true, "e": "1e5", "list": "[1]"
	}`, f.content("out"))
}

func TestValuesProblems(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		files   map[string]string
		change  func(*Options)
		secrets map[string]string
		want    []string
	}{
		"an environment that only others have a file for": {
			map[string]string{"values.staging.yaml": "", "values.test.yaml": ""},
			func(o *Options) { o.Environment = "production" }, nil,
			[]string{`environment "production" has no values.production.yaml in `, "there are files for staging, test"},
		},
		"a named file that is missing": {nil, func(o *Options) { o.Values = []string{"/nowhere.yaml"} }, nil, []string{"values: open /nowhere.yaml: no such file or directory"}},
		"bad YAML":                     {map[string]string{"values.yaml": "a: 1\nb: : 2\n"}, nil, nil, []string{"values.yaml:2: mapping values are not allowed"}},
		"a key twice":                  {map[string]string{"values.yaml": "a: 1\na: 2\n"}, nil, nil, []string{`values.yaml:2: mapping key "a" already defined at line 1`}},
		"a list":                       {map[string]string{"values.yaml": "- a\n"}, nil, nil, []string{"it has to be a map of keys"}},
		"variables that disagree": {
			nil, func(o *Options) { o.Environ = []string{"GENERATE_CONFIG_VALUE_A=1", "GENERATE_CONFIG_VALUE_A__B=1"} }, nil,
			[]string{"GENERATE_CONFIG_VALUE_A__B: another variable makes of a.b both a value and a map"},
		},
		"a variable without a key": {nil, func(o *Options) { o.Environ = []string{"GENERATE_CONFIG_VALUE_A____B=1"} }, nil, []string{"two underscores stand between the keys"}},
		"secrets that disagree":    {nil, nil, map[string]string{"a": "1", "a.b": "2"}, []string{"secret a.b: another one makes of a.b both"}},
		"a bad name":               {nil, func(o *Options) { o.Environment = "../x" }, nil, []string{`environment "../x": accepted is a name`}},
		"no such secrets":          {nil, func(o *Options) { o.SecretDirs = []string{"/nowhere"} }, nil, []string{"secrets directory: open /nowhere: no such file"}},
		"a bad glob":               {nil, func(o *Options) { o.Only = []string{"[A"} }, nil, []string{`only "[A": accepted are names and globs`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setUp(t, map[string]string{"out": "x"})
			f.templates(tt.files)
			if tt.secrets != nil {
				f.secrets(tt.secrets)
			}
			if tt.change != nil {
				tt.change(&f.Options)
			}
			_, err := Render(t.Context(), f.Options)
			for _, want := range tt.want {
				assert.ErrorContains(t, err, want)
			}
		})
	}
}

func TestEnvironmentWithoutFiles(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{"out.tmpl": "{{ .Environment }}", "values.yaml": "a: 1"})
	f.Environment = "production"
	assert.Equal(t, "production", f.content("out"))
}

// FuzzMerge holds what merging promises for any two documents.
func FuzzMerge(f *testing.F) {
	for _, seed := range [][2]string{{`{"a":{"b":1}}`, `{"a":{"c":2}}`}, {`{"a":1}`, `{"a":{"b":null}}`}, {`{"a":{"b":1}}`, `{"a":2}`}, {`{}`, `{"a":[1,{"b":2}]}`}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		var base, over map[string]any
		if json.Unmarshal([]byte(first), &base) != nil || json.Unmarshal([]byte(second), &over) != nil {
			return
		}
		before := []map[string]any{deepCopy(t, base), deepCopy(t, over)}
		merged := Merge(base, over)
		require.Equal(t, before, []map[string]any{deepCopy(t, base), deepCopy(t, over)}, "the arguments are not changed")
		holds(t, merged, base, over)
		require.Equal(t, merged, Merge(merged, over), "a second time changes nothing")
		require.Equal(t, len(base) == 0 && len(over) == 0, len(merged) == 0)
	})
}

// holds checks merged against its definition.
func holds(t *testing.T, merged, base, over map[string]any) {
	for key, value := range merged {
		b, inBase := base[key]
		o, inOver := over[key]
		om, overIsMap := o.(map[string]any)
		bm, _ := b.(map[string]any)
		switch {
		case overIsMap:
			inner, ok := value.(map[string]any)
			require.True(t, ok)
			holds(t, inner, bm, om)
		case inOver:
			require.True(t, reflect.DeepEqual(o, value), "%v is over %v", o, value)
		default:
			require.True(t, inBase, "%q came from nowhere", key)
			require.True(t, reflect.DeepEqual(b, value))
		}
	}
	all := maps.Clone(base)
	if all == nil {
		all = map[string]any{}
	}
	maps.Copy(all, over)
	require.Len(t, merged, len(all))
}

func deepCopy(t *testing.T, m map[string]any) (copied map[string]any) {
	data, err := json.Marshal(m)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &copied))
	return copied
}
