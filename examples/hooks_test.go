// SPDX-License-Identifier: Apache-2.0

// Package examples holds what users copy. Its test keeps the hooks valid.
package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestHooksCheck lets cleanimg-init itself judge the hooks. Their programs are
// not on this machine, which is worth a warning but no error.
func TestHooksCheck(t *testing.T) {
	program := filepath.Join(t.TempDir(), "cleanimg-init")
	out, err := exec.Command("go", "build", "-o", program, "../cmd/cleanimg-init").CombinedOutput()
	require.NoError(t, err, "%s", out)

	dir, err := filepath.Abs("hooks.d")
	require.NoError(t, err)
	cmd := exec.Command(program, "--check")
	cmd.Env = append(os.Environ(), "CLEANIMG_INIT_HOOKS_DIR="+dir)
	out, err = cmd.CombinedOutput()

	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "05-await")
	assert.Contains(t, string(out), "10-migrate")
	assert.Contains(t, string(out), "20-warm")
	assert.NotContains(t, string(out), "README")
}
