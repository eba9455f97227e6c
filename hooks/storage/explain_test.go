// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A volume is mounted where the directory is wanted, not where it is missing.
func TestVolumeForAReadOnlyRoot(t *testing.T) {
	t.Parallel()
	root := mount{root: true, readOnly: true}
	assert.Contains(t, (&target{path: "the directory of /app", missing: "/app"}).help(unix.EROFS, root), "- {name: data, mountPath: /app}")
	assert.Contains(t, (&target{path: "/app/data"}).help(unix.EROFS, root), "- {name: data, mountPath: /app/data}")

	parent, err := os.Open(t.TempDir())
	require.NoError(t, err)
	defer parent.Close()
	var explained *Explained
	require.ErrorAs(t, explainPath(int(parent.Fd()), "/app", unix.EACCES), &explained)
	assert.Contains(t, explained.Facts, "the directory of /app is ")
}
