// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// largestStepFile bounds what is read of a step file.
const largestStepFile = 1 << 20

const stepKeys = "run, timeout, retries, backoff, onFailure, env, dir, user"

// stepFile is the content of a step file.
type stepFile struct {
	file     string // for messages
	problems []error

	run     []string
	timeout string // as written, "" when absent
	retries int
	backoff string
	carryOn bool
	env     []envEntry
	dir     string
	user    string
	userAt  int // its line
}

// parseStepFile reads one YAML document: a mapping with the keys of stepKeys.
// The ${…} in it are checked, and stay. All problems are reported at once, each
// with file and line.
func parseStepFile(file string, data []byte) (stepFile, error) {
	f := stepFile{file: file}
	if len(data) > largestStepFile {
		return f, fmt.Errorf("%s: larger than 1 MiB", file)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return f, fmt.Errorf("%s: nothing in it: run: [/path/of/program, argument] is needed", file)
	} else if err != nil {
		return f, yamlError(file, err)
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		if err != nil {
			return f, yamlError(file, err)
		}
		return f, fmt.Errorf("%s:%d: a second document: a step file is one step", file, second.Line)
	}
	f.document(document.Content[0])
	return f, errors.Join(f.problems...)
}

// yamlError puts the file name where the package says "yaml".
func yamlError(file string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if line, ok := strings.CutPrefix(text, "line "); ok {
		return fmt.Errorf("%s:%s", file, line)
	}
	return fmt.Errorf("%s: %s", file, text)
}

func (f *stepFile) document(root *yaml.Node) {
	if root.Kind != yaml.MappingNode {
		f.problem(root, "not a mapping: accepted are the keys %s", stepKeys)
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], resolved(root.Content[i+1])
		if line, again := seen[key.Value]; again {
			f.problem(key, "%s: is there already (line %d)", key.Value, line)
			continue
		}
		seen[key.Value] = key.Line
		f.key(key, value)
	}
	if _, ok := seen["run"]; !ok {
		f.problem(root, "run is missing: run: [/path/of/program, argument]")
	}
}

func (f *stepFile) key(key, value *yaml.Node) {
	switch key.Value {
	case "run":
		f.setRun(value)
	case "timeout":
		f.timeout = f.duration(key, value)
	case "backoff":
		f.backoff = f.duration(key, value)
	case "retries":
		n, err := strconv.Atoi(value.Value)
		if value.Kind != yaml.ScalarNode || err != nil || n < 0 {
			f.problem(value, "retries: %s: accepted is a number, 0 or more", found(value))
		}
		f.retries = n
	case "onFailure":
		if value.Value != "fail" && value.Value != "continue" {
			f.problem(value, "onFailure: %s: accepted are fail and continue", found(value))
		}
		f.carryOn = value.Value == "continue"
	case "env":
		f.setEnv(value)
	case "dir":
		f.dir = f.template(key, value)
		if f.dir == "" {
			f.problem(value, "dir: empty: write a path, or leave the key out")
		}
	case "user":
		f.user, _ = f.text(key, value)
		f.userAt = value.Line
		if f.user == "" {
			f.problem(value, "user: empty: accepted are names and numbers, like 65532:65532")
		}
	default:
		f.problem(key, "unknown key %q: accepted are %s", shorten(key.Value), stepKeys)
	}
}

func (f *stepFile) setRun(value *yaml.Node) {
	if value.Kind != yaml.SequenceNode {
		f.problem(value, "run: %s: accepted is a list, one argument an item, there is no shell: run: [/path/of/program, argument]", found(value))
		return
	}
	if len(value.Content) == 0 {
		f.problem(value, "run: an empty list: run: [/path/of/program, argument]")
	}
	for i, item := range value.Content {
		item = resolved(item)
		argument := f.template(&yaml.Node{Value: fmt.Sprintf("run[%d]", i)}, item)
		if i == 0 && argument == "" && item.Kind == yaml.ScalarNode {
			f.problem(item, "run[0]: empty: the first item is the program")
		}
		f.run = append(f.run, argument)
	}
}

func (f *stepFile) setEnv(value *yaml.Node) {
	if value.Kind != yaml.MappingNode {
		f.problem(value, "env: %s: accepted is a mapping of names to values: env: {NAME: \"value\"}", found(value))
		return
	}
	for i := 0; i+1 < len(value.Content); i += 2 {
		key, item := value.Content[i], resolved(value.Content[i+1])
		name := key.Value
		switch {
		case key.Kind != yaml.ScalarNode || name == "" || strings.ContainsAny(name, "=\x00"):
			f.problem(key, "env: %q: not a variable's name", shorten(name))
			continue
		case slices.ContainsFunc(f.env, func(e envEntry) bool { return e.name == name }):
			f.problem(key, "env: %s: is there already", name)
			continue
		}
		text := f.template(&yaml.Node{Value: "env: " + name}, item)
		f.env = append(f.env, envEntry{name: name, value: text})
	}
}

// text returns a scalar as it is written: 5, true and 1.10 need no quotes.
func (f *stepFile) text(key, value *yaml.Node) (string, bool) {
	switch tag := value.ShortTag(); {
	case value.Kind != yaml.ScalarNode || tag == "!!null" || tag == "!!binary":
		f.problem(value, "%s: %s: accepted is a string", key.Value, found(value))
		return "", false
	case strings.ContainsRune(value.Value, 0):
		f.problem(value, "%s: a NUL character, which no argument or variable can hold", key.Value)
		return "", false
	}
	return value.Value, true
}

// template is text with valid ${…} in it.
func (f *stepFile) template(key, value *yaml.Node) string {
	text, ok := f.text(key, value)
	if !ok {
		return ""
	}
	if _, err := parseTemplate(text); err != nil {
		f.problem(value, "%s: %v", key.Value, err)
	}
	return text
}

func (f *stepFile) duration(key, value *yaml.Node) string {
	if value.Kind == yaml.ScalarNode {
		if _, err := ParseDuration(value.Value); err == nil {
			return value.Value
		}
	}
	f.problem(value, "%s: %s: %v", key.Value, found(value), errDuration)
	return ""
}

func (f *stepFile) problem(at *yaml.Node, format string, args ...any) {
	f.problems = append(f.problems, fmt.Errorf("%s:%d: "+format, append([]any{f.file, at.Line}, args...)...))
}

// resolved follows an alias to what it stands for. Nothing is copied, so aliases
// of aliases do not grow.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// found names what is there instead of what should be.
func found(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.ShortTag() == "!!null":
		return "nothing"
	default:
		return strconv.Quote(shorten(n.Value))
	}
}

func shorten(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
