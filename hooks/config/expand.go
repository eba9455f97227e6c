// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strings"
)

// An expander replaces variables in text files that are no templates. Only
//
//	${NAME}  ${NAME:-default}  ${NAME:?message}  ${NAME:+alternative}
//
// with a NAME that a shell could use are syntax; default and alternative may
// have variables again. Everything else stays as it is: $uri, ${1}, ${sys:x},
// $(…), and what has no closing brace. $${ is a dollar sign and a brace.
type expander struct {
	lookup func(name string) (value string, set bool, err error)
	only   func(name string) bool             // other names are no syntax
	report func(offset int, problem string)   // what is missing
	wrote  func(output, offset int, own bool) // what comes next in the output is from this offset, as its own text or as a value

	text string
	out  strings.Builder
}

// deepest is how many defaults may be inside each other; what is deeper is
// text.
const deepest = 32

// expand expands text.
func (e *expander) expand(text string) string {
	e.text = text
	e.out.Grow(len(text))
	e.until(0, len(text), 0)
	return e.out.String()
}

// until writes the text from one offset to another.
func (e *expander) until(from, to, depth int) {
	e.mark(from, depth, true)
	for from < to {
		i := strings.IndexByte(e.text[from:to], '$')
		if i < 0 {
			e.out.WriteString(e.text[from:to])
			return
		}
		e.out.WriteString(e.text[from : from+i])
		from += i
		rest := e.text[from:to]
		if strings.HasPrefix(rest, "$${") {
			e.out.WriteString("${")
			from += len("$${")
			continue
		}
		r, ok := parseReference(rest, depth)
		if !ok || !e.only(r.name) {
			e.out.WriteByte('$')
			from++
			continue
		}
		e.mark(from, depth, false)
		e.write(r, from, depth)
		from += r.length
		e.mark(from, depth, true)
	}
}

// mark says where the output is from. What is inside braces counts for the
// line of the outermost.
func (e *expander) mark(offset, depth int, own bool) {
	if depth == 0 {
		e.wrote(e.out.Len(), offset, own)
	}
}

// write writes what a reference stands for.
func (e *expander) write(r reference, at, depth int) {
	value, set, err := e.lookup(r.name)
	full := set && value != ""
	from, to := at+r.word, at+r.length-1
	switch {
	case err != nil:
		e.report(at, err.Error())
	case r.operator == '+' && full:
		e.until(from, to, depth+1)
	case r.operator == '+':
	case full || set && r.operator == 0:
		e.out.WriteString(value)
	case r.operator == '-':
		e.until(from, to, depth+1)
	case r.operator == '?' && from < to:
		e.report(at, fmt.Sprintf("${%s}: %s", r.name, e.text[from:to]))
	case set:
		e.report(at, fmt.Sprintf("${%s} is empty", r.name))
	default:
		e.report(at, fmt.Sprintf("${%s} is not set: set it, or write ${%[1]s:-} for empty", r.name))
	}
}

// reference is a ${…} at the start of a text.
type reference struct {
	name     string
	operator byte // 0, '-', '?' or '+'
	word     int  // where what follows the operator begins
	length   int  // of it all, with both braces
}

// parseReference parses the reference that text begins with, if it does. One
// without its closing brace is text.
func parseReference(text string, depth int) (r reference, ok bool) {
	r, closed := scanReference(text, depth)
	return r, closed && r.length > 0
}

// scanReference is [parseReference] that tells what is no reference (length 0)
// from one that goes on to the end of the text (not closed): then the one
// around it does too, and looking again from each of them would take for ever.
func scanReference(text string, depth int) (r reference, closed bool) {
	if !strings.HasPrefix(text, "${") || depth > deepest {
		return r, true
	}
	at := len("${")
	for at < len(text) && isNameByte(text[at], at-len("${")) {
		at++
	}
	r.name = text[len("${"):at]
	switch rest := text[at:]; {
	case r.name == "" || rest == "":
		return r, true
	case rest[0] == '}':
		r.word, r.length = at, at+1
		return r, true
	case len(rest) < 2 || rest[0] != ':' || strings.IndexByte("-?+", rest[1]) < 0:
		return r, true
	}
	r.operator, r.word = text[at+1], at+2
	for at = r.word; at < len(text); {
		switch {
		case text[at] == '}':
			r.length = at + 1
			return r, true
		case r.operator != '?' && strings.HasPrefix(text[at:], "$${"):
			at += len("$${")
		case r.operator != '?' && text[at] == '$':
			inner, closed := scanReference(text[at:], depth+1)
			if !closed {
				return r, false
			}
			at += max(inner.length, 1)
		default:
			at++
		}
	}
	return r, false
}

func isNameByte(c byte, i int) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || i > 0 && '0' <= c && c <= '9'
}
