// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fixture is a template directory and an output directory of a test.
type fixture struct {
	t *testing.T
	Options
	log bytes.Buffer
}

// setUp makes a template directory of these files.
func setUp(t *testing.T, templates map[string]string) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{t: t, Options: Options{TemplateDir: filepath.Join(dir, "templates"), OutputDir: filepath.Join(dir, "out")}}
	f.Log = slog.New(slog.NewTextHandler(&f.log, nil))
	require.NoError(t, os.Mkdir(f.TemplateDir, 0o755))
	f.templates(templates)
	return f
}

func (f *fixture) templates(files map[string]string) {
	f.t.Helper()
	for name, content := range files {
		writeFile(f.t, filepath.Join(f.TemplateDir, name), content)
	}
}

func writeFile(t testing.TB, name, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, []byte(content), 0o644))
}

// secrets adds a secrets directory.
func (f *fixture) secrets(files map[string]string) {
	f.t.Helper()
	dir := f.t.TempDir()
	for name, content := range files {
		writeFile(f.t, filepath.Join(dir, name), content)
	}
	f.SecretDirs = append(f.SecretDirs, dir)
}

func (f *fixture) render() *Output {
	f.t.Helper()
	out, err := Render(f.t.Context(), f.Options)
	require.NoError(f.t, err)
	return out
}

// content renders and returns one file.
func (f *fixture) content(name string) string {
	f.t.Helper()
	return string(f.file(name).content)
}

func (f *fixture) file(name string) file {
	f.t.Helper()
	for _, each := range f.render().files {
		if each.name == name {
			return each
		}
	}
	require.Fail(f.t, "not in the output", name)
	return file{}
}

// fails renders, which has to fail, and returns the problems.
func (f *fixture) fails() []string {
	f.t.Helper()
	_, err := Render(f.t.Context(), f.Options)
	require.Error(f.t, err)
	return strings.Split(err.Error(), "\n")
}

func (f *fixture) commit() Result {
	f.t.Helper()
	result, err := f.render().Commit(f.t.Context())
	require.NoError(f.t, err)
	return result
}

// read reads a file of the output directory.
func (f *fixture) read(name string) string {
	f.t.Helper()
	data, err := os.ReadFile(filepath.Join(f.OutputDir, name))
	require.NoError(f.t, err)
	return string(data)
}

func (f *fixture) mode(name string) fs.FileMode {
	f.t.Helper()
	info, err := os.Stat(filepath.Join(f.OutputDir, name))
	require.NoError(f.t, err)
	return info.Mode().Perm()
}

// onlyHas checks which names there are in the output directory, hidden ones too.
func (f *fixture) onlyHas(names ...string) {
	f.t.Helper()
	entries, err := os.ReadDir(f.OutputDir)
	require.NoError(f.t, err)
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	assert.ElementsMatch(f.t, names, have)
}

func (f *fixture) diff() (string, bool) {
	f.t.Helper()
	var b bytes.Buffer
	different, err := f.render().Diff(&b)
	require.NoError(f.t, err)
	return b.String(), different
}
