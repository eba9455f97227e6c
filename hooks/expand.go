// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"fmt"
	"strings"
)

// expand replaces ${VAR}, ${VAR:-default} and ${VAR:?message} in s by what
// lookup says, and $$ by a dollar sign. As in a shell, the forms with a colon
// treat an empty variable as one that is not set, and a default may contain
// all of these again; a message is text. Everything else stays as it is, $x
// without braces too. $(…) is an error: Kubernetes writes variables like that,
// a shell commands, and neither would happen here.
//
// A ${VAR} that is not set, or for which a message was given, is an error; all
// of them are reported at once. An error never has a variable's value.
func expand(s string, lookup func(string) (string, bool)) (string, error) {
	if !strings.Contains(s, "$") {
		return s, nil
	}
	t, err := parseTemplate(s)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	var problems []error
	t.expand(&out, lookup, &problems)
	if len(problems) > 0 {
		return "", errors.Join(problems...)
	}
	return out.String(), nil
}

// A template is text with variables in it.
type template []part

// part is text, or the variable name with what follows it in the braces.
type part struct {
	text     string
	name     string
	operator string // "", ":-" or ":?"
	fallback template
	message  string
}

func (t template) expand(out *strings.Builder, lookup func(string) (string, bool), problems *[]error) {
	for _, p := range t {
		if p.name == "" {
			out.WriteString(p.text)
			continue
		}
		value, set := lookup(p.name)
		switch {
		case set && (value != "" || p.operator == ""):
			out.WriteString(value)
		case p.operator == ":-":
			p.fallback.expand(out, lookup, problems)
		case p.operator == ":?" && p.message != "":
			*problems = append(*problems, fmt.Errorf("${%s}: %s", p.name, p.message))
		case p.operator == ":?":
			*problems = append(*problems, fmt.Errorf("${%s} is not set or empty", p.name))
		default:
			*problems = append(*problems, fmt.Errorf("${%s} is not set: set it, or write ${%[1]s:-} for empty", p.name))
		}
	}
}

// deepest is how many defaults may be inside each other.
const deepest = 16

func parseTemplate(s string) (template, error) {
	p := templateParser{rest: s}
	return p.parts(0)
}

type templateParser struct{ rest string }

// parts parses up to the end or, in braces (depth over 0), up to the closing
// brace, which it takes.
func (p *templateParser) parts(depth int) (template, error) {
	var t template
	for {
		stop := "$"
		if depth > 0 {
			stop = "$}"
		}
		text := p.rest
		if i := strings.IndexAny(p.rest, stop); i >= 0 {
			text = p.rest[:i]
		}
		if text != "" {
			t = append(t, part{text: text})
			p.rest = p.rest[len(text):]
		}
		switch {
		case p.rest == "" && depth > 0:
			return nil, errUnclosed
		case p.rest == "":
			return t, nil
		case p.take("}"): // stops only inside braces
			return t, nil
		case p.take("$$"):
			t = append(t, part{text: "$"})
		case strings.HasPrefix(p.rest, "$("):
			return nil, errors.New("$(…) is not expanded: write ${VAR}, or $$( for these two characters")
		case p.take("${"):
			variable, err := p.variable(depth + 1)
			if err != nil {
				return nil, err
			}
			t = append(t, variable)
		default:
			p.take("$")
			t = append(t, part{text: "$"})
		}
	}
}

var errUnclosed = errors.New("${ without its }: close it, or write $$ for a dollar sign")

// variable parses what follows "${".
func (p *templateParser) variable(depth int) (part, error) {
	if depth > deepest {
		return part{}, fmt.Errorf("defaults are nested more than %d deep", deepest)
	}
	v := part{name: p.name()}
	switch {
	case v.name == "":
		return v, errors.New("${ without a variable's name: accepted are ${VAR}, ${VAR:-default}, ${VAR:?message}; $$ is a dollar sign")
	case p.take("}"):
		return v, nil
	case p.take(":-"):
		var err error
		v.operator = ":-"
		v.fallback, err = p.parts(depth)
		return v, err
	case p.take(":?"):
		var closed bool
		v.operator = ":?"
		v.message, p.rest, closed = strings.Cut(p.rest, "}")
		if !closed {
			return v, errUnclosed
		}
		return v, nil
	case p.rest == "":
		return v, errUnclosed
	default:
		return v, fmt.Errorf("${%s…}: accepted are ${VAR}, ${VAR:-default}, ${VAR:?message}", v.name)
	}
}

func (p *templateParser) take(prefix string) bool {
	rest, ok := strings.CutPrefix(p.rest, prefix)
	p.rest = rest
	return ok
}

func (p *templateParser) name() string {
	end := 0
	for end < len(p.rest) && isNameByte(p.rest[end], end) {
		end++
	}
	name := p.rest[:end]
	p.rest = p.rest[end:]
	return name
}

// isName tells whether s is a name that a shell could use.
func isName(s string) bool {
	for i := range len(s) {
		if !isNameByte(s[i], i) {
			return false
		}
	}
	return s != ""
}

func isNameByte(c byte, i int) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || i > 0 && '0' <= c && c <= '9'
}
