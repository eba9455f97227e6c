// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDockerHookFails: the command does not run, the container ends with the
// hook's code, and the termination log, mounted as the kubelet does it, says
// which step it was and what it wrote last.
func TestDockerHookFails(t *testing.T) {
	needDocker(t)
	t.Parallel()

	root := newAppRoot(t)
	root.hook("10-good", "print hook ten is fine\n")
	root.hook("20-migrate", "err relation users does not exist\nexit 7\n")
	termination := mountedLog(t)
	c := startContainer(t, root.appImage(), []string{"--volume", termination + ":/dev/termination-log"},
		"/bin/testprog", "print", "the command ran")

	assert.Equal(t, 7, c.wait())
	message, err := os.ReadFile(termination)
	require.NoError(t, err)
	assert.Contains(t, string(message), "20-migrate")
	assert.Contains(t, string(message), "relation users does not exist")
	assert.Contains(t, c.log(), "hook ten is fine", "a hook's output is the container's")
	assert.NotContains(t, c.log(), "the command ran")
}

// mountedLog is an empty file that every user may write, but in a folder
// that nobody but us may change.
func mountedLog(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "termination-log")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Chmod(file, 0o666))
	return file
}

// TestDockerTerminationLogEmpty: a container that did what it should leaves no
// message.
func TestDockerTerminationLogEmpty(t *testing.T) {
	needDocker(t)
	t.Parallel()

	root := newAppRoot(t)
	root.hook("10-good", "print fine\n")
	termination := mountedLog(t)
	c := startContainer(t, root.appImage(), []string{"--volume", termination + ":/dev/termination-log"}, "/bin/testprog", "exit", "3")

	assert.Equal(t, 3, c.wait(), "the command's own code")
	message, err := os.ReadFile(termination)
	require.NoError(t, err)
	assert.Empty(t, string(message))
}

// TestDockerHealthcheck uses --probe as the image's HEALTHCHECK.
func TestDockerHealthcheck(t *testing.T) {
	needDocker(t)
	t.Parallel()

	root := newAppRoot(t)
	root.hook("10-gate", "await /tmp/gate\n")
	image := root.appImage(`HEALTHCHECK --interval=500ms --timeout=5s --start-period=60s --retries=2 CMD ["/usr/local/bin/cleanimg-init", "--probe", "ready"]`)
	c := startContainer(t, image, []string{"--env", "CLEANIMG_INIT_READINESS_CHECK=http://127.0.0.1:8080/#period=200ms"},
		"/bin/testprog", "bg", "answer", "127.0.0.1:8080", "/tmp/status", ";", "trap", "-on", "TERM=0")
	health := func(want string) {
		require.Eventually(t, func() bool { return c.inspect("{{.State.Health.Status}}") == want }, patience, 100*time.Millisecond, want)
	}
	answers := func(status string) {
		out, code := c.exec("/bin/testprog", "write", "/tmp/status", status)
		require.Zero(t, code, out)
	}

	c.prober().becomes("/health/live", 200)
	out, code := c.exec("/usr/local/bin/cleanimg-init", "--probe", "ready")
	assert.Equal(t, 1, code, "not ready while a hook runs: %s", out)
	assert.Equal(t, "starting", c.inspect("{{.State.Health.Status}}"))

	c.open()
	c.prober().becomes("/health/startup", 200)
	assert.Equal(t, "starting", c.inspect("{{.State.Health.Status}}"), "not ready while its check does not pass")
	answers("200")
	health("healthy")
	answers("503")
	health("unhealthy")
	answers("200")
	health("healthy")
	out, code = c.exec("/usr/local/bin/cleanimg-init", "--probe", "startup")
	assert.Equal(t, 0, code, out)
	code, _ = c.stop()
	assert.Equal(t, 0, code)
}

