// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// ran is the statement by which a hook leaves its name in /tmp/order.
func ran(name string) string { return "append /tmp/order " + name }

// mainRan is a command that does the same, and ends.
var mainRan = do("append", "/tmp/order", "main")

// order is who has left a name.
func order(in *Instance) []string { return strings.Fields(in.File("/tmp/order")) }

func TestHooksRunInByteOrderOfTheirNames(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: mainRan, Files: []File{
		Hook("a", ran("a")),
		Hook("9-nine", ran("9-nine")),
		Step("10-ten.yaml", runs("append", "/tmp/order", "10-ten")),
		Step("05-five.yml", runs("append", "/tmp/order", "05-five")),
		Hook("B", ran("B")),
		Hook("10-ten-b", ran("10-ten-b")),
	}})
	require.Zero(t, in.Wait(), "%s", in.Stderr)
	assert.Equal(t, []string{"05-five", "10-ten", "10-ten-b", "9-nine", "B", "a", "main"}, order(in))
}

func TestHookDirectories(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		dirs  string
		files []File
		want  string
	}{
		{"a later directory overrides", "/h1:/h2", []File{
			Script("/h1/10-a", ran("first")), Script("/h2/10-a", ran("second")), Script("/h1/20-b", ran("b")), Script("/h2/15-c", ran("c")),
		}, "second c b main"},
		{"an empty file masks", "/h1:/h2", []File{
			Script("/h1/10-a", ran("a")), Script("/h1/20-b", ran("b")), {Path: "/h2/10-a"},
		}, "b main"},
		{"a link to /dev/null masks", "/h1:/h2", []File{
			Script("/h1/10-a", ran("a")), Script("/h1/20-b", ran("b")), {Path: "/h2/20-b", Link: "/dev/null"},
		}, "a main"},
		{"a step file masks and is masked by its own name", "/h1:/h2", []File{
			{Path: "/h1/10-a.yaml", Content: runs("append", "/tmp/order", "a")}, {Path: "/h2/10-a.yaml"},
		}, "main"},
		{"names of editors and packages are skipped", "/h1", []File{
			Script("/h1/10-a", ran("a")), Script("/h1/.hidden", ran("x")), Script("/h1/10-a~", ran("x")), Script("/h1/10-a.bak", ran("x")),
			{Path: "/h1/README.md", Content: "text"},
			{Path: "/h1/notes.txt", Content: "text"},
			Script("/h1/10-a.dpkg-old", ran("x")), Script("/h1/10-a.rpmnew", ran("x")),
		}, "a main"},
		{"a folder is skipped", "/h1", []File{Script("/h1/10-a", ran("a")), {Path: "/h1/20-folder", Folder: true}}, "a main"},
		{"links as a ConfigMap mount makes them", "/h1", []File{
			Script("/h1/..2026_11_22/10-a", ran("a")),
			{Path: "/h1/..2026_11_22/20-b.yaml", Content: runs("append", "/tmp/order", "b")},
			{Path: "/h1/..data", Link: "..2026_11_22"},
			{Path: "/h1/10-a", Link: "..data/10-a"},
			{Path: "/h1/20-b.yaml", Link: "..data/20-b.yaml"},
		}, "a b main"},
		{"an empty value is the default", "", []File{Hook("10-a", ran("a"))}, "a main"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: mainRan, Files: tt.files, Env: env("CLEANIMG_INIT_HOOKS_DIR=" + tt.dirs)})
			require.Zero(t, in.Wait(), "%s", in.Stderr)
			assert.Equal(t, tt.want, strings.Join(order(in), " "))
			if strings.Contains(tt.name, "folder") {
				assert.Contains(t, in.Stderr.String(), "20-folder", "a skipped folder is worth a warning")
			}
		})
	}
}

func TestMissingDefaultDirectoryIsFine(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: mainRan})
	assert.Zero(t, in.Wait(), "%s", in.Stderr)
	assert.Equal(t, []string{"main"}, order(in))
	assert.LessOrEqual(t, len(in.Stderr.Lines()), 2, "a quiet start is a line, and one of a notice:\n%s", in.Stderr)
}

