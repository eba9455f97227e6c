// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// The literals that are secrets: CREATE ROLE x PASSWORD '…', IDENTIFIED BY '…',
// IDENTIFIED WITH plugin AS '…', SET PASSWORD = PASSWORD('…'), OPTIONS (password
// '…'), CONNECTION 'host=… password=…'.
var secretLiteral = regexp.MustCompile(`(?is)\b(password|identified\s+by|identified\s+(?:with|via)\s+\S+\s+(?:by|as|using)|secret|token|connection|passphrase)\b([\s=:(]*(?:for\s+\S+\s*=\s*)?(?:password\s*)?[\s(]*[eun]?&?)(?:'(?:[^'\\]|\\.|'')*'?|"(?:[^"\\]|\\.|"")*"?|\$(\w*)\$.*)`)

// secrets returns the literals of a statement that are secrets.
func secrets(sql string) (found []string) {
	for _, m := range secretLiteral.FindAllStringSubmatch(sql, -1) {
		if inner := strings.Trim(strings.TrimPrefix(m[0], m[1]+m[2]), `'"`); inner != "" {
			found = append(found, inner)
		}
	}
	return found
}

// maskLiterals replaces the literals of a statement that are secrets, wherever
// else they are in it.
func maskLiterals(sql string) string {
	return hide(secretLiteral.ReplaceAllString(sql, "$1$2'***'"), secrets(sql))
}

func hide(text string, secrets []string) string {
	for _, s := range secrets {
		text = strings.ReplaceAll(text, s, "***")
	}
	return text
}

// excerpt is the beginning of a statement as a message shows it: on one line,
// without secrets.
func excerpt(sql string) string {
	const most = 160
	if len(sql) > 20*most { // a file can be large
		sql = sql[:20*most]
	}
	return shorten(strings.Join(strings.Fields(maskLiterals(sql)), " "), most)
}

// shorten cuts s to at most n bytes.
func shorten(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= n {
		return s
	}
	for n -= len("…"); n > 0 && !utf8.RuneStart(s[n]); n-- {
	}
	return s[:n] + "…"
}

// A maskedError is an error whose text had a secret of the statement.
type maskedError struct {
	error
	text string
}

func (e maskedError) Error() string { return e.text }

func (e maskedError) Unwrap() error { return e.error }

// withoutSecrets hides the secrets of a statement in what the server says about
// it: a syntax error quotes what it is at.
func withoutSecrets(err error, sql string) error {
	text := hide(err.Error(), secrets(sql))
	if text == err.Error() {
		return err
	}
	return maskedError{err, text}
}
