// SPDX-License-Identifier: Apache-2.0

package integration

import (
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
	for _, program := range []string{"postgres", "initdb", "psql"} {
		root.program(filepath.Join(bin, program))
	}
	root.tree(filepath.Join(filepath.Dir(bin), "lib"), filepath.Join(filepath.Dir(bin), "lib"),
		func(name string, dir bool) bool { return dir }) // the folders hold bitcode for the compiler
	share := "/usr/share/postgresql/" + filepath.Base(filepath.Dir(bin))
	root.tree(share, share, func(name string, dir bool) bool { return dir && (name == "man" || name == "extension/locale") })
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
