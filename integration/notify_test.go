// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// notifyState is a part of /status.
type notifyState struct {
	Ready, Reloading, Stopping bool
	Status, Watchdog           string
	WatchdogSeconds            float64 `json:"watchdog_seconds"`
}

func (in *Instance) notifyState() notifyState {
	in.t.Helper()
	_, body, err := in.Get("/status")
	require.NoError(in.t, err)
	var r struct{ Notify *notifyState }
	require.NoError(in.t, json.Unmarshal([]byte(body), &r), "%s", body)
	require.NotNil(in.t, r.Notify, "%s", body)
	return *r.Notify
}

// TestNotify is the life of a command that speaks for itself.
func TestNotify(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("await", "/tmp/1", ";", "notify", "READY=1", "STATUS=up, knows planted-token", ";", "touch", "/tmp/1.done", ";",
			"await", "/tmp/2", ";", "notify", "RELOADING=1", ";", "touch", "/tmp/2.done", ";",
			"await", "/tmp/3", ";", "notify", "STOPPING=1", "STATUS=", ";", "touch", "/tmp/3.done", ";", "trap", "-on", "TERM=3"),
		Env: env("CLEANIMG_INIT_NOTIFY=main", "API_TOKEN=planted-token", "CLEANIMG_INIT_REPORT_FILE=/tmp/report.json"),
	})
	in.WaitStatus("/health/live", 200)
	settle()
	probesSay(t, in, 503, 200, 503)
	_, body, _ := in.Get("/health/startup")
	assert.Contains(t, body, "READY=1")

	in.touch("/tmp/1")
	in.WaitFile("/tmp/1.done") // read before the barrier was answered
	probesSay(t, in, 200, 200, 200)
	assert.Equal(t, notifyState{Ready: true, Status: "up, knows ***"}, in.notifyState())
	_, body, _ = in.Get("/health/ready")
	assert.Contains(t, body, `"check":"notify"`)

	in.touch("/tmp/2")
	in.WaitFile("/tmp/2.done")
	probesSay(t, in, 200, 200, 200)
	assert.True(t, in.notifyState().Reloading)

	in.touch("/tmp/3")
	in.WaitFile("/tmp/3.done")
	probesSay(t, in, 200, 200, 503)

	in.WaitStdout("ready")
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 3, in.Wait())
	assert.Contains(t, in.File("/tmp/report.json"), `"notify":{"ready":true`)
	assert.NotContains(t, in.Stderr.String()+in.File("/tmp/report.json"), "planted-token")
}

// TestNotifyWatchdog: one that was missed is 410, until it is fed again.
func TestNotifyWatchdog(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("notify", "READY=1", ";", "await", "/tmp/1", ";", "notify", "WATCHDOG=1", "WATCHDOG_USEC=3600000000", ";", "touch", "/tmp/1.done", ";",
			"await", "/tmp/2", ";", "notify", "WATCHDOG=trigger", ";", "env", ";", "trap", "-on", "TERM=3"),
		Env: env("CLEANIMG_INIT_NOTIFY=main", "CLEANIMG_INIT_WATCHDOG=300ms", "WATCHDOG_PID=1", "WATCHDOG_USEC=1"),
	})
	in.WaitStatus("/health/live", 410)
	probesSay(t, in, 200, 410, 410)
	_, body, _ := in.Get("/health/live")
	assert.Contains(t, body, "watchdog")
	in.WaitStderr("watchdog missed")
	in.touch("/tmp/1")
	in.WaitFile("/tmp/1.done")
	probesSay(t, in, 200, 200, 200)
	in.touch("/tmp/2")
	in.WaitStatus("/health/live", 410)
	in.WaitStdout("ready")
	assert.Contains(t, in.Stdout.String(), "WATCHDOG_USEC=300000\n")
	assert.NotContains(t, in.Stdout.String(), "WATCHDOG_PID")
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 3, in.Wait())
}

// TestNotifyAccess: whose word counts.
func TestNotifyAccess(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, access string
		command      []string
		noProc       bool
		startup      int
	}{
		{"main", "main", []string{"notify", "READY=1"}, false, 200},
		{"a child is not main", "main", []string{"bg", "notify", "READY=1", ",", "touch", "/tmp/said"}, false, 503},
		{"a child", "all", []string{"bg", "notify", "READY=1"}, false, 200},
		{"a daemon", "all", []string{"daemon", "notify", "READY=1"}, false, 200},
		{"a child, without /proc", "all", []string{"bg", "notify", "READY=1"}, true, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{NoProc: tt.noProc, Args: do(append(tt.command, ";", "trap")...), Env: env("CLEANIMG_INIT_NOTIFY=" + tt.access)})
			if tt.startup == 503 {
				in.WaitFile("/tmp/said")
			}
			in.WaitStatus("/health/startup", tt.startup)
		})
	}
}

