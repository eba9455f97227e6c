// SPDX-License-Identifier: Apache-2.0

// Package examples holds what users copy. Its test keeps the hooks valid.
package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// check lets cleanimg-init judge a folder of hooks, and returns what it prints.
func check(t *testing.T, hooks string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "cleanimg-init")
	out, err := exec.Command("go", "build", "-o", program, "../cmd/cleanimg-init").CombinedOutput()
	require.NoError(t, err, "%s", out)
	dir, err := filepath.Abs(hooks)
	require.NoError(t, err)
	cmd := exec.Command(program, "--check")
	cmd.Env = append(os.Environ(), "CLEANIMG_INIT_HOOKS_DIR="+dir)
	out, err = cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// TestHooksCheck lets cleanimg-init itself judge the hooks. Their programs are
// not on this machine, which is worth a warning but no error.
func TestHooksCheck(t *testing.T) {
	out := check(t, "hooks.d")
	assert.Regexp(t, hooksLimit, out, "a startup probe has to know")
	assert.Contains(t, out, "05-await")
	assert.Contains(t, out, "10-migrate")
	assert.Contains(t, out, "20-warm")
	assert.NotContains(t, out, "README")
}

var hooksLimit = regexp.MustCompile(`(?m)^hooks: \d+, at most (\S+)$`)

// TestStartPeriods: while the hooks run, which may take long, a container must
// not be called unhealthy.
func TestStartPeriods(t *testing.T) {
	text, err := os.ReadFile("compose/compose.yaml")
	require.NoError(t, err)
	var project struct {
		Services map[string]struct {
			Healthcheck struct {
				StartPeriod string `yaml:"start_period"`
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &project))
	compare := func(name, period, hooks string) {
		limit := hooksLimit.FindStringSubmatch(check(t, hooks))
		require.NotNil(t, limit, name)
		longest, err := time.ParseDuration(limit[1])
		require.NoError(t, err)
		got, err := time.ParseDuration(period)
		require.NoError(t, err, name)
		assert.Greater(t, got, longest, name)
	}
	compare("compose app", project.Services["app"].Healthcheck.StartPeriod, "compose/hooks.d")
	compare("compose db", project.Services["db"].Healthcheck.StartPeriod, "docker/postgres/hooks.d")
	for _, image := range []string{"nginx", "postgres", "redis"} {
		text, err := os.ReadFile("docker/" + image + "/Dockerfile")
		require.NoError(t, err)
		period := regexp.MustCompile(`(?m)^HEALTHCHECK .*--start-period=(\S+)`).FindStringSubmatch(string(text))
		require.NotNil(t, period, image)
		compare(image, period[1], "docker/"+image+"/hooks.d")
	}
}

// TestAwaitInitContainer gives the command of the manifest to await: its
// services are not here, but there is nothing wrong with the command.
func TestAwaitInitContainer(t *testing.T) {
	program := filepath.Join(t.TempDir(), "await")
	out, err := exec.Command("go", "build", "-o", program, "../cmd/await").CombinedOutput()
	require.NoError(t, err, "%s", out)

	text, err := os.ReadFile("kubernetes/await-services.yaml")
	require.NoError(t, err)
	var deployment struct {
		Spec struct {
			Template struct {
				Spec struct {
					InitContainers []struct{ Command, Args []string } `yaml:"initContainers"`
				}
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &deployment))
	await := deployment.Spec.Template.Spec.InitContainers[0]
	cmd := exec.Command(program, slices.Concat(await.Command[1:], await.Args, []string{"--timeout", "200ms"})...)
	cmd.Env = []string{"REDIS_PASSWORD=y"}
	out, err = cmd.CombinedOutput()

	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, 124, exit.ExitCode(), "%s", out)
}
