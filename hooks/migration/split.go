// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"fmt"
	"strings"
)

// A dialect is the SQL that a database speaks.
type dialect int

const (
	postgreSQL dialect = iota
	mySQL              // MariaDB's too
	sqlite
)

func (d dialect) String() string {
	return [...]string{"PostgreSQL", "MySQL", "SQLite"}[d]
}

// A statement is one SQL statement of a file.
type statement struct {
	text   string  // from its first token to its last, without the terminator
	line   int     // of the first token, from 1
	tokens []token // its first ones, to tell what kind it is
}

// A token is a word, a quoted identifier or a punctuation mark. Literals and
// comments are none.
type token struct {
	text   string // a word in upper case; an identifier without its quotes; a mark
	raw    string // as written
	quoted bool
}

// maxTokens of a statement are kept. What makes a statement special is near its
// beginning, except for ALTER TABLE … DETACH PARTITION … CONCURRENTLY.
const maxTokens = 64

// split cuts a file into statements as the database's own client would. What has
// no end (a string, a quoted identifier, a comment) is an error. Whether a
// statement is valid is for the server to say.
func split(d dialect, text string) ([]statement, error) {
	s := splitter{dialect: d, text: strings.TrimPrefix(text, "\ufeff"), delimiter: ";", line: 1}
	if strings.ContainsRune(s.text, 0) {
		return nil, fmt.Errorf("line %d: a NUL byte; the file is not text, or it is UTF-16", 1+strings.Count(s.text[:strings.IndexByte(s.text, 0)], "\n"))
	}
	for s.at < len(s.text) {
		if err := s.step(); err != nil {
			return nil, err
		}
		if n := len(s.statements); n > 0 && s.statements[n-1].readsInput(d) {
			return nil, errInput(s.statements[n-1])
		}
	}
	if s.executable {
		s.at = s.start
		return nil, s.endless("statement with the comment /*!")
	}
	s.end()
	if n := len(s.statements); n > 0 && s.statements[n-1].readsInput(d) {
		return nil, errInput(s.statements[n-1])
	}
	return s.statements, nil
}

func errInput(s statement) error {
	return fmt.Errorf("line %d: COPY … FROM STDIN: the rows behind it are for psql; write INSERT, as pg_dump --inserts does", s.line)
}

// readsInput recognises what would wait for data from us.
func (s statement) readsInput(d dialect) bool {
	return d == postgreSQL && s.is("COPY") && s.has("FROM") && s.has("STDIN")
}

// A splitter goes through a text once.
type splitter struct {
	dialect    dialect
	text       string
	at         int
	delimiter  string
	statements []statement

	// Of lines: line is that of the byte at lined.
	line, lined int

	// Of the statement in progress.
	begun      bool
	start, to  int // of its first byte, and behind its last token
	tokens     []token
	parens     int
	depth      int // of BEGIN … END
	routine    routine
	executable bool // in one of MySQL's executable comments
}

// step consumes white space, a comment, a token or a terminator.
func (s *splitter) step() error {
	c, rest := s.text[s.at], s.text[s.at:]
	switch {
	case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
		s.at++
		return nil
	case s.terminated(rest):
		s.end()
		s.at += len(s.delimiter)
		return nil
	case s.lineComment(rest):
		s.at += lineLength(rest)
		return nil
	case strings.HasPrefix(rest, "/*"):
		return s.blockComment(rest)
	case s.executable && strings.HasPrefix(rest, "*/"):
		s.executable = false
		s.take(2)
		return nil
	case s.dialect == postgreSQL && !s.begun && c == '\\':
		return s.metaCommand(rest)
	case s.dialect == mySQL && !s.begun && isDelimiterCommand(rest):
		s.setDelimiter(rest)
		return nil
	case c == '\'':
		return s.quoted(c, "string", s.backslashes())
	case c == '"' && s.dialect == mySQL:
		return s.quoted(c, "string", true)
	case c == '"':
		return s.quoted(c, "quoted identifier", false)
	case c == '`' && s.dialect != postgreSQL:
		return s.quoted(c, "quoted identifier", false)
	case c == '[' && s.dialect == sqlite:
		return s.quoted(']', "quoted identifier", false)
	case c == '$' && s.dialect == postgreSQL && dollarTag(rest) != "":
		return s.dollarQuoted(dollarTag(rest))
	case isWordStart(c):
		s.word()
		return nil
	case isDigit(c):
		n := 1
		for n < len(rest) && (isWordPart(rest[n]) || rest[n] == '.') && !s.custom(rest[n:]) {
			n++
		}
		s.take(n)
		return nil
	}
	s.mark(c)
	return nil
}

// terminated reports whether the statement ends here.
func (s *splitter) terminated(rest string) bool {
	switch {
	case s.delimiter != ";":
		return strings.HasPrefix(rest, s.delimiter)
	case rest[0] != ';' || s.depth > 0 || s.executable:
		return false
	}
	// CREATE RULE … DO (…; …)
	return s.dialect != postgreSQL || s.parens == 0
}

// custom reports whether a delimiter other than the usual one is here.
func (s *splitter) custom(rest string) bool {
	return s.delimiter != ";" && strings.HasPrefix(rest, s.delimiter)
}

// end completes the statement in progress, if there is one.
func (s *splitter) end() {
	if s.begun {
		s.statements = append(s.statements, statement{text: s.text[s.start:s.to], line: s.lineOf(s.start), tokens: s.tokens})
	}
	s.begun, s.tokens, s.parens, s.depth, s.routine, s.executable = false, nil, 0, 0, undecided, false
}

// lineOf returns the line of a byte; asked for in ascending order.
func (s *splitter) lineOf(at int) int {
	s.line += strings.Count(s.text[s.lined:at], "\n")
	s.lined = at
	return s.line
}

