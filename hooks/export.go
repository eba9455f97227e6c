// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// largestExport bounds what one try may export.
const largestExport = 1 << 20

// ownPrefix is that of our own variables.
const ownPrefix = "CLEANIMG_INIT_"

// parseExport reads what a hook wrote to its environment file: lines
//
//	KEY=value
//
// and blocks whose value is the lines up to one that is only the chosen word:
//
//	KEY<<END
//	first line
//	second line
//	END
//
// Whichever of "=" and "<<" comes first decides. Blank lines are skipped. Lines
// end in LF; a CR before it belongs to the line end (files written on Windows),
// except inside a block, whose lines are taken as they are. The last line needs
// no LF. A name is [A-Za-z_][A-Za-z0-9_]* and does not start with
// CLEANIMG_INIT_. Name and value have at most 127 KiB, or no program could be
// started any more. A later entry of the same name wins.
//
// The result has entries "KEY=value" in the order of the file. Errors have line
// numbers and never a value; all are reported at once, apart from a block
// without end, which is the last one.
func parseExport(data []byte) ([]string, error) {
	switch {
	case len(data) > largestExport:
		return nil, errors.New("larger than 1 MiB")
	case bytes.IndexByte(data, 0) >= 0:
		line := 1 + bytes.Count(data[:bytes.IndexByte(data, 0)], []byte("\n"))
		return nil, fmt.Errorf("line %d: a NUL byte, which no variable can hold", line)
	}
	p := exportParser{lines: strings.Split(string(data), "\n")}
	for p.at < len(p.lines) {
		entry, err := p.entry()
		if err != nil {
			p.problems = append(p.problems, err)
		} else if entry != "" {
			p.entries = append(p.entries, entry)
		}
	}
	if len(p.problems) > 0 {
		return nil, errors.Join(p.problems...)
	}
	return WithEnv(nil, p.entries...), nil
}

type exportParser struct {
	lines    []string
	at       int // lines taken so far
	entries  []string
	problems []error
}

// next takes a line.
func (p *exportParser) next() string {
	p.at++
	return p.lines[p.at-1]
}

// entry takes one entry or blank line (then it is empty).
func (p *exportParser) entry() (string, error) {
	line := strings.TrimSuffix(p.next(), "\r")
	if strings.TrimSpace(line) == "" {
		return "", nil
	}
	number := p.at
	name, value, isValue := strings.Cut(line, "=")
	if before, word, ok := strings.Cut(line, "<<"); ok && len(before) < len(name) {
		name = before
		var closed bool
		if value, closed = p.block(word); word == "" || !closed {
			return "", blockError(number, name, word)
		}
		isValue = true
	}
	switch {
	case !isValue:
		return "", fmt.Errorf("line %d: neither KEY=value nor KEY<<END", number)
	case !isName(name):
		return "", fmt.Errorf("line %d: what is before the value is not a variable's name (letters, digits, _)", number)
	case strings.HasPrefix(name, ownPrefix):
		return "", fmt.Errorf("line %d: %s: names that start with %s are not for hooks to set", number, name, ownPrefix)
	case len(name)+len(value) > longestValue:
		return "", fmt.Errorf("line %d: %s: larger than a variable can be (%d KiB)", number, shorten(name), longestValue>>10)
	}
	return name + "=" + value, nil
}

// block takes the lines up to the word, or all when it never comes.
func (p *exportParser) block(word string) (value string, closed bool) {
	if word == "" {
		return "", false
	}
	first := p.at
	for p.at < len(p.lines) {
		if strings.TrimSuffix(p.next(), "\r") == word {
			return strings.Join(p.lines[first:p.at-1], "\n"), true
		}
	}
	return "", false
}

func blockError(number int, name, word string) error {
	shown := "the block"
	if isName(name) {
		shown = name
	}
	if word == "" {
		return fmt.Errorf("line %d: %s: no word after <<", number, shown)
	}
	return fmt.Errorf("line %d: %s: the line that ends it is missing", number, shown)
}
