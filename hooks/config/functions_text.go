// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"text/template"
)

// textFunctions take texts, and numbers for texts. The value that is worked on
// comes last, so that it can be piped in.
var textFunctions = template.FuncMap{
	"toString": text,
	"quote":    func(values ...any) (string, error) { return eachQuoted(values, strconv.Quote) },
	"squote": func(values ...any) (string, error) {
		return eachQuoted(values, func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" })
	},
	"trim":       onText(strings.TrimSpace),
	"trimAll":    withText(func(cut, s string) string { return strings.Trim(s, cut) }),
	"trimPrefix": withText(func(prefix, s string) string { return strings.TrimPrefix(s, prefix) }),
	"trimSuffix": withText(func(suffix, s string) string { return strings.TrimSuffix(s, suffix) }),
	"upper":      onText(strings.ToUpper),
	"lower":      onText(strings.ToLower),
	"title":      onText(title),
	"replace": func(old, replacement string, value any) (string, error) {
		s, err := text(value)
		return strings.ReplaceAll(s, old, replacement), err
	},
	"repeat": func(n int, value any) (string, error) {
		s, err := text(value)
		switch {
		case err != nil:
			return "", err
		case n < 0 || n > 0 && len(s) > largestText/n:
			return "", fmt.Errorf("repeat %d times: the result has to be of 0 to %d bytes", n, largestText)
		}
		return strings.Repeat(s, n), nil
	},
	"trunc": func(n int, value any) (string, error) {
		s, err := text(value)
		runes := []rune(s)
		switch {
		case n >= 0 && n < len(runes):
			return string(runes[:n]), err
		case n < 0 && -n < len(runes):
			return string(runes[len(runes)+n:]), err
		}
		return s, err
	},
	"contains":  aboutText(func(part, s string) bool { return strings.Contains(s, part) }),
	"hasPrefix": aboutText(func(prefix, s string) bool { return strings.HasPrefix(s, prefix) }),
	"hasSuffix": aboutText(func(suffix, s string) bool { return strings.HasSuffix(s, suffix) }),
	"indent":    indent,
	"nindent": func(n int, value any) (string, error) {
		s, err := indent(n, value)
		return "\n" + s, err
	},
	"split":     split,
	"splitList": split,
	"join": func(separator string, list any) (string, error) {
		values, err := asList(list)
		if err != nil {
			return "", fmt.Errorf("join: %w", err)
		}
		texts := make([]string, len(values))
		for i, v := range values {
			if texts[i], err = text(v); err != nil {
				return "", err
			}
		}
		return strings.Join(texts, separator), nil
	},
	"b64enc": onText(func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }),
	"b64dec": func(value any) (string, error) {
		s, err := text(value)
		if err != nil {
			return "", err
		}
		data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
		if err != nil {
			return "", errors.New("b64dec: what it got is not base64") // the text may be a secret
		}
		return string(data), nil
	},
	"sha256sum": onText(func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return hex.EncodeToString(sum[:])
	}),
	"urlquery":   onText(url.QueryEscape),
	"pathEscape": onText(url.PathEscape),
	"regexMatch": func(expression string, value any) (bool, error) {
		return withRegexp(expression, value, func(re *regexp.Regexp, s string) bool { return re.MatchString(s) })
	},
	"regexFind": func(expression string, value any) (string, error) {
		return withRegexp(expression, value, func(re *regexp.Regexp, s string) string { return re.FindString(s) })
	},
	"regexFindAll": func(expression string, value any) ([]any, error) {
		return withRegexp(expression, value, func(re *regexp.Regexp, s string) []any { return anys(re.FindAllString(s, -1)) })
	},
	"regexReplaceAll": func(expression, replacement string, value any) (string, error) {
		return withRegexp(expression, value, func(re *regexp.Regexp, s string) string { return re.ReplaceAllString(s, replacement) })
	},
	"regexQuote": onText(regexp.QuoteMeta),
}

// largestText is what a function may make of a small argument.
const largestText = 16 << 20

func onText(f func(string) string) func(any) (string, error) {
	return func(value any) (string, error) {
		s, err := text(value)
		return f(s), err
	}
}

func withText(f func(argument, s string) string) func(string, any) (string, error) {
	return func(argument string, value any) (string, error) {
		s, err := text(value)
		return f(argument, s), err
	}
}

func aboutText(f func(argument, s string) bool) func(string, any) (bool, error) {
	return func(argument string, value any) (bool, error) {
		s, err := text(value)
		return f(argument, s), err
	}
}

func withRegexp[T any](expression string, value any, f func(*regexp.Regexp, string) T) (result T, err error) {
	re, err := regexp.Compile(expression)
	if err != nil {
		return result, err
	}
	s, err := text(value)
	if err != nil {
		return result, err
	}
	return f(re, s), nil
}

// eachQuoted quotes every value that is one.
func eachQuoted(values []any, quote func(string) string) (string, error) {
	var quoted []string
	for _, v := range values {
		if v == nil {
			continue
		}
		s, err := text(v)
		if err != nil {
			return "", err
		}
		quoted = append(quoted, quote(s))
	}
	return strings.Join(quoted, " "), nil
}

// indent puts n blanks before every line that has something in it.
func indent(n int, value any) (string, error) {
	s, err := text(value)
	if err != nil {
		return "", err
	}
	if n < 0 || n > 1000 {
		return "", fmt.Errorf("indent %d: accepted are 0 to 1000 blanks", n)
	}
	blanks := strings.Repeat(" ", n)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if line != "" {
			lines[i] = blanks + line
		}
	}
	return strings.Join(lines, "\n"), nil
}

// title makes the first letter of every word a capital.
func title(s string) string {
	words := strings.Split(s, " ")
	for i, w := range words {
		if w != "" {
			first := []rune(w)[:1]
			words[i] = strings.ToUpper(string(first)) + w[len(string(first)):]
		}
	}
	return strings.Join(words, " ")
}

func split(separator string, value any) ([]any, error) {
	s, err := text(value)
	if s == "" {
		return []any{}, err
	}
	return anys(strings.Split(s, separator)), err
}

func anys(texts []string) []any {
	list := make([]any, len(texts))
	for i, s := range texts {
		list[i] = s
	}
	return list
}