// TestBadHooks: a wrong hook is found before anything has run, with a message
// that names it.
func TestBadHooks(t *testing.T) {
	t.Parallel()
	step := func(lines ...string) []File { return []File{Step("20-bad.yaml", lines...)} }
	tests := []struct {
		name  string
		files []File
		says  []string
		env   string
	}{
		{"no exec bit", []File{{Path: hooksDir + "20-bad", Content: "#!/bin/testprog script\n"}}, []string{"20-bad", "0644", "0755"}, ""},
		{"no interpreter", []File{{Path: hooksDir + "20-bad", Content: "#!/bin/bash\n", Mode: 0o755}}, []string{"20-bad", "/bin/bash"}, ""},
		{"not a program", []File{{Path: hooksDir + "20-bad", Content: "just text\n", Mode: 0o755}}, []string{"20-bad"}, ""},
		{"wrong architecture", []File{{Path: hooksDir + "20-bad", Content: foreignELF, Mode: 0o755}}, []string{"20-bad", "arch"}, ""},
		{"a link that leads nowhere", []File{{Path: hooksDir + "20-bad", Link: "/nowhere"}}, []string{"20-bad"}, ""},
		{"not YAML", step("run: [unclosed"), []string{"20-bad"}, ""},
		{"no run", step("timeout: 5s"), []string{"20-bad", "run"}, ""},
		{"unknown key", step(runs("exit", "0"), "retires: 3"), []string{"20-bad", "retires"}, ""},
		{"bad duration", step(runs("exit", "0"), "timeout: soon"), []string{"20-bad", "timeout", "soon"}, ""},
		{"bad onFailure", step(runs("exit", "0"), "onFailure: ignore"), []string{"20-bad", "onFailure", "continue"}, ""},
		{"bad retries", step(runs("exit", "0"), "retries: -1"), []string{"20-bad", "retries"}, ""},
		{"Kubernetes' form of a variable", step(runs("exit", "$(CODE)")), []string{"20-bad", "$(", "${VAR}"}, ""},
		{"two files of one name", []File{Step("20-bad.yaml", runs("exit", "0")), Step("20-bad.yml", runs("exit", "0"))}, []string{"20-bad"}, ""},
		{"a named directory is missing", nil, []string{"/no/such", "HOOKS_DIR"}, "CLEANIMG_INIT_HOOKS_DIR=" + hooksDir + ":/no/such"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			files := append([]File{Hook("10-good", ran("good")), StopHook("10-stop", ran("stop"))}, tt.files...)
			in := Run(t, Options{Args: mainRan, Files: files, Env: env(tt.env)})
			assert.Equal(t, 125, in.Wait())
			assert.Empty(t, order(in), "something was run")
			for _, text := range tt.says {
				assert.Contains(t, in.Stderr.String(), text)
				assert.Contains(t, in.Message(), text, "the termination message")
			}
		})
	}
}

// foreignELF is the head of a program for another machine (s390x).
var foreignELF = "\x7fELF\x02\x02\x01" + strings.Repeat("\x00", 9) + "\x00\x02\x00\x16\x00\x00\x00\x01" + strings.Repeat("\x00", 40)

func TestAllBadHooksAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: mainRan,
		Env:  env("CLEANIMG_INIT_KILL_GRACE=soon", "CLEANIMG_INIT_STEP_TIMEOUT=-4"),
		Files: []File{
			Hook("10-good", ran("good")),
			{Path: hooksDir + "20-bad", Content: "x"},
			Step("30-worse.yaml", "run: [a]", "what: 1"),
		},
	})
	assert.Equal(t, 125, in.Wait())
	assert.Empty(t, order(in))
	all := in.Stderr.String()
	assert.Contains(t, all, "KILL_GRACE")
	assert.Contains(t, all, "STEP_TIMEOUT")
	if !strings.Contains(all, "20-bad") { // settings may be reported before hooks are looked at
		in = Run(t, Options{Args: mainRan, Files: []File{
			{Path: hooksDir + "20-bad", Content: "x"},
			Step("30-worse.yaml", "run: [a]", "what: 1"),
		}})
		assert.Equal(t, 125, in.Wait())
		all = in.Stderr.String()
	}
	assert.Contains(t, all, "20-bad")
	assert.Contains(t, all, "30-worse")
}

