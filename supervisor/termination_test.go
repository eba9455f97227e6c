// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestTerminationLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "termination-log")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	content := func() string {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(b)
	}
	l := terminationLog{path: path}

	l.write(strings.Repeat("long ", 100))
	l.write("short")
	assert.Equal(t, "short", content(), "cut to its length")
	l.add("ours is replaced")
	assert.Equal(t, "ours is replaced", content())
	l.empty()
	assert.Empty(t, content())

	require.NoError(t, os.WriteFile(path, []byte("the command's own words"), 0o600))
	l.add("not over this")
	l.retract()
	assert.Equal(t, "the command's own words", content())

	require.NoError(t, os.WriteFile(path, nil, 0o600))
	l.add("still running")
	l.retract()
	assert.Empty(t, content())
}

func TestTerminationLogIsNeverCreated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing")
	l := terminationLog{path: path}
	l.write("text")
	assert.NoFileExists(t, path)
}

func TestTerminationLogIsOnlyEverAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, unix.Mkfifo(path, 0o600))
	l := terminationLog{path: path}
	l.write("text") // neither blocks without a reader …
	r, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(r)
	l.write("text") // … nor writes where there is one
	_, err = unix.Read(r, make([]byte, 8))
	assert.ErrorIs(t, err, unix.EAGAIN)
}
