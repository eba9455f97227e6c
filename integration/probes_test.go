// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// probesSay checks the three probes under all their names.
func probesSay(t *testing.T, in *Instance, startup, live, ready int) {
	t.Helper()
	for path, want := range map[string]int{
		"/health/startup": startup, "/startupz": startup,
		"/health/live": live, "/livez": live, "/healthz": live,
		"/health/ready": ready, "/readyz": ready,
		"/status": 200,
	} {
		assert.Equal(t, want, in.Status(path), path)
	}
}

func TestProbesInEachPhase(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("trap", "-on", "TERM=3", "-delay", "1s"),
		Files: []File{
			Hook("10-a", "touch /tmp/hook", "await /tmp/go"),
			StopHook("10-stop", "touch /tmp/stop", "await /tmp/end"),
		},
	})
	in.WaitFile("/tmp/hook")
	in.WaitStatus("/health/live", 200)
	probesSay(t, in, 503, 200, 503)

	in.touch("/tmp/go")
	in.WaitStatus("/health/ready", 200)
	probesSay(t, in, 200, 200, 200)
	_, body, err := in.Get("/health/ready")
	require.NoError(t, err)
	assert.Contains(t, body, `"check":"none"`)

	in.Signal(syscall.SIGTERM)
	in.WaitStatus("/health/ready", 503)
	probesSay(t, in, 200, 200, 503)

	in.WaitFile("/tmp/stop")
	probesSay(t, in, 200, 200, 503)
	in.touch("/tmp/end")
	assert.Equal(t, 3, in.Wait())
}

// TestProbesSayWhyAHookFailed while the stop hooks run: the kubelet's event
// shows nothing but the code.
func TestProbesSayWhyAHookFailed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		hook   File
		status int
		code   int
	}{
		{"a failure is 500", Hook("10-a", "exit 7"), 500, 7},
		{"a timeout is 504", Step("10-a.yaml", runs("sleep", "1h"), "timeout: 300ms"), 504, 124},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: mainRan, Files: []File{tt.hook, StopHook("10-stop", "touch /tmp/stop", "await /tmp/end")}})
			in.WaitFile("/tmp/stop")
			probesSay(t, in, tt.status, 200, tt.status)
			_, body, err := in.Get("/health/ready")
			require.NoError(t, err)
			assert.Contains(t, body, "10-a")
			in.touch("/tmp/end")
			assert.Equal(t, tt.code, in.Wait())
		})
	}
}

func TestStatusIsTheReport(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "TERM=3"), Files: []File{Hook("10-a", ran("a"))}})
	in.WaitStdout("ready")
	in.WaitStatus("/health/ready", 200)
	in.Signal(syscall.SIGUSR1)
	in.WaitStdout("got USR1")
	_, body, err := in.Get("/status")
	require.NoError(t, err)
	var r runReport
	require.NoError(t, json.Unmarshal([]byte(body), &r), "%s", body)
	assert.Equal(t, "running", r.Phase)
	require.Len(t, r.Steps, 1)
	assert.Equal(t, "10-a", r.Steps[0].Name)
	assert.Equal(t, 1, r.Signals["USR1"], "%v", r.Signals)
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Program: "/bin/testprog",
		Args: append([]string{"setsid", "listen", "127.0.0.1:10101", ";", "connect", "127.0.0.1:10101", ";", "exec", "/bin/cleanimg-init"},
			mainRan...),
		Files: []File{Hook("10-a", ran("a")), StopHook("10-stop", ran("stop"))},
	})
	assert.Equal(t, 125, in.Wait())
	assert.Empty(t, order(in), "something was run")
	for _, text := range []string{"CLEANIMG_INIT_HTTP_LISTEN", "10101", "pod"} {
		assert.Contains(t, in.Stderr.String(), text)
		assert.Contains(t, in.Message(), text)
	}
}

// TestWrongAddressIsNotTheDefault: the default's port is another container's,
// which is why the address was set at all.
func TestWrongAddressIsNotTheDefault(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Program: "/bin/testprog",
		Args: append([]string{"setsid", "listen", "127.0.0.1:10101", ";", "connect", "127.0.0.1:10101", ";", "exec", "/bin/cleanimg-init"},
			mainRan...),
		Env: env("CLEANIMG_INIT_HTTP_LISTEN=10102"),
	})
	assert.Equal(t, 125, in.Wait())
	assert.Contains(t, in.Stderr.String(), `CLEANIMG_INIT_HTTP_LISTEN="10102"`)
	assert.NotContains(t, in.Stderr.String(), "in use", "nobody has asked for :10101")
}

func TestHTTPListen(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap"), Env: env("CLEANIMG_INIT_HTTP_LISTEN=off")})
	in.WaitStdout("ready")
	settle()
	assert.Zero(t, in.Status("/health/live"), "off")

	in = Run(t, Options{Args: do("trap"), Env: env("CLEANIMG_INIT_HTTP_LISTEN=127.0.0.1:8123")})
	in.eventually("the other port", func() bool { status, _, _ := in.GetFrom("127.0.0.1:8123", "/readyz"); return status == 200 })
	assert.Zero(t, in.Status("/health/live"), "the default port is not used as well")
}

// TestInitContainerServesNothing: Kubernetes allows no probes there, and the
// port may be the next container's.
func TestInitContainerServesNothing(t *testing.T) {
	t.Parallel()
	hook := Hook("10-a", "touch /tmp/hook", "await /tmp/go")
	in := Run(t, Options{Files: []File{hook}})
	in.WaitFile("/tmp/hook")
	settle()
	assert.Zero(t, in.Status("/health/live"))
	in.touch("/tmp/go")
	assert.Zero(t, in.Wait())

	in = Run(t, Options{Files: []File{hook}, Env: env("CLEANIMG_INIT_HTTP_LISTEN=:10101")})
	in.WaitFile("/tmp/hook")
	in.WaitStatus("/health/startup", 503)
	in.touch("/tmp/go")
	assert.Zero(t, in.Wait())
}

// TestNestedInstance: a base image and the application's image both brought
// an entrypoint.
func TestNestedInstance(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args:  append([]string{"/bin/cleanimg-init"}, do("trap", "-on", "TERM=5")...),
		Files: []File{Hook("10-a", ran("a"))},
	})
	in.WaitStdout("ready")
	in.WaitStatus("/health/ready", 200)
	assert.Equal(t, []string{"a"}, order(in), "hooks run once")
	assert.Len(t, in.Processes(), 2, "the inner one has become its command: %v", in.Processes())
	assert.Regexp(t, `(?i)warn`, in.Stderr.String())
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 5, in.Wait())
}