func TestHookFailure(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		hook File
		want int
	}{
		{"its own code", Hook("20-bad", "errlines 3", "exit 37"), 37},
		{"code 255", Hook("20-bad", "exit 255"), 255},
		{"killed by a signal", Hook("20-bad", "die SEGV"), 139},
		{"killed by KILL", Hook("20-bad", "die KILL"), 137},
		{"a step file", Step("20-bad.yaml", runs("exit", "38")), 38},
		{"a step's program is missing", Step("20-bad.yaml", "run: [/no/such/program]"), 127},
		{"a step's program cannot be run", Step("20-bad.yaml", "run: [/etc/data]"), 126},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: mainRan, Files: []File{
				Hook("10-good", ran("good")), tt.hook, Hook("30-never", ran("never")),
				{Path: "/etc/data", Content: "data"},
				StopHook("10-stop", ran("stop"), "env /tmp/stop-env"),
			}})
			assert.Equal(t, tt.want, in.Wait(), "%s", in.Stderr)
			assert.Equal(t, []string{"good", "stop"}, order(in), "later hooks and the command must not run, stop hooks must")
			assert.Contains(t, in.File("/tmp/stop-env"), fmt.Sprintf("CLEANIMG_INIT_EXIT_CODE=%d\n", tt.want))
			assert.Contains(t, in.Stderr.String(), "20-bad")
			assert.Contains(t, in.Message(), "20-bad")
			assert.LessOrEqual(t, len(in.Message()), 1000)
			if tt.want == 37 {
				assert.Contains(t, in.Message(), "37")
				assert.Contains(t, in.Message(), "line 3 of stderr")
				assert.Contains(t, in.Stderr.String(), "line 1 of stderr\nline 2 of stderr\nline 3 of stderr\n", "stderr arrives unchanged")
			}
		})
	}
}

func TestHookOutputIsUntouched(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("print", "from the command"), Files: []File{
		Hook("10-a", "print from a hook", "err to stderr"),
		Step("20-b.yaml", runs("print", "from a step")),
	}})
	require.Zero(t, in.Wait())
	assert.Equal(t, "from a hook\nfrom a step\nfrom the command\n", in.Stdout.String(), "stdout is not ours")
	assert.Contains(t, in.Stderr.Lines(), "to stderr")
}

func TestStepFileExpansion(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Env: env("A=value of A", "EMPTY="),
		Files: []File{
			Step("10-args.yaml", runs("args", "${A}", "x${A}y", "${UNSET:-default}", "${EMPTY:-default}", "${EMPTY}", "$$", "$${A}", "$A", "${A:?must be set}")),
			{Path: "/etc/there/file", Content: "found"},
			Step("20-env.yaml", runs("env"), `env: {ADDED: "${A}!", NUMBER: "5"}`),
			Step("30-dir.yaml", runs("cat", "file"), "dir: /etc/${WHERE:-there}"),
		},
	})
	require.Zero(t, in.Wait(), "%s", in.Stderr)
	lines := in.Stdout.Lines()
	assert.Equal(t, []string{`"value of A"`, `"xvalue of Ay"`, `"default"`, `"default"`, `""`, `"$"`, `"${A}"`, `"$A"`, `"value of A"`}, lines[:9])
	assert.Contains(t, lines, "ADDED=value of A!")
	assert.Contains(t, lines, "NUMBER=5")
	assert.Equal(t, "found", lines[len(lines)-1])
}

func TestUnsetVariablesFailTheStep(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ word, says string }{
		{"${DATABASE_URL}", "DATABASE_URL"},
		{"${DATABASE_URL:?set it to the database}", "set it to the database"},
	} {
		t.Run(tt.word, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: mainRan, Files: []File{
				Hook("10-a", ran("a")),
				Step("20-b.yaml", runs("append", "/tmp/order", tt.word)),
				StopHook("90-stop", ran("stop")),
			}})
			assert.Equal(t, 125, in.Wait())
			assert.Equal(t, []string{"a", "stop"}, order(in))
			assert.Contains(t, in.Stderr.String(), tt.says)
		})
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		lines []string
		runs  int
		want  int
	}{
		{"succeeds at the third try", []string{runs("counter", "/tmp/n", "2", "exit", "7"), "retries: 2", "backoff: 10ms"}, 3, 0},
		{"fails for good", []string{runs("counter", "/tmp/n", "9", "exit", "7"), "retries: 2", "backoff: 10ms"}, 3, 7},
		{"no retries by default", []string{runs("counter", "/tmp/n", "9", "exit", "7")}, 1, 7},
		{"a failure that may be", []string{runs("counter", "/tmp/n", "9", "exit", "7"), "onFailure: continue"}, 1, 0},
		{"a timeout is retried", []string{runs("counter", "/tmp/n", "1", "sleep", "1m"), "retries: 1", "timeout: 300ms", "backoff: 10ms"}, 2, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: mainRan, Files: []File{Step("10-a.yaml", tt.lines...)}})
			assert.Equal(t, tt.want, in.Wait(), "%s", in.Stderr)
			assert.Equal(t, tt.runs, strings.Count(in.File("/tmp/n"), "run"))
		})
	}
}

