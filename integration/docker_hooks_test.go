// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDockerHooksExample runs examples/hooks.d as it is, with a PostgreSQL and a
// Redis, and a program in the place of the application's.
func TestDockerHooksExample(t *testing.T) {
	bin := postgresBin(t)
	needDocker(t, "/usr/bin/redis-server", bin+"/postgres", bin+"/initdb", bin+"/psql", "/bin/busybox")
	t.Parallel()
	example, network := newExampleImages(t), newNetwork(t)
	db := database(t, network, example.postgres())
	service(t, network, "cache", example.redis(), []string{"--env", "REDIS_PASSWORD=secret"})

	root := newAppRoot(t)
	for _, tool := range []string{"await", "migrate"} {
		root.copy(Binary(t, tool), "/usr/local/bin/"+tool)
	}
	root.tree("../examples/hooks.d", hooksDir, nil)
	root.tree("../examples/migrate/migrations", "/migrations", nil)
	root.file("/app/bin/server", 0o755, "#!/bin/testprog script\nexit 9\n")
	image := root.appImage()
	run := func(options ...string) *dockerContainer {
		return startContainer(t, image, append([]string{"--network", network}, options...), "/bin/testprog", "print", "the command ran")
	}

	unset := run()
	assert.Equal(t, 125, unset.wait())
	assert.Contains(t, unset.log(), "set it to the URL of the database")

	c := run("--env", "PGPASSWORD=change-me", "--env", "REDIS_PASSWORD=secret",
		"--env", "DATABASE_URL=postgres://webapp@postgres.database.svc.cluster.local/webapp?sslmode=require")
	require.Zero(t, c.wait())
	assert.Contains(t, c.log(), "the command ran")
	assert.Contains(t, c.log(), `hooks_take="at most`)
	assert.Equal(t, "2|f", query(t, db, "webapp", "SELECT version, dirty FROM schema_migrations"))
	assert.Contains(t, c.log(), "step=20-warm attempt=3", "what is nice to have is tried again, and then left")
}
