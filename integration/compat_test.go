// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Linked under the name of one of these, cleanimg-init takes that program's
// command line. Every test of this file runs with Debian's program, which shows
// that the test is right, and with ours under its name. Where we differ on
// purpose the test says so, and why.
var peers = map[string]string{"tini": "/usr/bin/tini", "dumb-init": "/usr/bin/dumb-init"}

// A personality is one of the two programs that a compatibility test runs with.
type personality struct {
	ours bool
	path string
	file []File
}

// Run starts a container with it as PID 1.
func (p personality) Run(t *testing.T, o Options) *Instance {
	t.Helper()
	o.Program, o.HostPrograms = p.path, true
	o.Files = append(slices.Clone(o.Files), p.file...)
	return Run(t, o)
}

// Beside runs it as a child of PID 1.
func (p personality) Beside(t *testing.T, o Options) *Instance {
	t.Helper()
	o.Program, o.HostPrograms = "/bin/testprog", true
	o.Args = append([]string{"under", p.path}, o.Args...)
	// The harness brings our program where one of the arguments is its path.
	o.Mounts = append(o.Mounts, Mount{Host: Binary(t, "cleanimg-init"), Inside: "/bin/cleanimg-init", ReadOnly: true})
	o.Files = append(slices.Clone(o.Files), p.file...)
	return Run(t, o)
}

// as is our program under a name.
func as(name string) personality {
	return personality{ours: true, path: "/bin/" + name, file: []File{{Path: "/bin/" + name, Link: "cleanimg-init"}}}
}

// eachOf runs a test with the program of that name and with ours under it.
func eachOf(t *testing.T, name string, test func(t *testing.T, p personality)) {
	t.Helper()
	t.Run("Debian", func(t *testing.T) {
		t.Parallel()
		if _, err := os.Stat(peers[name]); err != nil {
			t.Skipf("%s is not installed: nothing shows that this test is right", name)
		}
		test(t, personality{path: peers[name]})
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		test(t, as(name))
	})
}

// A usage is a command line and what comes of it. The texts are regular
// expressions; an empty one means that nothing is written.
type usage struct {
	args, env []string

	code           int
	stdout, stderr string

	words string // what we write to stderr instead, where it is the same in other words

	// Where we differ on purpose: the reason, and what we do instead.
	why                  string
	ourCode              int
	ourStdout, ourStderr string
}

func (u usage) test(t *testing.T, p personality) {
	in := p.Run(t, Options{Args: u.args, Env: env(u.env...), Files: []File{
		{Path: "/etc/data", Content: "data"},
		{Path: "/etc/script", Content: "#!/bin/no-shell\n", Mode: 0o755},
	}})
	if p.ours && u.words != "" {
		u.stderr = u.words
	}
	if p.ours && u.why != "" {
		u.code, u.stdout, u.stderr = u.ourCode, u.ourStdout, u.ourStderr
	}
	assert.Equal(t, u.code, in.Wait())
	for _, text := range []struct{ name, want, got string }{{"stdout", u.stdout, in.Stdout.String()}, {"stderr", u.stderr, in.Stderr.String()}} {
		if text.want == "" {
			assert.Empty(t, text.got, text.name)
		} else {
			assert.Regexp(t, text.want, text.got, text.name)
		}
	}
}

