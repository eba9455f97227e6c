// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v3"
)

// ValuePrefix begins the names of variables that are values: with
// GENERATE_CONFIG_VALUE_DB__HOST comes db.host.
const ValuePrefix = "GENERATE_CONFIG_VALUE_"

// layers reads the files of values, from the weakest to the strongest. Found
// are the values*.yaml of the template directory.
func (o *Options) layers(found []string) (layers []map[string]any, err error) {
	var files []string
	if slices.Contains(found, "values.yaml") {
		files = append(files, filepath.Join(o.TemplateDir, "values.yaml"))
	}
	var others []string
	for _, name := range found {
		if env, ok := strings.CutPrefix(name, "values."); ok && name != "values.yaml" {
			others = append(others, strings.TrimSuffix(env, ".yaml"))
		}
	}
	switch {
	case o.Environment == "":
	case slices.Contains(others, o.Environment):
		files = append(files, filepath.Join(o.TemplateDir, "values."+o.Environment+".yaml"))
	case len(others) > 0:
		return nil, fmt.Errorf("environment %q has no values.%[1]s.yaml in %s: there are files for %s", o.Environment, o.TemplateDir, strings.Join(others, ", "))
	}
	var problems []error
	for _, file := range append(files, o.Values...) {
		layer, err := readValues(file)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		layers = append(layers, layer)
	}
	return layers, errors.Join(problems...)
}

// readValues reads one file of values: YAML, which JSON is too, or TOML.
func readValues(file string) (map[string]any, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	var layer any
	if filepath.Ext(file) == ".toml" {
		if p := parseTOML(string(data), &layer); p != nil {
			return nil, fmt.Errorf("values %s:%d: %s", file, p.line, p.text)
		}
	} else if ps := parseYAML(string(data), func(doc any) {
		if layer == nil {
			layer = doc
		}
	}); len(ps) > 0 {
		return nil, fmt.Errorf("values %s:%d: %s", file, ps[0].line, ps[0].text)
	}
	switch layer := normal(layer).(type) {
	case map[string]any:
		return layer, nil
	case nil:
		return map[string]any{}, nil
	}
	return nil, fmt.Errorf("values %s: it has to be a map of keys", file)
}

// mergeLayers returns what templates see as .Values: the layers, variables, and
// secrets, the later over the earlier.
func mergeLayers(layers []map[string]any, environ []string, secrets []secretFile) (map[string]any, error) {
	values := map[string]any{}
	for _, layer := range layers {
		values = Merge(values, layer)
	}
	fromEnv, err := valuesOf(environ, values)
	if err != nil {
		return nil, err
	}
	values = Merge(values, fromEnv)
	fromSecrets := map[string]any{}
	var problems []error
	for _, s := range secrets {
		if !put(fromSecrets, s.keys, s.value) {
			problems = append(problems, fmt.Errorf("secret %s: another one makes of %s both a value and a map: rename one", s.name, strings.Join(s.keys, ".")))
		}
	}
	return Merge(values, fromSecrets), errors.Join(problems...)
}

// Merge returns base with what is over it: maps are merged key by key at every
// depth, everything else takes the place of what was there. Neither is changed.
func Merge(base, over map[string]any) map[string]any {
	merged := maps.Clone(base)
	if merged == nil {
		merged = make(map[string]any, len(over))
	}
	for key, value := range over {
		under, ok := merged[key].(map[string]any)
		if inner, isMap := value.(map[string]any); isMap {
			if !ok {
				under = nil
			}
			merged[key] = Merge(under, inner)
			continue
		}
		merged[key] = value
	}
	return merged
}

// put sets the value at keys. It returns false when that is a value and a map
// at once.
func put(m map[string]any, keys []string, value any) bool {
	for _, key := range keys[:len(keys)-1] {
		next, there := m[key]
		inner, ok := next.(map[string]any)
		if there && !ok {
			return false
		}
		if !there {
			inner = map[string]any{}
			m[key] = inner
		}
		m = inner
	}
	last := keys[len(keys)-1]
	if _, there := m[last]; there {
		return false
	}
	m[last] = value
	return true
}

