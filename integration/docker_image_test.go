// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDockerImage builds the project's Dockerfile as it is, with both of
// Docker's builders, and uses the image in the two ways that it is for.
func TestDockerImage(t *testing.T) {
	needDocker(t, "/bin/busybox")
	t.Parallel()
	golangImage(t)

	for _, builder := range []struct{ name, buildkit string }{{"classic", "0"}, {"buildkit", "1"}} {
		t.Run(builder.name, func(t *testing.T) {
			image := "cleanimg-init-test/" + labName(t)
			dockerBuild(t, builder.buildkit, image, "..")

			t.Run("config", func(t *testing.T) {
				checkImageConfig(t, image)
				const licences = `{{index .Config.Labels "org.opencontainers.image.licenses"}}` // goreleaser sets its own
				assert.Equal(t, "Apache-2.0", docker(t, "inspect", "--format", licences, image))
			})
			t.Run("run", func(t *testing.T) {
				c := startContainer(t, image, nil, "/usr/local/bin/cleanimg-init", "--version")
				assert.Equal(t, 0, c.wait())
				assert.Contains(t, c.log(), "cleanimg-init 1.2.3 ")
			})
			t.Run("links", func(t *testing.T) { checkImageLinks(t, image) })
			t.Run("copy from", func(t *testing.T) {
				dir := t.TempDir()
				dockerfile := "FROM scratch\n" +
					"COPY --from=" + image + " /usr/local/bin/cleanimg-init /usr/local/bin/\n" +
					"COPY testprog /bin/\n" +
					"ARG VERSION\n" +
					`ENTRYPOINT ["/usr/local/bin/cleanimg-init", "--"]` + "\n" +
					`CMD ["/bin/testprog", "exit", "21"]` + "\n"
				require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644))
				require.NoError(t, os.Link(testprogPath, filepath.Join(dir, "testprog")))
				app := image + "-app"
				dockerBuild(t, builder.buildkit, app, dir)
				assert.Equal(t, 21, startContainer(t, app, nil).wait())
			})
		})
	}
}

// TestReleaseImage builds the image of a release as goreleaser does: from the
// binaries in a folder for each platform, and what the configuration adds.
func TestReleaseImage(t *testing.T) {
	needDocker(t)
	t.Parallel()
	dir := t.TempDir()
	binaries := filepath.Join(dir, "linux", "amd64")
	require.NoError(t, os.MkdirAll(binaries, 0o755))
	for _, name := range []string{"cleanimg-init", "await", "generate-config", "migrate", "init-storage", "fetch"} {
		require.NoError(t, os.Link(Binary(t, name), filepath.Join(binaries, name)))
	}
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "cmd", "links"), 0o755))
	links, err := filepath.Glob("../cmd/links/*")
	require.NoError(t, err)
	for _, link := range links {
		to, err := os.Readlink(link)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(to, filepath.Join(dir, "cmd", "links", filepath.Base(link))))
	}
	dockerfile, err := os.ReadFile("../.ci/Dockerfile")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), dockerfile, 0o644))

	image := "cleanimg-init-test/" + labName(t)
	docker(t, "build", "--label", labLabel+"=1", "--build-arg", "TARGETPLATFORM=linux/amd64", "--tag", image, dir)
	t.Cleanup(func() { dockerTry("rmi", "--force", image) })
	checkImageLinks(t, image)
	assert.Equal(t, 0, startContainer(t, image, nil, "/usr/local/bin/cleanimg-init", "--version").wait())
	checkImageConfig(t, image)
}

// checkImageLinks: the names that a binary goes by besides its own.
func checkImageLinks(t *testing.T, image string) {
	assert.Equal(t, 124, startContainer(t, image, nil, "/usr/local/bin/check-deps", "127.0.0.1:1").wait(), "nobody is there")
	assert.Equal(t, 0, startContainer(t, image, nil, "/usr/local/bin/validate-config", "--version").wait())
}

