// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"text/template"

	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v3"
)

// dataFunctions work on lists, maps and documents.
var dataFunctions = template.FuncMap{
	"toYaml":       toYAML,
	"toJson":       func(value any) (string, error) { return toJSON(value, "") },
	"toPrettyJson": func(value any) (string, error) { return toJSON(value, "  ") },
	"toToml":       toTOML,
	"fromYaml": func(s string) (any, error) {
		var value any
		if ps := parseYAML(s, func(doc any) { value = doc }); len(ps) > 0 {
			return nil, fmt.Errorf("fromYaml: line %d: %s", max(ps[0].line, 1), ps[0].text)
		}
		return value, nil
	},
	"fromJson": func(s string) (any, error) {
		value, p := parseJSON(s)
		if p != nil {
			return nil, fmt.Errorf("fromJson: line %d: %s", p.line, p.text)
		}
		return value, nil
	},
	"fromToml": func(s string) (any, error) {
		var value any
		if p := parseTOML(s, &value); p != nil {
			return nil, fmt.Errorf("fromToml: line %d: %s", p.line, p.text)
		}
		return value, nil
	},
	"list": func(values ...any) []any { return append([]any{}, values...) },
	"dict": func(pairs ...any) (map[string]any, error) {
		if len(pairs)%2 != 0 {
			return nil, errors.New("dict: every key needs a value")
		}
		m := make(map[string]any, len(pairs)/2)
		for i := 0; i < len(pairs); i += 2 {
			key, ok := pairs[i].(string)
			if !ok {
				return nil, fmt.Errorf("dict: a key is a text, not %s", typeName(pairs[i]))
			}
			m[key] = pairs[i+1]
		}
		return m, nil
	},
	"merge": func(maps ...any) (map[string]any, error) { // the first wins, as in sprig
		slices.Reverse(maps)
		return mergeAll(maps)
	},
	"mergeOverwrite": func(maps ...any) (map[string]any, error) { return mergeAll(maps) },
	"hasKey": func(m any, key string) (bool, error) {
		known, err := asMap(m)
		_, ok := known[key]
		return ok, err
	},
	"get": func(m any, key string, def ...any) (any, error) {
		value, _, err := field(m, []string{key})
		if err == nil && value == nil && len(def) > 0 {
			value = def[0]
		}
		return value, err
	},
	"dig":    dig,
	"keys":   func(m any) ([]any, error) { known, err := asMap(m); return sortedKeys(known), err },
	"values": valuesByKey,
	"has": func(item, list any) (bool, error) {
		values, err := asList(list)
		return slices.ContainsFunc(values, func(v any) bool { return equal(v, item) }), err
	},
	"first":     func(list any) (any, error) { return end(list, func([]any) int { return 0 }) },
	"last":      func(list any) (any, error) { return end(list, func(l []any) int { return len(l) - 1 }) },
	"append":    func(list, item any) ([]any, error) { l, err := asList(list); return append(slices.Clip(l), item), err },
	"concat":    concat,
	"uniq":      uniq,
	"sortAlpha": sortAlpha,
	"reverse": func(list any) ([]any, error) {
		l, err := asList(list)
		l = slices.Clone(l)
		slices.Reverse(l)
		return l, err
	},
}

func toYAML(value any) (string, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(items(value)); err != nil {
		return "", fmt.Errorf("toYaml: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

func toJSON(value any, indent string) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(items(value)); err != nil {
		return "", fmt.Errorf("toJson: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

func toTOML(value any) (string, error) {
	m, err := asMap(value)
	if err != nil {
		return "", fmt.Errorf("toToml: %w: a TOML document is one", err)
	}
	data, err := toml.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("toToml: %w", err)
	}
	return strings.TrimSuffix(string(data), "\n"), nil
}

// mergeAll merges maps, the later over the earlier.
func mergeAll(layers []any) (map[string]any, error) {
	merged := map[string]any{}
	for _, layer := range layers {
		m, err := asMap(layer)
		if err != nil {
			return nil, fmt.Errorf("merge: %w", err)
		}
		merged = Merge(merged, m)
	}
	return merged, nil
}

// dig returns what is at the keys of a map: dig "a" "b" default map.
func dig(arguments ...any) (any, error) {
	if len(arguments) < 3 {
		return nil, errors.New("dig: wanted are keys, a default and a map")
	}
	keys, def, m := arguments[:len(arguments)-2], arguments[len(arguments)-2], arguments[len(arguments)-1]
	for _, key := range keys {
		if m == nil {
			break
		}
		name, ok := key.(string)
		if !ok {
			return nil, fmt.Errorf("dig: a key is a text, not %s", typeName(key))
		}
		var err error
		if m, _, err = field(m, []string{name}); err != nil {
			return nil, err
		}
	}
	if m == nil {
		return def, nil
	}
	return m, nil
}

func valuesByKey(m any) ([]any, error) {
	known, err := asMap(m)
	var values []any
	for _, key := range sortedKeys(known) {
		values = append(values, known[key.(string)])
	}
	return values, err
}

// equal compares as has and uniq do: numbers by value.
func equal(a, b any) bool {
	if m, ok := integer(a); ok {
		if n, ok := integer(b); ok {
			return m == n
		}
	}
	return reflect.DeepEqual(a, b)
}

func end(list any, at func([]any) int) (any, error) {
	l, err := asList(list)
	if err != nil || len(l) == 0 {
		return nil, err
	}
	return l[at(l)], nil
}

func concat(lists ...any) ([]any, error) {
	all := []any{}
	for _, list := range lists {
		l, err := asList(list)
		if err != nil {
			return nil, err
		}
		all = append(all, l...)
	}
	return all, nil
}

func uniq(list any) ([]any, error) {
	l, err := asList(list)
	once := []any{}
	for _, v := range l {
		if !slices.ContainsFunc(once, func(w any) bool { return equal(v, w) }) {
			once = append(once, v)
		}
	}
	return once, err
}

func sortAlpha(list any) ([]any, error) {
	l, err := asList(list)
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(l))
	for i, v := range l {
		if texts[i], err = text(v); err != nil {
			return nil, err
		}
	}
	slices.Sort(texts)
	return anys(texts), nil
}
