// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// quick are the options of a check that a test waits for.
const quick = "#period=100ms&failure=2"

// TestReadinessCheck of each type: not ready, ready, not ready again. The two
// other probes are not concerned.
func TestReadinessCheck(t *testing.T) {
	t.Parallel()
	const flag = "/tmp/flag"
	up := func(in *Instance) { in.write(flag, "200") }
	down := func(in *Instance) { require.NoError(in.t, os.Remove(in.Path(flag))) }
	tests := []struct {
		name, url, reason string
		command           []string
		up, down          func(*Instance)
	}{
		{"file", "file://" + flag, "no such file or directory", nil, up, down},
		{"exec", "exec:/bin/testprog?arg=cat&arg=" + flag, "exit code 99", nil, up, down},
		{
			"http", "http://127.0.0.1:8080/healthz?x", "status 503",
			[]string{"bg", "answer", "127.0.0.1:8080", flag, ";"},
			up, func(in *Instance) { in.write(flag, "503") },
		},
		{"tcp", "tcp://127.0.0.1:8080", "connection refused", []string{"await", flag, ";", "bg", "listen", "127.0.0.1:8080", ";"}, up, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: do(append(tt.command, "trap", "-on", "TERM=3")...), Env: env("CLEANIMG_INIT_READINESS_CHECK=" + tt.url + quick)})
			in.WaitStatus("/health/startup", 200)
			if tt.name == "http" {
				in.write(flag, "503")
			}
			in.eventually("the reason", func() bool { _, body, _ := in.Get("/health/ready"); return strings.Contains(body, tt.reason) })
			probesSay(t, in, 200, 200, 503)
			tt.up(in)
			in.WaitStatus("/health/ready", 200)
			_, body, err := in.Get("/health/ready")
			require.NoError(t, err)
			assert.JSONEq(t, `{"status":"ok","phase":"running","check":"ok"}`, body)
			if tt.down != nil {
				tt.down(in)
				in.WaitStatus("/health/ready", 503)
				in.WaitStderr("check fails")
				probesSay(t, in, 200, 200, 503)
				tt.up(in)
				in.WaitStatus("/health/ready", 200)
			}
			in.WaitStdout("ready")
			in.Signal(syscall.SIGTERM)
			assert.Equal(t, 3, in.Wait())
		})
	}
}

// TestStartupCheck is over when it has passed.
func TestStartupCheck(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap"), Env: env("CLEANIMG_INIT_STARTUP_CHECK=file:///tmp/up" + quick)})
	in.WaitStdout("ready")
	in.WaitStatus("/health/live", 200)
	probesSay(t, in, 503, 200, 503)
	in.WaitStderr(`"check has not passed yet" check=startup runs=30 err="no such file or directory"`)
	in.touch("/tmp/up")
	in.WaitStatus("/health/startup", 200)
	probesSay(t, in, 200, 200, 200)
	require.NoError(t, os.Remove(in.Path("/tmp/up")))
	settle()
	probesSay(t, in, 200, 200, 200)
	assert.Equal(t, 1, strings.Count(in.Stderr.String(), "check passes"))
}

// TestLivenessCheck counts from when the command is up, and no more when it is
// told to stop.
func TestLivenessCheck(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("trap", "-on", "TERM=3", "-delay", "1s"),
		Env: env("CLEANIMG_INIT_STARTUP_CHECK=file:///tmp/up"+quick, "CLEANIMG_INIT_LIVENESS_CHECK=file:///tmp/alive"+quick,
			"CLEANIMG_INIT_DRAIN_DELAY=1m"),
		Files: []File{Hook("10-a", "await /tmp/go")},
	})
	in.WaitStatus("/health/live", 200)
	in.touch("/tmp/go")
	in.WaitStdout("ready")
	settle()
	probesSay(t, in, 503, 200, 503)
	in.touch("/tmp/up")
	in.WaitStatus("/health/live", 503)
	probesSay(t, in, 200, 503, 200)
	in.touch("/tmp/alive")
	in.WaitStatus("/health/live", 200)
	require.NoError(t, os.Remove(in.Path("/tmp/alive")))
	in.WaitStatus("/health/live", 503)
	in.Signal(syscall.SIGTERM)
	in.WaitStatus("/health/ready", 503)
	probesSay(t, in, 200, 200, 503)
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 3, in.Wait())
}

