// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPageOfARun looks at a start that has not ended, with a real browser. What
// the page makes of all kinds of reports is tested in package probes.
func TestPageOfARun(t *testing.T) {
	t.Parallel()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	release := filepath.Join(t.TempDir(), "go")
	h := host(t, map[string][]string{
		"10-<b>bold.yaml": {"run: [" + testprogPath + ", exit, '3']", "onFailure: continue"},
		"20-wait.yaml":    {"run: [" + testprogPath + ", await, " + release + "]"},
	}, nil, testprogPath, "trap", "-on", "TERM=0")
	h.waitStatus("/health/live", 200)

	// --no-sandbox: it refuses to run as root with one. Virtual time passes as
	// soon as nothing is being loaded.
	cmd := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir="+t.TempDir(),
		"--virtual-time-budget=3000", "--dump-dom", "http://"+h.Addr+"/")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	dom, err := cmd.Output()
	require.NoError(t, err)
	for _, text := range []string{">Starting</h1>", "step 20-wait · 2 of 2", "<b class=\"\">10-&lt;b&gt;bold</b>", "! failed</span>", "▸ running</span>", " · " + h.Addr} {
		assert.Contains(t, string(dom), text)
	}
	require.NoError(t, os.WriteFile(release, nil, 0o600))
	h.waitStatus("/health/ready", 200)
}
