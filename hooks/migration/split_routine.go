// SPDX-License-Identifier: Apache-2.0

package migration

import "strings"

// routine says whether a statement may contain others between BEGIN and END.
type routine int

const (
	undecided routine = iota
	plain
	compound
)

// nest follows BEGIN … END in what creates a routine. CASE has an END too; IF,
// LOOP, WHILE and REPEAT of MySQL have one that is followed by their name.
func (s *splitter) nest(word string) {
	if s.routine == undecided {
		s.routine = s.decide(word)
	}
	if s.routine != compound {
		return
	}
	switch {
	case word == "BEGIN":
		// PostgreSQL's body of SQL is BEGIN ATOMIC … END; any other is a string.
		if s.dialect != postgreSQL || s.nextWord() == "ATOMIC" {
			s.depth++
		}
	case word == "CASE" && s.depth > 0 && !s.after("END"):
		s.depth++
	case word == "END" && s.depth > 0:
		switch s.nextWord() {
		case "IF", "LOOP", "WHILE", "REPEAT", "FOR":
			if s.dialect == mySQL {
				return
			}
		}
		s.depth--
	}
}

// after reports whether the word before the last one was this.
func (s *splitter) after(word string) bool {
	text := strings.TrimRight(s.text[s.start:s.to], wordBytes)
	text = strings.TrimRight(text, " \t\r\n")
	return len(text) >= len(word) && strings.EqualFold(text[len(text)-len(word):], word)
}

// decide says by a word near the beginning whether this is a routine.
func (s *splitter) decide(word string) routine {
	first := s.tokens[0].text
	switch {
	case len(s.tokens) == 1:
		if word == "CREATE" || s.dialect == mySQL && word == "ALTER" {
			return undecided
		}
		if word == "BEGIN" && s.dialect == mySQL && s.nextWord() == "NOT" {
			return compound
		}
		return plain
	case first != "CREATE" && first != "ALTER":
		return plain
	}
	switch word {
	case "TRIGGER":
		if s.dialect == postgreSQL {
			return plain
		}
		return compound
	case "FUNCTION", "PROCEDURE":
		return compound
	case "EVENT", "PACKAGE":
		if s.dialect == mySQL {
			return compound
		}
	case "TABLE", "VIEW", "INDEX", "DATABASE", "SCHEMA", "USER", "ROLE", "SERVER", "SEQUENCE", "TABLESPACE", "TYPE", "EXTENSION", "UNIQUE", "VIRTUAL":
		return plain
	}
	return undecided
}

// nextWord returns the word behind the white space that follows, in upper case.
func (s *splitter) nextWord() string {
	rest := strings.TrimLeft(s.text[s.at:], " \t\r\n")
	n := 0
	for n < len(rest) && isWordPart(rest[n]) {
		n++
	}
	return strings.ToUpper(rest[:n])
}
