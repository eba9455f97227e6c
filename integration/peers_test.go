// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// inits are cleanimg-init and the programs that it replaces. What all of them
// promise is tested on all of them: a test that tini fails is a wrong test.
var inits = []struct {
	name string
	path string
	args []string
}{
	{"cleanimg-init", "/bin/cleanimg-init", nil},
	{"tini", "/usr/bin/tini", []string{"--"}},
	{"dumb-init", "/usr/bin/dumb-init", []string{"--"}},
	{"catatonit", "/usr/bin/catatonit", []string{"--"}},
}

// eachInit runs a test with every init that is there. The run function starts
// a container with the init before the command.
func eachInit(t *testing.T, test func(t *testing.T, name string, run func(t *testing.T, o Options) *Instance)) {
	t.Helper()
	for _, i := range inits {
		t.Run(i.name, func(t *testing.T) {
			t.Parallel()
			if i.name == "cleanimg-init" {
				if _, err := os.Stat(filepath.Join(binDir, i.name)); err != nil {
					t.Fatalf("%v", err)
				}
			} else if _, err := os.Stat(i.path); err != nil {
				t.Skipf("%s is not installed: no comparison with it", i.name)
			}
			test(t, i.name, func(t *testing.T, o Options) *Instance {
				o.Program = i.path
				o.Args = append(append([]string{}, i.args...), o.Args...)
				o.HostPrograms = true
				return Run(t, o)
			})
		})
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	eachInit(t, func(t *testing.T, name string, run func(*testing.T, Options) *Instance) {
		codes := []int{0, 1, 2, 3, 42, 77, 99, 124, 125, 126, 127, 128, 137, 143, 254, 255}
		if name == "cleanimg-init" {
			codes = codes[:0]
			for code := range 256 {
				codes = append(codes, code)
			}
		}
		for _, code := range codes {
			t.Run(fmt.Sprint(code), func(t *testing.T) {
				t.Parallel()
				in := run(t, Options{Args: do("exit", fmt.Sprint(code))})
				assert.Equal(t, code, in.Wait())
			})
		}
	})
}

// TestExitCodesOfSignals has every signal that ends a program by default.
func TestExitCodesOfSignals(t *testing.T) {
	t.Parallel()
	eachInit(t, func(t *testing.T, name string, run func(*testing.T, Options) *Instance) {
		for sig := 1; sig <= 64; sig++ {
			switch syscall.Signal(sig) {
			case syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGURG, syscall.SIGWINCH:
				continue // not deadly
			}
			t.Run(fmt.Sprint(sig), func(t *testing.T) {
				t.Parallel()
				in := run(t, Options{Args: do("die", fmt.Sprint(sig))})
				assert.Equal(t, 128+sig, in.Wait())
			})
		}
	})
}

func TestSignalIsForwarded(t *testing.T) {
	t.Parallel()
	eachInit(t, func(t *testing.T, name string, run func(*testing.T, Options) *Instance) {
		signals := []syscall.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGTERM}
		if name != "dumb-init" { // its table ends at 31
			for rt := syscall.Signal(35); rt <= 64; rt++ {
				signals = append(signals, rt)
			}
		}
		if name == "cleanimg-init" {
			signals = append(signals, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
		}
		// One container a signal: a stop signal, once seen, is also the start
		// of a shutdown.
		for _, sig := range signals {
			t.Run(sig.String(), func(t *testing.T) {
				t.Parallel()
				in := run(t, Options{Args: do("trap", "-on", fmt.Sprintf("%d=%d", sig, sig))})
				in.WaitStdout("ready")
				// The command may be ready before its parent is.
				settle()
				in.Signal(sig)
				assert.Equal(t, int(sig), in.Wait())
				assert.Equal(t, 1, strings.Count(in.Stdout.String(), "got "), "%s", in.Stdout)
			})
		}
	})
}

// settle gives PID 1 the time to ask for its last signals. The command may be
// ready first, and from outside there is nothing to see: a Go program catches
// everything from its start, and who calls sigwait shows it neither as caught
// nor as blocked.
func settle() { time.Sleep(200 * time.Millisecond) }

func TestOrphansAreReaped(t *testing.T) {
	t.Parallel()
	eachInit(t, func(t *testing.T, name string, run func(*testing.T, Options) *Instance) {
		in := run(t, Options{Args: do("storm", "2000", ";", "touch", "/tmp/done", ";", "trap", "-on", "TERM=5")})
		in.WaitFile("/tmp/done")
		in.eventually("all orphans to be reaped", func() bool { return in.Zombies() == 0 })
		in.WaitStdout("ready")
		in.Signal(syscall.SIGTERM)
		assert.Equal(t, 5, in.Wait())
	})
}

// TestOrphansOfExec: what kubectl exec leaves behind is nobody's but PID 1's.
func TestOrphansOfExec(t *testing.T) {
	t.Parallel()
	eachInit(t, func(t *testing.T, name string, run func(*testing.T, Options) *Instance) {
		in := run(t, Options{Args: do("trap")})
		in.WaitStdout("ready")
		_, code := in.Exec("/bin/testprog", "storm", "50")
		require.Zero(t, code)
		in.eventually("all orphans to be reaped", func() bool { return in.Zombies() == 0 })
	})
}

func TestArgumentsArePassedOn(t *testing.T) {
	t.Parallel()
	eachInit(t, func(t *testing.T, name string, run func(*testing.T, Options) *Instance) {
		in := run(t, Options{Args: do("args", "", " a  b ", "--help", "-x", "$HOME", "line\nfeed")})
		assert.Zero(t, in.Wait())
		assert.Equal(t, []string{`""`, `" a  b "`, `"--help"`, `"-x"`, `"$HOME"`, `"line\nfeed"`}, in.Stdout.Lines())
	})
}

func TestDescriptors(t *testing.T) {
	t.Parallel()
	eachInit(t, func(t *testing.T, name string, run func(*testing.T, Options) *Instance) {
		in := run(t, Options{Args: do("fds")})
		assert.Zero(t, in.Wait())
		var fds []string
		for _, line := range in.Stdout.Lines() {
			fd, _, _ := strings.Cut(line, " ")
			fds = append(fds, fd)
		}
		assert.Equal(t, []string{"0", "1", "2"}, fds, "%s", in.Stdout)
	})
}

// TestInheritedIsUnchanged: the command gets what a container engine has set
// up for PID 1.
func TestInheritedIsUnchanged(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	eachInit(t, func(t *testing.T, name string, run func(*testing.T, Options) *Instance) {
		var path string
		var args []string
		for _, i := range inits {
			if i.name == name {
				path, args = i.path, i.args
			}
		}
		command := append(append([]string{path}, args...), do("props", ";", "exec", "/usr/bin/cat", "/proc/self/limits")...)
		in := Run(t, Options{
			Program: "/bin/testprog", HostPrograms: true, Root: true,
			Args: append([]string{"umask", "027", ";", "nice", "7", ";", "oom", "321", ";", "nofile", "300", "4000", ";", "chdir", "/tmp", ";", "exec"}, command...),
		})
		assert.Zero(t, in.Wait(), "%s", in.Stderr)
		out := in.Stdout.String()
		assert.Contains(t, out, "cwd /tmp\n")
		assert.Contains(t, out, "umask 027\n")
		assert.Contains(t, out, "nice 7\n")
		assert.Contains(t, out, "oom 321\n")
		assert.Regexp(t, `Max open files +300 +4000 `, out, "Go raises its own limit and must put it back")
	})
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	eachInit(t, func(t *testing.T, name string, run func(*testing.T, Options) *Instance) {
		in := run(t, Options{TTY: true, Args: do("tty", ";", "trap", "-on", "INT=5")})
		in.WaitStdout("ready")
		settle()
		for _, line := range []string{"fd 0 tty true", "fd 1 tty true", "fd 2 tty true", "foreground true"} {
			assert.Contains(t, in.Stdout.String(), line)
		}
		_, err := in.Terminal.WriteString("\x03") // Ctrl-C
		require.NoError(t, err)
		assert.Equal(t, 5, in.Wait())
		assert.Equal(t, 1, strings.Count(in.Stdout.String(), "got INT"), "from the terminal, and not from us again:\n%s", in.Stdout)
	})
}

// TestOptionsOfTini: its letters mean what they mean in tini.
func TestOptionsOfTini(t *testing.T) {
	t.Parallel()
	for _, i := range inits[:2] {
		t.Run(i.name, func(t *testing.T) {
			t.Parallel()
			run := func(t *testing.T, options []string, command ...string) *Instance {
				return Run(t, Options{Program: i.path, HostPrograms: true, Args: append(append(options, "--"), do(command...)...)})
			}
			t.Run("-e", func(t *testing.T) {
				t.Parallel()
				assert.Zero(t, run(t, []string{"-e", "143", "-e", "7"}, "exit", "7").Wait())
				assert.Equal(t, 8, run(t, []string{"-e", "143", "-e", "7"}, "exit", "8").Wait())
			})
			t.Run("-s -v -w -p", func(t *testing.T) {
				t.Parallel()
				assert.Equal(t, 4, run(t, []string{"-s", "-v", "-vv", "-w", "-p", "SIGKILL"}, "storm", "20", ";", "exit", "4").Wait())
			})
			t.Run("-g", func(t *testing.T) {
				t.Parallel()
				in := run(t, []string{"-g"}, "bg", "trap", "-quiet", "-ready", "/tmp/ready", "-file", "/tmp/got", ";", "await", "/tmp/ready", ";", "trap", "-on", "TERM=3")
				in.WaitStdout("ready")
				settle()
				in.Signal(syscall.SIGUSR1)
				in.WaitStdout("got USR1")
				in.eventually("the group to get USR1", func() bool { return strings.Contains(in.File("/tmp/got"), "USR1") })
			})
		})
	}
}

// TestSurroundings holds the harness to its word: what passes here passes in a
// pod of the restricted Pod Security level.
func TestSurroundings(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args:  do("status", "Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", ";", "write", "/etc/file", "x"),
		Files: []File{Hook("10-a", "status Uid CapBnd NoNewPrivs")},
	})
	assert.Equal(t, 99, in.Wait(), "the root file system is read-only")
	assert.Contains(t, in.Stderr.String(), "read-only file system")
	const none = " 0000000000000000\n"
	assert.Equal(t, "Uid 65532 65532 65532 65532\nNoNewPrivs 1\nCapBnd"+none, firstOf(in.Stdout.String(), "Uid", "NoNewPrivs", "CapBnd"), "the hook")
	for _, line := range []string{"Gid 65532 65532 65532 65532\n", "CapInh" + none, "CapPrm" + none, "CapEff" + none, "CapAmb" + none} {
		assert.Contains(t, in.Stdout.String(), line)
	}
}

// firstOf returns the first line of each name, in that order.
func firstOf(text string, names ...string) (out string) {
	for _, name := range names {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, name+" ") {
				out += line
				break
			}
		}
	}
	return out
}
