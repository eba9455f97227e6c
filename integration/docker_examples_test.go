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
	"regexp"
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

// withoutBuild is a folder with an example whose stage "build" is left out: it
// wants a compiler in an image. What it would make is expected in "out".
func (e *exampleImages) withoutBuild(example string) (dir, out string) {
	e.t.Helper()
	dir = e.t.TempDir()
	require.NoError(e.t, os.CopyFS(dir, os.DirFS(filepath.Join("..", "examples", "docker", example))))
	file := filepath.Join(dir, "Dockerfile")
	data, err := os.ReadFile(file)
	require.NoError(e.t, err)
	require.Regexp(e.t, buildStage, string(data))
	text := strings.ReplaceAll(buildStage.ReplaceAllString(string(data), "$1"), "--from=build /out/", "out/")
	require.NoError(e.t, os.WriteFile(file, []byte(text), 0o644))
	out = filepath.Join(dir, "out")
	require.NoError(e.t, os.Mkdir(out, 0o755))
	return dir, out
}

var buildStage = regexp.MustCompile(`(?ms)^FROM \S+ AS build$.*?^(FROM )`)

// compile builds one of the programs in examples/docker.
func (e *exampleImages) compile(program, output string) {
	e.t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", output, "../examples/docker/"+program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(e.t, err, "%s", out)
}

func (e *exampleImages) webApp() string {
	e.t.Helper()
	dir, out := e.withoutBuild("go")
	e.compile("go", filepath.Join(out, "web-app"))
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

// postgres has a certificate besides, and the password of its superuser.
func (e *exampleImages) postgres() string {
	e.t.Helper()
	bin := postgresBin(e.t)
	initdb := newImageRoot(e.t)
	initdb.postgres(bin, "postgres", "initdb")
	for _, name := range []string{"sh", "chmod"} {
		initdb.copy("/bin/busybox", "/bin/"+name)
	}
	initdb.file("/etc/passwd", 0o644, "nobody:x:65534:65534::/:/sbin/nologin\n")
	initdb.dir("/tmp", 0o1777, 0)
	// The classic builder leaves the stage that is made of it, with this label.
	label := labLabel + ".stage=" + e.name
	initdb.imageNamed(e.name+"-postgres-initdb", "LABEL "+label)
	e.t.Cleanup(func() { dockerTry("image", "prune", "--force", "--filter", "label="+label) })

	base := newImageRoot(e.t)
	base.postgres(bin, "postgres", "psql")
	base.file("/etc/postgres/password", 0o644, "change-me\n")
	cert, key := certificate(e.t)
	base.file("/etc/postgres/cert.pem", 0o644, cert)
	base.owned("/etc/postgres/key.pem", 0o600, 65532, key)
	base.imageNamed(e.name + "-postgres-base")
	dir, out := e.withoutBuild("postgres")
	e.compile("postgres/newdb", filepath.Join(out, "newdb"))
	return e.buildIn(dir, "postgres", "BASE="+e.name+"-postgres-base", "INITDB="+e.name+"-postgres-initdb", "PGBIN="+bin)
}

// postgres adds some of PostgreSQL's programs, and what they read.
func (r *imageRoot) postgres(bin string, programs ...string) {
	r.t.Helper()
	for _, program := range programs {
		r.program(filepath.Join(bin, program))
	}
	lib := filepath.Join(filepath.Dir(bin), "lib")
	r.tree(lib, lib, func(_ string, dir bool) bool { return dir }) // the folders hold bitcode for the compiler
	share := "/usr/share/postgresql/" + filepath.Base(filepath.Dir(bin))
	r.tree(share, share, func(name string, dir bool) bool { return dir && (name == "man" || name == "extension/locale") })
}

// certificate returns a server's, and its key.
func certificate(t *testing.T) (certPEM, keyPEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "postgres"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
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
	return service(t, network, "postgres.database.svc.cluster.local", image,
		[]string{"--env", "POSTGRES_PASSWORD_FILE=/etc/postgres/password", "--env", "APP_USER=webapp", "--env", "APP_PASSWORD=change-me"},
		"postgres", "-k", "/tmp", "-c", "listen_addresses=*", "-c", "fsync=off", "-c", "ssl=on",
		"-c", "ssl_cert_file=/etc/postgres/cert.pem", "-c", "ssl_key_file=/etc/postgres/key.pem", "-c", "hba_file=/etc/postgresql/pg_hba.conf")
}

// query runs SQL as the superuser.
func query(t *testing.T, c *dockerContainer, name, sql string) string {
	t.Helper()
	return docker(t, "exec", "--env", "PGPASSWORD=change-me", c.name, postgresBin(t)+"/psql", "-h", "127.0.0.1", "-U", "postgres", "-d", name, "-Atqc", sql)
}

// TestDockerBaseIsAsked: none of the examples takes some image or other as its
// base when it was told none.
func TestDockerBaseIsAsked(t *testing.T) {
	needDocker(t)
	t.Parallel()
	init := newAppRoot(t).image()
	for _, example := range []string{"nginx", "redis"} { // the classic builder makes all stages before
		for _, client := range dockerClients() {
			for _, buildkit := range []string{"0", "1"} {
				cmd := exec.Command(client, "build", "--build-arg", "INIT="+init, "../examples/docker/"+example)
				cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT="+buildkit)
				out, err := cmd.CombinedOutput()
				require.Error(t, err)
				if !strings.Contains(string(out), "buildx") {
					assert.Contains(t, string(out), "base name (${BASE}) should not be blank")
				}
			}
		}
	}
}
