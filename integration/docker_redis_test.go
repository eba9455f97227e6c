// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDockerRedis runs redis-server behind three hooks: one holds the start up
// until the test lets it go on, one exports a variable, and one writes the
// configuration with it.
func TestDockerRedis(t *testing.T) {
	const server = "/usr/bin/redis-server"
	needDocker(t, server)
	t.Parallel()

	root := newAppRoot(t)
	root.program(server)
	root.copy(Binary(t, "await"), "/usr/local/bin/await")
	root.hook("10-gate", "await /tmp/gate\n")
	root.hook("20-port", "export REDIS_PORT=6400\n")
	root.hook("30-config.yaml", `run: [/bin/testprog, write, /tmp/redis.conf, "save \"\"\nport ${REDIS_PORT}\nprotected-mode ${PROTECTED:-no}\nenable-debug-command yes"]`+"\n")
	c := startContainer(t, root.appImage(),
		[]string{
			"--publish", "127.0.0.1::6400", "--env", "CLEANIMG_INIT_DRAIN_DELAY=5m", "--env",
			"CLEANIMG_INIT_READINESS_CHECK=exec:/usr/local/bin/await?arg=--once&arg=redis://127.0.0.1:6400#period=300ms&timeout=2s&failure=2",
		},
		server, "/tmp/redis.conf")
	probes, redis := c.prober(), c.address(6400)

	probes.becomes("/health/live", 200)
	probes.answers(503, 200, 503)
	_, err := exchange(redis, "PING")
	assert.Error(t, err, "the command must not run before the hooks are done")

	c.open()
	probes.becomes("/health/ready", 200)
	probes.answers(200, 200, 200)
	answer, err := exchange(redis, "PING")
	require.NoError(t, err, "ready means that it answers")
	assert.Equal(t, "+PONG", answer)

	// It hangs: the port is open, but nobody answers.
	hung := make(chan struct{})
	go func() { defer close(hung); _, _ = exchange(redis, "DEBUG SLEEP 12") }()
	probes.becomes("/health/ready", 503)
	probes.answers(200, 200, 503)
	<-hung
	probes.becomes("/health/ready", 200)

	c.stopping()
	probes.becomes("/health/ready", 503)
	probes.answers(200, 200, 503)
	answer, err = exchange(redis, "PING")
	assert.NoError(t, err, "the application serves while it is drained")
	assert.Equal(t, "+PONG", answer)

	c.stopping() // a second time: enough drained
	assert.Equal(t, 0, c.wait(), "redis ends with 0 when it is told to")
	assert.Contains(t, c.log(), "Redis is now ready to exit, bye bye...")
}

// TestDockerStop is docker stop without a drain: it takes no longer than the
// application does.
func TestDockerStop(t *testing.T) {
	const server = "/usr/bin/redis-server"
	needDocker(t, server)
	t.Parallel()

	root := newAppRoot(t)
	root.program(server)
	c := startContainer(t, root.appImage(), nil, server, "--save", "")
	c.prober().becomes("/health/ready", 200)
	require.Eventually(t, func() bool { _, code := c.exec("/bin/testprog", "get", "127.0.0.1:6379", "/"); return code == 0 },
		patience, 50*time.Millisecond)

	code, took := c.stop()

	assert.Equal(t, 0, code)
	assert.Less(t, took, 10*time.Second)
	assert.Contains(t, c.log(), "Redis is now ready to exit, bye bye...")
}