func TestCommandLineOfTini(t *testing.T) {
	t.Parallel()
	const (
		help     = `^tini \(tini version [^)]+\)\nUsage: tini `
		ourHelp  = `^Usage: tini `
		stops    = "our options end at the first word that is none, so that no -- is needed"
		signals  = "a signal may be given as it may be anywhere else"
		noStdout = "standard output is the command's: we write to standard error"
	)
	invalid := func(option string) string {
		return `^(/\S+/)?tini: invalid option -- '` + option + `'\n(?s:.*)Usage: tini `
	}
	exit := func(words ...string) []string { return append(words, do("exit", "7")...) }
	tests := []usage{
		{args: []string{"--version"}, stdout: `^tini version \d+\.\d+\.\d+\b.*\n$`},
		{args: []string{"-h"}, stdout: `^(tini \(tini version [^)]+\)\n)?Usage: tini `},
		{args: []string{"-sh"}, stdout: `^(tini \(tini version [^)]+\)\n)?Usage: tini `},
		{args: []string{"-l"}, stdout: `(?i)license`},

		{code: 1, stderr: help, words: ourHelp},
		{args: []string{"--"}, code: 1, stderr: help, words: ourHelp},
		{args: []string{"-s", "-g"}, code: 1, stderr: help, words: ourHelp},
		{args: exit("-x"), code: 1, stderr: invalid("x")},
		{args: exit("-sx"), code: 1, stderr: invalid("x")},
		{args: exit("-V"), code: 1, stderr: invalid("V")},
		{args: exit("--help"), code: 1, stderr: invalid("-")},
		{args: exit("--version"), code: 1, stderr: invalid("-"), why: "what else is on the line does not matter", ourStdout: `^tini version `},
		{args: exit("--single-child"), code: 1, stderr: invalid("-")},
		{args: []string{"-e"}, code: 1, stderr: `^(/\S+/)?tini: option requires an argument -- 'e'\n(?s:.*)Usage: tini `, words: `^tini: option -e needs a value\nUsage: tini `},
		{args: []string{"-sp"}, code: 1, stderr: `^(/\S+/)?tini: option requires an argument -- 'p'\n(?s:.*)Usage: tini `, words: `^tini: option -p needs a value\nUsage: tini `},
		{args: exit("-p", "FOO"), code: 1, stderr: `Not a valid option for -p: FOO\n$`, words: `^tini: option -p: .*FOO`},
		{args: exit("-p", "TERM"), code: 1, stderr: `Not a valid option for -p: TERM\n$`, why: signals, ourCode: 7},
		{args: exit("-p", "15"), code: 1, stderr: `Not a valid option for -p: 15\n$`, why: signals, ourCode: 7},
		{args: exit("-e", "256"), code: 1, stderr: `Not a valid option for -e: 256\n$`, words: `^tini: option -e "256": want an exit code`},
		{args: exit("-e", "-1"), code: 1, stderr: `Not a valid option for -e: -1\n$`, words: `^tini: option -e "-1": want an exit code`},
		{args: exit("-e", "x"), code: 1, stderr: `Not a valid option for -e: x\n$`, words: `^tini: option -e "x": want an exit code`},

		{args: []string{"--", "/no/such"}, code: 127, stderr: `exec /no/such failed: No such file or directory\n$`, words: `^cleanimg-init: command: .*/no/such`},
		{args: []string{"--", "no-such"}, code: 127, stderr: `exec no-such failed: No such file or directory\n$`, words: `^cleanimg-init: command: .*no-such`},
		{args: []string{"--", ""}, code: 127, stderr: `exec  failed: No such file or directory\n$`, words: `^cleanimg-init: command: not found: ""`},
		{args: []string{"--", "/etc/data"}, code: 126, stderr: `exec /etc/data failed: Permission denied\n$`, words: `^cleanimg-init: command: .*/etc/data`},
		{args: []string{"--", "/etc"}, code: 126, stderr: `exec /etc failed: Permission denied\n$`, words: `^cleanimg-init: command: .*/etc`},
		{args: []string{"--", "/etc/script"}, code: 127, stderr: `exec /etc/script failed: No such file or directory\n$`, words: `^cleanimg-init: command: .*/etc/script`},

		{args: exit(), code: 7},
		{args: exit("--"), code: 7},
		{args: exit("-s", "--"), code: 7},
		{args: exit("-sgw", "--"), code: 7},
		{args: exit("-p", "SIGKILL", "--"), code: 7},
		{args: exit("-pSIGTERM", "-g", "--"), code: 7},
		{args: exit("-e", "7", "--")},
		{args: exit("-e7", "--")},
		{args: exit("-e", "143", "-e", "7", "--")},
		{args: exit("-e", "8", "--"), code: 7},
		{args: append([]string{"-e", "137", "--"}, do("die", "KILL")...)},
		{args: append([]string{"--"}, do("die", "KILL")...), code: 137},
		{args: exit("--"), env: []string{"TINI_SUBREAPER=", "TINI_KILL_PROCESS_GROUP=", "TINI_VERBOSITY="}, code: 7},
		{args: exit("--"), env: []string{"TINI_VERBOSITY=0"}, code: 7},
		{args: exit("--"), env: []string{"TINI_VERBOSITY=x"}, code: 7},
		{args: exit("-v", "--"), code: 7, stdout: `^\[INFO  tini`, why: noStdout, ourCode: 7, ourStderr: `.`},
		{args: exit("-vv", "-v", "--"), code: 7, stdout: `\[DEBUG tini`, why: noStdout, ourCode: 7, ourStderr: `.`},
		{args: exit("--"), env: []string{"TINI_VERBOSITY=3"}, code: 7, stdout: `\[DEBUG tini`, why: noStdout, ourCode: 7, ourStderr: `.`},

		{args: do("args", "-s", "x"), stdout: `^"x"\n$`, why: stops, ourStdout: `^"-s"\n"x"\n$`},
		{args: do("args", "-c", "x"), code: 1, stderr: invalid("c"), why: stops, ourStdout: `^"-c"\n"x"\n$`},
		{args: do("--", "exit", "7"), code: 7},
		{args: append([]string{"--"}, do("args", "-s", "--", "x")...), stdout: `^"-s"\n"--"\n"x"\n$`},
	}
	for _, tt := range tests {
		t.Run(strings.Join(append(tt.env, tt.args...), " "), func(t *testing.T) {
			t.Parallel()
			eachOf(t, "tini", tt.test)
		})
	}
}