func TestBackoffWaits(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Files: []File{Step("10-a.yaml", runs("exit", "7"), "retries: 2", "backoff: 1s")}})
	assert.Equal(t, 7, in.Wait())
	assert.Greater(t, in.Lived(), 1400*time.Millisecond, "1 s and 2 s, with jitter")
	assert.Less(t, in.Lived(), soon)
}

func TestTermDuringBackoff(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: mainRan, Files: []File{Step("10-a.yaml", runs("counter", "/tmp/n", "9", "exit", "7"), "retries: 5", "backoff: 30s")}})
	in.WaitFile("/tmp/n")
	time.Sleep(100 * time.Millisecond)
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 143, in.Wait())
	assert.Less(t, in.Lived(), soon)
}

func TestStepVariables(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("env", "/tmp/main"),
		Files: []File{
			Step("10-a.yaml", runs("env", "/tmp/env", ";", "counter", "/tmp/n", "1", "exit", "1"), "retries: 1", "backoff: 1ms"),
			StopHook("10-stop", "env /tmp/stop"),
		},
	})
	require.Zero(t, in.Wait(), "%s", in.Stderr)
	assert.Contains(t, in.File("/tmp/env"), "CLEANIMG_INIT_STEP=10-a\n")
	assert.Contains(t, in.File("/tmp/env"), "CLEANIMG_INIT_ATTEMPT=2\n")
	assert.Contains(t, in.File("/tmp/env"), "CLEANIMG_INIT_ENV=/proc/self/fd/3\n")
	assert.NotContains(t, in.File("/tmp/main"), "CLEANIMG_INIT_ENV=")
	assert.NotContains(t, in.File("/tmp/main"), "CLEANIMG_INIT_STEP=")
	assert.Contains(t, in.File("/tmp/stop"), "CLEANIMG_INIT_EXIT_CODE=0\n")
}

func TestExports(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		files []File
		want  []string // in the environment of the command
		not   []string
	}{
		{
			"descriptor 3 and the path",
			[]File{Hook("10-a", "export ONE=1", "export -path TWO=2", "export THREE=a=b")},
			[]string{"ONE=1", "TWO=2", "THREE=a=b"},
			nil,
		},
		{
			"a block",
			[]File{Hook("10-a", "export KEY<<END first second END")},
			[]string{"KEY=first", "second"},
			[]string{"END"},
		},
		{
			"a later hook sees and overrides",
			[]File{Hook("10-a", "export ONE=1"), Step("20-b.yaml", runs("export", "TWO=${ONE}${ONE}")), Hook("30-c", "export ONE=3")},
			[]string{"ONE=3", "TWO=11"},
			nil,
		},
		{
			"a failed try exports nothing",
			[]File{Step("10-a.yaml", runs("export", "FIRST=1", ";", "counter", "/tmp/n", "1", "exit", "1", ";", "export", "SECOND=2"), "retries: 1", "backoff: 1ms")},
			[]string{"SECOND=2"},
			nil,
		},
		{
			"a failed hook exports nothing",
			[]File{Step("10-a.yaml", runs("export", "BAD=1", ";", "exit", "1"), "onFailure: continue")},
			nil,
			[]string{"BAD=1"},
		},
		{
			"an inherited variable is replaced",
			[]File{Hook("10-a", "export GIVEN=new")},
			[]string{"GIVEN=new"},
			[]string{"GIVEN=old"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: do("env"), Files: tt.files, Env: env("GIVEN=old")})
			require.Zero(t, in.Wait(), "%s", in.Stderr)
			for _, line := range tt.want {
				assert.Contains(t, in.Stdout.Lines(), line)
			}
			for _, line := range tt.not {
				assert.NotContains(t, in.Stdout.Lines(), line)
			}
		})
	}
}

