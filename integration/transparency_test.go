// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestLimitsAreUnchanged: every resource limit, and the rest of what a process
// inherits, for hooks, for the command, and for a command that takes our place.
func TestLimitsAreUnchanged(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	set := []string{"umask", "027", ";", "nice", "7", ";", "oom", "321", ";", "nofile", "300", "4000", ";", "chdir", "/tmp", ";", "exec"}
	start := func(t *testing.T, o Options, program ...string) *Instance {
		o.Program, o.HostPrograms, o.Root = "/bin/testprog", true, true
		o.Args = append(slices.Clone(set), program...)
		o.Mounts = []Mount{{Host: Binary(t, "cleanimg-init"), Inside: "/bin/cleanimg-init", ReadOnly: true}}
		in := Run(t, o)
		require.Zero(t, in.Wait(), "%s", in.Stderr)
		return in
	}
	limits, props := []string{"/usr/bin/cat", "/proc/self/limits"}, []string{"/bin/testprog", "props"}
	wantLimits, wantProps := start(t, Options{}, limits...).Stdout.String(), start(t, Options{}, props...).Stdout.String()
	require.Regexp(t, `Max open files +300 +4000 `, wantLimits)
	require.Equal(t, "cwd /tmp\numask 027\nnice 7\noom 321\n", wantProps)

	for _, mode := range []string{"supervise", "exec"} {
		for what, program := range map[string][]string{wantLimits: limits, wantProps: props} {
			name := mode + " " + program[0]
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				in := start(t, Options{Env: env("CLEANIMG_INIT_MODE=" + mode)}, append([]string{"/bin/cleanimg-init", "--"}, program...)...)
				assert.Equal(t, what, in.Stdout.String())
			})
			t.Run(name+" after a hook that is the same", func(t *testing.T) {
				t.Parallel()
				quoted := make([]string, len(program))
				for i, word := range program {
					quoted[i] = strconv.Quote(word)
				}
				in := start(t, Options{
					Env:   env("CLEANIMG_INIT_MODE=" + mode),
					Files: []File{Step("10-a.yaml", "run: ["+strings.Join(quoted, ", ")+"]")},
				}, append([]string{"/bin/cleanimg-init", "--"}, program...)...)
				assert.Equal(t, what+what, in.Stdout.String())
			})
		}
	}
}

// TestModeExecIsTheCommand: it is PID 1 itself, and of us it inherits nothing.
func TestModeExecIsTheCommand(t *testing.T) {
	t.Parallel()
	hooks := []File{Hook("10-a", "export FROM_HOOK=1", "daemon storm 50")}
	t.Run("status", func(t *testing.T) {
		t.Parallel()
		in := Run(t, Options{
			HostPrograms: true, Env: env("CLEANIMG_INIT_MODE=exec"), Files: hooks,
			Args: []string{"/usr/bin/cat", "/proc/self/status"},
		})
		require.Zero(t, in.Wait(), "%s", in.Stderr)
		out := in.Stdout.String()
		for _, line := range []string{"Pid:\t1\n", "PPid:\t0\n", "Threads:\t1\n", "SigPnd:\t0000000000000000\n", "ShdPnd:\t0000000000000000\n", "SigBlk:\t0000000000000000\n", "SigIgn:\t0000000000000000\n", "SigCgt:\t0000000000000000\n"} {
			assert.Contains(t, out, line)
		}
	})
	t.Run("environment", func(t *testing.T) {
		t.Parallel()
		vars := env("CLEANIMG_INIT_MODE=exec", "A=b")
		in := Run(t, Options{Env: vars, Files: hooks, Args: do("env")})
		require.Zero(t, in.Wait(), "%s", in.Stderr)
		assert.ElementsMatch(t, append(vars, "FROM_HOOK=1"), in.Stdout.Lines())
	})
	t.Run("limits", func(t *testing.T) {
		t.Parallel()
		in := Run(t, newLimitBox(t, 64<<20, 0).in(Options{Env: env("CLEANIMG_INIT_MODE=exec"), Files: hooks, Args: do("env")}))
		require.Zero(t, in.Wait(), "%s", in.Stderr)
		assert.Contains(t, in.Stdout.Lines(), "CLEANIMG_INIT_MEMORY_LIMIT=67108864")
	})
	for _, program := range []string{"cleanimg-init", "dumb-init"} { // which makes a session for the command
		t.Run("terminal as "+program, func(t *testing.T) {
			t.Parallel()
			o := Options{TTY: true, Program: "/bin/" + program, Env: env("CLEANIMG_INIT_MODE=exec"), Files: hooks, Args: do("tty", ";", "trap", "-on", "INT=5")}
			if program != "cleanimg-init" {
				o.Files = append(slices.Clone(hooks), File{Path: o.Program, Link: "cleanimg-init"})
			}
			in := Run(t, o)
			in.WaitStdout("ready")
			assert.Contains(t, in.Stdout.String(), "foreground true", "the hooks had it")
			_, err := in.Terminal.WriteString("\x03")
			require.NoError(t, err)
			assert.Equal(t, 5, in.Wait())
		})
	}
	t.Run("nobody else", func(t *testing.T) {
		t.Parallel()
		in := Run(t, Options{Env: env("CLEANIMG_INIT_MODE=exec"), Files: hooks, Args: do("trap", "-on", "TERM=3")})
		in.WaitStdout("ready")
		all := in.Processes()
		require.Len(t, all, 1, "no zombie either: %v", all)
		assert.Equal(t, 1, all[0].PID)
		in.Signal(syscall.SIGTERM)
		assert.Equal(t, 3, in.Wait())
	})
	t.Run("no subreaper", func(t *testing.T) {
		t.Parallel()
		in := notPID1(t, Options{Env: env("CLEANIMG_INIT_MODE=exec"), Files: hooks, Args: do(
			"daemon", "trap", "-quiet", "-ready", "/tmp/worker", ";", "await", "/tmp/worker", ";", "trap", "-on", "TERM=3")})
		in.WaitStdout("ready")
		assert.Equal(t, in.PID, in.find("trap", "/tmp/worker").PPID, "the command's orphans are PID 1's, not the command's")
		in.Signal(syscall.SIGTERM)
		assert.Equal(t, 3, in.Wait())
	})
}

