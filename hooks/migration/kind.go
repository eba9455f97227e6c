// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"slices"
	"strings"
)

// kind is what a statement means for transactions.
type kind int

const (
	ordinary kind = iota
	begins        // a transaction
	commits       // it
	ends          // it in a way that we cannot follow
	outside       // cannot run in one, or what it does cannot be rolled back
	settings      // changes only what holds for the session, outside of one
)

// is reports whether the statement begins with these words.
func (s statement) is(words ...string) bool {
	if len(s.tokens) < len(words) {
		return false
	}
	for i, w := range words {
		if s.tokens[i].text != w || s.tokens[i].quoted {
			return false
		}
	}
	return true
}

// has reports whether one of the statement's first words is this.
func (s statement) has(word string) bool {
	return slices.ContainsFunc(s.tokens, func(t token) bool { return t.text == word && !t.quoted })
}

func (s statement) first() string {
	if len(s.tokens) == 0 || s.tokens[0].quoted {
		return ""
	}
	return s.tokens[0].text
}

func (s statement) kind(d dialect) kind {
	switch s.first() {
	case "BEGIN":
		if d == mySQL && s.is("BEGIN", "NOT") { // MariaDB's compound statement
			return outside
		}
		return begins
	case "START":
		if s.is("START", "TRANSACTION") {
			return begins
		}
	case "COMMIT", "END":
		if s.has("CHAIN") && !s.has("NO") || s.has("PREPARED") || s.has("RELEASE") && !s.has("NO") {
			return ends
		}
		return commits
	case "ROLLBACK", "ABORT":
		if s.has("TO") {
			return ordinary
		}
		return ends
	case "PREPARE":
		if d == postgreSQL && s.is("PREPARE", "TRANSACTION") {
			return ends
		}
	case "XA":
		return ends
	}
	switch d {
	case mySQL:
		return s.kindMySQL()
	case sqlite:
		return s.kindSQLite()
	}
	return s.kindPostgreSQL()
}

// kindPostgreSQL knows what PostgreSQL refuses in a transaction block.
// https://www.postgresql.org/docs/current/sql-commands.html, each page's notes
func (s statement) kindPostgreSQL() kind {
	switch s.first() {
	case "VACUUM":
		return outside
	case "CREATE":
		if s.is("CREATE", "DATABASE") || s.is("CREATE", "TABLESPACE") || s.is("CREATE", "SUBSCRIPTION") || s.concurrently() {
			return outside
		}
	case "DROP":
		if s.is("DROP", "DATABASE") || s.is("DROP", "TABLESPACE") || s.is("DROP", "SUBSCRIPTION") || s.concurrently() {
			return outside
		}
	case "REINDEX":
		if s.has("CONCURRENTLY") || s.has("DATABASE") || s.has("SYSTEM") || s.has("SCHEMA") {
			return outside
		}
	case "CLUSTER":
		if len(s.tokens) == 1 || len(s.tokens) == 2 && s.has("VERBOSE") {
			return outside
		}
	case "ALTER":
		switch {
		case s.is("ALTER", "SYSTEM"),
			s.is("ALTER", "DATABASE") && s.has("TABLESPACE"),
			s.is("ALTER", "SUBSCRIPTION") && s.has("PUBLICATION"),
			s.is("ALTER", "TABLE") && s.has("DETACH") && s.has("CONCURRENTLY"):
			return outside
		}
	}
	return ordinary
}

// concurrently recognises CREATE and DROP INDEX CONCURRENTLY.
func (s statement) concurrently() bool {
	return s.is("CREATE", "INDEX", "CONCURRENTLY") || s.is("CREATE", "UNIQUE", "INDEX", "CONCURRENTLY") || s.is("DROP", "INDEX", "CONCURRENTLY")
}

// kindMySQL takes for transactional only what surely neither commits
// implicitly nor survives a rollback.
// https://dev.mysql.com/doc/refman/8.4/en/implicit-commit.html
func (s statement) kindMySQL() kind {
	switch s.first() {
	case "INSERT", "UPDATE", "DELETE", "REPLACE", "SELECT", "WITH", "VALUES", "DO", "SHOW", "SAVEPOINT", "ROLLBACK":
		return ordinary
	case "LOAD":
		if s.is("LOAD", "DATA") {
			return ordinary
		}
	case "USE", "(":
		return ordinary
	case "SET":
		switch {
		case s.is("SET", "PASSWORD"), s.is("SET", "DEFAULT"), s.is("SET", "ROLE"):
			return outside
		case s.has("TRANSACTION"), s.has("AUTOCOMMIT"), s.has("SQL_LOG_BIN"), s.has("GTID_NEXT"):
			return settings
		}
		return ordinary
	}
	return outside
}

// kindSQLite knows what SQLite refuses, or ignores, in a transaction.
func (s statement) kindSQLite() kind {
	switch s.first() {
	case "VACUUM":
		return outside
	case "ATTACH", "DETACH":
		return settings
	case "PRAGMA":
		for _, t := range s.tokens[1:min(4, len(s.tokens))] { // PRAGMA schema.name
			switch t.text {
			case "FOREIGN_KEYS", "JOURNAL_MODE", "SYNCHRONOUS", "AUTO_VACUUM", "PAGE_SIZE", "WAL_CHECKPOINT", "LOCKING_MODE", "TEMP_STORE":
				return settings
			}
		}
	}
	return ordinary
}

// atomic reports whether a statement may be in a transaction of its own with
// the record of it, when the file asks to have none. It leaves out what might
// end the transaction (CALL, DO) and what is for the whole session.
func atomic(s statement) bool {
	switch s.first() {
	case "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "SELECT", "CREATE", "ALTER", "DROP", "TRUNCATE", "COMMENT", "GRANT", "REVOKE", "REFRESH", "ANALYZE":
		return true
	}
	return false
}

// settles reports whether a statement changes settings of the session that later
// ones may count on, so that it has to be run again when the file is resumed.
func settles(d dialect, s statement) bool {
	switch s.first() {
	case "SET", "RESET":
		return !s.is("SET", "CONSTRAINTS") && !s.is("SET", "LOCAL") && !s.is("SET", "TRANSACTION") && !s.is("SET", "PASSWORD")
	case "USE":
		return d == mySQL
	case "PRAGMA", "ATTACH", "DETACH":
		return d == sqlite
	case "SELECT": // as pg_dump writes it
		return d == postgreSQL && s.has("SET_CONFIG")
	}
	return false
}

// noTransaction reports whether a file asks to be run outside of a transaction:
// "-- migrate:no-transaction" on a line of its own before the first statement.
func noTransaction(text string) bool {
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		line = strings.TrimSpace(line)
		comment, ok := strings.CutPrefix(line, "--")
		switch {
		case line == "":
		case !ok:
			return false
		case strings.TrimSpace(comment) == "migrate:no-transaction":
			return true
		}
	}
	return false
}
