// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBadSettings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		env  []string
		args []string
		says []string // besides the variable's name
	}{
		{env: []string{"STEP_TIMEOUT=soon"}, says: []string{"soon"}},
		{env: []string{"STEP_TIMEOUT=-5s"}, says: []string{"-5s"}},
		{env: []string{"STEP_TIMEOUTS=20-migrate"}, says: []string{"20-migrate"}},
		{env: []string{"HOOKS_PARALLEL=many"}, says: []string{"many"}},
		{env: []string{"HOOKS_PARALLEL=-1"}, says: []string{"-1"}},
		{env: []string{"KILL_GRACE=5x"}, says: []string{"5x"}},
		{env: []string{"STOP_SIGNALS=TERM,NONSENSE"}, says: []string{"NONSENSE"}},
		{env: []string{"STOP_SIGNALS=KILL"}, says: []string{"KILL"}},
		{env: []string{"SIGNAL_TARGET=everybody"}, says: []string{"everybody", "main", "group", "tree"}},
		{env: []string{"SIGNAL_REWRITE=TERM=QUIT"}, says: []string{"TERM"}},
		{env: []string{"MODE=fast"}, says: []string{"fast", "supervise", "exec"}},
		{env: []string{"HOOK_OUTPUT=pretty"}, says: []string{"pretty", "plain", "prefix", "inherit"}},
		{env: []string{"LOG_FORMAT=xml"}, says: []string{"xml", "text", "json"}},
		{env: []string{"LOG_LEVEL=loud"}, says: []string{"loud", "debug"}},
		{env: []string{"HTTP_LISTEN=nonsense"}, says: []string{"nonsense"}},
		{env: []string{"HTTP_LISTEN=:99999"}, says: []string{"99999"}},
		{env: []string{"GRACE_PERIOD=4s", "DRAIN_DELAY=10s"}, says: []string{"DRAIN_DELAY", "GRACE_PERIOD"}},
		{env: []string{"ENV_FILES=[bad"}, says: []string{"[bad"}},
		{args: []string{"--no-such-option"}, says: []string{"--no-such-option"}},
	}
	for _, tt := range tests {
		name := strings.Join(append(tt.env, tt.args...), " ")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vars := env()
			for _, e := range tt.env {
				vars = append(vars, "CLEANIMG_INIT_"+e)
				variable, _, _ := strings.Cut(e, "=")
				tt.says = append(tt.says, "CLEANIMG_INIT_"+variable)
			}
			in := Run(t, Options{
				Args: append(tt.args, mainRan...), Env: vars,
				Files: []File{Hook("10-a", ran("a")), StopHook("10-stop", ran("stop"))},
			})
			assert.Equal(t, 125, in.Wait())
			assert.Empty(t, order(in), "something was run")
			for _, text := range tt.says {
				assert.Contains(t, in.Stderr.String(), text)
			}
			assert.NotEmpty(t, in.Message(), "the termination message")
		})
	}
}

func TestAllBadSettingsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: mainRan, Env: env("CLEANIMG_INIT_STEP_TIMEOUT=a", "CLEANIMG_INIT_MODE=b", "CLEANIMG_INIT_KILL_GRACE=c", "CLEANIMG_INIT_LOG_LEVEL=d")})
	assert.Equal(t, 125, in.Wait())
	for _, name := range []string{"STEP_TIMEOUT", "MODE", "KILL_GRACE", "LOG_LEVEL"} {
		assert.Contains(t, in.Stderr.String(), "CLEANIMG_INIT_"+name)
		assert.Contains(t, in.Message(), "CLEANIMG_INIT_"+name)
	}
	for _, check := range [][]string{nil, {"--check"}} {
		args := append(check, "-e", "300", "-p", "NOPE", "--kill-grace", "c", "/not/there")
		in = Run(t, Options{Args: args, Env: env("CLEANIMG_INIT_MODE=b"), Files: []File{Hook("10-a", "exit 0"), {Path: hooksDir + "20-bad", Content: "x"}}})
		assert.Equal(t, 125, in.Wait())
		for _, text := range []string{"option -e", "option -p", "option --kill-grace", "CLEANIMG_INIT_MODE", "20-bad", "/not/there"} {
			assert.Contains(t, in.Stderr.String(), text, "%v", args)
		}
	}
}

