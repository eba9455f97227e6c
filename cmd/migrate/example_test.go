// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/cleanstart-dev/cleanimg-init/integration/dbtest"
)

// exampleCommand is that of the example's init container.
func exampleCommand(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../examples/kubernetes/web-app.yaml")
	require.NoError(t, err)
	type initContainer struct {
		Name    string
		Command []string
	}
	var deployment struct {
		Spec struct {
			Template struct {
				Spec struct {
					InitContainers []initContainer `yaml:"initContainers"`
				}
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &deployment))
	all := deployment.Spec.Template.Spec.InitContainers
	i := slices.IndexFunc(all, func(c initContainer) bool { return c.Name == "db-migrate" })
	require.GreaterOrEqual(t, i, 0)
	return all[i].Command
}

// configMap copies a directory as the kubelet mounts a ConfigMap: links through
// ..data.
func configMap(t *testing.T, from string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, os.CopyFS(filepath.Join(dir, "..2026_01_02_03_04_05.123456789"), os.DirFS(from)))
	require.NoError(t, os.Symlink("..2026_01_02_03_04_05.123456789", filepath.Join(dir, "..data")))
	entries, err := os.ReadDir(from)
	require.NoError(t, err)
	for _, e := range entries {
		require.NoError(t, os.Symlink(filepath.Join("..data", e.Name()), filepath.Join(dir, e.Name())))
	}
	return dir
}

// The example, and the command of the product page, in which the kubelet puts
// the password into the URL: three replicas, a ConfigMap, a password with
// special characters.
func TestExample(t *testing.T) {
	t.Parallel()
	const password = "s3cr3t/with@signs"
	const page = "postgresql://webapp:$(DB_PASSWORD)@postgres.database.svc.cluster.local:5432/webapp?sslmode=require"
	for name, tt := range map[string]struct {
		command  []string
		variable string
	}{
		"example":      {exampleCommand(t), "PGPASSWORD"},
		"product page": {[]string{"/usr/local/bin/migrate", "--source", "file:///migrations", "--database", page, "up"}, "DB_PASSWORD"},
	} {
		t.Run(name, func(t *testing.T) {
			runExample(t, tt.command[1:], tt.variable, password)
		})
	}
}

func runExample(t *testing.T, args []string, variable, password string) {
	db := dbtest.NewPostgres(t)
	u, err := url.Parse(db)
	require.NoError(t, err)
	pg, name := dbtest.Postgres(t), u.Path[1:]
	// A role is the whole server's, and the other form has it, too.
	user := "webapp_" + strings.ToLower(variable)
	pg.Psql(t, name, "CREATE ROLE "+user+" LOGIN PASSWORD '"+password+"'; GRANT ALL ON SCHEMA public TO "+user)
	pg.AskPassword(t, user)
	mount := configMap(t, "../../examples/migrate/migrations")
	for i, arg := range args {
		args[i] = strings.NewReplacer("file:///migrations", "file://"+mount, "$(DB_PASSWORD)", password, "//webapp", "//"+user,
			"postgres.database.svc.cluster.local:5432/webapp?sslmode=require", u.Host+u.Path+"?sslmode=disable").Replace(arg)
	}
	replicas := make([]*exec.Cmd, 3)
	logs := make([]bytes.Buffer, len(replicas))
	for i := range replicas {
		replicas[i] = command(args...)
		replicas[i].Env = append(replicas[i].Env, variable+"="+password)
		replicas[i].Stderr = &logs[i]
		require.NoError(t, replicas[i].Start())
	}
	ran := 0
	for i, replica := range replicas {
		require.NoError(t, replica.Wait(), logs[i].String())
		ran += strings.Count(logs[i].String(), "migration done")
		assert.NotContains(t, logs[i].String(), "s3cr3t")
	}
	assert.Equal(t, 2, ran, "each migration is run by one replica")
	assert.Equal(t, "2|f", pg.Psql(t, name, "SELECT version, dirty FROM schema_migrations"))
	pg.Psql(t, name, "INSERT INTO users (username, email) VALUES ('a', 'a@b')")
	assert.Equal(t, "user", pg.Psql(t, name, "SELECT role FROM users"))
	assert.Equal(t, "0", pg.Psql(t, name, "SELECT count(*) FROM sessions"))
	assert.Equal(t, "idx_users_role", pg.Psql(t, name, "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'idx%'"))
}
