// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v3"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// schemas are the files NAME.schema.json beside the templates. A schema may
// refer to another of them by its name, but to nothing outside.
type schemas struct {
	files map[string]string // content by name
	used  map[string]bool
}

func newSchemas(files map[string]string) *schemas {
	return &schemas{files: files, used: map[string]bool{}}
}

// find returns the name of an output's schema, or "". For app.yaml that is
// app.yaml.schema.json, or else app.schema.json.
func (s *schemas) find(output string) string {
	name := output + schemaSuffix
	if _, ok := s.files[name]; !ok {
		name = strings.TrimSuffix(output, path.Ext(output)) + schemaSuffix
	}
	if _, ok := s.files[name]; !ok {
		return ""
	}
	s.used[name] = true
	return name
}

// unused returns the schemas that belong to no output.
func (s *schemas) unused() (names []string) {
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		if !s.used[name] {
			names = append(names, name)
		}
	}
	return names
}

// schemaScheme begins the addresses that schemas have while they are compiled.
const schemaScheme = "schema:///"

// Load is called by the compiler for what a schema refers to.
func (s *schemas) Load(address string) (any, error) {
	name, ok := strings.CutPrefix(address, schemaScheme)
	if name, err := url.PathUnescape(name); ok && err == nil {
		if content, ok := s.files[name]; ok {
			s.used[name] = true
			doc, p := parseJSON(content)
			if p != nil {
				return nil, fmt.Errorf("%s:%d: %s", name, p.line, p.text)
			}
			return doc, nil
		}
	}
	return nil, fmt.Errorf("%s is not beside the templates: a schema may refer to nothing else", strings.TrimPrefix(address, schemaScheme))
}

// check holds every document of an output against the output's schema.
func (s *schemas) check(output string, docs []any, text string) (problems []syntaxError) {
	name := s.find(output)
	if name == "" {
		return nil
	}
	if docs == nil && path.Ext(output) != ".yaml" && path.Ext(output) != ".yml" {
		return []syntaxError{{0, name + " is for YAML, JSON and TOML only"}}
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(s)
	schema, err := c.Compile(schemaScheme + (&url.URL{Path: name}).EscapedPath())
	if err != nil {
		return []syntaxError{{0, "its schema " + name + ": " + strings.ReplaceAll(err.Error(), schemaScheme, "")}}
	}
	if len(docs) == 0 { // an empty YAML file is null
		docs = []any{nil}
	}
	lines := linesOf(output, text)
	for i, doc := range docs {
		var invalid *jsonschema.ValidationError
		if err := schema.Validate(doc); errors.As(err, &invalid) {
			for _, leaf := range leaves(invalid) {
				problems = append(problems, syntaxError{lines(i, leaf.place()), leaf.text(name)})
			}
		} else if err != nil {
			problems = append(problems, syntaxError{0, err.Error()})
		}
	}
	return problems
}

// leaf is one thing that a schema complains about.
type leaf struct{ *jsonschema.ValidationError }

// leaves returns what was really found, without the chain of keywords that led
// there. Of alternatives, none of which fits, all are named.
func leaves(e *jsonschema.ValidationError) (found []leaf) {
	switch e.ErrorKind.(type) {
	case *kind.AnyOf, *kind.OneOf, *kind.Not:
		return []leaf{{e}}
	}
	if len(e.Causes) == 0 {
		return []leaf{{e}}
	}
	for _, cause := range e.Causes {
		found = append(found, leaves(cause)...)
	}
	return found
}

// place is where it is: of a key that should not be there, the key's.
func (l leaf) place() []string {
	if k, ok := l.ErrorKind.(*kind.AdditionalProperties); ok && len(k.Properties) > 0 {
		return append(slices.Clip(l.InstanceLocation), k.Properties[0])
	}
	return l.InstanceLocation
}

// text says where it is, and what is wrong with it.
func (l leaf) text(schema string) string {
	p := message.NewPrinter(language.Und)
	where := "the document"
	if len(l.InstanceLocation) > 0 {
		where = strings.Join(l.InstanceLocation, ".")
	}
	what := l.ErrorKind.LocalizedString(p)
	var alternatives []string
	for _, cause := range l.Causes {
		for _, inner := range leaves(cause) {
			alternatives = append(alternatives, inner.ErrorKind.LocalizedString(p))
		}
	}
	if len(alternatives) > 0 {
		what += ": " + strings.Join(alternatives, "; or ")
	}
	return fmt.Sprintf("%s: %s (%s)", where, what, schema)
}

// linesOf returns a function that finds the line of what is at a place in a
// document. JSON is read as the YAML that it is.
func linesOf(output, text string) func(doc int, location []string) int {
	if path.Ext(output) == ".toml" {
		return func(int, []string) int { return 0 }
	}
	var docs []*yaml.Node
	d := yaml.NewDecoder(strings.NewReader(text))
	for {
		var n yaml.Node
		if d.Decode(&n) != nil {
			break
		}
		docs = append(docs, &n)
	}
	return func(doc int, location []string) int {
		if doc >= len(docs) || len(docs[doc].Content) == 0 {
			return 0
		}
		n := docs[doc].Content[0]
		line := n.Line
		for _, key := range location {
			if n = child(n, key); n == nil {
				break
			}
			line = n.Line
		}
		return line
	}
}

// child is what a node has at a key or an index.
func child(n *yaml.Node, key string) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				return n.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i]
		}
	}
	return nil
}
