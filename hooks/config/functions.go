// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"text/template"
)

// library returns the functions that a template can call besides those of
// text/template, of which index is ours. docs/generate-config.md has every one
// with an example that the tests run.
func library() template.FuncMap {
	all := template.FuncMap{printName: text, itemsName: items, "index": index, "indexʹ": maybeIndex}
	maps.Copy(all, valueFunctions)
	maps.Copy(all, textFunctions)
	maps.Copy(all, dataFunctions)
	maps.Copy(all, numberFunctions)
	return all
}

// functions are those that know which template calls them.
func (e *execution) functions() template.FuncMap {
	return template.FuncMap{
		getName: e.get, maybeName: e.maybe, markName: e.mark,
		"include": e.include,
		"env":     e.variable, "getenv": e.variable,
		"envʹ": e.maybeVariable, "getenvʹ": e.maybeVariable,
	}
}

// variable is a variable of the environment, or the default. It notes when there
// is neither.
func (e *execution) variable(where, name string, def ...string) (any, error) {
	value, err := e.maybeVariable(name, def...)
	if err == nil && value == nil {
		e.miss(where, fmt.Sprintf("the variable %s is not set: set it, or write env %[1]q \"default\"", name))
		return absent{}, nil
	}
	return value, err
}

func (e *execution) maybeVariable(name string, def ...string) (any, error) {
	value, set, err := e.in.env.variable(name)
	switch {
	case err != nil:
		return nil, err
	case (!set || value == "") && len(def) > 0:
		return def[0], nil
	case !set:
		return nil, nil
	}
	return value, nil
}

// absent stands for a value that is missing, which has been noted already: what
// works on it goes on, so that the next one is found too.
type absent struct{}

// text is what a value is written as.
func text(value any) (string, error) {
	switch v := value.(type) {
	case absent:
		return "", nil
	case nil:
		return "", errors.New("there is no value to write")
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case error:
		return v.Error(), nil
	}
	if n, ok := integer(value); ok {
		return strconv.FormatInt(n, 10), nil
	}
	return "", fmt.Errorf("%s cannot be written as it is: use toYaml, toJson or join", typeName(value))
}

// typeName is how a value's type is called.
func typeName(value any) string {
	switch value.(type) {
	case nil:
		return "nothing"
	case string:
		return "a text"
	case bool:
		return "a truth value"
	case variables:
		return ".Env"
	case float32, float64:
		return "a number"
	}
	switch reflect.ValueOf(value).Kind() {
	case reflect.Map:
		return "a map"
	case reflect.Slice, reflect.Array:
		return "a list"
	}
	if _, ok := integer(value); ok {
		return "a number"
	}
	return fmt.Sprintf("a %T", value)
}

// integer returns a whole number of any type as one.
func integer(value any) (int64, bool) {
	switch v := reflect.ValueOf(value); v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int(), true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if n := v.Uint(); n <= math.MaxInt64 {
			return int64(n), true
		}
	}
	return 0, false
}

// valueFunctions choose between values.
var valueFunctions = template.FuncMap{
	"default": func(def, value any) any {
		if empty(value) {
			return def
		}
		return value
	},
	"required": func(message string, value any) (any, error) {
		if value == nil || value == "" {
			return nil, errors.New(message)
		}
		return value, nil
	},
	"coalesce": func(values ...any) any {
		for _, v := range values {
			if !empty(v) {
				return v
			}
		}
		return nil
	},
	"ternary": func(yes, no any, condition any) any {
		if !empty(condition) {
			return yes
		}
		return no
	},
	"empty": empty,
	"fail":  func(message string) (string, error) { return "", errors.New(message) },
	"kindOf": func(value any) string {
		switch value.(type) {
		case string:
			return "string"
		case bool:
			return "bool"
		case nil:
			return "null"
		case float64, float32:
			return "float"
		case variables:
			return "map"
		}
		if _, ok := integer(value); ok {
			return "int"
		}
		return reflect.TypeOf(value).Kind().String()
	},
}

// empty is what if, and and or take for false, and so does default.
func empty(value any) bool {
	truth, ok := template.IsTrue(value)
	return !truth || !ok
}

// index is text/template's, but what is not there is an error.
func index(item any, keys ...any) (any, error) {
	value, missing, err := at(item, keys)
	if err == nil && missing != "" {
		err = errors.New(missing)
	}
	return value, err
}

func maybeIndex(item any, keys ...any) (any, error) {
	value, _, err := at(item, keys)
	return value, err
}

func at(item any, keys []any) (value any, missing string, err error) {
	value = item
	for _, key := range keys {
		if _, ok := value.(absent); ok {
			return value, "", nil
		}
		if name, ok := key.(string); ok {
			if value, missing, err = field(value, []string{name}); missing != "" || err != nil {
				return nil, missing, err
			}
			continue
		}
		n, ok := integer(key)
		list := reflect.ValueOf(value)
		if value == nil {
			return nil, "there is nothing to take an element of", nil
		}
		if k := list.Kind(); !ok || k != reflect.Slice && k != reflect.Array {
			return nil, "", fmt.Errorf("index: %s has no element %v", typeName(value), key)
		}
		if n < 0 || n >= int64(list.Len()) {
			return nil, fmt.Sprintf("there is no element %d: the list has %d", n, list.Len()), nil
		}
		value = list.Index(int(n)).Interface()
	}
	return value, "", nil
}

// items is what range can walk through.
func items(value any) any {
	switch v := value.(type) {
	case variables:
		return v.env.all()
	case absent:
		return nil
	}
	return value
}

// asList returns any list as one of any values.
func asList(value any) ([]any, error) {
	switch list := value.(type) {
	case []any:
		return list, nil
	case absent:
		return nil, nil
	}
	v := reflect.ValueOf(value)
	if k := v.Kind(); k != reflect.Slice && k != reflect.Array {
		return nil, fmt.Errorf("%s is not a list", typeName(value))
	}
	list := make([]any, v.Len())
	for i := range list {
		list[i] = v.Index(i).Interface()
	}
	return list, nil
}

// asMap returns a map that templates see.
func asMap(value any) (map[string]any, error) {
	switch m := value.(type) {
	case map[string]any:
		return m, nil
	case variables:
		return m.env.all(), nil
	case nil, absent:
		return nil, nil
	}
	return nil, fmt.Errorf("%s is not a map", typeName(value))
}

func sortedKeys(m map[string]any) []any {
	var keys []any
	for _, key := range slices.Sorted(maps.Keys(m)) {
		keys = append(keys, key)
	}
	return keys
}
