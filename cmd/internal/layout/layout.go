// SPDX-License-Identifier: Apache-2.0

// Package layout lays out the text of --help.
package layout

import (
	"strings"
	"unicode/utf8"
)

// Columns is how wide a help is, but for what is laid out by hand.
const Columns = 80

// Wrap returns the words of text in lines of at most Columns characters, each
// behind indent and with a newline; a longer word has a line of its own.
func Wrap(indent, text string) string {
	var b strings.Builder
	column := Columns
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		if column+1+n <= Columns {
			b.WriteString(" " + word)
			column += 1 + n
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(indent + word)
		column = len(indent) + n
	}
	return b.String() + "\n"
}
