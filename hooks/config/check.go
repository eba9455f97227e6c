// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
)

// check parses a rendered file as its name says, and holds it against its
// schema if it has one.
func (r *rendering) check(f *file) {
	if matchesAny(r.in.options.Unchecked, f.name) {
		return
	}
	output := string(f.content)
	docs, problems := parseAs(f.name, output)
	if f.secret {
		r.learn(f, docs)
	}
	for _, p := range problems {
		r.report(r.sourceLine(output, max(p.line, 1)), describe(f.name, p))
	}
	if len(problems) == 0 {
		for _, p := range r.in.schemas.check(f.name, docs, output) {
			r.report(r.sourceLine(output, max(p.line, 1)), describe(f.name, p))
		}
	}
}

func describe(name string, p syntaxError) string {
	if p.line == 0 {
		return fmt.Sprintf("%s would not be valid: %s", name, p.text)
	}
	return fmt.Sprintf("%s would not be valid: its line %d: %s", name, p.line, p.text)
}

// learn makes the redactor know the texts that secrets have been turned into,
// before a parser or a schema complains about one and shows it.
func (r *rendering) learn(f *file, docs []any) {
	blind, problems := parseAs(f.name, string(f.blind))
	if f.blind == nil || len(problems) > 0 || len(blind) != len(docs) {
		blind = make([]any, len(docs)) // everything may be one
	}
	for i, doc := range docs {
		different(doc, blind[i], func(text string) { r.in.options.Redact.Add([]string{"SECRET=" + text}) })
	}
}

// different calls found with every text and number in a that is not in b at
// the same place.
func different(a, b any, found func(string)) {
	switch a := a.(type) {
	case map[string]any:
		other, _ := b.(map[string]any)
		for key, value := range a {
			different(value, other[key], found)
			if _, ok := other[key]; !ok {
				found(key)
			}
		}
	case []any:
		other, _ := b.([]any)
		for i, value := range a {
			if i < len(other) {
				different(value, other[i], found)
			} else {
				different(value, nil, found)
			}
		}
	default:
		if s, err := text(a); err == nil && a != b {
			found(s)
		}
	}
}

// parseAs parses a text as the ending of the name says. What has none of the
// endings that are known has no documents and no problems.
func parseAs(name, text string) (docs []any, problems []syntaxError) {
	switch strings.ToLower(path.Ext(name)) {
	case ".yaml", ".yml":
		problems = parseYAML(text, func(doc any) { docs = append(docs, doc) })
	case ".json":
		doc, p := parseJSON(text)
		if p != nil {
			return nil, []syntaxError{*p}
		}
		docs = []any{doc}
	case ".toml":
		var doc any
		if p := parseTOML(text, &doc); p != nil {
			return nil, []syntaxError{*p}
		}
		docs = []any{doc}
	case ".ini":
		problems = parseINI(text)
	case ".properties":
		problems = parseProperties(text)
	}
	return docs, problems
}

// parseJSON parses one document. A key that is in an object twice is an error:
// programs do not agree which of them counts.
func parseJSON(text string) (doc any, problem *syntaxError) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	doc, err := jsonValue(d)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return doc, nil
		} else if err == nil {
			err = errors.New("something follows the end of the document")
		}
	}
	at := d.InputOffset()
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		at = syntax.Offset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		at, err = int64(len(text)), errors.New("it ends too early")
	}
	return nil, &syntaxError{1 + strings.Count(text[:min(at, int64(len(text)))], "\n"), err.Error()}
}

// jsonValue reads the next value.
func jsonValue(d *json.Decoder) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		m := map[string]any{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			name := key.(string) // or else the decoder would have complained
			if _, there := m[name]; there {
				return nil, fmt.Errorf("the key %q is there twice", name)
			}
			if m[name], err = jsonValue(d); err != nil {
				return nil, err
			}
		}
		_, err = d.Token()
		return m, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			value, err := jsonValue(d)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err = d.Token()
		return list, err
	}
	if n, ok := token.(json.Number); ok {
		if whole, err := strconv.ParseInt(n.String(), 10, 64); err == nil {
			return whole, nil
		}
		return n.Float64()
	}
	return token, nil
}

// parseINI finds what no program reads: the dialects differ in everything else.
func parseINI(text string) (problems []syntaxError) {
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		switch {
		case line == "", strings.HasPrefix(line, "#"), strings.HasPrefix(line, ";"):
		case strings.HasPrefix(line, "["):
			if !strings.Contains(line, "]") {
				problems = append(problems, syntaxError{number, "a section needs its ]"})
			}
		case strings.HasPrefix(line, "="):
			problems = append(problems, syntaxError{number, "there is no key before the ="})
		}
	}
	return problems
}

// parseProperties finds the only thing that java.util.Properties refuses.
func parseProperties(text string) (problems []syntaxError) {
	number := 0
	for line := range strings.Lines(text) {
		number++
		if first := strings.TrimLeft(line, " \t\f"); strings.HasPrefix(first, "#") || strings.HasPrefix(first, "!") {
			continue
		}
		for i := 0; i < len(line); i++ {
			if line[i] != '\\' {
				continue
			}
			i++
			if i < len(line) && line[i] == 'u' && !isHex(line[i+1:]) {
				problems = append(problems, syntaxError{number, `\u needs four hexadecimal digits: write \\ for a backslash`})
			}
		}
	}
	return problems
}

// isHex tells whether s begins with four hexadecimal digits.
func isHex(s string) bool {
	return len(s) >= 4 && !bytes.ContainsFunc([]byte(s[:4]), func(r rune) bool {
		return !strings.ContainsRune("0123456789abcdefABCDEF", r)
	})
}

// matchesAny tells whether one of the globs matches a file: one without a slash
// is for its base name.
func matchesAny(globs []string, name string) bool {
	return slices.ContainsFunc(globs, func(glob string) bool { return matches(glob, name) })
}

func matches(glob, name string) bool {
	if !strings.Contains(glob, "/") {
		name = path.Base(name)
	}
	ok, _ := path.Match(glob, name)
	return ok
}