// TestUserByName: groups and HOME come from the files of the image.
func TestUserByName(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	files := []File{
		{Path: "/etc/passwd", Content: "root:x:0:0::/root:/none\napp:x:1500:1600::/home/app:/none\nhomeless:x:1501:1600:::/none\n"},
		{Path: "/etc/group", Content: "app:x:1600:\nextra:x:1700:someone,app\nother:x:1800:someone\nmore:x:1900:app\n"},
	}
	tests := []struct {
		user     string
		uid, gid int
		groups   []string // the group itself may be among them
		home     string
	}{
		{"app", 1500, 1600, []string{"1700", "1900"}, "/home/app"},
		{"1500", 1500, 1600, []string{"1700", "1900"}, "/home/app"},
		{"app:other", 1500, 1800, nil, "/home/app"}, // a group that is given is the only one
		{"app:2000", 1500, 2000, nil, "/home/app"},
		{"1500:other", 1500, 1800, nil, "/home/app"},
		{"1234:2345", 1234, 2345, nil, "/"},
	}
	for _, tt := range tests {
		for _, mode := range []string{"supervise", "exec"} {
			t.Run(tt.user+" "+mode, func(t *testing.T) {
				t.Parallel()
				in := Run(t, Options{
					Root: true, Files: files, Env: env("CLEANIMG_INIT_USER="+tt.user, "CLEANIMG_INIT_MODE="+mode, "HOME=/inherited"),
					Args: do("status", "Uid", "Gid", "Groups", "NoNewPrivs", "CapPrm", "CapEff", "CapAmb", ";", "env"),
				})
				require.Zero(t, in.Wait(), "%s", in.Stderr)
				out := in.Stdout.String()
				assert.Contains(t, out, fmt.Sprintf("Uid %[1]d %[1]d %[1]d %[1]d\nGid %[2]d %[2]d %[2]d %[2]d\n", tt.uid, tt.gid))
				groups := strings.Fields(regexp.MustCompile(`(?m)^Groups(.*)$`).FindStringSubmatch(out)[1])
				groups = slices.DeleteFunc(groups, func(g string) bool { return g == strconv.Itoa(tt.gid) })
				assert.ElementsMatch(t, tt.groups, groups, "supplementary groups")
				assert.Contains(t, out, "CapPrm 0000000000000000\nCapEff 0000000000000000\nCapAmb 0000000000000000\n")
				assert.Contains(t, out, "NoNewPrivs 0\n", "nobody has asked for it")
				assert.Contains(t, out, "\nHOME="+tt.home+"\n")
			})
		}
	}
}

