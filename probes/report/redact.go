// SPDX-License-Identifier: Apache-2.0

package report

import (
	"slices"
	"strconv"
	"strings"
	"sync"
)

// mask stands where a secret was.
const mask = "***"

const (
	minSecret = 4 // bytes: a shorter value would blank out half of every text
	minLine   = 8 // the same for one line of a value with several

	maxKey = 64 // of the bytes before a =, so many are looked at
)

// Redactor removes secrets from text that is shown to people. What it removes:
//
//   - the values of variables with names like DB_PASSWORD, API_TOKEN or
//     TLS_KEY, wherever they occur, and each line of those that have several;
//   - the password in any URL, known or not, and where the URL came from a
//     variable, that password wherever it occurs;
//   - what follows password=, token= and their like, as in the connection
//     strings of databases and in queries.
//
// In doubt it removes too much: "http://host:80/a@b" may be a URL with the
// password "80/a". Names of variables stay.
//
// A nil or zero Redactor knows no variables but removes the rest. It is safe
// for concurrent use. It looks at whole texts: a secret that is cut in two by
// the end of a buffer is not recognised in either half, so give it whole
// lines, and shorten after redacting.
type Redactor struct {
	mu      sync.Mutex
	pending [][]string // environments that nobody has looked at yet
	secrets []string   // sorted, replaced as a whole
}

// NewRedactor returns a Redactor for the variables ("KEY=value") in environ,
// which must not be changed afterwards. Nothing is done before the first use.
func NewRedactor(environ []string) *Redactor {
	return &Redactor{pending: [][]string{environ}}
}

// Add makes r know the variables in environ too. Like [NewRedactor] it keeps
// environ and does nothing else. On nil it has no effect.
func (r *Redactor) Add(environ []string) {
	if r == nil || len(environ) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = append(r.pending, environ)
}

// String returns s without secrets.
func (r *Redactor) String(s string) string {
	var spans []span
	for _, secret := range r.known() {
		spans = occurrences(spans, s, secret)
	}
	spans = urlPasswords(spans, s)
	spans = assignments(spans, s)
	return hide(s, spans)
}

// Bytes returns b without secrets. The result is b itself when there are none;
// b is never changed.
func (r *Redactor) Bytes(b []byte) []byte {
	s := string(b)
	if t := r.String(s); t != s {
		return []byte(t)
	}
	return b
}

// known returns the secrets of all variables added so far. The slice is never
// changed again.
func (r *Redactor) known() []string {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pending) == 0 {
		return r.secrets
	}
	all := slices.Clone(r.secrets)
	for _, environ := range r.pending {
		for _, kv := range environ {
			if name, value, ok := strings.Cut(kv, "="); ok && len(value) >= minSecret {
				all = appendSecrets(all, name, value)
			}
		}
	}
	slices.Sort(all)
	r.secrets, r.pending = slices.Compact(all), nil
	return r.secrets
}

// span is a part of a text that must not be seen.
type span struct{ from, to int }

