// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDockerPostgres makes the database in a hook and then serves it.
//
// initdb starts the server through popen(3), that is through /bin/sh, so this
// image alone has a shell. Neither cleanimg-init nor postgres uses it.
func TestDockerPostgres(t *testing.T) {
	bin := postgresBin(t)
	needDocker(t, bin+"/postgres", bin+"/initdb", bin+"/psql", "/bin/busybox")
	t.Parallel()

	root := newAppRoot(t)
	root.postgres(bin, "postgres", "initdb", "psql")
	root.file("/etc/passwd", 0o644, "nonroot:x:65532:65532::/tmp:/sbin/nologin\n") // initdb asks for its user's name
	root.copy("/bin/busybox", "/bin/sh")
	root.hook("10-gate", "await /tmp/gate\n")
	root.hook("20-initdb.yaml", `run: [`+bin+`/initdb, --pgdata, "${PGDATA}", --username, postgres, --auth, trust, --no-locale, --encoding, UTF8, --no-sync]
env: {TZ: UTC}
timeout: 2m
`)
	c := startContainer(t, root.appImage("ENV PGDATA=/data/db"),
		[]string{
			"--tmpfs", "/data:uid=65532,gid=65532,mode=0700", "--env", "CLEANIMG_INIT_SIGNAL_REWRITE=TERM:INT",
			"--env", "CLEANIMG_INIT_NOTIFY=main", "--env", "CLEANIMG_INIT_READINESS_CHECK=unix:///tmp/.s.PGSQL.5432",
		},
		bin+"/postgres", "-k", "/tmp", "-c", "listen_addresses=127.0.0.1")
	probes := c.prober()
	query := func(sql string) (string, int) {
		return c.exec(bin+"/psql", "-h", "127.0.0.1", "-U", "postgres", "-Atc", sql)
	}

	probes.becomes("/health/live", 200)
	probes.answers(503, 200, 503)
	c.open()
	probes.becomes("/health/ready", 200)
	answer, code := query("SELECT 1")
	require.Zero(t, code, "ready means that it accepts connections: %s", answer)
	assert.Equal(t, "1", answer)
	_, status := probes.get("/status")
	assert.Contains(t, status, `"notify":{"ready":true`, "postgres is built with systemd's library")

	// TERM would make postgres wait for this session; INT, which TERM is
	// rewritten to, makes it say goodbye.
	session := make(chan string, 1)
	go func() { out, _ := query("SELECT pg_sleep(60)"); session <- out }()
	require.Eventually(t, func() bool {
		n, _ := query("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()")
		return n == "1"
	}, patience, 100*time.Millisecond)

	code, took := c.stop()

	assert.Equal(t, 0, code)
	assert.Less(t, took, 20*time.Second)
	assert.Contains(t, c.log(), "received fast shutdown request")
	assert.Contains(t, c.log(), "database system is shut down")
	assert.Contains(t, <-session, "terminating connection due to administrator command")
}

// TestDockerNewDatabase starts the image of examples/docker/postgres, which has
// no shell, on a new volume, and again on one that it has filled.
func TestDockerNewDatabase(t *testing.T) {
	bin := postgresBin(t)
	needDocker(t, bin+"/postgres", bin+"/initdb", bin+"/psql", "/bin/busybox")
	t.Parallel()
	image, volume := newExampleImages(t).postgres(), newVolume(t)
	mount := []string{"--volume", volume + ":/data"}
	failing := func(want string, options ...string) {
		t.Helper()
		termination := mountedLog(t)
		c := startContainer(t, image, append(append(options, mount...), "--volume", termination+":"+messagePath))
		assert.Equal(t, 1, c.wait())
		message, err := os.ReadFile(termination)
		require.NoError(t, err)
		assert.Contains(t, string(message), "20-newdb")
		assert.Contains(t, string(message), want)
	}
	as := func(c *dockerContainer, user, password, sql string) (string, int) {
		return dockerTry("exec", "--env", "PGPASSWORD="+password, c.name, bin+"/psql", "-h", "127.0.0.1", "-U", user, "-d", "shop", "-Atqc", sql)
	}

	failing("newdb: there is no password: set POSTGRES_PASSWORD_FILE, or POSTGRES_PASSWORD")
	failing("newdb: POSTGRES_PASSWORD_FILE: open /nowhere: no such file or directory", "--env", "POSTGRES_PASSWORD_FILE=/nowhere")
	failing(`role "postgres" already exists`, "--env", "POSTGRES_PASSWORD=x", "--env", "APP_USER=postgres", "--env", "APP_PASSWORD=s3cret")

	const password = `it's \ "odd" :'x' ${y}`
	c := startContainer(t, image, append(mount, "--env", "POSTGRES_PASSWORD="+password, "--env", "APP_USER=shop", "--env", "APP_PASSWORD=apart"))
	c.prober().becomes("/health/ready", 200)
	out, code := as(c, "postgres", password, "SELECT rolsuper FROM pg_roles WHERE rolname = 'shop'")
	require.Zero(t, code, out)
	assert.Equal(t, "f", out)
	out, code = as(c, "shop", "apart", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
	require.Zero(t, code, out)
	for _, wrong := range []string{"", "apart"} {
		_, code = as(c, "postgres", wrong, "SELECT 1")
		assert.NotZero(t, code, "nobody gets in without the password")
	}
	_, code = c.exec("/bin/sh", "-c", "true")
	assert.NotZero(t, code, "there is no shell")
	code, _ = c.stop()
	assert.Zero(t, code)
	assert.NotContains(t, c.log(), password)

	c = startContainer(t, image, mount) // the passwords are in the database
	c.prober().becomes("/health/ready", 200)
	out, code = as(c, "shop", "apart", "SELECT n FROM kept")
	require.Zero(t, code, out)
	assert.Equal(t, "7", out)
	code, _ = c.stop()
	assert.Zero(t, code)
}

// postgresBin is the folder of the newest server that is installed, where
// Debian puts it.
func postgresBin(t *testing.T) string {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	require.NoError(t, err)
	if len(found) == 0 {
		return "/usr/lib/postgresql/15/bin" // named by the reason for the skip
	}
	return found[len(found)-1]
}