// TestNoNewPrivilegesIsKept: what the runtime has set holds for hooks and
// command, and is no obstacle to becoming another user.
func TestNoNewPrivilegesIsKept(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	for _, mode := range []string{"supervise", "exec"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{
				Root: true, KeepCaps: []int{5, 6, 7}, // KILL, SETGID, SETUID; the harness then sets no_new_privs
				Env:   env("CLEANIMG_INIT_USER=1234:2345", "CLEANIMG_INIT_MODE="+mode),
				Files: []File{Hook("10-a", "status Uid NoNewPrivs")},
				Args:  do("status", "Uid", "NoNewPrivs", "CapEff"),
			})
			require.Zero(t, in.Wait(), "%s", in.Stderr)
			assert.Equal(t, "Uid 0 0 0 0\nNoNewPrivs 1\nUid 1234 1234 1234 1234\nCapEff 0000000000000000\nNoNewPrivs 1\n", in.Stdout.String())
		})
	}
}

// TestSocketActivation: LISTEN_PID and WATCHDOG_PID say whom the variables are
// for by its pid, and the command's is another one than ours. Wrong ones make a
// program ignore what it was given.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"supervise", "exec"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{
				Env:  env("LISTEN_PID=1", "LISTEN_FDS=1", "WATCHDOG_PID=1", "WATCHDOG_USEC=1000000", "CLEANIMG_INIT_MODE="+mode),
				Args: do("env", ";", "trap", "-on", "TERM=3"),
			})
			in.WaitStdout("ready")
			pid := in.PID
			for _, p := range in.Processes() {
				if p.Name == "testprog" {
					pid = p.PID
				}
			}
			for _, name := range []string{"LISTEN_PID", "WATCHDOG_PID"} {
				if value := regexp.MustCompile(`(?m)^` + name + `=(.*)$`).FindStringSubmatch(in.Stdout.String()); value != nil {
					assert.Equal(t, strconv.Itoa(pid), value[1], "%s is the command's, or absent", name)
				}
			}
			in.Signal(syscall.SIGTERM)
			assert.Equal(t, 3, in.Wait())
		})
	}
}

// TestShellOnATerminal: bash has job control under us, as it has it without us.
func TestShellOnATerminal(t *testing.T) {
	t.Parallel()
	eachInit(t, func(t *testing.T, name string, run func(*testing.T, Options) *Instance) {
		in := run(t, Options{TTY: true, Env: []string{"PATH=/bin:/usr/bin", "PS1=prompt-", "TERM=dumb", "HISTFILE="}, Args: []string{"/usr/bin/bash", "--norc", "-i"}})
		typing := func(keys, shows string) {
			t.Helper()
			before := len(in.Stdout.String())
			_, err := in.Terminal.WriteString(keys)
			require.NoError(t, err)
			in.eventually(strconv.Quote(shows)+" after "+strconv.Quote(keys), func() bool { return strings.Contains(in.Stdout.String()[before:], shows) })
		}
		in.WaitStdout("prompt-")
		assert.NotContains(t, in.Stdout.String(), "no job control")
		// What is typed is echoed, so the answers are not in what is typed.
		_, err := in.Terminal.WriteString("sleep 600\n")
		require.NoError(t, err)
		in.eventually("sleep", func() bool { return has(in, "sleep") })
		in.foreground("sleep")
		if name != "catatonit" { // it leaves the terminal's stop signals ignored
			typing("\x1a", "Stopped") // Ctrl-Z
			typing("bg; echo in-th''e-background\n", "in-the-background")
			_, err = in.Terminal.WriteString("fg\n")
			require.NoError(t, err)
			in.foreground("sleep")
		}
		typing("\x03", "prompt-") // Ctrl-C
		typing("echo code-$?\n", "code-130")
		assert.False(t, has(in, "sleep"))
		_, err = in.Terminal.WriteString("exit 7\n")
		require.NoError(t, err)
		assert.Equal(t, 7, in.Wait())
	})
}

// foreground waits until a process of that name has the terminal and sleeps.
func (in *Instance) foreground(name string) {
	in.t.Helper()
	in.eventually(name+" in the foreground", func() bool {
		for _, p := range in.Processes() {
			if p.Name == name && p.State == "S" {
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Host))
				if err != nil {
					return false
				}
				fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
				return fields[2] == fields[5] // its process group, and that of the terminal
			}
		}
		return false
	})
}