// take makes the next n bytes part of the statement.
func (s *splitter) take(n int) {
	if !s.begun {
		s.begun, s.start = true, s.at
	}
	s.at += n
	s.to = s.at
}

func (s *splitter) keep(t token) {
	if len(s.tokens) < maxTokens {
		s.tokens = append(s.tokens, t)
	}
}

func (s *splitter) mark(c byte) {
	switch c {
	case '(':
		s.parens++
	case ')':
		s.parens = max(0, s.parens-1)
	}
	s.keep(token{text: string(c), raw: string(c)})
	s.take(1)
}

func (s *splitter) word() {
	rest := s.text[s.at:]
	n := 1
	for n < len(rest) && isWordPart(rest[n]) && !s.custom(rest[n:]) {
		n++
	}
	t := token{text: strings.ToUpper(rest[:n]), raw: rest[:n]}
	afterDot := len(s.tokens) > 0 && s.tokens[len(s.tokens)-1].text == "." && !s.tokens[len(s.tokens)-1].quoted
	s.keep(t)
	s.take(n)
	if s.delimiter == ";" && !afterDot {
		s.nest(t.text)
	}
}

// backslashes reports whether a backslash in the string that begins here is an
// escape.
func (s *splitter) backslashes() bool {
	if s.dialect != postgreSQL {
		return s.dialect == mySQL
	}
	if s.at == 0 || s.text[s.at-1]|0x20 != 'e' {
		return false
	}
	return s.at == 1 || !isWordPart(s.text[s.at-2])
}

// quoted consumes what ends with a quote; a doubled one is part of it.
func (s *splitter) quoted(quote byte, what string, backslash bool) error {
	rest := s.text[s.at:]
	for n := 1; n < len(rest); n++ {
		switch {
		case backslash && rest[n] == '\\':
			n++
		case rest[n] == quote && n+1 < len(rest) && rest[n+1] == quote && quote != ']':
			n++
		case rest[n] == quote:
			if what != "string" {
				s.keep(token{text: strings.ReplaceAll(rest[1:n], string(quote)+string(quote), string(quote)), raw: rest[:n+1], quoted: true})
			}
			s.take(n + 1)
			return nil
		}
	}
	return s.endless(what)
}

func (s *splitter) dollarQuoted(tag string) error {
	n := strings.Index(s.text[s.at+len(tag):], tag)
	if n < 0 {
		return s.endless("string " + tag + "…")
	}
	s.take(n + 2*len(tag))
	return nil
}

func (s *splitter) blockComment(rest string) error {
	if s.dialect == mySQL && (strings.HasPrefix(rest, "/*!") || strings.HasPrefix(rest, "/*M!")) {
		n := strings.IndexByte(rest, '!') + 1
		for n < len(rest) && isDigit(rest[n]) {
			n++
		}
		s.take(n)
		s.executable = true
		return nil
	}
	nested := 0
	for n := 0; n+1 < len(rest); n++ {
		switch rest[n : n+2] {
		case "/*":
			if nested == 0 || s.dialect == postgreSQL {
				nested++
				n++
			}
		case "*/":
			nested--
			n++
			if nested == 0 {
				s.at += n + 1
				return nil
			}
		}
	}
	if s.dialect == sqlite { // which takes that for a comment to the end
		s.at = len(s.text)
		return nil
	}
	return s.endless("comment")
}

func (s *splitter) endless(what string) error {
	return fmt.Errorf("line %d: the %s that begins here has no end", s.lineOf(s.at), what)
}

// lineComment reports whether a comment to the end of the line begins here.
func (s *splitter) lineComment(rest string) bool {
	if s.dialect != mySQL {
		return strings.HasPrefix(rest, "--")
	}
	if rest[0] == '#' {
		return true
	}
	return strings.HasPrefix(rest, "--") && (len(rest) == 2 || rest[2] <= ' ')
}

// metaCommand skips the commands of psql that pg_dump writes around a dump, and
// refuses others.
func (s *splitter) metaCommand(rest string) error {
	line := rest[:lineLength(rest)]
	word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	if word != `\restrict` && word != `\unrestrict` {
		return fmt.Errorf("line %d: %s is a command of psql, and not SQL", s.lineOf(s.at), word)
	}
	s.at += len(line)
	return nil
}

// isDelimiterCommand recognises "DELIMITER //", a command of MySQL's clients.
func isDelimiterCommand(rest string) bool {
	const word = "delimiter"
	if len(rest) <= len(word) || !strings.EqualFold(rest[:len(word)], word) {
		return false
	}
	line := rest[len(word):lineLength(rest)]
	return strings.TrimLeft(line, " \t") != line && strings.TrimSpace(line) != ""
}

func (s *splitter) setDelimiter(rest string) {
	n := lineLength(rest)
	s.delimiter = strings.Fields(rest[:n])[1]
	s.at += n
}

// lineLength is that of the first line without its end.
func lineLength(s string) int {
	if n := strings.IndexByte(s, '\n'); n >= 0 {
		return n
	}
	return len(s)
}

// dollarTag returns the $tag$ that s begins with, or nothing.
func dollarTag(s string) string {
	for n := 1; n < len(s); n++ {
		switch c := s[n]; {
		case c == '$':
			return s[:n+1]
		case !isWordPart(c) || n == 1 && isDigit(c):
			return ""
		}
	}
	return ""
}

const wordBytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_$"

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isWordStart(c byte) bool {
	return c == '_' || c >= 0x80 || c|0x20 >= 'a' && c|0x20 <= 'z'
}

func isWordPart(c byte) bool { return isWordStart(c) || isDigit(c) || c == '$' }
