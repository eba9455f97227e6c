// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDockerExamples runs what is in examples/docker, examples/compose and
// examples/kubernetes.
func TestDockerExamples(t *testing.T) {
	needDocker(t, "/usr/sbin/nginx", "/usr/bin/redis-server", "/usr/sbin/nats-server", postgresBin(t)+"/postgres", "/bin/busybox")
	t.Parallel()
	example := newExampleImages(t)
	webApp, redis, nginx, postgres := example.webApp(), example.redis(), example.nginx(), example.postgres()
	t.Run("docker", func(t *testing.T) {
		t.Parallel()
		runDockerfiles(t, nginx, redis, postgres, webApp)
	})
	t.Run("compose", func(t *testing.T) {
		t.Parallel()
		runCompose(t, postgres, webApp)
	})
	t.Run("kubernetes", func(t *testing.T) {
		t.Parallel()
		playManifests(t, map[string]string{
			"sandbox":                      example.sandbox(),
			"example.com/cleanimg-init:v1": example.init,
			"example.com/web-app:v1.2.3":   webApp,
			"example.com/shop:v1.4.2":      webApp, // without its entrypoint: the manifest has a command
			"example.com/redis:7":          redis,
			"example.com/postgres:15":      postgres,
			"example.com/nginx:1":          nginx,
		})
	})
}

// runDockerfiles runs each image until it is ready, asks it, and stops it.
func runDockerfiles(t *testing.T, nginx, redis, postgres, webApp string) {
	t.Run("nginx", func(t *testing.T) {
		t.Parallel()
		c := startContainer(t, nginx, []string{"--publish", "127.0.0.1::8080"})
		c.prober().becomes("/health/ready", http.StatusOK)
		assert.Equal(t, "hello from nginx\n", httpBody("http://"+c.address(8080)+"/"))
		code, _ := c.stop()
		assert.Equal(t, 0, code)
		assert.Contains(t, c.log(), "signal=TERM")
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		c := startContainer(t, redis, []string{"--env", "REDIS_PASSWORD=secret", "--publish", "127.0.0.1::6379", "--tmpfs", "/data:uid=65532,mode=0700"})
		c.prober().becomes("/health/ready", http.StatusOK)
		answer, err := exchange(c.address(6379), "AUTH secret")
		require.NoError(t, err)
		assert.Equal(t, "+OK", answer)
		code, _ := c.stop()
		assert.Equal(t, 0, code)
		assert.Contains(t, c.log(), "bye bye")
		assert.NotContains(t, c.log(), "secret")
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		c := database(t, newNetwork(t), postgres)
		assert.Equal(t, "1", query(t, c, "webapp", "SELECT 1"))
		code, _ := c.stop()
		assert.Equal(t, 0, code)
		assert.Contains(t, c.log(), "received fast shutdown request")
	})
	t.Run("go", func(t *testing.T) {
		t.Parallel()
		c := startContainer(t, webApp, []string{"--publish", "127.0.0.1::8080"})
		c.prober().becomes("/health/ready", http.StatusOK)
		assert.Equal(t, "hello\n", httpBody("http://"+c.address(8080)+"/"))
		code, _ := c.stop()
		assert.Equal(t, 0, code)
		assert.Contains(t, c.log(), "drained")
	})
}