// valuesOf returns the values that variables set.
func valuesOf(environ []string, base map[string]any) (map[string]any, error) {
	values := map[string]any{}
	latest := map[string]string{}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok {
			latest[name] = value
		}
	}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(latest)) {
		keys, ok := valueKeys(name)
		if !ok || latest[name] == "" {
			continue
		}
		if slices.Contains(keys, "") {
			problems = append(problems, fmt.Errorf("%s: two underscores stand between the keys: %sDB__HOST is db.host", name, ValuePrefix))
			continue
		}
		keys, old := resolve(base, keys)
		if !put(values, keys, typed(latest[name], old)) {
			problems = append(problems, fmt.Errorf("%s: another variable makes of %s both a value and a map", name, strings.Join(keys, ".")))
		}
	}
	return values, errors.Join(problems...)
}

// valueKeys splits the name of a variable that is a value.
func valueKeys(name string) (keys []string, ok bool) {
	rest, ok := strings.CutPrefix(name, ValuePrefix)
	return strings.Split(strings.ToLower(rest), "__"), ok
}

// resolved is where a variable's keys are in the values.
func (in *input) resolved(keys []string) []string {
	keys, _ = resolve(in.values, keys)
	return keys
}

// resolve spells keys as they are spelled in the values, where case, - and _
// make no difference, and returns what is there.
func resolve(base map[string]any, keys []string) (spelled []string, old any) {
	fold := func(s string) string {
		return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s))
	}
	old = base
	for _, key := range keys {
		m, _ := old.(map[string]any)
		if _, exact := m[key]; !exact {
			for _, there := range slices.Sorted(maps.Keys(m)) {
				if fold(there) == fold(key) {
					key = there
					break
				}
			}
		}
		spelled = append(spelled, key)
		old = m[key]
	}
	return spelled, old
}

// typed gives a variable's text the type of the value that it replaces. Where
// there is none, what reads as a number or a truth value and would be written
// in just this way becomes one: 0123, 1.10 and 1e5 are text.
func typed(text string, old any) any {
	switch old.(type) {
	case string:
		return text
	case []any, map[string]any:
		var value any
		if ps := parseYAML(text, func(doc any) { value = doc }); len(ps) == 0 && reflect.TypeOf(value) == reflect.TypeOf(old) {
			return value
		}
		return text
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && strconv.FormatInt(n, 10) == text {
		return n
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && !math.IsInf(f, 0) && strconv.FormatFloat(f, 'f', -1, 64) == text {
		return f
	}
	if text == "true" || text == "false" {
		return text == "true"
	}
	return text
}

// normal returns a parsed document as templates and schemas want it: maps with
// strings for keys, int64, float64, bool, string and nil.
func normal(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			v[key] = normal(inner)
		}
		return v
	case map[any]any:
		m := make(map[string]any, len(v))
		for key, inner := range v {
			m[fmt.Sprint(key)] = normal(inner)
		}
		return m
	case []any:
		for i, inner := range v {
			v[i] = normal(inner)
		}
		return v
	case int:
		return int64(v)
	case uint64:
		return float64(v)
	case time.Time:
		if v.Equal(v.Truncate(24 * time.Hour)) {
			return v.Format(time.DateOnly)
		}
		return v.Format(time.RFC3339Nano)
	case encoding.TextMarshaler: // TOML's dates
		text, _ := v.MarshalText()
		return string(text)
	}
	return value
}

// A syntaxError is what a parser found, and in which line.
type syntaxError struct {
	line int // from 1; 0 is not known
	text string
}

// parseYAML parses every document of a stream.
func parseYAML(text string, each func(doc any)) (problems []syntaxError) {
	d := yaml.NewDecoder(strings.NewReader(text))
	for {
		var doc any
		err := d.Decode(&doc)
		var types *yaml.TypeError
		switch {
		case errors.Is(err, io.EOF):
			return problems
		case errors.As(err, &types): // duplicate keys, of which all are told
			for _, message := range types.Errors {
				problems = append(problems, yamlError(message))
			}
		case err != nil:
			return append(problems, yamlError(strings.TrimPrefix(err.Error(), "yaml: ")))
		default:
			each(normal(doc))
		}
	}
}

func yamlError(message string) syntaxError {
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		if number, text, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(number); err == nil {
				return syntaxError{line, text}
			}
		}
	}
	return syntaxError{0, message}
}

// parseTOML parses a document.
func parseTOML(text string, doc *any) *syntaxError {
	m := map[string]any{}
	err := toml.Unmarshal([]byte(text), &m)
	*doc = normal(m)
	var position *toml.DecodeError
	if errors.As(err, &position) {
		line, _ := position.Position()
		return &syntaxError{line, strings.TrimPrefix(position.Error(), "toml: ")}
	}
	if err != nil {
		return &syntaxError{0, strings.TrimPrefix(err.Error(), "toml: ")}
	}
	return nil
}