func TestCommandLineOfDumbInit(t *testing.T) {
	t.Parallel()
	const (
		version = `^dumb-init v\d+\.\d+\.\d+\b.*\n`
		help    = version + `Usage: (/\S+/)?dumb-init \[option\] command \[\[arg\] \.\.\.\]\n`
		short   = `^Usage: (/\S+/)?dumb-init \[option\] program \[args\]\n`
		rewrite = `^Usage: -r option takes <signum>:<signum>, where <signum> is between 1 and 31\.\n`
	)
	exit := func(words ...string) []string { return append(words, do("exit", "7")...) }
	tests := []usage{
		{args: []string{"--version"}, stderr: version + "$"},
		{args: []string{"-V"}, stderr: version + "$"},
		{args: exit("-V"), stderr: version + "$"},
		{args: []string{"--help"}, stderr: help},
		{args: exit("-h"), stderr: help},

		{code: 1, stderr: short},
		{args: []string{"--"}, code: 1, stderr: short},
		{args: []string{"-c"}, code: 1, stderr: short},
		{args: exit("-x"), code: 1, stderr: `^(/\S+/)?dumb-init: invalid option -- 'x'\n$`},
		{args: exit("-cx"), code: 1, stderr: `^(/\S+/)?dumb-init: invalid option -- 'x'\n$`},
		{args: exit("--foo"), code: 1, stderr: `^(/\S+/)?dumb-init: unrecognized option '--foo'\n$`},
		{args: exit("--verbose=1"), code: 1, stderr: `^(/\S+/)?dumb-init: option '--verbose' doesn't allow an argument\n$`},
		{args: []string{"-r"}, code: 1, stderr: `^(/\S+/)?dumb-init: option requires an argument -- 'r'\n$`},
		{args: []string{"--rewrite"}, code: 1, stderr: `^(/\S+/)?dumb-init: option '--rewrite' requires an argument\n$`},
		{args: exit("-r", "15"), code: 1, stderr: rewrite},
		{args: exit("-r", "15:"), code: 1, stderr: rewrite},
		{args: exit("-r", "15:32"), code: 1, stderr: rewrite},
		{args: exit("-r", "32:15"), code: 1, stderr: rewrite},
		{args: exit("-r", "0:15"), code: 1, stderr: rewrite},
		{args: exit("-r", "15:-1"), code: 1, stderr: rewrite},
		{args: exit("--rewrite", "TERM:QUIT"), code: 1, stderr: rewrite},

		{args: []string{"/no/such"}, code: 2, stderr: `^\[dumb-init\] /no/such: No such file or directory\n$`, words: `^cleanimg-init: command: .*/no/such`},
		{args: []string{"no-such"}, code: 2, stderr: `^\[dumb-init\] no-such: No such file or directory\n$`, words: `^cleanimg-init: command: .*no-such`},
		{args: []string{""}, code: 2, stderr: `^\[dumb-init\] : No such file or directory\n$`, words: `^cleanimg-init: command: not found: ""`},
		{args: []string{"/etc/data"}, code: 2, stderr: `^\[dumb-init\] /etc/data: Permission denied\n$`, words: `^cleanimg-init: command: .*/etc/data`},
		{args: []string{"/etc"}, code: 2, stderr: `^\[dumb-init\] /etc: Permission denied\n$`, words: `^cleanimg-init: command: .*/etc`},
		{args: []string{"-c", "--", "/etc/script"}, code: 2, stderr: `^\[dumb-init\] /etc/script: No such file or directory\n$`, words: `^cleanimg-init: command: .*/etc/script`},

		{args: exit(), code: 7},
		{args: exit("--"), code: 7},
		{args: exit("-c"), code: 7},
		{args: exit("--single-child", "--"), code: 7},
		{args: exit("--single"), code: 7}, // as getopt_long has it
		{args: exit("-r", "15:3", "--rewrite", "2:0", "--rewrite=1:31", "-r10:12"), code: 7},
		{args: exit(), env: []string{"DUMB_INIT_DEBUG=0", "DUMB_INIT_SETSID=0"}, code: 7},
		{args: exit("-v"), code: 7, stderr: `.`},
		{args: exit("--verbose", "--"), code: 7, stderr: `.`},
		{args: exit("-cv"), code: 7, stderr: `.`},
		{args: exit(), env: []string{"DUMB_INIT_DEBUG=1"}, code: 7, stderr: `.`},
		{args: do("die", "TERM"), code: 143},
		{args: do("args", "-c", "--", "--version"), stdout: `^"-c"\n"--"\n"--version"\n$`},
	}
	for _, tt := range tests {
		t.Run(strings.Join(append(tt.env, tt.args...), " "), func(t *testing.T) {
			t.Parallel()
			eachOf(t, "dumb-init", tt.test)
		})
	}
}