// TestExecCheckRunsOnceAtATime, also where each run has to be killed. Probes
// are answered meanwhile.
func TestExecCheckRunsOnceAtATime(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("trap", "-on", "TERM=3"),
		Env:  env("CLEANIMG_INIT_READINESS_CHECK=exec:/bin/testprog?arg=append&arg=/tmp/runs&arg=x&arg=%3B&arg=sleep&arg=1h#timeout=300ms&period=100ms"),
	})
	in.WaitStdout("ready")
	most := 0
	in.eventually("some runs", func() bool {
		n := 0
		for _, p := range in.Processes() {
			if len(p.Args) > 2 && p.Args[1] == "append" && p.State != "Z" {
				n++
			}
		}
		most = max(most, n)
		assert.Equal(t, 200, in.Status("/health/live"))
		return strings.Count(in.File("/tmp/runs"), "x") >= 4
	})
	assert.Equal(t, 1, most)
	_, body, err := in.Get("/health/ready")
	require.NoError(t, err)
	assert.Contains(t, body, "no success within 300ms")
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 3, in.Wait())
}

// TestExecCheckThatTimesOutLeavesNothing, not even a daemon.
func TestExecCheckThatTimesOutLeavesNothing(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("trap", "-on", "TERM=3"),
		Env: env("CLEANIMG_INIT_STARTUP_CHECK=exec:/bin/testprog?arg=counter&arg=/tmp/n&arg=2&arg=daemon&arg=sleep&arg=1h" +
			"&arg=%3B&arg=counter&arg=/tmp/m&arg=2&arg=sleep&arg=1h#timeout=500ms"),
	})
	in.WaitStatus("/health/startup", 200)
	in.eventually("the command alone", func() bool { return len(in.Processes()) == 2 })
	in.WaitStdout("ready")
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 3, in.Wait())
}

// TestExecCheckIsLikeTheCommand: its user and its environment are the
// command's, its input is empty, its output goes nowhere.
func TestExecCheckIsLikeTheCommand(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	in := Run(t, Options{
		Root: true,
		Args: do("trap"),
		Env: env("CLEANIMG_INIT_USER=65532:65532", "MARK=here", "CLEANIMG_INIT_NOTIFY=all",
			"CLEANIMG_INIT_STARTUP_CHECK=exec:/bin/testprog?arg=print&arg=output&arg=%3B&arg=cat&arg=%3B&arg=touch&arg=/tmp/up&arg=%3B&arg=install&arg=/proc/self/environ&arg=/tmp/environ"),
	})
	in.eventually("the environment", func() bool { return strings.Contains(in.File("/tmp/environ"), "MARK=here") })
	var st syscall.Stat_t
	require.NoError(t, syscall.Stat(in.Path("/tmp/up"), &st))
	assert.EqualValues(t, 65532, st.Uid)
	assert.NotContains(t, in.File("/tmp/environ"), "NOTIFY_SOCKET", "a check is not the service")
	assert.NotContains(t, in.Stdout.String(), "output")
}

// TestExecCheckThatCannotRun: waiting does not help, so it is said at once, once.
func TestExecCheckThatCannotRun(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "TERM=3"), Env: env("CLEANIMG_INIT_READINESS_CHECK=exec:/no/such/program#period=100ms")})
	in.eventually("three runs", func() bool {
		_, body, err := in.Get("/status")
		return err == nil && strings.Contains(body, `"state":"failing"`)
	})
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 3, in.Wait())
	const line = `msg="check cannot be run" check=readiness err="/no/such/program: no such file or directory"`
	assert.Equal(t, 1, strings.Count(in.Stderr.String(), line), "%s", in.Stderr)
}