// hide replaces the spans of s. It works on all of them together, so that two
// secrets which overlap in s leave nothing of each other.
func hide(s string, spans []span) string {
	if len(spans) == 0 {
		return s
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
	var b strings.Builder
	b.Grow(len(s))
	end := 0
	for i := 0; i < len(spans); {
		from, to := spans[i].from, spans[i].to
		for i++; i < len(spans) && spans[i].from <= to; i++ {
			to = max(to, spans[i].to)
		}
		b.WriteString(s[end:from])
		b.WriteString(mask)
		end = to
	}
	b.WriteString(s[end:])
	return b.String()
}

// occurrences adds every place of secret in s, those that overlap included.
func occurrences(spans []span, s, secret string) []span {
	for i := 0; ; i++ {
		n := strings.Index(s[i:], secret)
		if n < 0 {
			return spans
		}
		i += n
		spans = append(spans, span{i, i + len(secret)})
	}
}

// The words that make a name look secret, wherever they are in it, and the
// endings that do so only for variables: a "foreign_key=" in a line of output
// is rarely one.
var (
	secretWords    = [...]string{"PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "CREDENTIAL", "APIKEY", "API_KEY", "ACCESS_KEY", "PRIVATE_KEY", "PRIVATEKEY"}
	secretNames    = [...]string{"MYSQL_PWD", "REDISCLI_AUTH"}
	secretSuffixes = [...]string{"_KEY", "_DSN", "_PASS", "_PWD", "_CREDS"}
	pathSuffixes   = [...]string{"_FILE", "_PATH", "_DIR"}
)

// secretKey reports whether what is assigned to key in a text is a secret.
func secretKey(key string) bool {
	if len(key) < len("PWD") {
		return false
	}
	key = fold(key)
	for _, word := range secretWords {
		if strings.Contains(key, word) {
			return true
		}
	}
	return key == "PWD" || slices.Contains(secretNames[:], key)
}

// fold spells a key as a variable is spelled: ssl-password, ssl.password and
// SSL_PASSWORD are one.
func fold(key string) string {
	b := []byte(key)
	for i, c := range b {
		switch {
		case c >= 'a' && c <= 'z':
			b[i] = c - 'a' + 'A'
		case c == '-' || c == '.':
			b[i] = '_'
		}
	}
	return string(b)
}

// secretVariable reports whether the variable's value is a secret. Those that
// only say where one is, or whether there is one, are not: their values are
// what an error message has to show.
func secretVariable(name, value string) bool {
	name = strings.ToUpper(name)
	switch strings.ToLower(value) {
	case "true", "false", "none", "null", "enabled", "disabled":
		return false
	}
	if value[0] == '/' && hasSuffix(name, pathSuffixes[:]) {
		return false
	}
	// The shell's PWD is a directory.
	return name != "PWD" && secretKey(name) || hasSuffix(name, secretSuffixes[:])
}

func hasSuffix(name string, suffixes []string) bool {
	return slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(name, s) })
}

// appendSecrets adds what is secret in a variable: all of its value, or the
// passwords in it.
func appendSecrets(all []string, name, value string) []string {
	if secretVariable(name, value) {
		all = appendVariants(all, value)
		if strings.Contains(value, "\n") {
			for line := range strings.Lines(value) {
				if line = strings.TrimSpace(line); len(line) >= minLine {
					all = appendVariants(all, line)
				}
			}
		}
	}
	for _, password := range passwords(value) {
		all = appendVariants(all, password)
		if plain, ok := unescape(password); ok {
			all = appendVariants(all, plain)
		}
	}
	return all
}

// appendVariants adds a secret in the forms in which programs print it: as it
// is, without the white space around it, quoted, and escaped for a URL.
func appendVariants(all []string, secret string) []string {
	for _, s := range [...]string{secret, strings.TrimSpace(secret)} {
		if len(s) < minSecret {
			continue
		}
		q := strconv.Quote(s)
		all = append(all, s, q[1:len(q)-1], escapeURL(s))
		if strings.TrimSpace(s) == s {
			break
		}
	}
	return all
}

// passwords returns everything in a variable's value that may be the password
// of a URL or of a database's connection string. Programs do not agree where
// the password of "postgres://u:a/b@c@host" ends, so that each of them counts:
// the nearest @ of every URL first, and as many more as the room allows. A list
// of a thousand URLs would else be half a million passwords.
func passwords(value string) []string {
	var starts []int // where a password may begin
	for at := 0; ; {
		i := strings.Index(value[at:], "://")
		if i < 0 {
			break
		}
		at += i + len("://")
		if n := userEnd(value[at:]); n >= 0 {
			starts = append(starts, at+n+1)
		}
	}
	// go-sql-driver/mysql: user:password@tcp(host:3306)/db
	if strings.Contains(value, "@tcp(") || strings.Contains(value, "@unix(") {
		if i := strings.IndexByte(value, ':'); i >= 0 {
			starts = append(starts, i+1)
		}
	}
	var found []string
	ends := slices.Clone(starts) // where each was looked at last
	for room := 16<<10 + 4*len(value); len(starts) > 0 && room > 0; {
		left := 0
		for i, start := range starts {
			n := strings.IndexByte(value[ends[i]:], '@')
			if n < 0 || room <= 0 {
				continue
			}
			end := ends[i] + n
			found = append(found, value[start:end])
			room -= end - start + 1
			starts[left], ends[left] = start, end+1
			left++
		}
		starts = starts[:left]
	}
	for _, s := range assignments(nil, value) {
		v := value[s.from:s.to]
		found = append(found, v, strings.Trim(v, `'"`))
	}
	return found
}

