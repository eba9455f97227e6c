// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// exampleImages are the images of the Dockerfiles in examples/docker, which
// take ours and a base image each, here one of files of this machine.
type exampleImages struct {
	t    *testing.T
	name string // prefix of their names
	init string // all binaries
}

func newExampleImages(t *testing.T) *exampleImages {
	t.Helper()
	e := &exampleImages{t: t, name: "cleanimg-init-test/" + labName(t)}
	r := newImageRoot(t)
	for _, program := range []string{"cleanimg-init", "await", "generate-config", "migrate", "init-storage", "fetch"} {
		r.copy(Binary(t, program), "/usr/local/bin/"+program)
	}
	r.link("/usr/local/bin/validate-config", "generate-config")
	e.init = e.name + "-init"
	r.imageNamed(e.init, `ENTRYPOINT ["/usr/local/bin/cleanimg-init"]`)
	return e
}

// sandbox is an image that holds a network and does nothing.
func (e *exampleImages) sandbox() string {
	e.t.Helper()
	r := newImageRoot(e.t)
	r.copy(testprogPath, "/bin/testprog")
	r.imageNamed(e.name+"-sandbox", `ENTRYPOINT ["/bin/testprog"]`)
	return e.name + "-sandbox"
}

// build builds one of the Dockerfiles on a base image with these files.
func (e *exampleImages) build(example string, base *imageRoot) string {
	e.t.Helper()
	base.imageNamed(e.name + "-" + example + "-base")
	return e.buildIn(filepath.Join("..", "examples", "docker", example), example, "BASE="+e.name+"-"+example+"-base")
}

func (e *exampleImages) buildIn(dir, example string, args ...string) string {
	e.t.Helper()
	name := e.name + "-" + example
	command := []string{"build", "--label", labLabel + "=1", "--build-arg", "INIT=" + e.init, "--tag", name}
	for _, a := range args {
		command = append(command, "--build-arg", a)
	}
	// BuildKit takes a tenth of the time. Not every client has it.
	var out []byte
	err := errors.New("no docker client")
	for _, buildkit := range []string{"1", "0"} {
		for _, client := range dockerClients() {
			if err != nil {
				cmd := exec.Command(client, append(command, dir)...)
				cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT="+buildkit)
				out, err = cmd.CombinedOutput()
			}
		}
	}
	require.NoError(e.t, err, "%s", out)
	e.t.Cleanup(func() { dockerTry("rmi", "--force", name) })
	assert.Equal(e.t, "SIGTERM", docker(e.t, "inspect", "--format", "{{.Config.StopSignal}}", name), example)
	assert.Equal(e.t, "65532:65532", docker(e.t, "inspect", "--format", "{{.Config.User}}", name), example)
	return name
}

// webApp builds the last stage of the Go service's Dockerfile on a binary that
// was built here: the stage before it wants a Go installation in an image.
func (e *exampleImages) webApp() string {
	e.t.Helper()
	data, err := os.ReadFile("../examples/docker/go/Dockerfile")
	require.NoError(e.t, err)
	head, rest, ok := strings.Cut(string(data), "FROM golang:")
	require.True(e.t, ok)
	_, last, ok := strings.Cut(rest, "FROM scratch")
	require.True(e.t, ok)
	last = strings.Replace(last, "--from=build /out/web-app", "web-app", 1)
	dir := e.t.TempDir()
	require.NoError(e.t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(head+"FROM scratch"+last), 0o644))
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "web-app"), "../examples/docker/go")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(e.t, err, "%s", out)
	return e.buildIn(dir, "web-app")
}

func (e *exampleImages) redis() string {
	e.t.Helper()
	base := newImageRoot(e.t)
	base.program("/usr/bin/redis-server")
	return e.build("redis", base)
}

func (e *exampleImages) nginx() string {
	e.t.Helper()
	base := newImageRoot(e.t)
	base.program("/usr/sbin/nginx")
	return e.build("nginx", base)
}

