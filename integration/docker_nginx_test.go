// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// nginxConf keeps everything that nginx writes in /tmp. The hook writes
// listen.conf.
const nginxConf = `worker_processes 2;
pid /tmp/nginx.pid;
error_log stderr notice;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    server {
        include /tmp/listen.conf;
        root /srv;
        location = /slow { limit_rate 20k; }
    }
}
`

// TestDockerNginx stops nginx in the middle of an answer: with TERM turned into
// QUIT it finishes the answer before it ends.
func TestDockerNginx(t *testing.T) {
	const server = "/usr/sbin/nginx"
	needDocker(t, server)
	t.Parallel()

	const slowSize = 200_000 // ten seconds at 20 kB/s
	root := newAppRoot(t)
	root.program(server)
	root.file("/etc/nginx/nginx.conf", 0o644, nginxConf)
	root.file("/srv/index.html", 0o644, "hello from nginx\n")
	root.file("/srv/slow", 0o644, strings.Repeat("x", slowSize))
	root.hook("10-gate", "await /tmp/gate\n")
	root.hook("20-config.yaml", `run: [/bin/testprog, write, /tmp/listen.conf, "listen ${PORT:-8080};"]`+"\n")
	c := startContainer(t, root.appImage(),
		[]string{
			"--publish", "127.0.0.1::8081", "--env", "PORT=8081", "--env", "CLEANIMG_INIT_SIGNAL_REWRITE=TERM:QUIT",
			"--env", "CLEANIMG_INIT_STARTUP_CHECK=tcp://127.0.0.1:8081", "--env", "CLEANIMG_INIT_READINESS_CHECK=http://localhost:8081/#period=500ms",
		},
		server, "-e", "stderr", "-c", "/etc/nginx/nginx.conf", "-g", "daemon off;")
	probes, site := c.prober(), "http://"+c.address(8081)

	probes.becomes("/health/live", 200)
	probes.answers(503, 200, 503)
	c.open()
	probes.becomes("/health/ready", 200)
	assert.Equal(t, "hello from nginx\n", httpBody(site+"/"), "ready means that it serves")

	resp, err := http.Get(site + "/slow")
	require.NoError(t, err)
	defer resp.Body.Close()
	c.stopping()
	probes.becomes("/health/ready", 503)
	body, err := io.ReadAll(resp.Body)
	assert.NoError(t, err, "the answer that was on its way is finished")
	assert.Len(t, body, slowSize)

	assert.Equal(t, 0, c.wait())
	assert.Contains(t, c.log(), "gracefully shutting down")
	assert.Contains(t, c.log(), "signal 3 (SIGQUIT) received", "what nginx got is QUIT")
}

// httpBody is the answer's body, or the error.
func httpBody(url string) string {
	resp, err := http.Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(data)
}