// TestOtherNamesOfTini: the static build's name, and the one that Docker's
// engine starts and asks for its version.
func TestOtherNamesOfTini(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"tini-static", "docker-init"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := as(name).Run(t, Options{Args: []string{"--version"}})
			assert.Zero(t, in.Wait())
			assert.Regexp(t, `^tini version \d+\.\d+\.\d+\b.*\n$`, in.Stdout.String())

			in = as(name).Run(t, Options{Args: append([]string{"-g", "--"}, do("exit", "7")...)})
			assert.Equal(t, 7, in.Wait())
			in = as(name).Run(t, Options{Args: []string{"-x"}})
			assert.Equal(t, 1, in.Wait())
		})
	}
}

// got says that a trap has written that it got the signal.
func got(text string, sig syscall.Signal) bool {
	return slices.Contains(strings.Split(text, "\n"), "got "+nameOf(sig))
}

// nameOf is TERM for 15, and the number where there is no name.
func nameOf(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return strconv.Itoa(int(sig))
}

// taken waits until PID 1 has no such signal pending any more: it has taken it,
// or the kernel has thrown it away.
func (in *Instance) taken(sig syscall.Signal) {
	in.t.Helper()
	in.eventually(fmt.Sprintf("PID 1 to take signal %d", sig), func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", in.PID))
		if err != nil {
			return false
		}
		for _, set := range regexp.MustCompile(`(?m)^(?:SigPnd|ShdPnd):\t(\w+)$`).FindAllStringSubmatch(string(status), -1) {
			if bits, err := strconv.ParseUint(set[1], 16, 64); err != nil || bits&(1<<(sig-1)) != 0 {
				return false
			}
		}
		return true
	})
}

// TestEverySignalByName sends each signal that there is to PID 1. What it does
// not pass on is known because two signals sent after it arrive: the first may
// overtake it, the second can not.
func TestEverySignalByName(t *testing.T) {
	t.Parallel()
	faults := []syscall.Signal{syscall.SIGILL, syscall.SIGTRAP, syscall.SIGABRT, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV, syscall.SIGSYS}
	tests := []struct {
		name string
		last syscall.Signal // that the peer knows
		not  []syscall.Signal
	}{
		{"tini", 64, append([]syscall.Signal{syscall.SIGCHLD, syscall.SIGTTIN, syscall.SIGTTOU}, faults...)},
		{"dumb-init", 31, []syscall.Signal{syscall.SIGCHLD}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			eachOf(t, tt.name, func(t *testing.T, p personality) {
				for sig := syscall.Signal(1); sig <= tt.last; sig++ {
					switch sig {
					case syscall.SIGKILL, syscall.SIGSTOP: // nobody can take them
						continue
					case syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU:
						if tt.name == "dumb-init" {
							continue // TestJobControlSignalsOfDumbInit
						}
					case syscall.SIGPROF: // a trap would not see it: Go keeps it for its profiler
						continue
					case 32, 33, 34: // the C library's, and the Go runtime's
						continue
					}
					t.Run(strconv.Itoa(int(sig)), func(t *testing.T) {
						t.Parallel()
						want := !slices.Contains(tt.not, sig)
						if p.ours && (sig == syscall.SIGURG || sig == syscall.SIGPIPE) {
							want = false // on purpose: the Go runtime sends them to itself
						}
						marker := syscall.SIGUSR2
						if sig == marker {
							marker = syscall.SIGUSR1 // a second one while the first is pending is lost
						}
						in := p.Run(t, Options{Args: append([]string{"--"}, do("trap")...)})
						in.WaitStdout("ready")
						settle()
						in.Signal(sig)
						in.taken(sig)
						for n := 1; n <= 2; n++ {
							in.Signal(marker)
							in.eventually("a signal that is sent afterwards", func() bool { return strings.Count(in.Stdout.String(), "got "+nameOf(marker)+"\n") == n })
						}
						assert.Equal(t, want, got(in.Stdout.String(), sig), "%s", in.Stdout)
					})
				}
			})
		})
	}
}

// ids returns the process group and the session of a process, by the host's
// numbers.
func ids(t *testing.T, p Process) (group, session int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Host))
	require.NoError(t, err)
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	group, err = strconv.Atoi(fields[2])
	require.NoError(t, err)
	session, err = strconv.Atoi(fields[3])
	require.NoError(t, err)
	return group, session
}

// find returns the testprog that runs the verb first and has the word among its
// arguments.
func (in *Instance) find(verb, word string) (found Process) {
	in.t.Helper()
	in.eventually("a testprog "+verb+" with "+word, func() bool {
		for _, p := range in.Processes() {
			if p.State != "Z" && len(p.Args) > 1 && p.Args[1] == verb && slices.Contains(p.Args, word) {
				found = p
				return true
			}
		}
		return false
	})
	return found
}

