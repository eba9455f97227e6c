// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// On a full disk SQLite is at the last version that was whole, not dirty, and
// the next run completes it.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	volume := t.TempDir()
	if err := unix.Mount("tmpfs", volume, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("a tmpfs can't be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(volume, unix.MNT_DETACH) })
	file := volume + "/app.db"
	options := []string{"--database", "sqlite://" + file, "--path", write(t, t.TempDir(), map[string]string{
		"1_a.up.sql": "CREATE TABLE a (x);\nINSERT INTO a VALUES ('whole');",
		"2_b.up.sql": "CREATE TABLE b (x);\nINSERT INTO b VALUES ('small');\nINSERT INTO b VALUES (randomblob(1000000));",
		"3_c.up.sql": "CREATE TABLE c (x);",
	})}
	run := func(words ...string) (code int, stdout, stderr string) {
		return migrate(nil, append(options, words...)...)
	}

	code, _, stderr := run("up")
	assert.Equal(t, 125, code)
	assert.Contains(t, stderr, "2_b.up.sql")
	assert.Contains(t, stderr, "database or disk is full")
	code, stdout, stderr := run("version")
	require.Equal(t, 0, code, stderr)
	assert.Equal(t, "1\n", stdout, "not dirty")
	assert.Equal(t, "a", sqliteQuery(t, file, "SELECT group_concat(name) FROM sqlite_master WHERE type = 'table' AND length(name) = 1"))

	code, _, _ = run("up")
	assert.Equal(t, 125, code, "there is still no room")
	require.NoError(t, unix.Mount("tmpfs", volume, "tmpfs", unix.MS_REMOUNT, "size=16m"))
	code, _, stderr = run("up")
	require.Equal(t, 0, code, stderr)
	assert.Equal(t, "2", sqliteQuery(t, file, "SELECT count(*) FROM b"))
	_, stdout, _ = run("version")
	assert.Equal(t, "3\n", stdout)
}
