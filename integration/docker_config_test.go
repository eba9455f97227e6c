// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDockerGenerateConfig renders as an init container does: uid 65532, a
// read-only root, no capabilities, templates in the image, secrets mounted, and
// a volume that only its group may write, as an fsGroup volume is. Then the
// application's container finds the files.
func TestDockerGenerateConfig(t *testing.T) {
	needDocker(t)
	t.Parallel()

	root := newAppRoot(t)
	root.copy(Binary(t, "generate-config"), "/usr/local/bin/generate-config")
	root.link("/usr/local/bin/validate-config", "generate-config")
	root.file("/templates/app.yaml.tmpl", 0o644, "environment: {{ .Environment }}\nworkers: {{ .Limits.Workers }}\nmemory: {{ .Limits.Memory }}\ncpu: {{ .Limits.CPU }}\n")
	root.file("/templates/conf.d/db.conf", 0o644, "user=${DB_USER:-app} password=${DB_PASSWORD}\n")
	root.file("/run/secrets/DB_PASSWORD", 0o444, "hunter22\n")
	root.dir("/config", 0o2770, 65532)
	image := root.image()
	volume := docker(t, "volume", "create", labName(t))
	t.Cleanup(func() { dockerTry("volume", "rm", "--force", volume) })
	generate := func(program string, args ...string) *dockerContainer {
		options := []string{"--volume", volume + ":/config", "--memory", "256m", "--cpus", "0.5", "--entrypoint", "/usr/local/bin/" + program}
		return startContainer(t, image, options, append([]string{"--environment", "production", "--secrets-dir", "/run/secrets"}, args...)...)
	}

	assert.Equal(t, 0, generate("validate-config").wait())
	check := generate("generate-config", "--output-dir", "/config", "--check")
	assert.Equal(t, 1, check.wait())
	assert.Contains(t, check.log(), "+user=app password=***")
	for _, option := range []string{"--atomic-dir", "--atomic-dir=true"} { // the second time nothing changes
		assert.Equal(t, 0, generate("generate-config", "--output-dir", "/config", option).wait())
	}
	app := startContainer(t, image, []string{"--volume", volume + ":/config", "--entrypoint", "/bin/testprog"},
		"cat", "/config/app.yaml", ";", "cat", "/config/conf.d/db.conf")
	assert.Equal(t, 0, app.wait())
	assert.Contains(t, app.log(), "environment: production\nworkers: 1\nmemory: 268435456\ncpu: 0.5\n")
	assert.Contains(t, app.log(), "user=app password=hunter22")

	same := generate("generate-config", "--output-dir", "/config", "--check", "--atomic-dir")
	assert.Equal(t, 0, same.wait(), same.log())
	readOnly := startContainer(t, image, []string{"--entrypoint", "/usr/local/bin/generate-config"}, "--secrets-dir", "/run/secrets", "--output-dir", "/nowhere")
	assert.Equal(t, 125, readOnly.wait())
	assert.Contains(t, readOnly.log(), "output directory: mkdir /nowhere: read-only file system")
}

// TestDockerGenerateConfigOntoMountedFile writes a file on which another is
// mounted, as subPath volumes are, in a directory that is read-only.
func TestDockerGenerateConfigOntoMountedFile(t *testing.T) {
	needDocker(t)
	t.Parallel()

	root := newAppRoot(t)
	root.copy(Binary(t, "generate-config"), "/usr/local/bin/generate-config")
	root.file("/templates/app.conf", 0o644, "level=${LEVEL}\n")
	root.file("/etc/app/app.conf", 0o644, "from the image\n")
	image := root.image()
	mounted := filepath.Join(t.TempDir(), "app.conf")
	require.NoError(t, os.WriteFile(mounted, []byte("a long line from the volume\n"), 0o600))
	require.NoError(t, os.Chmod(mounted, 0o666))

	options := []string{"--volume", mounted + ":/etc/app/app.conf", "--env", "LEVEL=info", "--entrypoint", "/usr/local/bin/generate-config"}
	for _, want := range []string{"written=1 unchanged=0", "written=0 unchanged=1"} {
		c := startContainer(t, image, options, "--output-dir", "/etc/app")
		assert.Equal(t, 0, c.wait(), c.log())
		assert.Contains(t, c.log(), want)
	}
	data, err := os.ReadFile(mounted)
	require.NoError(t, err)
	assert.Equal(t, "level=info\n", string(data))
}