// TestWhoGetsTheSignals: the command, its group, but never another session.
func TestWhoGetsTheSignals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		options string
		env     string
		group   bool // gets it too
		session bool // the command has one of its own
	}{
		{"tini", "", "", false, false},
		{"tini", "-g", "", true, false},
		{"tini", "", "TINI_KILL_PROCESS_GROUP=", true, false}, // it is enough that it is set
		{"tini", "", "TINI_KILL_PROCESS_GROUP=1", true, false},
		{"dumb-init", "", "", true, true},
		{"dumb-init", "-c", "", false, false},
		{"dumb-init", "--single-child", "", false, false},
		{"dumb-init", "", "DUMB_INIT_SETSID=0", false, false},
		{"dumb-init", "", "DUMB_INIT_SETSID=1", true, true},
		{"dumb-init", "", "DUMB_INIT_SETSID=", true, true},
	}
	for _, tt := range tests {
		t.Run(strings.Join([]string{tt.name, tt.options, tt.env}, " "), func(t *testing.T) {
			t.Parallel()
			eachOf(t, tt.name, func(t *testing.T, p personality) {
				in := p.Run(t, Options{Env: env(tt.env), Args: append(strings.Fields(tt.options+" --"), do(
					"bg", "trap", "-quiet", "-ready", "/tmp/r1", "-file", "/tmp/group", ";",
					"setsid", "trap", "-quiet", "-ready", "/tmp/r2", "-file", "/tmp/session", ";",
					"await", "/tmp/r1", ";", "await", "/tmp/r2", ";", "trap", "-on", "TERM=3")...)})
				in.WaitStdout("ready")
				settle()
				main, first := in.find("bg", "-on"), in.find("trap", "/tmp/group")
				in.Signal(syscall.SIGUSR1)
				in.WaitStdout("got USR1")
				// They would have got it before this, which is sent to them directly.
				for _, file := range []string{"/tmp/group", "/tmp/session"} {
					out, code := in.Exec("/usr/bin/kill", "-USR2", strconv.Itoa(in.find("trap", file).PID))
					require.Zero(t, code, out)
					in.eventually("USR2", func() bool { return got(in.File(file), syscall.SIGUSR2) })
				}
				assert.Equal(t, tt.group, got(in.File("/tmp/group"), syscall.SIGUSR1), "the command's group")
				assert.False(t, got(in.File("/tmp/session"), syscall.SIGUSR1), "another session")
				assert.False(t, got(in.Stdout.String(), syscall.SIGUSR2))

				group, session := ids(t, main)
				assert.Equal(t, tt.session, session == main.Host, "a session of its own")
				firstGroup, _ := ids(t, first)
				assert.Equal(t, group, firstGroup, "what the command starts is in its group")
				if tt.group {
					assert.Equal(t, main.Host, group, "which the command leads")
				}
				_, code := in.Exec("/usr/bin/kill", "-KILL", strconv.Itoa(in.find("trap", "/tmp/session").PID), strconv.Itoa(first.PID))
				require.Zero(t, code)
				in.Signal(syscall.SIGTERM)
				assert.Equal(t, 3, in.Wait())
			})
		})
	}
}

// TestJobControlSignalsOfDumbInit: who has a session of its own is in an
// orphaned process group, where the default action of these is nothing, so STOP
// takes their place.
func TestJobControlSignalsOfDumbInit(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			eachOf(t, "dumb-init", func(t *testing.T, p personality) {
				t.Run("stops", func(t *testing.T) {
					t.Parallel()
					in := p.Run(t, Options{Args: do("trap", "-on", "TERM=3")})
					in.WaitStdout("ready")
					settle()
					in.Signal(sig)
					in.eventually("the command to be stopped", func() bool { return in.find("trap", "-on").State == "T" })
					in.Signal(syscall.SIGCONT)
					in.WaitStdout("got CONT")
					in.Signal(syscall.SIGTERM)
					assert.Equal(t, 3, in.Wait())
					assert.False(t, got(in.Stdout.String(), sig))
				})
				t.Run("a single child gets it", func(t *testing.T) {
					t.Parallel()
					in := p.Run(t, Options{Args: append([]string{"-c"}, do("trap", "-on", fmt.Sprintf("%d=4", sig))...)})
					in.WaitStdout("ready")
					settle()
					in.Signal(sig)
					assert.Equal(t, 4, in.Wait())
				})
				t.Run("the user's rule wins", func(t *testing.T) {
					t.Parallel()
					in := p.Run(t, Options{Args: append([]string{"-r", fmt.Sprintf("%d:10", sig)}, do("trap", "-on", "USR1=5")...)})
					in.WaitStdout("ready")
					settle()
					in.Signal(sig)
					assert.Equal(t, 5, in.Wait())
				})
			})
		})
	}
}