// TestDockerInit has docker-init as PID 1: the entrypoint reaps as a subreaper
// and touches only its own descendants.
func TestDockerInit(t *testing.T) {
	needDocker(t)
	t.Parallel()

	root := newAppRoot(t)
	root.hook("10-hook", "print hook ran\n")
	c := startContainer(t, root.appImage(), []string{"--init"},
		"/bin/testprog", "storm", "200", ";", "trap", "-ready", "/tmp/ready", "-on", "TERM=5")

	requireFile(t, c, "/tmp/ready")
	require.EventuallyWithT(t, func(ct *assert.CollectT) {
		assert.Empty(ct, c.zombies(), "the orphans are reaped by the subreaper")
	}, patience, 50*time.Millisecond)
	assert.Contains(t, c.log(), "subreaper", "not being PID 1 is said")
	first, _ := c.exec("/bin/testprog", "cat", "/proc/1/comm")
	assert.NotEqual(t, "cleanimg-init", first)

	code, took := c.stop()
	assert.Equal(t, 5, code)
	assert.Less(t, took, 10*time.Second)
	assert.Contains(t, c.log(), "hook ran")
	assert.Contains(t, c.log(), "got TERM")
}

// TestDockerSharedPID starts a second container in the PID namespace of a
// first one, as shareProcessNamespace does, and stops it: the first lives on.
func TestDockerSharedPID(t *testing.T) {
	needDocker(t)
	t.Parallel()

	image := newAppRoot(t).appImage()
	neighbour := startContainer(t, image, nil, "/bin/testprog", "trap", "-ready", "/tmp/ready", "-on", "TERM=0")
	requireFile(t, neighbour, "/tmp/ready")
	c := startContainer(t, image, []string{"--pid", "container:" + neighbour.name},
		"/bin/testprog", "daemon", "trap", "-on", "TERM=0", ";", "trap", "-ready", "/tmp/ready", "-on", "TERM=6")
	requireFile(t, c, "/tmp/ready")

	code, _ := c.stop()

	assert.Equal(t, 6, code)
	assert.Equal(t, "running", neighbour.inspect("{{.State.Status}}"))
	assert.Equal(t, 2, strings.Count(c.log(), "got TERM"), "the command is told, and then its daemon")
	assert.NotContains(t, neighbour.log(), "got TERM")
	code, _ = neighbour.stop()
	assert.Equal(t, 0, code)
}

// TestDockerTTY runs the command on a terminal: it is in the foreground, and
// the terminal's Ctrl-C reaches it.
func TestDockerTTY(t *testing.T) {
	needDocker(t, "/usr/bin/script")
	t.Parallel()

	root := newAppRoot(t)
	root.hook("10-hook", "print hook ran\n")
	args := append([]string{"docker", "run", "--rm", "-it"}, hardened...)
	args = append(args, root.appImage(), "/bin/testprog", "tty", "\\;", "trap", "-on", "INT=4")
	cmd := exec.Command("script", "--quiet", "--return", "--command", strings.Join(args, " "), "/dev/null")
	var screen Output
	cmd.Stdout, cmd.Stderr = &screen, &screen
	keyboard, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })

	require.Eventually(t, func() bool { return strings.Contains(screen.String(), "ready") }, patience, 20*time.Millisecond, "%s", &screen)
	_, err = keyboard.Write([]byte{3})
	require.NoError(t, err)
	_ = cmd.Wait() // its error is the code

	assert.Equal(t, 4, cmd.ProcessState.ExitCode())
	for _, want := range []string{"hook ran", "fd 0 tty true", "fd 1 tty true", "foreground true", "got INT"} {
		assert.Contains(t, screen.String(), want)
	}
}

// TestDockerInitContainer: hooks alone prepare a volume as an init container
// does, and the application's container finds it.
func TestDockerInitContainer(t *testing.T) {
	needDocker(t)
	t.Parallel()

	root := newAppRoot(t)
	root.dir("/shared", 0o770, 65532)
	root.file("/prepare/10-config.yaml", 0o644, `run: [/bin/testprog, write, /shared/config, "made for ${WHO:?who is it for}"]`+"\n")
	root.file("/prepare/20-done.yaml", 0o644, "run: [/bin/testprog, touch, /shared/.ready]\n")
	image := root.appImage()
	volume := docker(t, "volume", "create", labName(t))
	t.Cleanup(func() { dockerTry("volume", "rm", "--force", volume) })
	mount := []string{"--volume", volume + ":/shared", "--env", "WHO=the application"}

	prepare := startContainer(t, image, append(mount, "--env", "CLEANIMG_INIT_HOOKS_DIR=/prepare"))
	assert.Equal(t, 0, prepare.wait())
	app := startContainer(t, image, mount, "/bin/testprog", "cat", "/shared/config", ";", "cat", "/shared/.ready")
	assert.Equal(t, 0, app.wait())
	assert.Contains(t, app.log(), "made for the application")
}