// TestHangingCheck: what does not answer delays no probe, nor the end.
func TestHangingCheck(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("bg", "answer", "127.0.0.1:8080", "/none", ";", "trap", "-on", "TERM=3"),
		Env:  env("CLEANIMG_INIT_LIVENESS_CHECK=http://127.0.0.1:8080/#timeout=1h", "CLEANIMG_INIT_READINESS_CHECK=exec:/bin/testprog?arg=sleep&arg=1h#timeout=1h"),
	})
	in.WaitStdout("ready")
	in.eventually("the check to run", func() bool { return len(in.Processes()) == 4 })
	for range 20 {
		probesSay(t, in, 200, 200, 503)
	}
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 3, in.Wait())
	assert.Less(t, in.Lived(), 2*soon)
}

// TestProbesWhileAHookBurnsTheCPU are answered all the same.
func TestProbesWhileAHookBurnsTheCPU(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args:  do("trap"),
		Files: []File{Hook("10-a", "bg busy 1h", "bg busy 1h", "bg busy 1h", "bg busy 1h", "touch /tmp/hook", "await /tmp/go")},
		Env:   env("CLEANIMG_INIT_READINESS_CHECK=file:///tmp"),
	})
	in.WaitFile("/tmp/hook")
	in.WaitStatus("/health/live", 200)
	for range 20 {
		assert.Equal(t, 200, in.Status("/health/live"))
		assert.Equal(t, 503, in.Status("/health/ready"))
	}
	in.touch("/tmp/go")
	in.WaitStatus("/health/ready", 200)
}

// TestChecksInReportAndPlan are shown there without what may be secret.
func TestChecksInReportAndPlan(t *testing.T) {
	t.Parallel()
	settings := env("CLEANIMG_INIT_READINESS_CHECK=http://u:planted-url@127.0.0.1:8080/x?key=planted-arg#period=200ms",
		"CLEANIMG_INIT_LIVENESS_CHECK=exec:/bin/testprog?arg=args&arg=planted-arg",
		"CLEANIMG_INIT_STARTUP_CHECK=exec:/no/such/program?arg=planted-arg",
		"CLEANIMG_INIT_LOG_LEVEL=debug", "CLEANIMG_INIT_REPORT_FILE=/tmp/report.json")
	in := Run(t, Options{Args: do("trap", "-on", "TERM=3"), Env: settings})
	in.WaitStdout("ready")
	type check struct {
		Name, Type, State, Reason string
		Runs                      int
	}
	var got struct{ Checks []check }
	in.eventually("every check to run", func() bool {
		_, body, _ := in.Get("/status")
		return json.Unmarshal([]byte(body), &got) == nil && len(got.Checks) == 3 && got.Checks[0].Runs > 2 && got.Checks[2].Runs > 2
	})
	assert.Equal(t, check{"startup", "exec", "failing", "/no/such/program: no such file or directory", got.Checks[0].Runs}, got.Checks[0])
	assert.Equal(t, check{"liveness", "exec", "passing", "", 0}, got.Checks[1], "it waits for the startup")
	assert.Equal(t, check{"readiness", "http", "failing", "connection refused", got.Checks[2].Runs}, got.Checks[2])
	everything := ""
	for _, path := range []string{"/status", "/health/startup", "/health/live", "/health/ready", "/metrics", "/"} {
		_, body, _ := in.Get(path)
		everything += body
	}
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 3, in.Wait())

	plan := Run(t, Options{Args: append([]string{"--check"}, do("trap")...), Env: settings})
	assert.Zero(t, plan.Wait())
	assert.Contains(t, plan.Stdout.String(), "readiness check: http://127.0.0.1:8080/x, every 200ms, timeout 1s, successes 1, failures 3\n")
	assert.Contains(t, plan.Stdout.String(), "liveness check: exec:/bin/testprog, every 10s")
	assert.Contains(t, plan.Stderr.String(), "warning: startup check: ")

	everything += in.Stderr.String() + in.Message() + in.File("/tmp/report.json") + plan.Stdout.String() + plan.Stderr.String()
	for _, secret := range planted {
		assert.NotContains(t, everything, secret)
	}
}