// TestSuspendOfDumbInit: not PID 1, it stops itself, too, so that the shell
// that has started it takes the terminal back.
func TestSuspendOfDumbInit(t *testing.T) {
	t.Parallel()
	eachOf(t, "dumb-init", func(t *testing.T, p personality) {
		in := p.Beside(t, Options{Args: do("trap", "-on", "TERM=3")})
		in.WaitStdout("ready")
		settle()
		init := func() (found Process) {
			for _, one := range in.Processes() {
				if one.PID != 1 && one.Args[0] == p.path {
					found = one
				}
			}
			return found
		}
		send := func(name string) {
			out, code := in.Exec("/usr/bin/kill", "-"+name, strconv.Itoa(init().PID))
			require.Zero(t, code, out)
		}
		send("TSTP")
		in.eventually("both to be stopped", func() bool { return init().State == "T" && in.find("trap", "-on").State == "T" })
		send("CONT")
		in.WaitStdout("got CONT")
		// The end of the container can be faster than that of kill in it.
		_, _ = in.Exec("/usr/bin/kill", "-TERM", strconv.Itoa(init().PID))
		assert.Equal(t, 3, in.Wait())
	})
}

func TestRewriteOfDumbInit(t *testing.T) {
	t.Parallel()
	tests := []struct {
		options string
		send    syscall.Signal
		gets    string
	}{
		{"-r 15:3", syscall.SIGTERM, "QUIT"},
		{"--rewrite 15:2", syscall.SIGTERM, "INT"},
		{"--rewrite=1:15 -c", syscall.SIGHUP, "TERM"},
		{"-r 10:12 -r 12:10", syscall.SIGUSR1, "USR2"}, // once, not in a circle
		{"-r 10:12 -r 12:10", syscall.SIGUSR2, "USR1"},
		{"-r 10:2 -r 10:12", syscall.SIGUSR1, "USR2"}, // the last one counts
		{"-r 10:10", syscall.SIGUSR1, "USR1"},
	}
	for _, tt := range tests {
		t.Run(tt.options+" "+tt.gets, func(t *testing.T) {
			t.Parallel()
			eachOf(t, "dumb-init", func(t *testing.T, p personality) {
				in := p.Run(t, Options{Args: append(strings.Fields(tt.options), do("trap", "-on", tt.gets+"=3")...)})
				in.WaitStdout("ready")
				settle()
				in.Signal(tt.send)
				assert.Equal(t, 3, in.Wait())
				assert.Equal(t, []string{"ready", "got " + tt.gets}, in.Stdout.Lines())
			})
		})
	}
	t.Run("0 drops", func(t *testing.T) {
		t.Parallel()
		eachOf(t, "dumb-init", func(t *testing.T, p personality) {
			in := p.Run(t, Options{Args: append([]string{"-r", "10:0", "--rewrite", "28:0", "-r", "15:0"}, do("trap", "-on", "INT=3")...)})
			in.WaitStdout("ready")
			settle()
			for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGWINCH, syscall.SIGTERM} {
				in.Signal(sig)
				in.taken(sig)
			}
			for n := 1; n <= 2; n++ { // the second cannot overtake
				in.Signal(syscall.SIGUSR2)
				in.eventually("USR2", func() bool { return strings.Count(in.Stdout.String(), "got USR2\n") == n })
			}
			in.Signal(syscall.SIGINT)
			assert.Equal(t, 3, in.Wait())
			assert.Equal(t, []string{"ready", "got USR2", "got USR2", "got INT"}, in.Stdout.Lines())
		})
	})
}

// TestTermAndExitCodesOfTini: what is remapped is the code that would be
// reported, 128+n included.
func TestTermAndExitCodesOfTini(t *testing.T) {
	t.Parallel()
	eachOf(t, "tini", func(t *testing.T, p personality) {
		in := p.Run(t, Options{Args: []string{"-e", "143", "--", "/usr/bin/sleep", "60"}})
		in.eventually("the command", func() bool { return has(in, "sleep") })
		settle()
		in.Signal(syscall.SIGTERM)
		assert.Zero(t, in.Wait())
	})
}

// TestParentDeathSignalOfTini: -p is about the parent of the init, so it is
// meant for one that is not PID 1. The signal is passed on as any other.
func TestParentDeathSignalOfTini(t *testing.T) {
	t.Parallel()
	eachOf(t, "tini", func(t *testing.T, p personality) {
		in := Run(t, Options{
			Program: "/bin/testprog", HostPrograms: true, Files: p.file,
			Mounts: []Mount{{Host: Binary(t, "cleanimg-init"), Inside: "/bin/cleanimg-init", ReadOnly: true}},
			Args: []string{
				"bg", "bg", "exec", p.path, "-s", "-p", "SIGUSR1", "--", "/bin/testprog", "trap", "-quiet", "-ready", "/tmp/ready", "-file", "/tmp/got",
				",", "await", "/tmp/ready", ",", "await", "/tmp/go", ";", "trap",
			},
		})
		in.WaitFile("/tmp/ready")
		settle()
		in.touch("/tmp/go")
		in.eventually("USR1", func() bool { return got(in.File("/tmp/got"), syscall.SIGUSR1) })
	})
}