func TestDescriptorsOfHooks(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("fds", "/tmp/main"), Files: []File{Hook("10-a", "fds /tmp/a"), Hook("20-b", "fds /tmp/b"), StopHook("10-stop", "fds /tmp/stop")}})
	require.Zero(t, in.Wait(), "%s", in.Stderr)
	for file, want := range map[string][]string{"/tmp/a": {"0", "1", "2", "3"}, "/tmp/b": {"0", "1", "2", "3"}, "/tmp/main": {"0", "1", "2"}} {
		var got []string
		for line := range strings.Lines(in.File(file)) {
			fd, _, _ := strings.Cut(line, " ")
			// The kernel gives an interpreter its script by path; the script
			// is not held open.
			got = append(got, fd)
		}
		assert.Equal(t, want, got, "%s: %s", file, in.File(file))
	}
}

func TestStepUser(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	in := Run(t, Options{Root: true, Args: do("status", "Uid", "Gid"), Files: []File{
		Step("10-a.yaml", runs("status", "Uid", "Gid", "Groups", ";", "export", "-path", "FROM_PATH=1"), `user: "1234:2345"`),
		Hook("20-b", "status Uid"),
	}})
	require.Zero(t, in.Wait(), "%s", in.Stderr)
	out := in.Stdout.String()
	assert.Contains(t, out, "Uid 1234 1234 1234 1234\nGid 2345 2345 2345 2345\n")
	assert.Contains(t, out, "Uid 0 0 0 0\n")
	assert.NotContains(t, in.Stderr.String(), "testprog:")
}

func TestHooksSkip(t *testing.T) {
	t.Parallel()
	files := []File{Hook("10-a", ran("a")), Step("20-b.yaml", runs("append", "/tmp/order", "b")), Hook("30-c", ran("c"))}
	tests := []struct {
		name string
		env  string
		args []string
		want string
	}{
		{"by name", "CLEANIMG_INIT_HOOKS_SKIP=10-a,20-b", nil, "c main"},
		{"all", "CLEANIMG_INIT_HOOKS_SKIP=*", nil, "main"},
		{"option", "", []string{"--no-hooks"}, "main"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: append(tt.args, mainRan...), Files: files, Env: env(tt.env)})
			require.Zero(t, in.Wait(), "%s", in.Stderr)
			assert.Equal(t, tt.want, strings.Join(order(in), " "))
			assert.Regexp(t, `(?i)warn`, in.Stderr.String(), "what is skipped is said")
		})
	}
}

func TestParallelHooks(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: mainRan, Env: env("CLEANIMG_INIT_HOOKS_PARALLEL=4"), Files: []File{
		// Each waits for the other: one after the other they would never end.
		Hook("10-a", "touch /tmp/a", "await /tmp/b", "export A=1", "sleep 100ms", ran("stage10")),
		Hook("10-b", "touch /tmp/b", "await /tmp/a", "export B=1", ran("stage10")),
		Step("20-c.yaml", runs("append", "/tmp/order", "stage20-${A}${B}")),
	}})
	require.Zero(t, in.Wait(), "%s", in.Stderr)
	assert.Equal(t, []string{"stage10", "stage10", "stage20-11", "main"}, order(in))
}

func TestParallelFailureEndsTheSiblings(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: mainRan, Env: env("CLEANIMG_INIT_HOOKS_PARALLEL=4", "CLEANIMG_INIT_KILL_GRACE=1s"), Files: []File{
		Hook("10-a", "await /tmp/polite", "await /tmp/rude", "exit 5"),
		Hook("10-b", "trap -ready /tmp/polite -on TERM=0 -write /tmp/told"),
		Hook("10-c", "trap -ready /tmp/rude"),
		Hook("20-d", ran("d")),
	}})
	assert.Equal(t, 5, in.Wait(), "%s", in.Stderr)
	assert.NotEmpty(t, in.File("/tmp/told"))
	assert.Empty(t, order(in))
	assert.Greater(t, in.Lived(), time.Second)
}

func TestHooksOnly(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Files: []File{Hook("10-a", ran("a")), StopHook("10-stop", ran("stop"))}})
	assert.Zero(t, in.Wait(), "%s", in.Stderr)
	assert.Equal(t, []string{"a", "stop"}, order(in))

	in = Run(t, Options{Files: []File{Hook("10-a", "exit 9")}})
	assert.Equal(t, 9, in.Wait())
}