// TestDockerInitContainerFails: an init step that fails must not count as
// done, and neither must one that was interrupted.
func TestDockerInitContainerFails(t *testing.T) {
	needDocker(t)
	t.Parallel()

	root := newAppRoot(t)
	root.hook("10-gate", "await /tmp/gate\n")
	root.hook("20-fails", "exit 9\n")
	image := root.appImage()

	failing := startContainer(t, image, nil)
	require.Eventually(t, func() bool { return failing.inspect("{{.State.Running}}") == "true" }, patience, 50*time.Millisecond)
	failing.open()
	assert.Equal(t, 9, failing.wait())

	interrupted := startContainer(t, image, []string{"--env", "CLEANIMG_INIT_HTTP_LISTEN=:10101"})
	interrupted.prober().becomes("/health/live", 200)
	code, took := interrupted.stop()
	assert.Equal(t, 143, code)
	assert.Less(t, took, 10*time.Second)
}

// TestDockerInstall is how a pod gives the entrypoint to an image that does
// not have it: an init container copies it to a volume.
func TestDockerInstall(t *testing.T) {
	needDocker(t)
	t.Parallel()

	root := newAppRoot(t)
	root.dir("/shared", 0o770, 65532)
	image := root.appImage()
	volume := docker(t, "volume", "create", labName(t))
	t.Cleanup(func() { dockerTry("volume", "rm", "--force", volume) })
	mount := []string{"--volume", volume + ":/shared"}

	install := startContainer(t, image, mount, "--install", "/shared")
	assert.Equal(t, 0, install.wait())
	app := startContainer(t, image, append(mount, "--entrypoint", "/shared/cleanimg-init"), "/bin/testprog", "exit", "21")
	assert.Equal(t, 21, app.wait())
}

// TestDockerForeignStopSignal: somebody else's image may ask for a stop signal
// that is none of ours. Named, it begins the shutdown and arrives as it is.
func TestDockerForeignStopSignal(t *testing.T) {
	needDocker(t)
	t.Parallel()

	image := newAppRoot(t).image()
	for _, tt := range []struct{ name, signal, signals, ending string }{
		{"not named", "QUIT", "TERM,INT", ""},
		{"QUIT", "QUIT", "TERM,INT,QUIT", "msg=stopping signal=QUIT drain=100ms grace=20s"},
		{"WINCH", "WINCH", "TERM,INT,WINCH", "msg=stopping signal=WINCH drain=100ms grace=20s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := startContainer(t, image, []string{
				"--stop-signal", tt.signal, "--entrypoint", "/usr/local/bin/cleanimg-init", "--env", "CLEANIMG_INIT_STOP_SIGNALS=" + tt.signals,
				"--env", "CLEANIMG_INIT_DRAIN_DELAY=100ms", "--env", "CLEANIMG_INIT_GRACE_PERIOD=20s",
			}, "/bin/testprog", "trap", "-ready", "/tmp/ready", "-on", tt.signal+"=3")
			requireFile(t, c, "/tmp/ready")
			code, _ := c.stop()
			assert.Equal(t, 3, code)
			assert.Contains(t, c.log(), "got "+tt.signal)
			if tt.ending == "" {
				assert.NotContains(t, c.log(), "msg=stopping")
			} else {
				assert.Contains(t, c.log(), tt.ending)
			}
		})
	}
}

// requireFile waits until there is a file in the container.
func requireFile(t *testing.T, c *dockerContainer, file string) {
	t.Helper()
	out, code := c.exec("/bin/testprog", "await", file)
	require.Zero(t, code, out)
}

// zombies lists the container's dead processes that nobody has waited for.
func (c *dockerContainer) zombies() (lines []string) {
	c.t.Helper()
	for line := range strings.Lines(docker(c.t, "top", c.name, "-eo", "pid,stat,args")) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], "Z") {
			lines = append(lines, line)
		}
	}
	return lines
}