// TestNotifyStranger: a program that was entered by kubectl exec, and one of
// another container that shares the network, know the socket's name, but the
// kernel says who they are.
func TestNotifyStranger(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("notify", "STATUS=mine", ";", "env", ";", "trap"),
		Env:  env("CLEANIMG_INIT_NOTIFY=all", "CLEANIMG_INIT_LOG_LEVEL=debug"),
	})
	in.WaitStdout("ready")
	_, socket, _ := strings.Cut(in.Stdout.String(), "NOTIFY_SOCKET=")
	socket, _, _ = strings.Cut(socket, "\n")
	require.True(t, strings.HasPrefix(socket, "@"), socket)

	cmd := in.execCommand("/bin/testprog", "notify", "READY=1")
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+socket)
	require.NoError(t, cmd.Run())
	if !unprivileged { // from a pid namespace above: its pid is 0 inside
		cmd = exec.Command("nsenter", "-n", "-t", strconv.Itoa(in.PID), "--", testprogPath, "notify", "READY=1")
		cmd.Env = []string{"NOTIFY_SOCKET=" + socket}
		require.NoError(t, cmd.Run())
	}
	assert.Equal(t, 503, in.Status("/health/startup"))
	assert.Equal(t, notifyState{Status: "mine"}, in.notifyState())
	assert.Contains(t, in.Stderr.String(), "notification dropped")
}

// TestNotifyIsTheCommandsAlone: hooks are told of no socket, neither of ours
// nor of the one that we were started with. That is the command's where NOTIFY
// is off; else we are its client.
func TestNotifyIsTheCommandsAlone(t *testing.T) {
	t.Parallel()
	for _, access := range []string{"off", "main"} {
		t.Run(access, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{
				Program: "/bin/testprog",
				Args: append([]string{"await", "/tmp/bound", ";", "exec", "/bin/cleanimg-init"},
					do("touch", "/tmp/main", ";", "install", "/proc/self/environ", "/tmp/environ", ";", "notify", "READY=1", "STATUS=up", ";", "trap", "-on", "TERM=3")...),
				Files: []File{
					Hook("10-a", "install /proc/self/environ /tmp/hook"),
					StopHook("10-stop", "install /proc/self/environ /tmp/stop"),
				},
				Env: env("NOTIFY_SOCKET=/tmp/above", "WATCHDOG_USEC=1", "CLEANIMG_INIT_NOTIFY="+access),
			})
			above, err := net.ListenPacket("unixgram", in.Path("/tmp/above"))
			require.NoError(t, err)
			defer above.Close()
			require.NoError(t, os.Chmod(in.Path("/tmp/above"), 0o777))
			in.touch("/tmp/bound")
			heard := make(chan string, 10)
			go func() {
				buf := make([]byte, 4096)
				for {
					n, _, err := above.ReadFrom(buf)
					if err != nil {
						close(heard)
						return
					}
					heard <- string(buf[:n])
				}
			}()
			hears := func(want string) {
				select {
				case got := <-heard:
					assert.Equal(t, want, got)
				case <-time.After(patience):
					assert.Fail(t, "nothing was heard")
				}
			}
			in.eventually("the command's environment", func() bool { return strings.HasSuffix(in.File("/tmp/environ"), "\x00") })
			if access == "off" {
				assert.Contains(t, in.File("/tmp/environ"), "NOTIFY_SOCKET=/tmp/above\x00")
				hears("READY=1\nSTATUS=up")
				return // nobody answers the barrier
			}
			assert.Contains(t, in.File("/tmp/environ"), "NOTIFY_SOCKET=@")
			hears("READY=1")
			hears("STATUS=up")
			in.WaitStdout("ready")
			in.Signal(syscall.SIGTERM)
			hears("STOPPING=1")
			assert.Equal(t, 3, in.Wait())
			for _, hook := range []string{"/tmp/hook", "/tmp/stop"} {
				assert.Contains(t, in.File(hook), "CLEANIMG_INIT_STEP=")
				assert.NotContains(t, in.File(hook), "NOTIFY_SOCKET")
				assert.NotContains(t, in.File(hook), "WATCHDOG")
			}
		})
	}
}

// TestNotifyWithSystemdNotify is the client of scripts, a process of its own.
func TestNotifyWithSystemdNotify(t *testing.T) {
	t.Parallel()
	const client = "/usr/bin/systemd-notify"
	if _, err := os.Stat(client); err != nil {
		t.Skipf("systemd-notify is not installed: %v", err)
	}
	in := Run(t, Options{
		HostPrograms: true,
		Args:         do("bg", "exec", client, "--ready", "--status=up and running", ";", "trap"),
		Env:          env("CLEANIMG_INIT_NOTIFY=all"),
	})
	in.WaitStatus("/health/startup", 200)
	assert.Equal(t, notifyState{Ready: true, Status: "up and running"}, in.notifyState())
	in.eventually("systemd-notify to end, as its barrier is answered", func() bool { return len(in.Processes()) == 2 })
}

// TestNotifyWithRedis: Debian's redis-server is built with libsystemd.
func TestNotifyWithRedis(t *testing.T) {
	t.Parallel()
	const server = "/usr/bin/redis-server"
	if _, err := os.Stat(server); err != nil {
		t.Skipf("redis-server is not installed: %v", err)
	}
	in := Run(t, Options{
		HostPrograms: true,
		Args:         []string{server, "--supervised", "systemd", "--save", "", "--dir", "/tmp", "--port", "6400", "--bind", "127.0.0.1"},
		Env:          env("CLEANIMG_INIT_NOTIFY=main", "CLEANIMG_INIT_LIVENESS_CHECK=tcp://127.0.0.1:6400"),
	})
	in.WaitStatus("/health/ready", 200)
	assert.True(t, in.notifyState().Ready)
	assert.Equal(t, "Ready to accept connections", in.notifyState().Status)
	in.Signal(syscall.SIGTERM)
	assert.Zero(t, in.Wait())
}
