// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// largestSecret is what a Kubernetes Secret can hold.
const largestSecret = 1 << 20

// secretFile is one secret: a file below one of the secret directories.
type secretFile struct {
	name  string   // below the directory, with slashes: db/password, db.password
	keys  []string // where it is in .Values: db, password
	value string   // the content without one trailing newline
}

// readSecrets reads the directories, a later one over an earlier one. The
// result is sorted by name.
func readSecrets(dirs []string) ([]secretFile, error) {
	byName := map[string]secretFile{}
	var problems []error
	for _, dir := range dirs {
		problems = append(problems, walkSecrets(dir, "", byName))
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b secretFile) int { return strings.Compare(a.name, b.name) }), errors.Join(problems...)
}

// deepestSecret ends the walk through links that lead in a circle.
const deepestSecret = 8

func walkSecrets(dir, rel string, byName map[string]secretFile) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("secrets directory: %w", err)
	}
	var problems []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		file, name := filepath.Join(dir, e.Name()), path.Join(rel, e.Name())
		info, err := os.Stat(file)
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("secrets directory: %w", err))
			continue
		case info.IsDir() && strings.Count(name, "/") >= deepestSecret:
			problems = append(problems, fmt.Errorf("secrets directory: %s is nested too deeply", file))
			continue
		case info.IsDir():
			problems = append(problems, walkSecrets(file, name, byName))
			continue
		}
		value, err := readLimited(file, largestSecret)
		if err != nil {
			problems = append(problems, fmt.Errorf("secret %s: %w", file, err))
			continue
		}
		byName[name] = secretFile{name: name, keys: secretPath(name), value: strings.TrimSuffix(value, "\n")}
	}
	return errors.Join(problems...)
}

// secretPath is where a secret is in .Values. A name with two underscores is
// that of a variable.
func secretPath(name string) []string {
	if strings.Contains(name, "__") {
		name = strings.ToLower(strings.ReplaceAll(name, "__", "."))
	}
	keys := strings.FieldsFunc(name, func(r rune) bool { return r == '.' || r == '/' })
	if len(keys) == 0 {
		return []string{name}
	}
	return keys
}

// secretTree is what templates see as .Secrets: a map by file name, with a map
// for each directory.
func secretTree(secrets []secretFile) map[string]any {
	tree := map[string]any{}
	for _, s := range secrets {
		at := tree
		parts := strings.Split(s.name, "/")
		for _, dir := range parts[:len(parts)-1] {
			next, ok := at[dir].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[dir] = next
			}
			at = next
		}
		at[parts[len(parts)-1]] = s.value
	}
	return tree
}

// environment answers for variables: those of the process, what their twins
// with _FILE name, and secret files.
type environment struct {
	vars    map[string]string
	files   map[string]string // X: the value of X_FILE
	secrets map[string]string // by the names that ${NAME} can have
	only    []string
	redact  *report.Redactor
	// swap replaces a secret, in the view that has others; nil otherwise.
	swap func(string) string
}

// largestValue is how large a file named by X_FILE may be.
const largestValue = largestSecret

func newEnvironment(environ []string, secrets []secretFile, only []string, redact *report.Redactor) (*environment, error) {
	e := &environment{vars: map[string]string{}, files: map[string]string{}, secrets: map[string]string{}, only: only, redact: redact}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok {
			e.vars[name] = value
		}
	}
	for name, value := range e.vars {
		if x, ok := strings.CutSuffix(name, "_FILE"); ok && x != "" && value != "" {
			e.files[x] = value
		}
	}
	for _, s := range secrets { // db-password answers for ${DB_PASSWORD} too
		e.secrets[strings.ToUpper(strings.Map(shellByte, s.name))] = s.value
	}
	for _, s := range secrets {
		e.secrets[s.name] = s.value
	}
	var problems []error
	for _, pattern := range only {
		if _, err := path.Match(pattern, ""); err != nil {
			problems = append(problems, fmt.Errorf("only %q: accepted are names and globs: [ needs its ]", pattern))
		}
	}
	return e, errors.Join(problems...)
}

func shellByte(r rune) rune {
	if r == '-' || r == '.' || r == '/' {
		return '_'
	}
	return r
}

// expands tells whether ${NAME} is syntax.
func (e *environment) expands(name string) bool {
	return len(e.only) == 0 || slices.ContainsFunc(e.only, func(pattern string) bool {
		ok, _ := path.Match(pattern, name)
		return ok
	})
}

// reference is what ${NAME} stands for: a secret, or else a variable.
func (e *environment) reference(name string) (value string, set bool, err error) {
	if value, ok := e.secrets[name]; ok {
		return e.hide(value), true, nil
	}
	return e.variable(name)
}

// variable is what .Env.NAME stands for: the variable, or when it is not set or
// empty the content of the file that NAME_FILE names.
func (e *environment) variable(name string) (value string, set bool, err error) {
	value, set = e.vars[name]
	file, named := e.files[name]
	switch {
	case named && value != "":
		return "", false, fmt.Errorf("%s and %[1]s_FILE are both set: remove one of them", name)
	case named:
		if value, err = readLimited(file, largestValue); err != nil {
			return "", false, fmt.Errorf("%s_FILE: %s: %w", name, file, err)
		}
		value = strings.TrimSuffix(value, "\n")
		e.redact.Add([]string{"SECRET=" + value})
		return e.hide(value), true, nil
	case isSecret(name, value):
		return e.hide(value), set, nil
	}
	return value, set, nil
}

// without forgets the files that are the templates' own business: what uses
// LOG_FILE itself does not want its content for LOG.
func (e *environment) without(texts []string) {
	for name := range e.files {
		if slices.ContainsFunc(texts, func(text string) bool { return uses(text, name+"_FILE") }) {
			delete(e.files, name)
		}
	}
}

// uses tells whether a text has a variable in it, in one of the ways in which
// it is written there.
func uses(text, name string) bool {
	for _, before := range [...]string{"${", ".Env.", `env "`, `.Env "`} {
		for at := 0; ; {
			i := strings.Index(text[at:], before+name)
			if i < 0 {
				break
			}
			at += i + len(before+name)
			if at == len(text) || !isNameByte(text[at], 1) {
				return true
			}
		}
	}
	return false
}

// all is .Env for those that walk through it: the variables.
func (e *environment) all() map[string]any {
	all := make(map[string]any, len(e.vars))
	for name, value := range e.vars {
		if isSecret(name, value) {
			value = e.hide(value)
		}
		all[name] = value
	}
	return all
}

func (e *environment) hide(secret string) string {
	if e.swap == nil {
		return secret
	}
	return e.swap(secret)
}

// isSecret tells whether a variable's value is a secret, or has one in it as
// URLs have passwords.
func isSecret(name, value string) bool {
	return report.SecretVariable(name, value) || (*report.Redactor)(nil).String(value) != value
}

// secretKeys are how the keys of values end that are secrets.
var secretKeys = [...]string{"PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "CREDENTIALS", "APIKEY", "ACCESSKEY", "PRIVATEKEY", "SECRETKEY", "_KEY", "_PWD", "_PASS", "_DSN"}

// isSecretKey tells the same of a value in a map.
func isSecretKey(key, value string) bool {
	folded := strings.ToUpper(strings.Map(shellByte, key))
	return value != "" && slices.ContainsFunc(secretKeys[:], func(end string) bool { return strings.HasSuffix(folded, end) }) ||
		(*report.Redactor)(nil).String(value) != value
}
