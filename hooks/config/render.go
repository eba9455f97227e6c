// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// A problem is what is wrong with a file, and where.
type problem struct {
	file string
	line int // from 1; 0 is not known
	text string
}

func (p problem) Error() string {
	if p.line == 0 {
		return p.file + ": " + p.text
	}
	return fmt.Sprintf("%s:%d: %s", p.file, p.line, p.text)
}

// rendering is the work on one file.
type rendering struct {
	in       *input
	source   source
	problems []error
	missing  bool // something was: what fails afterwards may fail because of it
	marks    []mark
}

// A mark says that the output from an offset on is from that offset of the
// source: its own text, or what something in there stands for, which may have
// more lines.
type mark struct {
	output, source int
	own            bool
}

// render renders one source and checks the result.
func (in *input) render(s source) (file, []error) {
	f := file{name: s.output, source: s.name, content: []byte(s.content), blind: []byte(s.content)}
	if s.executable {
		f.mode = 0o755
	}
	if s.binary() && !s.template() {
		return f, nil
	}
	r := &rendering{in: in, source: s}
	text := r.text()
	f.content = []byte(text)
	if len(r.problems) == 0 {
		r.compare(&f, text)
		r.check(&f)
	}
	r.sort()
	return f, r.problems
}

// compare finds out whether a secret went into the text.
func (r *rendering) compare(f *file, text string) {
	f.blind = f.content
	if r.in.blind == nil {
		return
	}
	other := &rendering{in: r.in.blind, source: r.source}
	blind := other.text()
	f.secret = len(other.problems) > 0 || blind != text
	if f.blind = []byte(blind); len(other.problems) > 0 {
		f.blind = nil
	}
}

// text renders the source, without checks.
func (r *rendering) text() string {
	if r.source.template() {
		return r.execute()
	}
	e := expander{
		only:   r.in.env.expands,
		lookup: r.in.env.reference,
		report: func(offset int, text string) { r.report(r.line(offset), text) },
		wrote:  func(output, offset int, own bool) { r.marks = append(r.marks, mark{output, offset, own}) },
	}
	return e.expand(r.source.content)
}

// report notes a problem of the source.
func (r *rendering) report(line int, text string) {
	p := problem{r.source.name, line, text}
	if !slices.ContainsFunc(r.problems, func(err error) bool { return err == error(p) }) {
		r.problems = append(r.problems, p)
	}
}

// line is the line of the source that an offset is in.
func (r *rendering) line(offset int) int {
	return 1 + strings.Count(r.source.content[:min(max(offset, 0), len(r.source.content))], "\n")
}

// sourceLine is the line of the source that made a line of the output; both
// count from 1.
func (r *rendering) sourceLine(output string, line int) int {
	offset := 0
	for range line - 1 {
		n := strings.IndexByte(output[offset:], '\n')
		if n < 0 {
			break
		}
		offset += n + 1
	}
	i := sort.Search(len(r.marks), func(i int) bool { return r.marks[i].output > offset })
	if i == 0 {
		return r.line(offset)
	}
	m := r.marks[i-1]
	if !m.own {
		return r.line(m.source)
	}
	return r.line(m.source) + strings.Count(output[m.output:offset], "\n")
}

// sort puts the problems in the order of their lines.
func (r *rendering) sort() {
	slices.SortStableFunc(r.problems, func(a, b error) int {
		var p, q problem
		if errors.As(a, &p) && errors.As(b, &q) {
			return p.line - q.line
		}
		return 0
	})
}
