// SPDX-License-Identifier: Apache-2.0

package hooks

import "strings"

// ParseHeader reads NAME: VALUE, or a name alone. It is not ok when a request
// could not be sent with it.
func ParseHeader(line string) (name, value string, ok bool) {
	name, value, _ = strings.Cut(line, ":")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	return name, value, name != "" && !strings.ContainsFunc(name, notToken) && !strings.ContainsFunc(value, isControl)
}

// notToken is true for what can't be in the name of a header.
func notToken(r rune) bool {
	letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