// TestEmptyMeansDefault: an empty value is what an optional key of a
// ConfigMap gives.
func TestEmptyMeansDefault(t *testing.T) {
	t.Parallel()
	vars := env()
	for _, name := range variables(t) {
		vars = append(vars, name+"=")
	}
	in := Run(t, Options{Args: mainRan, Env: vars, Files: []File{Hook("10-a", ran("a"))}})
	assert.Zero(t, in.Wait(), "%s", in.Stderr)
	assert.Equal(t, []string{"a", "main"}, order(in))
}

// variables are the settings that --help lists, with their prefix.
func variables(t *testing.T) []string {
	t.Helper()
	in := Run(t, Options{Args: []string{"--help"}})
	require.Zero(t, in.Wait())
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^ +(?:CLEANIMG_INIT_)?([A-Z][A-Z_]{3,})\b`).FindAllStringSubmatch(in.Stdout.String(), -1) {
		names = append(names, "CLEANIMG_INIT_"+m[1])
	}
	require.Greater(t, len(names), 20)
	return names
}

func TestHelpListsEveryVariable(t *testing.T) {
	t.Parallel()
	listed := variables(t)
	for _, name := range []string{
		"HOOKS_DIR", "STOP_HOOKS_DIR", "HOOKS_SKIP", "HOOKS_PARALLEL", "STEP_TIMEOUT", "STEP_TIMEOUTS", "HOOKS_DEADLINE", "COMMAND_TIMEOUT",
		"KILL_GRACE", "GRACE_PERIOD", "DRAIN_DELAY", "STOP_SIGNALS", "SIGNAL_TARGET", "SIGNAL_REWRITE", "HTTP_LISTEN",
		"MODE", "USER", "ENV_FILES", "HOOK_OUTPUT", "LOG_FORMAT", "LOG_LEVEL", "REPORT_FILE", "TERMINATION_LOG",
	} {
		assert.Contains(t, listed, "CLEANIMG_INIT_"+name)
	}
	in := Run(t, Options{Args: []string{"--help"}})
	require.Zero(t, in.Wait())
	for _, value := range []string{"10m", "5s", ":10101", "TERM,INT", "/dev/termination-log", "/etc/cleanimg-init/hooks.d"} {
		assert.Contains(t, in.Stdout.String(), value, "a default")
	}
	assert.Empty(t, in.Stderr.String())
}

func TestVersion(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: []string{"--version"}})
	assert.Zero(t, in.Wait())
	assert.Contains(t, in.Stdout.String(), "cleanimg-init")
	assert.Empty(t, in.Stderr.String())
}

func TestUnknownVariableWarns(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"supervise", "exec"} {
		in := Run(t, Options{Args: mainRan, Env: env("CLEANIMG_INIT_STEP_TIMOUT=5s", "CLEANIMG_INIT_MODE="+mode)})
		assert.Zero(t, in.Wait())
		assert.Contains(t, in.Stderr.String(), "CLEANIMG_INIT_STEP_TIMOUT", mode)
		assert.Equal(t, []string{"main"}, order(in))
	}
}

// TestServiceLinks: what Kubernetes injects for a Service called
// cleanimg-init, and names that other programs use, do nothing.
func TestServiceLinks(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: mainRan,
		Env: env("CLEANIMG_INIT_PORT=tcp://10.0.0.1:80", "CLEANIMG_INIT_PORT_80_TCP=tcp://10.0.0.1:80", "CLEANIMG_INIT_PORT_80_TCP_ADDR=10.0.0.1",
			"CLEANIMG_INIT_PORT_80_TCP_PORT=80", "CLEANIMG_INIT_PORT_80_TCP_PROTO=tcp", "CLEANIMG_INIT_SERVICE_HOST=10.0.0.1", "CLEANIMG_INIT_SERVICE_PORT=80",
			"CLEANIMG_INIT_SERVICE_PORT_HTTP=80"),
	})
	assert.Zero(t, in.Wait())
	assert.NotContains(t, in.Stderr.String(), "CLEANIMG_INIT_PORT", "no warning")
	assert.NotContains(t, in.Stderr.String(), "CLEANIMG_INIT_SERVICE", "no warning")
}

func TestVariablesOfOthersChangeNothing(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("trap", "-on", "TERM=0"),
		Env:  env("HTTP_LISTEN=off", "PORT=1", "TIMEOUT=x", "STEP_TIMEOUT=x", "MODE=exec", "USER=root", "HOOKS_DIR=/nowhere", "LOG_LEVEL=x", "GOGC=off", "GODEBUG=x=y"),
	})
	in.WaitStdout("ready")
	in.WaitStatus("/health/ready", 200)
	in.Signal(syscall.SIGTERM)
	assert.Zero(t, in.Wait())
}

func TestOptionsWinOverVariables(t *testing.T) {
	t.Parallel()
	// Also: parsing stops at the first word that is not an option.
	in := Run(t, Options{Args: append([]string{"--no-hooks"}, do("args", "--no-hooks", "-x", "--")...), Files: []File{Hook("10-a", ran("a"))}})
	assert.Zero(t, in.Wait(), "%s", in.Stderr)
	assert.Empty(t, order(in))
	assert.Equal(t, []string{`"--no-hooks"`, `"-x"`, `"--"`}, in.Stdout.Lines())
}

func TestCommandCannotRun(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		command []string
		want    int
		says    string
	}{
		{"missing path", []string{"/no/such/command"}, 127, "/no/such/command"},
		{"missing in PATH", []string{"no-such-command"}, 127, "no-such-command"},
		{"not executable", []string{"/etc/data"}, 126, "/etc/data"},
		{"a folder", []string{"/etc"}, 126, "/etc"},
		{"no interpreter", []string{"/etc/script"}, 127, "/bin/no-shell"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: tt.command, Files: []File{
				Hook("10-a", ran("a")),
				{Path: "/etc/data", Content: "data"},
				{Path: "/etc/script", Content: "#!/bin/no-shell\n", Mode: 0o755},
			}})
			code := in.Wait()
			if tt.name == "no interpreter" {
				assert.Contains(t, []int{126, 127}, code)
			} else {
				assert.Equal(t, tt.want, code)
			}
			assert.Empty(t, order(in), "a hook has run before a command that cannot")
			assert.Contains(t, in.Stderr.String(), tt.says)
			assert.Contains(t, in.Message(), tt.says)
		})
	}
}

func TestCommandIsFoundInPath(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: []string{"--", "testprog", "exit", "6"}})
	assert.Equal(t, 6, in.Wait())
}

func TestCheck(t *testing.T) {
	t.Parallel()
	files := []File{
		Hook("10-a", ran("a")),
		Step("20-b.yaml", "run: [/not/there/yet]", "timeout: 3m"),
		StopHook("90-stop", ran("stop")),
	}
	in := Run(t, Options{Args: append([]string{"--check"}, mainRan...), Files: files, NoMessage: true})
	assert.Zero(t, in.Wait(), "%s", in.Stderr)
	for _, text := range []string{"10-a", "20-b", "90-stop", "3m"} {
		assert.Contains(t, in.Stdout.String(), text)
	}
	assert.Contains(t, in.Stdout.String()+in.Stderr.String(), "/not/there/yet", "a missing program is worth a warning")
	assert.Empty(t, order(in), "--check runs nothing")

	in = Run(t, Options{Args: append([]string{"--check"}, mainRan...), Files: files, Env: env("CLEANIMG_INIT_HOOKS_DEADLINE=5m")})
	assert.Zero(t, in.Wait(), "%s", in.Stderr)
	assert.Contains(t, in.Stdout.String(), "hooks: 2, at most 5m0s\n", "as in the log of a run")

	in = Run(t, Options{Args: []string{"--check"}, Files: append(files, File{Path: hooksDir + "30-bad", Content: "x"})})
	assert.Equal(t, 125, in.Wait())
	assert.Contains(t, in.Stdout.String()+in.Stderr.String(), "30-bad")
	assert.Empty(t, in.Message(), "--check touches nothing")
}

func TestProbe(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"", "CLEANIMG_INIT_HTTP_LISTEN=127.0.0.1:8099"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: do("trap", "-on", "TERM=0"), Env: env(setting), Files: []File{Hook("10-a", "touch /tmp/hook", "await /tmp/go")}})
			in.WaitFile("/tmp/hook")
			probe := func(which string) int { _, code := in.Exec("/bin/cleanimg-init", "--probe", which); return code }
			in.eventually("the live probe", func() bool { return probe("live") == 0 })
			assert.Equal(t, 1, probe("startup"))
			assert.Equal(t, 1, probe("ready"))
			in.touch("/tmp/go")
			in.WaitStdout("ready")
			in.eventually("the ready probe", func() bool { return probe("ready") == 0 })
			assert.Zero(t, probe("startup"))
			assert.Zero(t, probe("live"))
		})
	}
}

// TestProbeKnowsNoOptions: what is wrong without the options that the instance
// has is none of its affairs.
func TestProbeKnowsNoOptions(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: append([]string{"--notify", "main", "--mode", "supervise"}, do("trap", "-on", "TERM=0")...),
		Env:  env("CLEANIMG_INIT_WATCHDOG=30s", "CLEANIMG_INIT_MODE=exec"),
	})
	in.WaitStdout("ready")
	in.WaitStatus("/health/live", 200)
	output, code := in.Exec("/bin/cleanimg-init", "--probe", "live")
	assert.Zero(t, code, output)
}

func TestProbeWithoutInstance(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: []string{"--probe", "ready"}})
	assert.Equal(t, 1, in.Wait())
	in = Run(t, Options{Args: []string{"--probe", "nonsense"}})
	assert.Equal(t, 125, in.Wait())
}

func TestInstall(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: []string{"--install", "/tmp"}})
	require.Zero(t, in.Wait(), "%s", in.Stderr)
	info, err := os.Stat(in.Path("/tmp/cleanimg-init"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o755), info.Mode().Perm())
	entries, err := os.ReadDir(in.Path("/tmp"))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "no temporary file is left")

	again := Run(t, Options{Program: "/tools/cleanimg-init", Args: do("exit", "4"), Mounts: []Mount{{Host: in.Path("/tmp"), Inside: "/tools"}}})
	assert.Equal(t, 4, again.Wait(), "the copy works")

	in = Run(t, Options{Args: []string{"--install", "/etc"}})
	assert.Equal(t, 125, in.Wait(), "a read-only directory")
	assert.Contains(t, in.Stderr.String(), "/etc")
}

func TestEnvFiles(t *testing.T) {
	t.Parallel()
	files := []File{
		{Path: "/run/secrets/db", Content: "pass word\n\n"},
		{Path: "/run/secrets/key", Content: "k"},
		Hook("10-a", "env /tmp/hook"),
	}
	in := Run(t, Options{
		Args: do("env"), Files: files,
		Env: env("CLEANIMG_INIT_ENV_FILES=DB_PASSWORD,API_*", "DB_PASSWORD_FILE=/run/secrets/db", "API_KEY_FILE=/run/secrets/key", "OTHER_FILE=/run/secrets/key"),
	})
	require.Zero(t, in.Wait(), "%s", in.Stderr)
	for _, text := range []string{in.Stdout.String(), in.File("/tmp/hook")} {
		assert.Contains(t, text, "DB_PASSWORD=pass word\n\n", "one line feed is removed, not two")
		assert.Contains(t, text, "API_KEY=k\n")
		assert.NotContains(t, text, "OTHER=k")
	}

	for _, tt := range []struct{ name, env, says string }{
		{"unreadable", "DB_PASSWORD_FILE=/run/secrets/none", "DB_PASSWORD_FILE"},
		{"both set", "DB_PASSWORD=x", "DB_PASSWORD"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: mainRan, Files: files, Env: append(env("CLEANIMG_INIT_ENV_FILES=DB_PASSWORD", "DB_PASSWORD_FILE=/run/secrets/db"), tt.env)})
			if tt.name == "unreadable" {
				in = Run(t, Options{Args: mainRan, Files: files, Env: env("CLEANIMG_INIT_ENV_FILES=DB_PASSWORD", tt.env)})
			}
			assert.Equal(t, 125, in.Wait())
			assert.Empty(t, order(in))
			assert.Contains(t, in.Stderr.String(), tt.says)
		})
	}
}

func TestModeExec(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("trap", "-on", "TERM=8"), Env: env("CLEANIMG_INIT_MODE=exec"),
		Files: []File{Hook("10-a", "export FROM_HOOK=1", "daemon trap -ready /tmp/daemon -quiet -on TERM=0 -write /tmp/ended", "await /tmp/daemon")},
	})
	in.WaitStdout("ready")
	all := in.Processes()
	require.Len(t, all, 1, "the daemon is ended and we are the command: %v", all)
	assert.Equal(t, "testprog", all[0].Name)
	assert.NotEmpty(t, in.File("/tmp/ended"), "the daemon was told first")
	assert.Zero(t, in.Status("/health/live"), "no probes after the exec")
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 8, in.Wait())

	in = Run(t, Options{Args: do("fds"), Env: env("CLEANIMG_INIT_MODE=exec"), Files: []File{Hook("10-a", ran("a"))}})
	assert.Zero(t, in.Wait())
	assert.Len(t, in.Stdout.Lines(), 3, "%s", in.Stdout)

	in = Run(t, Options{Args: mainRan, Env: env("CLEANIMG_INIT_MODE=exec"), Files: []File{Hook("10-a", "exit 12")}})
	assert.Equal(t, 12, in.Wait())
	assert.Empty(t, order(in))
}

func TestExecModeWithoutACommand(t *testing.T) {
	t.Parallel()
	const says = "CLEANIMG_INIT_MODE=exec: there is no command to become"
	for _, check := range [][]string{nil, {"--check"}} {
		in := Run(t, Options{Args: check, Env: env("CLEANIMG_INIT_MODE=exec"), Files: []File{Hook("10-a", ran("a"))}})
		assert.Equal(t, 125, in.Wait())
		assert.Contains(t, in.Stderr.String(), says)
		assert.Empty(t, order(in))
	}
	in := Run(t, Options{Args: append([]string{"--no-such-option"}, mainRan...), Env: env("CLEANIMG_INIT_MODE=exec")})
	assert.Equal(t, 125, in.Wait())
	assert.NotContains(t, in.Stderr.String(), says, "there is one, behind the wrong option")
}

func TestWhatDoesNothingInExecMode(t *testing.T) {
	t.Parallel()
	for _, check := range [][]string{nil, {"--check"}} {
		in := Run(t, Options{
			Args: append(check, mainRan...), Env: env("CLEANIMG_INIT_MODE=exec", "CLEANIMG_INIT_COMMAND_TIMEOUT=1h"),
			Files: []File{StopHook("10-stop", ran("stop"))},
		})
		assert.Zero(t, in.Wait())
		assert.Contains(t, in.Stderr.String(), "stop hooks run only if a hook fails", "%v", check)
		assert.Contains(t, in.Stderr.String(), "COMMAND_TIMEOUT does nothing", "%v", check)
		assert.NotContains(t, in.Stdout.String()+in.Stderr.String(), "1h0m0s", "%v", check)
	}
}

func TestUser(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	ids := do("status", "Uid", "Gid", "Groups", "CapEff", "CapPrm")
	t.Run("numbers", func(t *testing.T) {
		t.Parallel()
		in := Run(t, Options{Root: true, Args: ids, Env: env("CLEANIMG_INIT_USER=1234:2345"), Files: []File{Hook("10-a", "status Uid")}})
		require.Zero(t, in.Wait(), "%s", in.Stderr)
		out := in.Stdout.String()
		assert.Contains(t, out, "Uid 0 0 0 0\nUid 1234 1234 1234 1234\nGid 2345 2345 2345 2345\n", "hooks stay what we are")
		assert.Contains(t, out, "CapPrm 0000000000000000\nCapEff 0000000000000000\n")
	})
	t.Run("names", func(t *testing.T) {
		t.Parallel()
		in := Run(t, Options{Root: true, Args: ids, Env: env("CLEANIMG_INIT_USER=app"), Files: []File{
			{Path: "/etc/passwd", Content: "root:x:0:0::/root:/none\napp:x:1500:1600::/home/app:/none\n"},
			{Path: "/etc/group", Content: "app:x:1600:\nextra:x:1700:app\n"},
		}})
		require.Zero(t, in.Wait(), "%s", in.Stderr)
		assert.Contains(t, in.Stdout.String(), "Uid 1500 1500 1500 1500\nGid 1600 1600 1600 1600\n")
		assert.Contains(t, in.Stdout.String(), "1700")
	})
	t.Run("signals reach it", func(t *testing.T) {
		t.Parallel()
		in := Run(t, Options{Root: true, KeepCaps: []int{5, 6, 7}, Args: do("trap", "-on", "TERM=3"), Env: env("CLEANIMG_INIT_USER=1234:2345")})
		in.WaitStdout("ready")
		settle()
		in.Signal(syscall.SIGTERM)
		assert.Equal(t, 3, in.Wait())
	})
	for _, tt := range []struct {
		name, user string
		caps       []int
		says       string
	}{
		{"a number without a group", "1234", nil, "1234"},
		{"an unknown name", "nobody-here", nil, "nobody-here"},
		{"without CAP_KILL", "1234:2345", []int{6, 7}, "KILL"},
		{"without CAP_SETUID", "1234:2345", []int{5, 6}, "SETUID"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Root: true, KeepCaps: tt.caps, Args: mainRan, Env: env("CLEANIMG_INIT_USER=" + tt.user), Files: []File{Hook("10-a", ran("a"))}})
			assert.Equal(t, 125, in.Wait())
			assert.Empty(t, order(in))
			assert.Contains(t, in.Stderr.String(), tt.says)
		})
	}
}

func TestStdin(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	in := Run(t, Options{Args: do("cat"), Stdin: r})
	_, err = w.WriteString("through stdin\n")
	require.NoError(t, err)
	in.WaitStdout("through stdin\n")
	require.NoError(t, w.Close())
	assert.Zero(t, in.Wait())
}

func TestCommandTimeout(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "TERM=0"), Env: env("CLEANIMG_INIT_COMMAND_TIMEOUT=700ms")})
	assert.Equal(t, 124, in.Wait())
	assert.Greater(t, in.Lived(), 700*time.Millisecond)
	assert.Contains(t, in.Stdout.String(), "got TERM")
	assert.NotEmpty(t, in.Message(), "a reason that only we know")
}

// TestStartedWithSignalsIgnoredOrBlocked: children begin with an empty mask
// and default dispositions, whatever we were started with.
func TestStartedWithSignalsIgnoredOrBlocked(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Program: "/bin/testprog", HostPrograms: true,
		Args: append([]string{"ignore", "INT,HUP,USR1,TTIN,TTOU", ";", "block", "TERM,USR2,TTIN,40", ";", "exec", "/bin/cleanimg-init"}, "/usr/bin/cat", "/proc/self/status"),
		// A hook too: it is started by other code than the command.
		Files: []File{Step("10-a.yaml", "run: [/usr/bin/cat, /proc/self/status]")},
	})
	require.Zero(t, in.Wait(), "%s", in.Stderr)
	sets := regexp.MustCompile(`(?m)^Sig(Blk|Ign):\t(\w+)$`).FindAllStringSubmatch(in.Stdout.String(), -1)
	require.Len(t, sets, 4)
	for _, set := range sets {
		assert.Equal(t, "0000000000000000", set[2], "Sig%s of a child", set[1])
	}
}

// TestExportedPathFindsTheCommand: in either mode the command is the one that
// the environment after the hooks leads to.
func TestExportedPathFindsTheCommand(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"supervise", "exec"} {
		in := Run(t, Options{
			Env: env("CLEANIMG_INIT_MODE=" + mode), Args: []string{"prog"},
			Files: []File{
				{Path: "/bin/prog", Content: "#!/bin/testprog script\nexit 1\n", Mode: 0o755},
				{Path: "/other/prog", Content: "#!/bin/testprog script\nexit 2\n", Mode: 0o755},
				Hook("10-a", "export PATH=/other:/bin"),
			},
		})
		assert.Equal(t, 2, in.Wait(), "%s: %s", mode, in.Stderr)
	}
}

// TestCommandThatTheUserMayNotExecute is found before any hook runs.
func TestCommandThatTheUserMayNotExecute(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	in := Run(t, Options{
		Root: true, Env: env("CLEANIMG_INIT_USER=65532:65532"), Args: []string{"/bin/private"},
		Files: []File{{Path: "/bin/private", Content: "#!/bin/testprog script\nexit 0\n", Mode: 0o700}, Hook("10-a", ran("a"))},
	})
	assert.Equal(t, 126, in.Wait())
	assert.Contains(t, in.Stderr.String(), "for user 65532")
	assert.Empty(t, order(in))
}