func checkImageConfig(t *testing.T, image string) {
	for field, want := range map[string]string{
		"{{.Config.User}}":            "65532:65532",
		"{{json .Config.Entrypoint}}": `["/usr/local/bin/cleanimg-init"]`,
		"{{.Config.StopSignal}}":      "SIGTERM",
	} {
		assert.Equal(t, want, docker(t, "inspect", "--format", field, image), field)
	}
	size, err := strconv.Atoi(docker(t, "inspect", "--format", "{{.Size}}", image))
	require.NoError(t, err)
	assert.Less(t, size, 60_000_000, "bytes")
}

// dockerBuild builds with the first client in PATH that has the builder: one
// without the buildx plugin has the classic one only.
func dockerBuild(t *testing.T, buildkit, image, dir string) {
	t.Helper()
	var out []byte
	for _, client := range dockerClients() {
		cmd := exec.Command(client, "build", "--label", labLabel+"=1", "--build-arg", "VERSION=1.2.3", "--tag", image, dir)
		cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT="+buildkit)
		var err error
		out, err = cmd.CombinedOutput()
		if err == nil {
			t.Cleanup(func() { dockerTry("rmi", "--force", image) })
			return
		}
		require.Contains(t, string(out), "buildx", "%s build, DOCKER_BUILDKIT=%s: %s", client, buildkit, out)
	}
	t.Skipf("no docker client has BuildKit: %s", strings.TrimSpace(string(out)))
}

func dockerClients() (found []string) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if p, err := exec.LookPath(filepath.Join(dir, "docker")); err == nil {
			found = append(found, p)
		}
	}
	return found
}

// golangImage provides the image golang:1.26 that the Dockerfile starts from.
// One that is there already is used as it is. Else it is made for this test:
// the Go installation and the module cache of this machine with a busybox, so
// that a build needs no network, and a warm build cache, so that two builds do
// not compile the standard library twice.
func golangImage(t *testing.T) {
	t.Helper()
	const name = "golang:1.26"
	// Another run may use the same engine, and the name.
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "cleanimg-init-golang-image.lock"), os.O_CREATE|os.O_RDONLY|syscall.O_CLOEXEC, 0o600)
	require.NoError(t, err)
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	t.Cleanup(func() { lock.Close() })

	if out, code := dockerTry("inspect", "--format", `{{index .Config.Labels "`+labLabel+`"}}`, name); code == 0 && out != "1" {
		t.Logf("using the image %s that is here", name)
		return
	}

	// The classic builder leaves the build stage behind without a name. It has
	// our label from the base image.
	t.Cleanup(func() { dockerTry("image", "prune", "--force", "--filter", "label="+labLabel) })
	r := newImageRoot(t)
	r.copy("/bin/busybox", "/bin/busybox")
	r.link("/bin/sh", "busybox")
	r.dir("/tmp", 0o1777, 0)
	r.dir("/root", 0o700, 0)
	r.tree(goEnv(t, "GOROOT"), "/usr/local/go", func(name string, dir bool) bool {
		base := filepath.Base(name)
		return dir && (base == "testdata" || name == "test" || name == "api" || name == "doc") || strings.HasSuffix(base, "_test.go")
	})
	r.tree(moduleDownloads(t), "/modules", nil)
	r.tree(buildCache(t), "/cache", nil)
	r.imageNamed(name, "ENV PATH=/usr/local/go/bin:/bin", "ENV GOTOOLCHAIN=local", "ENV GOPROXY=file:///modules", "ENV GOSUMDB=off", "ENV GOCACHE=/cache")
}

// moduleDownloads makes a folder with what "go mod download" needs, in the
// form of a module proxy.
func moduleDownloads(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "mod", "download", "-modcacherw")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOMODCACHE="+dir, "GOPROXY=file://"+goEnv(t, "GOMODCACHE")+"/cache/download,"+goEnv(t, "GOPROXY"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	downloads := filepath.Join(dir, "cache", "download")
	if _, err := os.Stat(downloads); errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, os.MkdirAll(downloads, 0o755)) // no dependency at all
	}
	return downloads
}

// buildCache is what the Dockerfile's build leaves in an empty build cache.
func buildCache(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	// Minutes of work, beside tests that look at the clock.
	cmd := exec.Command("nice", "-n", "19", "go", "build", "-trimpath", "-ldflags=-s -w", "-o", t.TempDir()+"/", "./cmd/...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOCACHE="+dir, "CGO_ENABLED=0", "GOFLAGS=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}
