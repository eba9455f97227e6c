// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"errors"
	"slices"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
)

// lineAt returns the line of the character at a position, which counts from 1.
func lineAt(text string, position int) int {
	line := 0
	for i := 1; i < position && text != ""; i++ {
		r, n := utf8.DecodeRuneInString(text)
		if r == '\n' {
			line++
		}
		text = text[n:]
	}
	return line
}

// A pgError is a server's error in full.
type pgError struct{ *pgconn.PgError }

func (e pgError) Error() string {
	text := e.Message
	for _, more := range []string{e.Detail, e.Where} {
		if more != "" {
			text += "; " + more
		}
	}
	if e.Hint != "" {
		text += "; hint: " + e.Hint
	}
	if e.Code == "25001" { // active_sql_transaction
		text += "; begin the file with the line: -- migrate:no-transaction"
	}
	return text + " (" + e.Severity + " " + e.Code + ")"
}

func (e pgError) Unwrap() error { return e.PgError }

// described is an error with all that the server said.
func described(err error) error {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return pgError{server}
	}
	return err
}

func (p *postgres) refused(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && server.Severity != "FATAL" && server.Severity != "PANIC"
}

func (p *postgres) canceled(err error) bool { return hasCode(err, "57014") }

func (p *postgres) deadlock(err error) bool { return hasCode(err, "40P01") }

// redundant: it exists, or it does not exist any more.
func (p *postgres) redundant(err error) bool {
	return hasCode(err, "42P07", "42710", "42P04", "42701", "42704", "42P01", "3D000")
}

func hasCode(err error, codes ...string) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && slices.Contains(codes, server.Code)
}
