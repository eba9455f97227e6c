// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
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

// numberFunctions calculate: with whole numbers as long as all are, else with
// floating point ones.
var numberFunctions = template.FuncMap{
	"int":   toInt,
	"float": func(value any) (float64, error) { f, _, err := number(value); return f, err },
	"bool":  toBool,
	"add": calculation(func(a, b int64) (int64, error) {
		if c := a + b; (c > a) == (b > 0) {
			return c, nil
		}
		return 0, errRange
	}, func(a, b float64) float64 { return a + b }),
	"sub": calculation(func(a, b int64) (int64, error) {
		if c := a - b; (c < a) == (b > 0) {
			return c, nil
		}
		return 0, errRange
	}, func(a, b float64) float64 { return a - b }),
	"mul": calculation(func(a, b int64) (int64, error) {
		if c := a * b; a == 0 || c/a == b && (a != -1 || b != math.MinInt64) {
			return c, nil
		}
		return 0, errRange
	}, func(a, b float64) float64 { return a * b }),
	"div": calculation(func(a, b int64) (int64, error) {
		if b == 0 {
			return 0, errors.New("division by zero")
		}
		return a / b, nil
	}, func(a, b float64) float64 { return a / b }),
	"mod": calculation(func(a, b int64) (int64, error) {
		if b == 0 {
			return 0, errors.New("division by zero")
		}
		return a % b, nil
	}, math.Mod),
	"max":   calculation(func(a, b int64) (int64, error) { return max(a, b), nil }, math.Max),
	"min":   calculation(func(a, b int64) (int64, error) { return min(a, b), nil }, math.Min),
	"ceil":  rounded(math.Ceil),
	"floor": rounded(math.Floor),
	"round": rounded(math.Round),
	"seq": func(from, to int) ([]any, error) {
		if to-from >= longestList {
			return nil, fmt.Errorf("seq: more than %d numbers", longestList)
		}
		numbers := []any{}
		for i := from; i <= to; i++ {
			numbers = append(numbers, int64(i))
		}
		return numbers, nil
	},
	"until": func(n int) ([]any, error) {
		if n > longestList {
			return nil, fmt.Errorf("until: more than %d numbers", longestList)
		}
		numbers := []any{}
		for i := range max(n, 0) {
			numbers = append(numbers, int64(i))
		}
		return numbers, nil
	},
}

const longestList = 1 << 20

var errRange = errors.New("the result is too large for a whole number")

// number returns a number, or a text that is one, and whether it is whole.
func number(value any) (f float64, whole bool, err error) {
	switch v := value.(type) {
	case absent:
		return 0, true, nil
	case float64:
		return v, false, nil
	case float32:
		return float64(v), false, nil
	case string:
		if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil {
			return float64(n), true, nil
		}
		if f, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f, false, nil
		}
		return 0, false, errors.New("a text that is not a number") // it may be a secret
	}
	if n, ok := integer(value); ok {
		return float64(n), true, nil
	}
	return 0, false, fmt.Errorf("%s is not a number", typeName(value))
}

// toInt makes a whole number of a number or a text, cutting off what is behind
// the point.
func toInt(value any) (int64, error) {
	if s, ok := value.(string); ok {
		if n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64); err == nil {
			return n, nil
		}
	}
	if n, ok := integer(value); ok {
		return n, nil
	}
	if b, ok := value.(bool); ok {
		if b {
			return 1, nil
		}
		return 0, nil
	}
	f, _, err := number(value)
	if err == nil && (f >= math.MaxInt64 || f <= math.MinInt64) {
		err = errRange
	}
	return int64(f), err
}

func toBool(value any) (bool, error) {
	if b, ok := value.(bool); ok {
		return b, nil
	}
	s, err := text(value)
	if err != nil {
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0", "":
		return false, nil
	}
	return false, errors.New("bool: accepted are true, yes, on, 1, false, no, off, 0")
}

func calculation(whole func(a, b int64) (int64, error), broken func(a, b float64) float64) func(a any, more ...any) (any, error) {
	return func(a any, more ...any) (any, error) {
		isWhole := true
		for _, v := range append([]any{a}, more...) {
			_, w, err := number(v)
			if err != nil {
				return nil, err
			}
			isWhole = isWhole && w
		}
		if isWhole {
			sum, _ := toInt(a)
			for _, v := range more {
				n, _ := toInt(v)
				var err error
				if sum, err = whole(sum, n); err != nil {
					return nil, err
				}
			}
			return sum, nil
		}
		sum, _, _ := number(a)
		for _, v := range more {
			n, _, _ := number(v)
			sum = broken(sum, n)
		}
		if math.IsNaN(sum) || math.IsInf(sum, 0) {
			return nil, errors.New("the result is no number: division by zero?")
		}
		return sum, nil
	}
}

func rounded(how func(float64) float64) func(any) (int64, error) {
	return func(value any) (int64, error) {
		f, whole, err := number(value)
		if err != nil || whole {
			if err != nil {
				return 0, err
			}
			return toInt(value)
		}
		return toInt(how(f))
	}
}
