// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

// WithEnv returns env with the entries of add. An entry takes the place of the
// last earlier one of the same name, or comes at the end. The order is kept and
// env is not changed.
func WithEnv(env []string, add ...string) []string {
	merged := slices.Clone(env)
	if len(add) == 0 {
		return merged
	}
	// By index: a hook may export as many variables as fit in a mebibyte.
	at := make(map[string]int, len(merged))
	for i, entry := range merged {
		at[entryName(entry)] = i
	}
	for _, entry := range add {
		name := entryName(entry)
		if i, ok := at[name]; ok {
			merged[i] = entry
			continue
		}
		at[name] = len(merged)
		merged = append(merged, entry)
	}
	return merged
}

// WithoutEnv returns env without the variables of these names.
func WithoutEnv(env []string, names ...string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(entry string) bool {
		return slices.Contains(names, entryName(entry))
	})
}

// lookupIn returns a lookup function over env, in which a later entry wins.
func lookupIn(env []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, entry := range slices.Backward(env) {
			if value, ok := strings.CutPrefix(entry, name); ok && strings.HasPrefix(value, "=") {
				return value[1:], true
			}
		}
		return "", false
	}
}

func entryName(entry string) string {
	name, _, _ := strings.Cut(entry, "=")
	return name
}

// longestValue is what fits in one string of execve(2) beside a name
// (MAX_ARG_STRLEN is 128 KiB); more would keep every program from starting.
const longestValue = 127 << 10

// EnvFiles returns env in which X_FILE=/path has become X with the content of
// the file, without one trailing newline, for each X that is named by a pattern
// (a name or a glob as of [path.Match]). X_FILE is removed. An empty X_FILE is
// removed and means nothing; an empty X counts as not set. Our own settings are
// never meant.
//
// It is an error when a file can't be read or both are set; all of these are
// reported at once.
func EnvFiles(env []string, patterns []string) ([]string, error) {
	var problems []error
	for _, pattern := range patterns {
		if _, err := path.Match(pattern, ""); err != nil {
			problems = append(problems, fmt.Errorf("CLEANIMG_INIT_ENV_FILES: %q is not a name or glob: [ needs its ]", pattern))
		}
	}
	if len(patterns) == 0 || len(problems) > 0 {
		return env, errors.Join(problems...)
	}
	lookup := lookupIn(env)
	var remove, add []string
	for _, entry := range env {
		variable := entryName(entry)
		name, isFile := strings.CutSuffix(variable, "_FILE")
		if !isFile || !matches(patterns, name) || slices.Contains(remove, variable) {
			continue
		}
		if strings.HasPrefix(name, ownPrefix) { // CLEANIMG_INIT_REPORT_FILE is a setting
			continue
		}
		remove = append(remove, variable)
		file, _ := lookup(variable)
		if file == "" {
			continue
		}
		if value, _ := lookup(name); value != "" {
			problems = append(problems, fmt.Errorf("%s and %s are both set: remove one of them", name, variable))
			continue
		}
		content, err := readValue(file)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", variable, err))
			continue
		}
		add = append(add, name+"="+content)
	}
	return WithEnv(WithoutEnv(env, remove...), add...), errors.Join(problems...)
}

// Secret returns the value of a variable, or the content of the file that its
// twin with _FILE names, as [EnvFiles] reads it. Empty counts as not set. The
// errors name the variables and neither path nor content.
func Secret(env []string, name string) (value string, found bool, err error) {
	env, err = EnvFiles(env, []string{name})
	if err != nil {
		return "", false, err
	}
	value, _ = lookupIn(env)(name)
	return value, value != "", nil
}

func matches(patterns []string, name string) bool {
	return name != "" && slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, _ := path.Match(pattern, name)
		return ok
	})
}

// readValue reads a file that is to become the value of a variable. Its errors
// name neither the path nor the content: the path is a variable's value.
func readValue(file string) (string, error) {
	// Without O_NONBLOCK a fifo would keep us here for ever.
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("open the file that it names: %w", errors.Unwrap(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		return "", errors.New("what it names is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, longestValue+2))
	if err != nil {
		return "", fmt.Errorf("read the file that it names: %w", errors.Unwrap(err))
	}
	value := strings.TrimSuffix(string(data), "\n")
	switch {
	case len(value) > longestValue:
		return "", fmt.Errorf("the file that it names is larger than a variable can be (%d KiB)", longestValue>>10)
	case strings.ContainsRune(value, 0):
		return "", errors.New("the file that it names has a NUL byte, which no variable can hold")
	}
	return value, nil
}