// postgres has a certificate besides, and the password of its user.
func (e *exampleImages) postgres() string {
	e.t.Helper()
	bin := postgresBin(e.t)
	base := newImageRoot(e.t)
	for _, program := range []string{"postgres", "initdb", "psql"} {
		base.program(filepath.Join(bin, program))
	}
	lib := filepath.Join(filepath.Dir(bin), "lib")
	base.tree(lib, lib, func(_ string, dir bool) bool { return dir })
	share := "/usr/share/postgresql/" + filepath.Base(filepath.Dir(bin))
	base.tree(share, share, func(name string, dir bool) bool { return dir && name == "man" })
	base.file("/etc/passwd", 0o644, "nonroot:x:65532:65532::/tmp:/sbin/nologin\n") // initdb asks for its user's name
	base.copy("/bin/busybox", "/bin/sh")                                           // initdb starts the server through it
	base.file("/run/secrets/postgres", 0o644, "superuser\n")
	base.dir("/data", 0o700, 65532) // a new volume has the owner of what it hides
	base.file("/etc/postgres/cert.pem", 0o644, e.certificate(base))
	base.imageNamed(e.name + "-postgres-base")
	return e.buildIn("../examples/docker/postgres", "postgres", "BASE="+e.name+"-postgres-base", "PGBIN="+bin)
}

// certificate returns one, and adds its key as a file of the server's user.
func (e *exampleImages) certificate(root *imageRoot) string {
	e.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(e.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "postgres"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(e.t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(e.t, err)
	root.owned("/etc/postgres/key.pem", 0o600, 65532, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
}

// java only builds the image: the jar is not one, and there is no JVM.
func (e *exampleImages) java() {
	e.t.Helper()
	dir := e.t.TempDir()
	require.NoError(e.t, os.CopyFS(dir, os.DirFS("../examples/docker/java")))
	require.NoError(e.t, os.WriteFile(filepath.Join(dir, "app.jar"), nil, 0o644))
	e.buildIn(dir, "java", "BASE="+e.init)
}

// newNetwork makes a network on which containers find each other by name.
func newNetwork(t *testing.T) string {
	t.Helper()
	name := "cleanimg-init-test-" + labName(t)
	docker(t, "network", "create", "--label", labLabel+"=1", name)
	t.Cleanup(func() { dockerTry("network", "rm", name) })
	return name
}

// service starts one of the images on a network, under a name, and waits until
// it is ready.
func service(t *testing.T, network, name, image string, options []string, command ...string) *dockerContainer {
	t.Helper()
	c := startContainer(t, image, append([]string{
		"--network", network, "--network-alias", name, "--tmpfs", "/data:uid=65532,gid=65532,mode=0700",
	}, options...), command...)
	c.prober().becomes("/health/ready", http.StatusOK)
	return c
}

// database starts PostgreSQL with TLS, a user webapp and a database webapp.
func database(t *testing.T, network, image string) *dockerContainer {
	t.Helper()
	c := service(t, network, "postgres.database.svc.cluster.local", image, []string{"--env", "POSTGRES_PASSWORD_FILE=/run/secrets/postgres"},
		"postgres", "-k", "/tmp", "-c", "listen_addresses=*", "-c", "fsync=off", "-c", "ssl=on",
		"-c", "ssl_cert_file=/etc/postgres/cert.pem", "-c", "ssl_key_file=/etc/postgres/key.pem", "-c", "hba_file=/etc/postgresql/pg_hba.conf")
	query(t, c, "postgres", "CREATE USER webapp PASSWORD 'change-me'")
	query(t, c, "postgres", "CREATE DATABASE webapp OWNER webapp")
	return c
}

// query runs SQL as the superuser.
func query(t *testing.T, c *dockerContainer, name, sql string) string {
	t.Helper()
	return docker(t, "exec", "--env", "PGPASSWORD=superuser", c.name, postgresBin(t)+"/psql", "-h", "127.0.0.1", "-U", "postgres", "-d", name, "-Atqc", sql)
}