// playManifests plays the manifests, each as it is: its images, commands,
// variables, volumes, security contexts and probes. Only scheduling is missing.
func playManifests(t *testing.T, images map[string]string) {
	needsRoot(t) // to give volumes to the pod's group
	webApp, nats, kafka := images["example.com/web-app:v1.2.3"], natsImage(t), kafkaImage(t)
	play := func(name string, test func(t *testing.T, m manifest, network string)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, readManifest(t, filepath.Join("..", "examples", "kubernetes", name+".yaml")), newNetwork(t))
		})
	}
	startRedis := func(t *testing.T, network string) {
		service(t, network, "redis.cache.svc.cluster.local", images["example.com/redis:7"], []string{"--env", "REDIS_PASSWORD=change-me"})
	}

	// startPostgres plays postgres.yaml, which others want.
	startPostgres := func(t *testing.T, network string) *dockerContainer {
		t.Helper()
		m := readManifest(t, filepath.Join("..", "examples", "kubernetes", "postgres.yaml"))
		cert, key := certificate(t)
		m.secrets["postgres-tls"] = map[string]string{"tls.crt": cert, "tls.key": key}
		return runPod(t, m, images, network).apps[0]
	}

	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		db := startPostgres(t, newNetwork(t))
		assert.Equal(t, "webapp", query(t, db, "webapp", "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'webapp'"))
		code, _ := db.stop()
		assert.Equal(t, 0, code)
		assert.Contains(t, db.log(), "database system is shut down")
		assert.NotContains(t, db.log(), "change-me")
	})

	play("database-migration", func(t *testing.T, m manifest, network string) {
		db := startPostgres(t, network)
		pod := runPod(t, m, images, network)
		assert.Equal(t, "2|f", query(t, db, "webapp", "SELECT version, dirty FROM schema_migrations"))
		assert.Equal(t, "t", query(t, db, "webapp", "SELECT indisvalid FROM pg_index WHERE indexrelid = 'idx_users_role'::regclass"))
		assert.Equal(t, []int{0}, pod.stop())
	})

	play("wait-for-dependencies", func(t *testing.T, m manifest, network string) {
		// The pod is there before what it waits for.
		pod := startPod(t, m, images, network)
		ended := make(chan *podEnd, 1)
		go func() { defer close(ended); ended <- pod.start() }()
		startPostgres(t, network)
		startRedis(t, network)
		require.Nil(t, <-ended)
		assert.Equal(t, []int{0}, pod.stop())
	})

	play("await-services", func(t *testing.T, m manifest, network string) {
		startPostgres(t, network)
		startRedis(t, network)
		service(t, network, "api.backend.svc.cluster.local", webApp, nil)
		service(t, network, "nats.messaging.svc.cluster.local", nats, nil)
		service(t, network, "kafka.messaging.svc.cluster.local", kafka, nil)
		assert.Equal(t, []int{0}, runPod(t, m, images, network).stop())
	})

	play("generate-config", func(t *testing.T, m manifest, network string) {
		pod := runPod(t, m, images, network)
		upstream, err := os.ReadFile(filepath.Join(pod.volumes["config"], "upstream.json"))
		require.NoError(t, err)
		assert.JSONEq(t, `{"url": "https://api.example.com", "retries": 3, "key": "change-me"}`, string(upstream))
		info, err := os.Stat(filepath.Join(pod.volumes["config"], "upstream.json"))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o640), info.Mode().Perm(), "there is a secret in it, and the volume has a group")
		assert.Contains(t, pod.apps[0].log(), "level=info")
		assert.Equal(t, []int{0}, pod.stop())
	})

	play("volume-permissions", func(t *testing.T, m manifest, network string) {
		pod := runPod(t, m, images, network)
		for name, want := range map[string]os.FileMode{"data": 0o700, "logs": 0o755, "tmp": 0o777 | os.ModeSticky} {
			info, err := os.Stat(filepath.Join(pod.volumes["app-data"], name))
			require.NoError(t, err)
			assert.Equal(t, want, info.Mode()&(os.ModePerm|os.ModeSticky), name)
		}
		assert.FileExists(t, filepath.Join(pod.volumes["app-data"], "data", ".ready"))
	})

	play("shared-data", func(t *testing.T, m manifest, network string) {
		runPod(t, m.of("artifacts"), images, network)
		pod := runPod(t, m, images, network)
		config, err := os.ReadFile(filepath.Join(pod.volumes["shared"], "config", "config.yaml"))
		require.NoError(t, err)
		assert.Contains(t, string(config), `banner: "hello from the artifact"`)
	})

	play("native-sidecar", func(t *testing.T, m manifest, network string) {
		pod := runPod(t, m, images, network)
		assert.Equal(t, []int{0, 0}, pod.stop(), "the application, then the sidecar")
		app, err := time.Parse(time.RFC3339Nano, pod.apps[0].inspect("{{.State.FinishedAt}}"))
		require.NoError(t, err)
		cache, err := time.Parse(time.RFC3339Nano, pod.sidecars[0].inspect("{{.State.FinishedAt}}"))
		require.NoError(t, err)
		assert.True(t, app.Before(cache))
	})

	play("fail-fast", func(t *testing.T, m manifest, network string) {
		end := startPod(t, m, images, network).start()
		require.NotNil(t, end)
		assert.Equal(t, "critical-init", end.container)
		assert.Equal(t, 124, end.code, "await's, of the step that failed: %s", end.log)
		for _, want := range []string{"20-check-deps", "payments", "exit code 124"} {
			assert.Contains(t, end.message, want)
		}
		assert.NotContains(t, end.log, "30-init-storage", "what comes after the failure is not run")

		// With the service it starts.
		service(t, network, "payments", webApp, nil)
		runPod(t, m, images, network)
	})

	play("rendered/kustomize", func(t *testing.T, m manifest, network string) {
		pod := runPod(t, m, images, network)
		_, status := pod.prober(10101).get("/status")
		assert.Contains(t, status, `"phase":"running"`)
		assert.Equal(t, []int{0}, pod.stop())
		assert.Contains(t, pod.apps[0].log(), "drained")
	})

	play("rendered/helm", func(t *testing.T, m manifest, network string) {
		db := startPostgres(t, network)
		startRedis(t, network)
		pod := runPod(t, m, images, network)
		assert.Equal(t, "0", query(t, db, "webapp", "SELECT count(*) FROM orders"))
		config, err := os.ReadFile(filepath.Join(pod.volumes["cleanimg-config"], "config.yaml"))
		require.NoError(t, err)
		assert.Contains(t, string(config), `key: "change-me"`)
		assert.Contains(t, pod.apps[0].log(), "level=info")
		assert.Equal(t, []int{0}, pod.stop())
	})

	play("web-app", func(t *testing.T, m manifest, network string) {
		db := startPostgres(t, network)
		require.Equal(t, 3, m.replicas)
		pods := make([]*dockerPod, m.replicas)
		for i := range pods {
			pods[i] = startPod(t, m, images, network)
		}
		ends := make([]*podEnd, len(pods))
		var started sync.WaitGroup
		for i, pod := range pods {
			started.Go(func() { ends[i] = pod.start() })
		}
		started.Wait()
		for i, pod := range pods {
			require.Nil(t, ends[i])
			assert.Equal(t, "0 users\n", httpBody(pod.prober(8080).base+"/"))
		}
		assert.Equal(t, "2", query(t, db, "webapp", "SELECT count(*) FROM schema_migrations_history"), "each was applied once")
		query(t, db, "webapp", "INSERT INTO users (username, email) VALUES ('a', 'a@example.com')")

		// A rolling update stops one: it is taken out of the service, and
		// answers until it is.
		app, probes, site := pods[0].apps[0], pods[0].prober(10101), pods[0].prober(8080)
		begin := time.Now()
		app.stopping()
		probes.becomes("/health/ready", http.StatusServiceUnavailable)
		code, body := site.get("/")
		assert.Equal(t, http.StatusOK, code)
		assert.Equal(t, "1 users\n", body)
		assert.Equal(t, 0, app.wait())
		took := time.Since(begin)
		assert.GreaterOrEqual(t, took, 5*time.Second, "DRAIN_DELAY")
		assert.Contains(t, app.log(), "drained")

		// Without its database it is not ready, but lives.
		db.stopping()
		pods[1].prober(10101).becomes("/health/ready", http.StatusServiceUnavailable)
		code, _ = pods[1].prober(10101).get("/health/live")
		assert.Equal(t, http.StatusOK, code)
	})
}