// TestStopFromTheTerminal: Ctrl-Z stops a command that does nothing about it,
// CONT lets it go on, and TERM reaches it in both states.
func TestStopFromTheTerminal(t *testing.T) {
	t.Parallel()
	for _, i := range inits[:2] {
		t.Run(i.name, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{TTY: true, Program: i.path, HostPrograms: true, Args: append(slices.Clone(i.args), "/usr/bin/sleep", "600")})
			state := func() string {
				for _, p := range in.Processes() {
					if p.Name == "sleep" {
						return p.State
					}
				}
				return ""
			}
			in.foreground("sleep")
			settle()
			_, err := in.Terminal.WriteString("\x1a")
			require.NoError(t, err)
			in.eventually("the command to be stopped", func() bool { return state() == "T" })
			in.Signal(syscall.SIGCONT)
			in.eventually("the command to go on", func() bool { return state() == "S" })
			_, err = in.Terminal.WriteString("\x1a")
			require.NoError(t, err)
			in.eventually("the command to be stopped again", func() bool { return state() == "T" })
			in.Signal(syscall.SIGTERM)
			in.Signal(syscall.SIGCONT)
			assert.Equal(t, 143, in.Wait())
		})
	}
}

// TestNeighbours: two instances in one pid namespace, as containers of a pod
// with shareProcessNamespace. One ends, with all that it can do to its own; the
// other, its daemon included, does not notice.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"main", "group", "tree"} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{
				Program: "/bin/testprog",
				Env:     env("CLEANIMG_INIT_HTTP_LISTEN=off", "CLEANIMG_INIT_KILL_GRACE=300ms", "CLEANIMG_INIT_SIGNAL_TARGET="+target),
				Args: []string{
					"bg", "exec", "/bin/cleanimg-init", "--no-hooks", "--", "/bin/testprog", "daemon", "trap", "-quiet", "-ready", "/tmp/n1", "-file", "/tmp/got1", ",",
					"trap", "-quiet", "-ready", "/tmp/n2", "-file", "/tmp/got2", ";", "await", "/tmp/n1", ";", "await", "/tmp/n2", ";",
					"under", "/bin/cleanimg-init", "--", "/bin/testprog", "daemon", "trap", "-quiet", "-ready", "/tmp/worker", ";", "await", "/tmp/worker", ";", "trap", "-on", "TERM=3",
				},
				Files: []File{
					Step("10-a.yaml", runs("daemon", "trap", "-quiet", ";", "sleep", "1h"), "timeout: 300ms", "onFailure: continue"),
					StopHook("10-stop", "daemon trap -quiet", ran("stop")),
				},
			})
			in.WaitStdout("ready")
			settle()
			in.Signal(syscall.SIGUSR1) // testprog, which is PID 1, keeps it
			in.Signal(syscall.SIGTERM)
			assert.Equal(t, 3, in.Wait(), "%s", in.Stderr)
			assert.Equal(t, []string{"stop"}, order(in))
			left := regexp.MustCompile(`(?m)^under: left \d+ (\S) (\S+)$`).FindAllStringSubmatch(in.Stdout.String(), -1)
			assert.Len(t, left, 3, "the other cleanimg-init, its command and its daemon:\n%s", in.Stdout)
			for _, p := range left {
				assert.NotEqual(t, "Z", p[1])
			}
			assert.Empty(t, in.File("/tmp/got1"), "the neighbour's daemon was touched")
			assert.Empty(t, in.File("/tmp/got2"), "the neighbour's command was touched")
		})
	}
}

// TestSignalRewriteByNumber: names with and without SIG, numbers, and real-time
// signals.
func TestSignalRewriteByNumber(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rewrite string
		send    syscall.Signal
		gets    string
	}{
		{"10:12", syscall.SIGUSR1, "USR2"},
		{"SIGUSR1:SIGUSR2", syscall.SIGUSR1, "USR2"},
		{"15:3", syscall.SIGTERM, "QUIT"},
		{"TERM:40", syscall.SIGTERM, "40"},
		{"64:HUP", 64, "HUP"},
		{"35:36,36:35", 35, "36"},
		{"RTMIN+3:RTMAX-1", 37, "63"},
		{"WINCH:28", syscall.SIGWINCH, "WINCH"},
	}
	for _, tt := range tests {
		t.Run(tt.rewrite, func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: do("trap", "-on", tt.gets+"=3"), Env: env("CLEANIMG_INIT_SIGNAL_REWRITE=" + tt.rewrite)})
			in.WaitStdout("ready")
			settle()
			in.Signal(tt.send)
			assert.Equal(t, 3, in.Wait())
			assert.Equal(t, []string{"ready", "got " + tt.gets}, in.Stdout.Lines())
		})
	}
}