// TestSubreaperOfTini: not PID 1, tini reaps only if it is told to. We always
// do.
func TestSubreaperOfTini(t *testing.T) {
	t.Parallel()
	tests := []struct {
		options, env string
		reaps        bool
	}{
		{"", "", false},
		{"-s", "", true},
		{"", "TINI_SUBREAPER=", true}, // it is enough that it is set
	}
	for _, tt := range tests {
		t.Run(tt.options+tt.env, func(t *testing.T) {
			t.Parallel()
			eachOf(t, "tini", func(t *testing.T, p personality) {
				in := p.Beside(t, Options{Env: env(tt.env), Args: append(strings.Fields(tt.options+" --"), do(
					"daemon", "trap", "-quiet", "-ready", "/tmp/ready", "-on", "TERM=0", ";", "await", "/tmp/ready", ";", "trap", "-on", "TERM=3")...)})
				in.WaitStdout("ready")
				settle()
				var init Process
				for _, one := range in.Processes() {
					if one.PID != 1 && one.Args[0] == p.path {
						init = one
					}
				}
				parent := in.find("trap", "/tmp/ready").PPID
				if tt.reaps || p.ours {
					assert.Equal(t, init.Host, parent, "the daemon's parent is the init")
				} else {
					assert.Equal(t, in.PID, parent, "the daemon's parent is PID 1")
					assert.Contains(t, in.Stderr.String(), "subreaper", "which it warns of")
				}
				in.Signal(syscall.SIGTERM)
				assert.Equal(t, 3, in.Wait())
			})
		})
	}
}

// TestWarnOfReapedOfTini: -w.
func TestWarnOfReapedOfTini(t *testing.T) {
	t.Parallel()
	eachOf(t, "tini", func(t *testing.T, p personality) {
		in := p.Run(t, Options{Args: append([]string{"-w", "--"}, do("storm", "3", ";", "trap", "-on", "TERM=3")...)})
		in.WaitStdout("ready")
		in.eventually("three warnings", func() bool { return len(regexp.MustCompile(`(?i)reaped`).FindAllString(in.Stderr.String(), -1)) >= 3 })
		in.Signal(syscall.SIGTERM)
		assert.Equal(t, 3, in.Wait())
	})
}

// TestTerminalByName: the command has the terminal, as the leader of its group
// or, under dumb-init, of its session, and nothing that the hand-over sends
// reaches it.
func TestTerminalByName(t *testing.T) {
	t.Parallel()
	for name := range peers {
		for _, options := range []string{"", "-c"} {
			if name == "tini" && options != "" {
				continue
			}
			t.Run(strings.TrimSpace(name+" "+options), func(t *testing.T) {
				t.Parallel()
				eachOf(t, name, func(t *testing.T, p personality) {
					in := p.Run(t, Options{TTY: true, Args: append(strings.Fields(options+" --"), do("tty", ";", "trap", "-on", "INT=5")...)})
					in.WaitStdout("ready")
					settle()
					assert.Contains(t, in.Stdout.String(), "foreground true")
					_, err := in.Terminal.WriteString("\x03") // Ctrl-C
					require.NoError(t, err)
					assert.Equal(t, 5, in.Wait())
					if !p.ours && options != "" {
						return // in dumb-init's own group: both get it, and it is passed on
					}
					assert.Equal(t, 1, strings.Count(in.Stdout.String(), "got "), "%s", in.Stdout)
				})
			})
		}
	}
}

// TestInheritedSignals: tini gives the command the mask and the dispositions
// that it was started with, and dumb-init starts it with none. So do we under
// their names, as far as the Go runtime lets us know: it takes the place of a
// handler, or of "ignored", for all but HUP, INT and what has to do with job
// control, and unblocks what it must receive.
func TestInheritedSignals(t *testing.T) {
	t.Parallel()
	set := func(signals ...syscall.Signal) string {
		var bits uint64
		for _, sig := range signals {
			bits |= 1 << (sig - 1)
		}
		return fmt.Sprintf("%016x", bits)
	}
	for _, tt := range []struct{ name, blocked, ignored, ourBlocked, ourIgnored string }{
		{
			"tini",
			set(syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGTTIN), set(syscall.SIGHUP, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGPIPE, syscall.SIGTSTP, syscall.SIGTTOU),
			set(syscall.SIGUSR2, syscall.SIGTTIN), set(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTSTP, syscall.SIGTTOU),
		},
		{"dumb-init", set(), set(), set(), set()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			eachOf(t, tt.name, func(t *testing.T, p personality) {
				in := Run(t, Options{
					Program: "/bin/testprog", HostPrograms: true, Files: p.file,
					Mounts: []Mount{{Host: Binary(t, "cleanimg-init"), Inside: "/bin/cleanimg-init", ReadOnly: true}},
					Args:   []string{"ignore", "HUP,INT,USR1,PIPE,TSTP,TTOU", ";", "block", "USR2,TERM,TTIN", ";", "exec", p.path, "--", "/usr/bin/cat", "/proc/self/status"},
				})
				require.Zero(t, in.Wait(), "%s", in.Stderr)
				blocked, ignored := tt.blocked, tt.ignored
				if p.ours {
					blocked, ignored = tt.ourBlocked, tt.ourIgnored
				}
				assert.Equal(t, blocked, statusSignals(t, in.Stdout.String(), "SigBlk"))
				assert.Equal(t, ignored, statusSignals(t, in.Stdout.String(), "SigIgn"))
			})
		})
	}
}

