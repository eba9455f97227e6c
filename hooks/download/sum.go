// SPDX-License-Identifier: Apache-2.0

package download

import (
	"bufio"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strings"
)

// A Sum is a checksum: SHA-256 or SHA-512, in lower-case hexadecimal digits.
// The zero value is none.
type Sum struct{ Algorithm, Hex string }

// The algorithms.
const (
	SHA256 = "sha256"
	SHA512 = "sha512"
)

// ParseSum reads the digits of a checksum. The algorithm may be empty: then
// their number tells.
func ParseSum(algorithm, digits string) (Sum, error) {
	s := Sum{algorithm, strings.ToLower(strings.TrimSpace(digits))}
	if name, rest, ok := strings.Cut(s.Hex, ":"); ok && (algorithm == "" || name == algorithm) {
		s = Sum{name, rest}
	}
	data, err := hex.DecodeString(s.Hex)
	if s.Algorithm == "" {
		s.Algorithm = map[int]string{sha256.Size: SHA256, sha512.Size: SHA512}[len(data)]
	}
	want := map[string]int{SHA256: sha256.Size, SHA512: sha512.Size}[s.Algorithm]
	if want == 0 {
		return Sum{}, errors.New("accepted are the 64 digits of a SHA-256 and the 128 of a SHA-512")
	}
	if err != nil || len(data) != want {
		return Sum{}, fmt.Errorf("%s %q: accepted are the %d hexadecimal digits", s.Algorithm, digits, 2*want)
	}
	return s, nil
}

// String is the sum as algorithm:digits, or empty.
func (s Sum) String() string {
	if s.Hex == "" {
		return ""
	}
	return s.Algorithm + ":" + s.Hex
}

func (s Sum) hash() hash.Hash {
	if s.Algorithm == SHA512 {
		return sha512.New()
	}
	return sha256.New()
}

// of returns the sum of what h has seen.
func (s Sum) of(h hash.Hash) Sum { return Sum{s.Algorithm, hex.EncodeToString(h.Sum(nil))} }

// findSum looks for a name in a file as sha256sum(1) writes it ("digits  name",
// or with --tag "SHA256 (name) = digits"); names may have directories. A file
// with nothing but digits is about the one that was asked for. Windows may have
// put a byte order mark first.
func findSum(r io.Reader, name string) (Sum, error) {
	var only []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\ufeff"))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		digits, listed, ok := strings.Cut(line, " ")
		if head, rest, tagged := strings.Cut(line, ") = "); tagged {
			_, listed, ok = strings.Cut(head, " (")
			digits = rest
		}
		listed = strings.TrimPrefix(strings.TrimSpace(listed), "*")
		if !ok {
			only = append(only, line)
		} else if path.Base(listed) == name {
			return ParseSum("", digits)
		}
	}
	if err := lines.Err(); err != nil {
		return Sum{}, err
	}
	if len(only) == 1 {
		return ParseSum("", only[0])
	}
	return Sum{}, fmt.Errorf("has no line for %s", name)
}