// runPod starts a pod, all of whose containers must succeed.
func runPod(t *testing.T, m manifest, images map[string]string, network string) *dockerPod {
	t.Helper()
	pod := startPod(t, m, images, network)
	if end := pod.start(); end != nil {
		require.FailNow(t, "init container "+end.container, "code %d: %s\n%s", end.code, end.message, end.log)
	}
	return pod
}

// natsImage is a NATS server behind our entrypoint.
func natsImage(t *testing.T) string {
	t.Helper()
	root := newAppRoot(t)
	root.program("/usr/sbin/nats-server")
	name := "cleanimg-init-test/" + labName(t) + "-nats"
	root.imageNamed(name, `ENTRYPOINT ["/usr/local/bin/cleanimg-init"]`, `CMD ["/usr/sbin/nats-server"]`,
		"ENV CLEANIMG_INIT_READINESS_CHECK=tcp://127.0.0.1:4222")
	return name
}

// kafkaImage is a Kafka broker with the topic "orders" behind our entrypoint.
func kafkaImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, build(dir, "", "./broker"))
	root := newAppRoot(t)
	root.copy(filepath.Join(dir, "broker"), "/bin/broker")
	name := "cleanimg-init-test/" + labName(t) + "-kafka"
	root.imageNamed(name, `ENTRYPOINT ["/usr/local/bin/cleanimg-init"]`, `CMD ["/bin/broker", "orders"]`,
		"ENV CLEANIMG_INIT_READINESS_CHECK=tcp://127.0.0.1:9092")
	return name
}

// runCompose brings the project up, and down again, with docker-compose.
func runCompose(t *testing.T, postgres, webApp string) {
	program, err := exec.LookPath("docker-compose")
	if err != nil {
		t.Skipf("docker-compose is not installed: %v", err)
	}
	project := labName(t)
	compose := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(program, append([]string{"--project-name", project, "--file", "../examples/compose/compose.yaml"}, args...)...)
		cmd.Env = append(os.Environ(), "POSTGRES_IMAGE="+postgres, "APP_IMAGE="+webApp, "APP_PORT=0")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return strings.TrimSpace(string(out))
	}
	compose("config", "--quiet")
	t.Cleanup(func() { compose("down", "--volumes", "--timeout", "1") })
	compose("up", "--detach")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(compose("logs", "--no-color"))
		}
	})
	app := compose("ps", "--quiet", "app")
	require.Eventually(t, func() bool {
		return docker(t, "inspect", "--format", "{{.State.Health.Status}}", app) == "healthy"
	}, patience, 200*time.Millisecond)
	assert.Equal(t, "0 users\n", httpBody("http://"+docker(t, "port", app, "8080")+"/"))

	compose("stop")
	for _, name := range []string{"app", "db"} {
		assert.Equal(t, "0", docker(t, "inspect", "--format", "{{.State.ExitCode}}", compose("ps", "--quiet", name)), name)
	}
	// The database is there already: newdb leaves it alone.
	compose("up", "--detach")
	require.Eventually(t, func() bool {
		return docker(t, "inspect", "--format", "{{.State.Health.Status}}", compose("ps", "--quiet", "app")) == "healthy"
	}, patience, 200*time.Millisecond)
	assert.Contains(t, compose("logs", "--no-color", "app"), "drained")
}
