// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestWithEnv(t *testing.T) {
	env := []string{"A=1", "B=2", "A=3"}
	assert.Equal(t, []string{"A=1", "B=4", "A=3", "C=5"}, WithEnv(env, "B=4", "C=0", "C=5"))
	assert.Equal(t, []string{"A=1", "B=2", "A=9"}, WithEnv(env, "A=9"), "the last is what counts")
	assert.Equal(t, []string{"A=1", "B=2", "A=3"}, env)
	assert.Empty(t, WithEnv(nil))
}

func TestEnvFiles(t *testing.T) {
	dir := t.TempDir()
	password := write(t, filepath.Join(dir, "password"), "hunter2\n\n", 0o600)
	key := write(t, filepath.Join(dir, "key"), "k", 0o600)
	env := []string{
		"DB_PASSWORD_FILE=" + password, "API_KEY_FILE=" + key, "API_EMPTY_FILE=", "LOG_FILE=/var/log/x",
		"API_KEY=", "OTHER=1",
	}
	settings := []string{"CLEANIMG_INIT_REPORT_FILE=/no/such"}
	got, err := EnvFiles(settings, []string{"*", "CLEANIMG_INIT_REPORT"})
	require.NoError(t, err)
	assert.Equal(t, settings, got)

	got, err = EnvFiles(env, []string{"DB_PASSWORD", "API_*", "MISSING"})
	require.NoError(t, err)
	assert.Equal(t, []string{"LOG_FILE=/var/log/x", "API_KEY=k", "OTHER=1", "DB_PASSWORD=hunter2\n"}, got)

	got, err = EnvFiles(env, nil)
	require.NoError(t, err)
	assert.Equal(t, env, got)
}

func TestEnvFilesErrors(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	_, err := EnvFiles([]string{
		"A_FILE=" + write(t, filepath.Join(dir, "a"), "x", 0o600), "A=hunter2",
		"B_FILE=" + dir + "/no", "C_FILE=" + dir, "D_FILE=" + fifo,
		"E_FILE=" + write(t, filepath.Join(dir, "e"), "a\x00b", 0o600),
		"F_FILE=" + write(t, filepath.Join(dir, "f"), strings.Repeat("x", longestValue+1), 0o600),
	}, []string{"*"})
	require.EqualError(t, err, strings.Join([]string{
		"A and A_FILE are both set: remove one of them",
		"B_FILE: open the file that it names: no such file or directory",
		"C_FILE: what it names is not a regular file",
		"D_FILE: what it names is not a regular file",
		"E_FILE: the file that it names has a NUL byte, which no variable can hold",
		"F_FILE: the file that it names is larger than a variable can be (127 KiB)",
	}, "\n"))

	_, err = EnvFiles(nil, []string{"A[", "B"})
	require.EqualError(t, err, `CLEANIMG_INIT_ENV_FILES: "A[" is not a name or glob: [ needs its ]`)
}

func TestSecret(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("hunter22\n"), 0o600))
	value, found, err := Secret([]string{"PGPASSWORD=a"}, "PGPASSWORD")
	assert.Equal(t, []any{"a", true, nil}, []any{value, found, err})
	value, found, err = Secret([]string{"PGPASSWORD_FILE=" + file, "PGPASSWORD="}, "PGPASSWORD")
	assert.Equal(t, []any{"hunter22", true, nil}, []any{value, found, err})
	_, found, err = Secret([]string{"PGPASS=a"}, "PGPASSWORD")
	assert.False(t, found)
	require.NoError(t, err)
	_, _, err = Secret([]string{"PGPASSWORD_FILE=" + file, "PGPASSWORD=x"}, "PGPASSWORD")
	require.ErrorContains(t, err, "both set")
	_, _, err = Secret([]string{"PGPASSWORD_FILE=/nowhere"}, "PGPASSWORD")
	require.ErrorContains(t, err, "PGPASSWORD_FILE")
}