// userEnd returns the index of the colon between user and password in what
// follows the :// of a URL, or -1.
func userEnd(s string) int {
	i := strings.IndexAny(s, ":/?#[")
	if i < 0 || s[i] != ':' {
		return -1
	}
	return i
}

// urlPasswords adds the passwords of the URLs in s. A URL ends at white space
// or at a quote that can't be part of one; its password ends at its last @.
func urlPasswords(spans []span, s string) []span {
	end, last := 0, 0 // of the word that at is in, and its last @
	for at := 0; ; {
		i := strings.Index(s[at:], "://")
		if i < 0 {
			return spans
		}
		at += i + len("://")
		if at >= end {
			end = at + wordLen(s[at:], "\"`<>")
			last = strings.LastIndexByte(s[:end], '@')
		}
		if last < at {
			at = end
			continue
		}
		if n := userEnd(s[at:last]); n >= 0 && at+n+1 < last {
			spans = append(spans, span{at + n + 1, last})
			at = end // everything up to the last @ is hidden
		}
	}
}

// wordLen returns the length of what s has before the first white space,
// control character or byte of ends.
func wordLen(s, ends string) int {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f || strings.IndexByte(ends, s[i]) >= 0 {
			return i
		}
	}
	return len(s)
}

// assignments adds the values of password=… and the like in s.
func assignments(spans []span, s string) []span {
	for i := 0; i < len(s); i++ {
		n := strings.IndexByte(s[i:], '=')
		if n < 0 {
			break
		}
		i += n
		key, before, blank := keyBefore(s[:i])
		if !secretKey(key) {
			continue
		}
		from := i + 1
		for blank && from < len(s) && isBlank(s[from]) {
			from++ // "password = x"; but "password= host=x" has an empty one
		}
		if from < len(s) && s[from] == '/' && hasSuffix(fold(key), pathSuffixes[:]) {
			continue // it says where the secret is, which an error has to show
		}
		if n := valueLen(s[from:], before); n > 0 {
			spans = append(spans, span{from, from + n})
			i = from + n - 1
		}
	}
	return spans
}

// keyBefore returns the key that s ends with, the byte before it (0 when there
// is none), and whether there is a blank after it.
func keyBefore(s string) (key string, before byte, blank bool) {
	end := len(s)
	for end > 0 && isBlank(s[end-1]) {
		end--
	}
	start := end
	for start > 0 && end-start < maxKey && isKeyByte(s[start-1]) {
		start--
	}
	if start > 0 {
		before = s[start-1]
	}
	return s[start:end], before, end < len(s)
}

// valueLen returns the length of the value that s begins with. A value without
// quotes ends where the next key begins, and that depends on what was before
// the key: ?a=1&password=x&b=2, a=1;password=x;b=2, a=1 password=x b=2.
func valueLen(s string, before byte) int {
	if s == "" {
		return 0
	}
	if q := s[0]; q == '\'' || q == '"' {
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '\\':
				i++
			case q:
				return i + 1
			}
		}
		return len(s)
	}
	ends := "\"`"
	switch before {
	case '?', '&':
		ends = "\"`&#"
	case ';', ',':
		ends = "\"`" + string(before)
	}
	return wordLen(s, ends)
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func isKeyByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'
}

// escapeURL escapes everything that is not unreserved in a URL.
func escapeURL(s string) string {
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		if c := s[i]; isKeyByte(c) || c == '~' {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// unescape undoes the %XX of a URL. It reports whether there was one.
func unescape(s string) (plain string, changed bool) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b, changed = append(b, byte(n)), true
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b), changed
}

// SecretVariable reports whether a [Redactor] takes all of a variable's value
// for a secret, by the variable's name.
func SecretVariable(name, value string) bool {
	return value != "" && secretVariable(name, value)
}