// TestDaemonOfAHook: what a successful hook left behind lives on beside the
// command, and holding the pipe open delays nothing.
func TestDaemonOfAHook(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: do("trap", "-on", "TERM=4"), Files: []File{
		Hook("10-a", "daemon trap -ready /tmp/daemon -quiet -on TERM=0 -write /tmp/daemon-ended", "await /tmp/daemon"),
	}})
	in.WaitStdout("ready")
	assert.Len(t, in.Processes(), 3, "PID 1, daemon, command")
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 4, in.Wait())
	assert.NotEmpty(t, in.File("/tmp/daemon-ended"), "the daemon is told to end too")
}

func TestReportFile(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("exit", "3"),
		Env:  env("CLEANIMG_INIT_REPORT_FILE=/tmp/report.json", "CLEANIMG_INIT_HOOKS_SKIP=15-skipped"),
		Files: []File{
			Hook("10-good", "sleep 50ms"),
			Hook("15-skipped", "exit 1"),
			Step("20-bad.yaml", runs("exit", "7"), "onFailure: continue", "retries: 1", "backoff: 1ms"),
			StopHook("90-stop", "exit 5"),
		},
	})
	assert.Equal(t, 3, in.Wait(), "a failed stop hook does not change the code")
	r := report(t, in)
	require.Len(t, r.Steps, 3, "%+v", r)
	assert.Equal(t, "10-good", r.Steps[0].Name)
	assert.Equal(t, "ok", r.Steps[0].Result)
	assert.Greater(t, r.Steps[0].Seconds, 0.05)
	assert.Equal(t, "continued", r.Steps[1].Result)
	assert.Equal(t, 2, r.Steps[1].Attempts)
	require.NotNil(t, r.Steps[1].Code)
	assert.Equal(t, 7, *r.Steps[1].Code)
	assert.Equal(t, "stop", r.Steps[2].Kind)
	assert.Equal(t, []string{"15-skipped"}, r.Skipped)
	require.NotNil(t, r.ExitCode)
	assert.Equal(t, 3, *r.ExitCode)
}

// runReport is what the tests read of the report's JSON.
type runReport struct {
	Version int
	Phase   string
	Steps   []struct {
		Name, Kind, Result, Reason string
		Attempts                   int
		Seconds                    float64
		Code                       *int
	}
	Skipped  []string
	Signals  map[string]int
	Reaped   int
	ExitCode *int `json:"exit_code"`
}

func report(t *testing.T, in *Instance) runReport {
	t.Helper()
	var r runReport
	text := in.File("/tmp/report.json")
	require.NoError(t, json.Unmarshal([]byte(text), &r), "%s\n%s", text, in.Stderr)
	return r
}

func TestHookOutput(t *testing.T) {
	t.Parallel()
	files := []File{Hook("10-a", "print to stdout", "err first line", "err second line", "exit 6")}
	in := Run(t, Options{Files: files, Env: env("CLEANIMG_INIT_HOOK_OUTPUT=prefix")})
	assert.Equal(t, 6, in.Wait())
	var prefixed int
	for _, line := range append(in.Stdout.Lines(), in.Stderr.Lines()...) {
		for _, text := range []string{"to stdout", "first line", "second line"} {
			if strings.HasSuffix(line, text) {
				assert.Contains(t, line, "10-a")
				prefixed++
			}
		}
	}
	assert.Equal(t, 3, prefixed, "%s%s", in.Stdout, in.Stderr)
	assert.Contains(t, in.Message(), "second line")

	in = Run(t, Options{Files: files, Env: env("CLEANIMG_INIT_HOOK_OUTPUT=inherit")})
	assert.Equal(t, 6, in.Wait())
	assert.Equal(t, "to stdout\n", in.Stdout.String())
	assert.Contains(t, in.Stderr.Lines(), "second line")
	assert.NotContains(t, in.Message(), "second line", "nothing is remembered")
}

