// SPDX-License-Identifier: Apache-2.0

package config

import (
	"reflect"
	"slices"
	"strings"
)

// blindfold returns the input with every secret replaced by another of its
// kind, or nil when there is none. Rendering both tells where secrets go, through
// any function: see [file].
func (in *input) blindfold(secrets []secretFile) *input {
	blind := *in
	env := *in.env
	env.swap = swap
	blind.env = &env
	swapped := make([]secretFile, len(secrets))
	at := map[string]bool{}
	for i, s := range secrets {
		at[strings.Join(s.keys, "\x00")] = true
		s.value = swap(s.value)
		swapped[i] = s
	}
	for name := range in.env.vars {
		if keys, ok := valueKeys(name); ok && isSecret(name, in.env.vars[name]) {
			at[strings.Join(in.resolved(keys), "\x00")] = true
		}
	}
	blind.secrets = secretTree(swapped)
	blind.values, _ = swapValues(in.values, nil, at).(map[string]any)
	secret := len(secrets) > 0 || len(env.files) > 0 || !reflect.DeepEqual(blind.values, in.values)
	for name, value := range env.vars {
		secret = secret || isSecret(name, value)
	}
	if !secret {
		return nil
	}
	return &blind
}

// swapValues is a copy of value in which secrets are replaced: what is at one
// of the paths, and strings whose key looks like a secret's.
func swapValues(value any, keys []string, at map[string]bool) any {
	switch v := value.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for key, inner := range v {
			m[key] = swapValues(inner, append(slices.Clip(keys), key), at)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, inner := range v {
			list[i] = swapValues(inner, keys, at)
		}
		return list
	case string:
		if at[strings.Join(keys, "\x00")] || len(keys) > 0 && isSecretKey(keys[len(keys)-1], v) {
			return swap(v)
		}
	case int64:
		if at[strings.Join(keys, "\x00")] {
			return v ^ 1
		}
	case float64:
		if at[strings.Join(keys, "\x00")] {
			return -v - 1
		}
	}
	return value
}

// swap returns another secret of the same shape: every character is another
// one, and white space stays.
func swap(secret string) string {
	rotate := func(r, first, n rune) rune { return first + (r-first+1)%n }
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return rotate(r, 'a', 26)
		case 'A' <= r && r <= 'Z':
			return rotate(r, 'A', 26)
		case '0' <= r && r <= '9':
			return rotate(r, '0', 10)
		case r == ' ' || r == '\n' || r == '\t' || r == '\r':
			return r
		}
		return 'x'
	}, secret)
}
