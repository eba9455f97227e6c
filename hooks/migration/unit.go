// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"fmt"
	"slices"
)

// A unit is what is run and recorded at once: the statements of one
// transaction, or what cannot be in one.
type unit struct {
	statements []statement
	begin      string // how its transaction begins; empty: run outside of one
	first      int    // how many statements of the file are before it
	size       int    // how many of the file it is, BEGIN and COMMIT included
	block      bool   // the file itself begins and ends the transaction
}

func (u unit) transactional() bool { return u.begin != "" }

// units cuts the statements of a migration into what is run at once. In the
// best case that is all of them, in one transaction.
//
// A transaction that the file has itself becomes ours: the version is written
// in it. With several of them, or with statements that cannot run in one, each
// is a unit, and so is what is between them. With separate (the file asks to
// have no transaction) so is every statement.
func units(d dialect, statements []statement, separate bool) ([]unit, error) {
	parts, err := segment(d, statements, separate)
	if err != nil {
		return nil, err
	}
	whole, blocks := !separate, 0
	for _, p := range parts {
		whole = whole && p.transactional()
		if p.block {
			blocks++
		}
	}
	if whole && blocks <= 1 {
		return join(d, parts), nil
	}
	// MySQL commits at every other statement: there each is recorded by itself.
	if separate || d == mySQL {
		return parts, nil
	}
	var list []unit
	for _, p := range parts {
		if n := len(list); n > 0 && list[n-1].plain() && p.plain() {
			list[n-1].statements = append(list[n-1].statements, p.statements...)
			list[n-1].size += p.size
			continue
		}
		list = append(list, p)
	}
	return list, nil
}

// plain reports whether a unit may be joined with a neighbour.
func (u unit) plain() bool { return u.transactional() && !u.block }

// segment makes a unit of every statement, and of every transaction in the file.
func segment(d dialect, statements []statement, separate bool) (parts []unit, err error) {
	open := -1 // the BEGIN of the block in progress
	for i := 0; i < len(statements); i++ {
		s := statements[i]
		k := s.kind(d)
		switch {
		case k == ends:
			return nil, fmt.Errorf("line %d: %s: a migration cannot undo itself, or hand its transaction on; remove it", s.line, excerpt(s.text))
		case k == begins && open >= 0:
			return nil, fmt.Errorf("line %d: %s, but the transaction of line %d is still open", s.line, excerpt(s.text), statements[open].line)
		case k == begins:
			open = i
		case k == commits && open < 0:
			return nil, fmt.Errorf("line %d: %s, but no transaction was begun", s.line, excerpt(s.text))
		case k == commits:
			parts = append(parts, unit{statements: statements[open+1 : i], begin: beginOf(d, statements[open]), first: open, size: i + 1 - open, block: true})
			open = -1
		case open >= 0:
		case d == mySQL && s.is("LOCK"):
			// Until UNLOCK TABLES nothing but these tables can be reached, so
			// that no progress can be recorded.
			end := i
			for end+1 < len(statements) && !statements[end].is("UNLOCK") {
				end++
			}
			parts = append(parts, unit{statements: statements[i : end+1], first: i, size: end + 1 - i})
			i = end
		default:
			u := unit{statements: slices.Clone(statements[i : i+1]), first: i, size: 1}
			if k == ordinary && (!separate || atomic(s)) {
				u.begin = defaultBegin(d)
			}
			parts = append(parts, u)
		}
	}
	if open >= 0 {
		return nil, fmt.Errorf("line %d: the transaction that begins here has no end", statements[open].line)
	}
	return parts, nil
}

// join makes one transaction of all parts.
func join(d dialect, parts []unit) []unit {
	all := unit{begin: defaultBegin(d)}
	for _, p := range parts {
		all.statements = append(all.statements, p.statements...)
		all.size += p.size
		if p.block {
			all.begin = p.begin
		}
	}
	return []unit{all}
}

// beginOf is how the transaction of a file is begun. SQLite's deferred ones
// could fail in the middle, when another process has written.
func beginOf(d dialect, s statement) string {
	if d == sqlite {
		return defaultBegin(d)
	}
	return s.text
}

func defaultBegin(d dialect) string {
	switch d {
	case mySQL:
		return "START TRANSACTION"
	case sqlite:
		return "BEGIN IMMEDIATE"
	}
	return "BEGIN"
}
