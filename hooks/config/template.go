// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

// Templates are strict: what is missing is an error, and so is printing what
// has no text of its own, such as a map. text/template would end at the first
// one, or write "<no value>". So a template is rewritten after it is parsed:
//
//   - .Values.db.host becomes a call of the function get, which notes what is
//     missing and goes on, so that all of it is reported at once;
//   - where the template itself says what to do without a value (if, with,
//     default, required, …) the same function returns nil;
//   - what is printed goes through the function print;
//   - before each piece of text a mark is set, so that an error in the output
//     can be reported with the line of the template.
//
// The names of these functions are no identifiers that a user could write by
// accident.
const (
	getName   = "getʹ"
	maybeName = "maybeʹ"
	printName = "printʹ"
	markName  = "markʹ"
	itemsName = "itemsʹ" // what range walks through
	optional  = "ʹ"      // ends the name of a function's variant that may return nil
)

// execute renders the source as a template.
func (r *rendering) execute() string {
	t := template.New(r.source.name).Option("missingkey=error")
	var out strings.Builder
	e := &execution{rendering: r, template: t, out: &out}
	t.Funcs(r.in.library).Funcs(e.functions())
	for _, p := range r.in.partials {
		if _, err := t.New(p.name).Parse(p.content); err != nil {
			r.problems = append(r.problems, templateProblem(p.name, err))
		}
	}
	if _, err := t.Parse(r.source.content); err != nil {
		r.problems = append(r.problems, templateProblem(r.source.name, err))
	}
	if len(r.problems) > 0 {
		return ""
	}
	for _, each := range t.Templates() {
		if each.Tree != nil && each.Root != nil {
			w := rewriter{tree: each.Tree, marks: each.Name() == r.source.name && each.Tree.ParseName == r.source.name}
			w.list(each.Root)
		}
	}
	err := t.Execute(&out, map[string]any{
		"Values":      r.in.values,
		"Env":         variables{r.in.env},
		"Secrets":     r.in.secrets,
		"Environment": r.in.options.Environment,
		"Limits": map[string]any{
			"CPU":     r.in.options.Limits.CPU,
			"Memory":  r.in.options.Limits.Memory,
			"Workers": int64(r.in.options.Limits.workers()),
		},
	})
	if err != nil && !r.missing {
		r.problems = append(r.problems, templateProblem(r.source.name, err))
	}
	return out.String()
}

// place finds file and line in what text/template says, and what the rest is.
var place = regexp.MustCompile(`^template: ([^\n]*?):(\d+):(?:\d+:)? (?:executing "[^\n]*?" at <.*?>: )?((?s).*)$`)

// ourNames are the functions that nobody wrote.
var ourNames = regexp.MustCompile(`error calling [a-zA-Z0-9]+ʹ?: `)

func templateProblem(file string, err error) problem {
	m := place.FindStringSubmatch(err.Error())
	if m == nil {
		return problem{file, 0, strings.TrimPrefix(err.Error(), "template: ")}
	}
	line, _ := strconv.Atoi(m[2])
	text := m[3]
	for strings.HasPrefix(text, "error calling include: template: ") { // the inner place says more
		if inner := place.FindStringSubmatch(strings.TrimPrefix(text, "error calling include: ")); inner != nil {
			text = inner[3]
			m[1] = inner[1]
			line, _ = strconv.Atoi(inner[2])
			continue
		}
		break
	}
	return problem{m[1], line, ourNames.ReplaceAllString(text, "")}
}

// execution is one run of a template: what its functions know.
type execution struct {
	*rendering
	template *template.Template
	out      *strings.Builder
	inside   int // how many includes deep
}

// variables is .Env: a map in which X is also what X_FILE names.
type variables struct{ env *environment }

// get returns base.keys… and notes when it is missing.
func (e *execution) get(where, written string, base any, keys ...string) (any, error) {
	value, missing, err := field(base, keys)
	if err != nil {
		return nil, err
	}
	if missing != "" {
		e.miss(where, written+" "+missing)
		return absent{}, nil
	}
	return value, nil
}

// maybe is get for those who can do without.
func (e *execution) maybe(_, _ string, base any, keys ...string) (any, error) {
	value, _, err := field(base, keys)
	return value, err
}

// miss notes what is missing at file:line.
func (e *execution) miss(where, text string) {
	i := strings.LastIndexByte(where, ':')
	line, _ := strconv.Atoi(where[i+1:])
	p := problem{where[:max(i, 0)], line, text}
	if !slices.Contains(e.problems, error(p)) {
		e.problems = append(e.problems, p)
	}
	e.missing = true
}

// field follows keys through maps. It says what is missing, if something is.
func field(base any, keys []string) (value any, missing string, err error) {
	value = base
	for i, key := range keys {
		var there bool
		switch m := value.(type) {
		case map[string]any:
			value, there = m[key]
		case variables:
			var text string
			if text, there, err = m.env.variable(key); err != nil {
				return nil, "", err
			}
			if value = any(text); !there {
				value = nil
			}
		case absent:
			return value, "", nil
		case nil:
			return nil, fmt.Sprintf("is missing: %s has no value", strings.Join(keys[:i], ".")), nil
		default:
			return nil, "", fmt.Errorf("there is no %q: %s is %s and not a map", key, before(keys, i), typeName(value))
		}
		switch {
		case !there && i == 0 && key != "" && isRoot(base):
			return nil, "", fmt.Errorf("there is no .%s: there are .Values, .Env, .Secrets, .Environment and .Limits", key)
		case !there:
			return nil, fmt.Sprintf("is missing: there is no %q", key), nil
		case value == nil:
			if i == len(keys)-1 {
				return nil, fmt.Sprintf("is missing: %q is null", key), nil
			}
		}
	}
	return value, "", nil
}

func before(keys []string, i int) string {
	if i == 0 {
		return "what is before it"
	}
	return strconv.Quote(keys[i-1])
}

// isRoot tells whether a value is the dot that a template begins with.
func isRoot(value any) bool {
	m, _ := value.(map[string]any)
	_, ok := m["Env"].(variables)
	return ok
}

// mark notes where the output is from.
func (e *execution) mark(offset int, own bool) string {
	if e.inside == 0 {
		e.marks = append(e.marks, mark{e.out.Len(), offset, own})
	}
	return ""
}

// include returns what a named template renders to.
func (e *execution) include(name string, data any) (string, error) {
	if e.inside++; e.inside > deepest {
		return "", errors.New("templates include each other without an end")
	}
	defer func() { e.inside-- }()
	var out strings.Builder
	err := e.template.ExecuteTemplate(&out, name, data)
	return out.String(), err
}
