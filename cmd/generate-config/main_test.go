// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// execute runs the tool in this process, by a name.
func execute(name string, environ []string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = tool().Execute(append([]string{"/usr/local/bin/" + name}, args...), environ, nil, &out, &err)
	return code, out.String(), err.String()
}

// templates makes a template directory, and names an output directory.
func templates(t *testing.T, files map[string]string) (from, to string) {
	t.Helper()
	dir := t.TempDir()
	from, to = filepath.Join(dir, "templates"), filepath.Join(dir, "out")
	require.NoError(t, os.Mkdir(from, 0o755))
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(from, name), []byte(content), 0o600))
	}
	return from, to
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return string(data)
}

func TestGenerate(t *testing.T) {
	t.Parallel()
	from, to := templates(t, map[string]string{
		"a.conf": "${LEVEL} ${OTHER}\n", "b.tmpl": "{{ .Environment }} {{ .Values.db.host }} {{ .Values.n }} {{ gt .Limits.Workers 0 }}", "values.production.yaml": "n: 2",
	})
	code, stdout, stderr := execute("generate-config", []string{"LEVEL=info", "GENERATE_CONFIG_TEMPLATE_DIR=" + from, "GENERATE_CONFIG_VALUE_DB__HOST=pg", "GENERATE_CONFIG_ONLY=LEVEL,NO_*"},
		"--environment", "production", "--output-dir", to, "--mode", "b=0600", "--atomic-dir")
	require.Equal(t, 0, code, stderr)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, `level=INFO msg="configuration written" output_dir=`)
	assert.Contains(t, stderr, "written=2 unchanged=0")
	assert.NotContains(t, stderr, "unknown variable")
	assert.Equal(t, "info ${OTHER}\n", read(t, to, "a.conf"))
	assert.Equal(t, "production pg 2 true", read(t, to, "b"))
	info, err := os.Stat(filepath.Join(to, "b"))
	require.NoError(t, err)
	assert.EqualValues(t, 0o600, info.Mode().Perm())
}

func TestCheck(t *testing.T) {
	t.Parallel()
	from, to := templates(t, map[string]string{"a.conf": "level = ${LEVEL}\npassword = ${DB_PASSWORD}\n"})
	check := func(level string) (int, string, string) {
		return execute("generate-config", []string{"DB_PASSWORD=hunter22", "LEVEL=" + level}, "--template-dir", from, "--output-dir", to, "--check")
	}
	code, stdout, stderr := check("info")
	assert.Equal(t, 1, code)
	assert.Contains(t, stdout, "+level = info\n+password = ***\n")
	assert.Empty(t, stderr)
	assert.NoDirExists(t, to)
	code, _, _ = execute("generate-config", []string{"DB_PASSWORD=hunter22", "LEVEL=info"}, "--template-dir", from, "--output-dir", to)
	assert.Equal(t, 0, code)
	code, stdout, _ = check("info")
	assert.Equal(t, 0, code)
	assert.Empty(t, stdout)
	code, stdout, _ = check("debug")
	assert.Equal(t, 1, code)
	assert.Contains(t, stdout, "-level = ***\n+level = debug\n password = ***\n")
	assert.Equal(t, "level = info\npassword = hunter22\n", read(t, to, "a.conf"))
	code, _, stderr = execute("generate-config", []string{"LEVEL=info"}, "--template-dir", from, "--output-dir", to, "--check")
	assert.Equal(t, 125, code)
	assert.Contains(t, stderr, "generate-config: a.conf:2: ${DB_PASSWORD} is not set")
}

func TestValidate(t *testing.T) {
	t.Parallel()
	from, to := templates(t, map[string]string{"a.yaml": "a: ${A}\n"})
	for _, call := range [][]string{{"validate-config"}, {"generate-config", "--validate"}, {"generate-config", "--validate", "--output-dir", to}} {
		code, _, stderr := execute(call[0], []string{"A=1"}, append(call[1:], "--template-dir", from)...)
		assert.Equal(t, 0, code, stderr)
		assert.Contains(t, stderr, "templates are valid")
		code, _, stderr = execute(call[0], []string{"A=: :"}, append(call[1:], "--template-dir", from)...)
		assert.Equal(t, 125, code)
		assert.Contains(t, stderr, "a.yaml:1: a.yaml would not be valid")
	}
	assert.NoDirExists(t, to)
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	code, _, stderr := execute("generate-config", []string{"GENERATE_CONFIG_OUTPUTDIR=x"}, "--mode", "x", "--mode", "a=9", "word", "--check", "--validate")
	assert.Equal(t, 125, code)
	for _, want := range []string{`option --mode "x": accepted are GLOB=0640`, `option --mode "a=9"`, `unexpected word "word"`, "--check and --validate: take one of them", "unknown variable GENERATE_CONFIG_OUTPUTDIR"} {
		assert.Contains(t, stderr, want)
	}
	code, _, stderr = execute("generate-config", nil)
	assert.Equal(t, 125, code)
	assert.Contains(t, stderr, "GENERATE_CONFIG_OUTPUT_DIR: where shall the files go?")
}
