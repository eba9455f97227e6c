// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// source is a file below the template directory that becomes one of the output.
type source struct {
	name       string // below the template directory, with slashes
	output     string // below the output directory
	content    string
	executable bool
}

// template tells whether it is a Go template; other text files only have their
// variables expanded.
func (s source) template() bool { return strings.HasSuffix(s.name, templateSuffix) }

// binary tells whether the file is copied as it is: what has a NUL byte is no
// text.
func (s source) binary() bool { return strings.IndexByte(s.content, 0) >= 0 }

// partial is a file of definitions for the templates' template and include.
type partial struct{ name, content string }

const (
	templateSuffix = ".tmpl"
	schemaSuffix   = ".schema.json"
	partialPattern = "_*.tpl"
	valuesPattern  = "values*.yaml"
)

// tree is what the template directory has.
type tree struct {
	sources  []source
	partials []partial
	values   []string          // the names of values*.yaml at the top
	schemas  map[string]string // content by name
}

// readTree reads the template directory. Links are followed, and what begins
// with two dots is skipped: that is how ConfigMap volumes are made.
func readTree(dir string) (*tree, error) {
	t := &tree{schemas: map[string]string{}}
	if err := t.walk(dir, "", nil); err != nil {
		return nil, err
	}
	if len(t.sources) == 0 {
		return nil, fmt.Errorf("template directory %s has no templates: nothing to do", dir)
	}
	byOutput := map[string]string{}
	var problems []error
	for _, s := range t.sources {
		if other, ok := byOutput[s.output]; ok {
			problems = append(problems, fmt.Errorf("%s and %s both become %s: remove one", other, s.name, s.output))
		}
		byOutput[s.output] = s.name
	}
	for name := range byOutput {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if file, ok := byOutput[dir]; ok {
				problems = append(problems, fmt.Errorf("%s becomes the file %s, which %s needs as a directory", file, dir, byOutput[name]))
			}
		}
	}
	return t, errors.Join(problems...)
}

// walk reads dir, which is below the template directory at rel. Above are the
// directories that it is in, so that a link to one of them ends.
func (t *tree) walk(dir, rel string, above []os.FileInfo) error {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return fmt.Errorf("template directory: %w", err)
	case !info.IsDir():
		return fmt.Errorf("template directory %s is a file", dir)
	case slices.ContainsFunc(above, func(a os.FileInfo) bool { return os.SameFile(a, info) }):
		return fmt.Errorf("template directory: %s is a link to a directory that it is in", dir)
	}
	above = append(above, info)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("template directory: %w", err)
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
			problems = append(problems, fmt.Errorf("template %s: %w", name, errors.Unwrap(err)))
		case info.IsDir():
			problems = append(problems, t.walk(file, name, above))
		case !info.Mode().IsRegular():
			problems = append(problems, fmt.Errorf("template %s is neither a file nor a directory", name))
		default:
			problems = append(problems, t.add(file, name, info.Mode()))
		}
	}
	return errors.Join(problems...)
}

// add reads one file.
func (t *tree) add(file, name string, mode fs.FileMode) error {
	base := path.Base(name)
	if ok, _ := path.Match(valuesPattern, base); ok {
		if base == name {
			t.values = append(t.values, name)
		}
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("template %s: %w", name, errors.Unwrap(err))
	}
	content := string(data)
	if strings.HasSuffix(base, schemaSuffix) {
		t.schemas[name] = content
		return nil
	}
	if ok, _ := path.Match(partialPattern, base); ok {
		t.partials = append(t.partials, partial{name, content})
		return nil
	}
	s := source{name: name, output: name, content: content, executable: mode.Perm()&0o111 != 0}
	if s.template() {
		if s.output = strings.TrimSuffix(name, templateSuffix); s.output == "" || strings.HasSuffix(s.output, "/") {
			return fmt.Errorf("template %s: nothing is left of its name without %s", name, templateSuffix)
		}
	}
	t.sources = append(t.sources, s)
	return nil
}

// readLimited reads a regular file of at most limit bytes.
func readLimited(name string, limit int) (string, error) {
	// Without O_NONBLOCK a fifo would keep us here for ever.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", errors.Unwrap(err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", errors.Unwrap(err)
	case !info.Mode().IsRegular():
		return "", errors.New("not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	switch {
	case err != nil:
		return "", errors.Unwrap(err)
	case len(data) > limit:
		return "", fmt.Errorf("larger than %d KiB", limit>>10)
	}
	return string(data), nil
}