// TestTermAsTheCommandEnds sends TERM about when the command ends by itself:
// the code is the command's in any case, and the stop hooks have run.
func TestTermAsTheCommandEnds(t *testing.T) {
	t.Parallel()
	for i := range 30 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{
				HostPrograms: true, Env: []string{"PATH=/bin:/usr/bin"},
				Args:  do("await", "/tmp/go", ";", "exec", "/usr/bin/sleep", fmt.Sprintf("0.%03d", i)),
				Files: []File{StopHook("10-stop", ran("stop"))},
			})
			in.touch("/tmp/go")
			in.eventually("the command", func() bool { return has(in, "sleep") || in.ran("/tmp/order") || !in.Running() })
			_ = in.process.Signal(syscall.SIGTERM)
			code := in.Wait()
			assert.Contains(t, []int{0, 143}, code)
			assert.Equal(t, []string{"stop"}, order(in))
		})
	}
}

// TestTermDuringStopHooks: they run to their end, and the code is the command's.
func TestTermDuringStopHooks(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args:  do("exit", "18"),
		Files: []File{StopHook("10-a", "touch /tmp/stop", "await /tmp/go", ran("a")), StopHook("20-b", ran("b"))},
	})
	in.WaitFile("/tmp/stop")
	settle()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1} {
		in.Signal(sig)
		in.taken(sig)
	}
	in.touch("/tmp/go")
	assert.Equal(t, 18, in.Wait())
	assert.Equal(t, []string{"a", "b"}, order(in))
}

// TestTermBetweenHooks sends TERM at many moments of a run of short hooks: what
// was begun is not reported as done, and the stop hooks always run.
func TestTermBetweenHooks(t *testing.T) {
	t.Parallel()
	var files []File
	for i := range 20 {
		files = append(files, Hook(fmt.Sprintf("%02d-a", i), fmt.Sprintf("touch /tmp/h%d", i)))
	}
	files = append(files, StopHook("10-stop", "touch /tmp/stop"))
	for i := range 20 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			in := Run(t, Options{Args: do("trap", "-on", "TERM=17"), Files: files})
			in.WaitFile(fmt.Sprintf("/tmp/h%d", i))
			_ = in.process.Signal(syscall.SIGTERM)
			assert.Contains(t, []int{143, 17}, in.Wait(), "%s", in.Stderr)
			assert.FileExists(t, in.Path("/tmp/stop"))
		})
	}
}

// TestManySignals: whatever else comes, and however fast, TERM is not lost.
func TestManySignals(t *testing.T) {
	t.Parallel()
	eachInit(t, func(t *testing.T, name string, run func(*testing.T, Options) *Instance) {
		in := run(t, Options{Args: do("trap", "-quiet", "-ready", "/tmp/ready", "-on", "TERM=3")})
		in.WaitFile("/tmp/ready")
		settle()
		for range 1000 {
			for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGCHLD} {
				in.Signal(sig)
			}
		}
		in.Signal(syscall.SIGTERM)
		assert.Equal(t, 3, in.Wait())
	})
}

// TestFaultSignalsFromOutside: sent by somebody, they are no fault of ours. The
// small inits ignore or forward them; no container ends because PID 1 did.
func TestFaultSignalsFromOutside(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{
		syscall.SIGILL, syscall.SIGTRAP, syscall.SIGABRT, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV, syscall.SIGSYS, syscall.SIGSTKFLT,
		syscall.SIGALRM, syscall.SIGVTALRM, syscall.SIGPROF, syscall.SIGXCPU, syscall.SIGXFSZ, syscall.SIGIO, syscall.SIGPWR,
	} {
		t.Run(strconv.Itoa(int(sig)), func(t *testing.T) {
			t.Parallel()
			eachInit(t, func(t *testing.T, name string, run func(*testing.T, Options) *Instance) {
				in := run(t, Options{Args: do("trap", "-on", "TERM=3")})
				in.WaitStdout("ready")
				settle()
				in.Signal(sig)
				in.taken(sig)
				in.Signal(syscall.SIGTERM)
				assert.Equal(t, 3, in.Wait(), "%s", in.Stderr)
			})
		})
	}
}
