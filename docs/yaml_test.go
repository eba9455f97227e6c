// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// checkYAML reads YAML, and has cleanimg-init judge what is a step file. What
// is Kubernetes' is decoded in ../examples/kubernetes/check, a module of its
// own.
func checkYAML(t *testing.T, text string) {
	for document := range strings.SplitSeq("\n"+text, "\n---\n") {
		var keys map[string]any
		require.NoError(t, yaml.Unmarshal([]byte(document), &keys), document)
		if keys["run"] != nil {
			checkStep(t, document)
		}
	}
}

func checkStep(t *testing.T, step string) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "10-step.yaml"), []byte(step), 0o644))
	cmd := exec.Command(filepath.Join(binDir, entrypoint), "--check")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "CLEANIMG_INIT_HOOKS_DIR=" + dir}
	out, err := cmd.CombinedOutput()
	assert.NoError(t, err, "%s", out)
}
