// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"
)

// mask stands where a secret was.
const mask = "***"

// Diff writes how the output directory would change, as a unified diff without
// secrets, and tells whether it would.
func (o *Output) Diff(w io.Writer) (different bool, err error) {
	b := bufio.NewWriter(w)
	for _, f := range o.files {
		old, info, err := readOld(filepath.Join(o.options.OutputDir, f.name))
		if err != nil {
			return false, fmt.Errorf("compare %s: %w", f.name, err)
		}
		if info != nil && bytes.Equal(old, f.content) && !f.wrongMode(info) {
			continue
		}
		different = true
		o.diff(b, f, string(old), info)
	}
	if o.options.AtomicDir {
		removed, err := o.removed()
		if err != nil {
			return false, err
		}
		for _, name := range removed {
			different = true
			fmt.Fprintf(b, "file %s is removed\n", name)
		}
	}
	return different, b.Flush()
}

// readOld reads a file of the output directory; info is nil when there is none.
func readOld(name string) (content []byte, info fs.FileInfo, err error) {
	info, err = os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil
	case err != nil:
		return nil, nil, err
	case !info.Mode().IsRegular():
		return nil, nil, fmt.Errorf("%s is not a regular file", name)
	}
	content, err = os.ReadFile(name)
	return content, info, err
}

func (o *Output) diff(w io.Writer, f file, old string, info fs.FileInfo) {
	from, to := "a/"+f.name, "b/"+f.name
	switch {
	case info == nil:
		from = "/dev/null"
		fmt.Fprintf(w, "new file %s, mode %s\n", f.name, modeText(f.mode))
	case f.wrongMode(info):
		fmt.Fprintf(w, "mode of %s: %s becomes %s\n", f.name, modeText(info.Mode()), modeText(f.mode))
	}
	text := string(f.content)
	if old == text {
		return
	}
	if isBinary(old) || isBinary(text) {
		fmt.Fprintf(w, "binary files %s and %s differ\n", from, to)
		return
	}
	u, err := udiff.ToUnifiedDiff(from, to, old, udiff.Lines(old, text), udiff.DefaultContextLines)
	if err != nil { // cannot happen: the edits are consistent
		fmt.Fprintf(w, "%s and %s differ\n", from, to)
		return
	}
	fmt.Fprintf(w, "--- %s\n+++ %s\n", from, to)
	m := newMasker(f, info)
	for _, h := range u.Hunks {
		o.hunk(w, h, m)
	}
}

func (o *Output) hunk(w io.Writer, h *udiff.Hunk, m *masker) {
	removed, added, number := 0, 0, h.ToLine
	for _, l := range h.Lines {
		if l.Kind != udiff.Insert {
			removed++
		}
		if l.Kind != udiff.Delete {
			added++
		}
	}
	fmt.Fprintf(w, "@@ -%d,%d +%d,%d @@\n", h.FromLine, removed, h.ToLine, added)
	for _, l := range h.Lines {
		sign, line := " ", ""
		switch l.Kind {
		case udiff.Delete:
			sign, line = "-", m.old(strings.TrimSuffix(l.Content, "\n"))
		case udiff.Insert:
			sign, line = "+", m.line(number)
		default:
			line = m.line(number)
		}
		if l.Kind != udiff.Delete {
			number++
		}
		fmt.Fprintf(w, "%s%s\n", sign, o.options.Redact.String(line))
		if !strings.HasSuffix(l.Content, "\n") {
			fmt.Fprintln(w, `\ No newline at end of file`)
		}
	}
}

func isBinary(s string) bool { return strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) }

// A masker hides the secrets in the lines of one file.
type masker struct {
	lines    []string    // the new content, masked
	patterns [][2]string // what is before and after a secret in one of them
	private  bool        // the old content may have secrets anywhere
}

func newMasker(f file, old fs.FileInfo) *masker {
	m := &masker{private: f.secret || old != nil && old.Mode().Perm()&0o004 == 0}
	lines, blind := strings.Split(string(f.content), "\n"), strings.Split(string(f.blind), "\n")
	aligned := f.blind != nil && len(lines) == len(blind)
	for i, line := range lines {
		switch {
		case !f.secret, line == "":
		case !aligned:
			line = mask
		case line != blind[i]:
			head, tail := around(line, blind[i])
			m.patterns = append(m.patterns, [2]string{head, tail})
			line = head + mask + tail
		}
		m.lines = append(m.lines, line)
	}
	return m
}

// around is what two lines begin and end with alike, in whole words: what is
// between is a secret.
func around(a, b string) (head, tail string) {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	for n > 0 && !separates(a[n-1]) {
		n--
	}
	head, a, b = a[:n], a[n:], b[n:]
	n = 0
	for n < min(len(a), len(b)) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	for n > 0 && !separates(a[len(a)-n]) {
		n--
	}
	return head, a[len(a)-n:]
}

// separates tells whether a byte is one that stands between a secret and the
// rest of a line.
func separates(c byte) bool { return strings.IndexByte(" \t:='\"@/;,&?()[]{}<>", c) >= 0 }

// line is a line of the new content; they count from 1.
func (m *masker) line(number int) string {
	if number < 1 || number > len(m.lines) {
		return ""
	}
	return m.lines[number-1]
}

// old is a line of the old content that is not in the new one. It may have the
// secret that was there before, of which nothing is known.
func (m *masker) old(line string) string {
	for _, p := range m.patterns {
		if rest, ok := strings.CutPrefix(line, p[0]); ok && strings.HasSuffix(rest, p[1]) {
			return p[0] + mask + p[1]
		}
	}
	if strings.TrimSpace(line) == "" || slices.Contains(m.lines, line) {
		return line
	}
	// "key: value", "- key = value", "key value"
	start := len(line) - len(strings.TrimLeft(line, " \t-\"'"))
	end := start + strings.IndexAny(line[start:], ":= \t") + 1
	if rest := strings.TrimLeft(line[end:], " \t"); strings.HasPrefix(rest, "=") || strings.HasPrefix(rest, ":") {
		end = len(line) - len(rest) + 1
	}
	key, value := line[:end], strings.TrimSpace(line[end:])
	switch {
	case !m.private && !isSecretKey(strings.Trim(key, " \t-\"':="), value):
		return line
	case end > start && (!m.private || slices.ContainsFunc(m.lines, func(l string) bool { return strings.HasPrefix(l, key) })):
		return key + " " + mask
	}
	return mask // even a key may be a part of a secret that has several lines
}