// TestStdoutAndStderrInOneFile keep their order: they share one pipe.
func TestStdoutAndStderrInOneFile(t *testing.T) {
	t.Parallel()
	var statements, want []string
	for i := range 300 {
		statements = append(statements, fmt.Sprintf("print out-%d", i), fmt.Sprintf("err err-%d", i))
		want = append(want, fmt.Sprintf("out-%d", i), fmt.Sprintf("err-%d", i))
	}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	in := Run(t, Options{Stdout: w, Stderr: w, Files: []File{Hook("10-a", statements...)}})
	assert.NoError(t, w.Close())
	assert.Zero(t, in.Wait())
	all, err := io.ReadAll(r)
	require.NoError(t, err)
	var got []string
	for line := range strings.Lines(string(all)) {
		if strings.HasPrefix(line, "out-") || strings.HasPrefix(line, "err-") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	assert.Equal(t, want, got)
}

func TestStopHookTimesOut(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("exit", "3"), Env: env("CLEANIMG_INIT_STEP_TIMEOUT=500ms", "CLEANIMG_INIT_KILL_GRACE=500ms", "CLEANIMG_INIT_STOP_HOOKS_DIR=/stop1:/stop2"),
		Files: []File{Script("/stop1/10-a", "trap -quiet"), Script("/stop2/20-b", ran("b"))},
	})
	assert.Equal(t, 3, in.Wait())
	assert.Equal(t, []string{"b"}, order(in))
	assert.Contains(t, in.Stderr.String(), "timed out")
}

func TestLogFormatJSON(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{Args: mainRan, Env: env("CLEANIMG_INIT_LOG_FORMAT=json", "CLEANIMG_INIT_UNKNOWN=1"), Files: []File{
		Hook("10-a", ran("a")), Hook("20-halfway", "errpart halfway"),
	}})
	require.Zero(t, in.Wait())
	require.NotEmpty(t, in.Stderr.Lines())
	assert.Contains(t, in.Stderr.Lines(), "halfway", "a log line begins a new one")
	for _, line := range in.Stderr.Lines() {
		if line == "halfway" {
			continue
		}
		var entry struct{ Time, Level, Msg string }
		require.NoError(t, json.Unmarshal([]byte(line), &entry), "%s", line)
		assert.NotEmpty(t, entry.Msg)
	}
}

func TestDaemonizingCommandIsToldToStayInTheForeground(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("daemon", "trap", "-quiet", "-ready", "/tmp/daemon", "-on", "TERM=0", ";", "await", "/tmp/daemon"),
	})
	assert.Zero(t, in.Wait())
	assert.Contains(t, in.Stderr.String(), "foreground")
}

// TestStubbornStepWithinTheGracePeriod: the running step has the share of the
// main process.
func TestStubbornStepWithinTheGracePeriod(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: mainRan, Env: env("CLEANIMG_INIT_GRACE_PERIOD=4s"),
		Files: []File{Hook("10-a", "daemon trap -quiet", "trap -quiet -ready /tmp/hook"), StopHook("10-stop", ran("stop"))},
	})
	in.WaitFile("/tmp/hook")
	settle()
	begin := time.Now()
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 143, in.Wait())
	assert.Less(t, time.Since(begin), soon)
	assert.Equal(t, []string{"stop"}, order(in))
}

// TestClosedStdio: an engine may start a process without 0, 1 and 2, and what
// is opened then must not end up there.
func TestClosedStdio(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Program: "/bin/testprog",
		Args:    append([]string{"close", "0", "1", "2", ";", "exec", "/bin/cleanimg-init"}, do("fds", "/tmp/fds", ";", "exit", "6")...),
		Files:   []File{Hook("10-a", "export A=1", "err lost", ran("a"))},
	})
	assert.Equal(t, 6, in.Wait())
	assert.Equal(t, []string{"a"}, order(in))
	for line := range strings.Lines(in.File("/tmp/fds")) {
		assert.Regexp(t, `^[012] /(dev/)?null$`, strings.TrimSpace(line))
	}
}

// TestHoldOutsDoNotHideTheFailure: what has to be killed afterwards is no reason
// to forget why the run has failed.
func TestHoldOutsDoNotHideTheFailure(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: mainRan, Env: env("CLEANIMG_INIT_KILL_GRACE=200ms"),
		Files: []File{Hook("10-a", "daemon trap -quiet -ready /tmp/worker", "await /tmp/worker", "exit 3")},
	})
	assert.Equal(t, 3, in.Wait())
	assert.Contains(t, in.Stderr.String(), "still running")
	assert.Contains(t, in.Message(), "10-a")
	assert.Contains(t, in.Message(), "code 3")
}

func TestReportIntoAPipeThatNobodyReads(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("exit", "4"), Env: env("CLEANIMG_INIT_REPORT_FILE=/tmp/pipe"),
		Files: []File{Hook("10-a", "mkfifo /tmp/pipe")},
	})
	assert.Equal(t, 4, in.Wait())
	assert.Contains(t, in.Stderr.String(), "report not written")
}