// statusSignals is a set of signals in /proc/PID/status, without 32 and 33, which
// are the C libraries' own: some ignore them in all that they start, us included.
func statusSignals(t *testing.T, status, field string) string {
	t.Helper()
	_, rest, ok := strings.Cut(status, field+":\t")
	require.True(t, ok, status)
	bits, err := strconv.ParseUint(rest[:16], 16, 64)
	require.NoError(t, err)
	return fmt.Sprintf("%016x", bits&^(0b11<<31))
}

// TestWorkersGetTheirTimeByName is where we are better on purpose: under each
// name the rest of the tree is told to end, and waited for.
func TestWorkersGetTheirTimeByName(t *testing.T) {
	t.Parallel()
	for name := range peers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachOf(t, name, func(t *testing.T, p personality) {
				in := p.Run(t, Options{Args: append([]string{"--"}, worker("daemon")...)})
				in.WaitStdout("ready")
				settle()
				in.Signal(syscall.SIGTERM)
				assert.Equal(t, 17, in.Wait())
				assert.Equal(t, p.ours, in.File("/tmp/cleaned-up") != "", "the worker had the second that it needs")
			})
		})
	}
}

// TestProbesByName: the container of another program has no port of ours,
// unless it is asked for.
func TestProbesByName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"tini", "tini-static", "docker-init", "dumb-init"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := as(name).Run(t, Options{Args: append([]string{"--"}, do("trap", "-on", "TERM=3")...)})
			in.WaitStdout("ready")
			settle()
			assert.Zero(t, in.Status("/health/live"))
			in.Signal(syscall.SIGTERM)
			assert.Equal(t, 3, in.Wait())

			in = as(name).Run(t, Options{Args: append([]string{"--"}, do("trap", "-on", "TERM=3")...), Env: env("CLEANIMG_INIT_HTTP_LISTEN=:10101")})
			in.WaitStdout("ready")
			in.WaitStatus("/health/ready", 200)
			in.Signal(syscall.SIGTERM)
			assert.Equal(t, 3, in.Wait())
		})
	}
}

// TestHooksByName: they run if there are any, and their failure is the end, as
// without the name.
func TestHooksByName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"tini", "docker-init", "dumb-init"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := as(name).Run(t, Options{Args: append([]string{"--"}, mainRan...), Files: []File{Hook("10-a", ran("a")), StopHook("10-stop", ran("stop"))}})
			assert.Zero(t, in.Wait())
			assert.Equal(t, []string{"a", "main", "stop"}, order(in))

			in = as(name).Run(t, Options{Args: append([]string{"--"}, mainRan...), Files: []File{Hook("10-a", "exit 9")}})
			assert.Equal(t, 9, in.Wait())
			assert.Empty(t, order(in))

			in = as(name).Run(t, Options{Args: []string{"--", "/no/such"}, Files: []File{Hook("10-a", ran("a"))}})
			assert.Equal(t, map[string]int{"tini": 127, "docker-init": 127, "dumb-init": 2}[name], in.Wait())
			assert.Empty(t, order(in), "a hook has run before a command that cannot")
		})
	}
}

// TestCompatNamesItsTests: every test that docs/compat.md points to is there.
func TestCompatNamesItsTests(t *testing.T) {
	text, err := os.ReadFile("../docs/compat.md")
	require.NoError(t, err)
	named := regexp.MustCompile("`((?:[a-z]+/)*[a-z]+)\\.((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(string(text), -1)
	require.Greater(t, len(named), 60)
	assert.Len(t, regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]`).FindAllString(string(text), -1), len(named), "each as `package.TestName`")
	there := map[string]string{}
	for _, n := range named {
		dir, name := n[1], n[2]
		if there[dir] == "" {
			files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
			require.NoError(t, err)
			for _, file := range files {
				source, err := os.ReadFile(file)
				require.NoError(t, err)
				there[dir] += string(source)
			}
		}
		assert.Contains(t, there[dir], "\nfunc "+name+"(", "%s has no %s", dir, name)
	}
}