// TestBadChecks are told all at once, without what may be secret in them.
func TestBadChecks(t *testing.T) {
	t.Parallel()
	settings := env("CLEANIMG_INIT_READINESS_CHECK=https://u:planted-url@127.0.0.1/", "CLEANIMG_INIT_LIVENESS_CHECK=exec:/x?token=planted-arg",
		"CLEANIMG_INIT_STARTUP_CHECK=tcp://127.0.0.1:1#period=often", "CLEANIMG_INIT_NOTIFY=everybody", "CLEANIMG_INIT_WATCHDOG=often")
	for _, args := range [][]string{mainRan, append([]string{"--check"}, mainRan...), {"--probe", "ready"}} {
		in := Run(t, Options{Args: args, Env: settings})
		assert.Equal(t, 125, in.Wait())
		assert.Empty(t, order(in))
		said := in.Stderr.String()
		for _, text := range []string{
			`READINESS_CHECK="https://***@127.0.0.1/"`, "await", `LIVENESS_CHECK="exec:/x?***"`, "arg=A", `STARTUP_CHECK="tcp://127.0.0.1:1#period=often"`,
			"want a duration", `NOTIFY="everybody"`, "off main all", `WATCHDOG="often"`,
		} {
			assert.Contains(t, said, text)
		}
		for _, secret := range planted {
			assert.NotContains(t, said+in.Message(), secret)
		}
	}
}

// write makes a file inside, whole at once.
func (in *Instance) write(inside, text string) {
	in.t.Helper()
	require.NoError(in.t, os.WriteFile(in.Path(inside)+".new", []byte(text), 0o666))
	require.NoError(in.t, os.Rename(in.Path(inside)+".new", in.Path(inside)))
}

// TestCommandEndsWhileACheckRuns: nobody waits for the check, nor takes it for
// something that the command left. The container has no /dev, too.
func TestCommandEndsWhileACheckRuns(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		NoDev: true,
		Args:  do("await", "/tmp/running", ";", "exit", "0"),
		Env:   env("CLEANIMG_INIT_READINESS_CHECK=exec:/bin/testprog?arg=touch&arg=/tmp/running&arg=%3B&arg=trap&arg=-quiet#timeout=1h"),
	})
	assert.Zero(t, in.Wait())
	assert.Less(t, in.Lived(), 2*soon)
	assert.NotContains(t, in.Stderr.String(), "foreground")
	assert.NotContains(t, in.Stderr.String(), "still running")
}

// TestChecksThatDoNothing are said to.
func TestChecksThatDoNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		env  string
		says string
	}{
		{nil, "CLEANIMG_INIT_HOOKS_SKIP=*", "there is no command"},
		{do("exit", "0"), "CLEANIMG_INIT_MODE=exec", "exec mode"},
		{do("exit", "0"), "CLEANIMG_INIT_HTTP_LISTEN=off", "HTTP_LISTEN is off"},
	} {
		in := Run(t, Options{Args: tt.args, Env: env("CLEANIMG_INIT_READINESS_CHECK=exec:/bin/testprog?arg=touch&arg=/tmp/run", tt.env), Files: []File{Hook("10-a", "exit 0")}})
		assert.Zero(t, in.Wait())
		assert.Contains(t, in.Stderr.String(), tt.says)
		assert.False(t, in.ran("/tmp/run"))
	}
	in := Run(t, Options{Args: do("exit", "0"), Env: env("CLEANIMG_INIT_WATCHDOG=30s")})
	assert.Equal(t, 125, in.Wait())
	assert.Contains(t, in.Stderr.String(), "CLEANIMG_INIT_WATCHDOG=30s needs CLEANIMG_INIT_NOTIFY=main or all")
}
