// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/cleanstart-dev/cleanimg-init/"

// imports are the packages of ours that each package may import: the arrows of
// the design, which point down only.
var imports = map[string][]string{
	"cmd/cleanimg-init":    {"cmd/internal/layout", "cmd/internal/version", "supervisor", "probes", "probes/report", "reaper"},
	"cmd/fetch":            {"cmd/internal/cli", "hooks", "hooks/download"},
	"cmd/await":            {"cmd/internal/cli", "hooks", "hooks/await", "reaper"},
	"cmd/migrate":          {"cmd/internal/cli", "hooks", "hooks/migration"},
	"cmd/init-storage":     {"cmd/internal/cli", "hooks/storage"},
	"cmd/generate-config":  {"cmd/internal/cli", "hooks/config", "reaper/cgroup"},
	"cmd/internal/cli":     {"cmd/internal/layout", "cmd/internal/version", "hooks", "probes/report", "reaper/cgroup"},
	"cmd/internal/layout":  {},
	"cmd/internal/version": {},
	"supervisor":           {"hooks", "probes", "probes/report", "reaper", "reaper/cgroup"},
	"hooks":                {"reaper"},
	"hooks/await":          {"hooks", "probes/report", "reaper"},
	"hooks/download":       {"hooks"},
	"hooks/migration":      {"hooks", "hooks/await"},
	"hooks/storage":        {"reaper/cgroup"},
	"hooks/config":         {"probes/report"},
	"probes":               {"probes/report", "reaper"},
	"probes/report":        {},
	"reaper":               {"reaper/cgroup"},
	"reaper/cgroup":        {},
}

func TestImportsPointDown(t *testing.T) {
	listed := goList(t, "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./cmd/...", "./supervisor/...", "./hooks/...", "./probes/...", "./reaper/...")
	for line := range strings.Lines(listed) {
		fields := strings.Fields(line)
		name := strings.TrimPrefix(fields[0], module)
		allowed, known := imports[name]
		assert.True(t, known, "package %s is new: say here what it may import", name)
		for _, imported := range fields[1:] {
			if ours, ok := strings.CutPrefix(imported, module); ok {
				assert.Contains(t, allowed, ours, "%s imports %s", name, ours)
			}
		}
	}
}

// What is linked into PID 1 is paid for at every start of every container, used
// or not. The tools and the tests have what is too dear for it: procfs compiles
// 22 regular expressions.
func TestWhatStaysOutOfPID1(t *testing.T) {
	deps := strings.Fields(goList(t, "-deps", "./cmd/cleanimg-init"))
	for _, heavy := range []string{"net/http", "os/exec", "crypto/tls", "html/template", "testing", "github.com/stretchr/testify/assert", "github.com/prometheus/procfs"} {
		assert.False(t, slices.Contains(deps, heavy), "cleanimg-init links %s", heavy)
	}
}

// Whoever collects a status first leaves the other with nothing, so only the
// reaper may wait for a process.
func TestOnlyTheReaperWaits(t *testing.T) {
	waits := regexp.MustCompile(`\b(Wait4|Waitid|os/exec"|StartProcess|FindProcess)\b`)
	for _, dir := range []string{"cmd", "supervisor", "hooks", "probes"} {
		require.NoError(t, filepath.WalkDir(filepath.Join("..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			assert.Empty(t, waits.FindString(string(text)), "%s waits for processes, which is the reaper's job", path)
			return err
		}))
	}
}

func goList(t *testing.T, args ...string) string {
	t.Helper()
	list := exec.Command("go", append([]string{"list"}, args...)...)
	list.Dir = ".."
	out, err := list.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}
