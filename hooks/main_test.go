// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// testReaper is the one that a program may have.
var testReaper reaper.Reaper

// roles are the programs that the test binary can pretend to be: run it with
// the arguments "role", the name and the role's own, or by a link whose name
// has "role-NAME-ARGUMENT" in it.
var roles = map[string]func(args []string) (code int){
	"exit": func(args []string) int { return number(args[0]) },
	"die": func(args []string) int {
		_ = syscall.Kill(os.Getpid(), syscall.Signal(number(args[0])))
		select {}
	},
	"hang": func([]string) int { time.Sleep(time.Minute); return 1 },
	"stubborn": func([]string) int {
		signal.Ignore(syscall.SIGTERM)
		fmt.Fprintln(os.Stderr, "ready")
		time.Sleep(time.Minute)
		return 1
	},
	"graceful": func([]string) int {
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		fmt.Fprintln(os.Stderr, "ready")
		<-term
		return 0 // and yet it did not get to its end
	},
	"stderr": func(args []string) int { fmt.Fprint(os.Stderr, args[0]); return 0 },
	"complain": func(args []string) int {
		fmt.Fprintln(os.Stderr, args[0])
		return 1
	},
	// alternate writes to both outputs in turn.
	"alternate": func(args []string) int {
		for i := range number(args[0]) {
			fmt.Fprintf([]*os.File{os.Stdout, os.Stderr}[i%2], "line %d\n", i)
		}
		return 0
	},
	"lines": func(args []string) int {
		for i := range number(args[0]) {
			fmt.Fprintf(os.Stderr, "line %d\n", i)
		}
		return number(args[1])
	},
	"print": func(args []string) int {
		value, ok := os.LookupEnv(args[0])
		fmt.Fprintf(os.Stderr, "%s=%s set=%t\n", args[0], value, ok)
		return 0
	},
	"identity": func([]string) int {
		groups, _ := os.Getgroups()
		_, err := os.OpenFile("/proc/self/fd/2", os.O_WRONLY, 0)
		fmt.Fprintln(os.Stderr, os.Getuid(), os.Getgid(), groups, os.Getenv("HOME"), err)
		return 0
	},
	"workdir": func([]string) int {
		dir, _ := os.Getwd()
		fmt.Fprintln(os.Stderr, dir)
		return 0
	},
	// export appends its arguments to the environment file, by turns through
	// the descriptor and through the path.
	"export": func(args []string) int {
		byPath, err := os.OpenFile(os.Getenv("CLEANIMG_INIT_ENV"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 9
		}
		for i, text := range args {
			fmt.Fprintln([]*os.File{os.NewFile(3, "3"), byPath}[i%2], text)
		}
		return 0
	},
	// flaky exports and fails so many times, counting in a file.
	"flaky": func(args []string) int {
		f, err := os.OpenFile(args[1], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return 9
		}
		fmt.Fprint(f, os.Getenv("CLEANIMG_INIT_ATTEMPT"))
		fmt.Fprintln(os.NewFile(3, "3"), "TRY_"+os.Getenv("CLEANIMG_INIT_ATTEMPT")+"=yes")
		if info, err := f.Stat(); err != nil || info.Size() <= int64(number(args[0])) {
			return 5
		}
		return 0
	},
	// spill leaves processes in sessions of their own, two of them orphans, and
	// writes their pids to a file; then it goes on as the role that is left.
	"spill": func(args []string) int {
		for range 2 {
			_ = command("orphan", args[0]).Run()
		}
		direct := command("hang")
		_ = direct.Start()
		notePID(args[0], direct.Process.Pid)
		self, _ := os.Executable()
		fmt.Fprintln(os.Stderr, syscall.Exec(self, append([]string{self, "role"}, args[1:]...), os.Environ()))
		return 9
	},
	"orphan": func(args []string) int {
		c := command("hang")
		if c.Start() == nil {
			notePID(args[0], c.Process.Pid)
		}
		return 0
	},
	// daemonize leaves a process that holds our standard error and writes to it
	// when the file appears.
	"daemonize": func(args []string) int {
		self, _ := os.Executable()
		c := exec.Command(self, "role", "late", args[0])
		c.Stderr = os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if c.Start() != nil {
			return 9
		}
		fmt.Fprintln(os.Stderr, "daemon started")
		return 0
	},
	"late": func(args []string) int {
		for range 6000 {
			if _, err := os.Stat(args[0]); err == nil {
				fmt.Fprintln(os.Stderr, "from the daemon")
				return 0
			}
			time.Sleep(10 * time.Millisecond)
		}
		return 1
	},
}

func TestMain(m *testing.M) {
	if role, args := roleOf(os.Args); role != nil {
		// Not os.Exit: with the race detector that takes a second.
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(role(args)), 0, 0)
	}
	// Orphans of the hooks come to us as they come to PID 1. What qemu-user does
	// not know is invalid; the parsers are tested there, nevertheless.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		panic(err)
	}
	os.Exit(m.Run())
}

func roleOf(args []string) (func([]string) int, []string) {
	if _, words, ok := strings.Cut(filepath.Base(args[0]), "role-"); ok {
		args = append([]string{"", "role"}, strings.Split(words, "-")...)
	}
	if len(args) < 3 || args[1] != "role" {
		return nil, nil
	}
	return roles[args[2]], args[3:]
}

// command is a role in a session of its own, with no file of ours open.
func command(args ...string) *exec.Cmd {
	self, _ := os.Executable()
	c := exec.Command(self, append([]string{"role"}, args...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return c
}

func notePID(file string, pid int) {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		fmt.Fprintln(f, pid)
		f.Close()
	}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// self is the path of the test binary.
func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	return path
}

// roleStep is a hook that runs a role, as it comes from a step file.
func roleStep(t *testing.T, name, role string, args ...string) Step {
	t.Helper()
	program := append([]string{self(t), "role", role}, args...)
	for i := range program {
		program[i] = strings.ReplaceAll(program[i], "$", "$$")
	}
	return Step{Name: name, File: name + ".yaml", program: program, backoff: time.Millisecond}
}

// each makes stages of one hook each.
func each(steps ...Step) (stages [][]Step) {
	for _, s := range steps {
		stages = append(stages, []Step{s})
	}
	return stages
}

// A recorder is a runner together with everything it says.
type recorder struct {
	*Runner
	output *capture
	log    *capture
	mu     sync.Mutex
	events []Event
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	rec := &recorder{output: newCapture(t), log: newCapture(t)}
	rec.Runner = &Runner{
		Reaper: &testReaper, Log: slog.New(slog.NewTextHandler(rec.log.file, nil)),
		Stderr: &Stream{FD: int(rec.output.file.Fd())}, KillGrace: 2 * time.Second,
		Event: func(e Event) {
			rec.mu.Lock()
			defer rec.mu.Unlock()
			rec.events = append(rec.events, e)
		},
	}
	return rec
}

// story is the events in short.
func (rec *recorder) story() (lines []string) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for _, e := range rec.events {
		what := "start"
		if e.Result != nil {
			what = e.Result.Reason()
		}
		lines = append(lines, fmt.Sprintf("%s/%d %s", e.Step, e.Attempt, what))
	}
	return lines
}

// capture collects what is written to the file.
type capture struct {
	file *os.File
	mu   sync.Mutex
	text strings.Builder
}

func newCapture(t *testing.T) *capture {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	c := &capture{file: w}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 64<<10)
		for {
			n, err := r.Read(buffer)
			c.mu.Lock()
			c.text.Write(buffer[:n])
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	w.Fd() // blocking, as a container's standard error is
	t.Cleanup(func() {
		w.Close()
		r.SetReadDeadline(time.Now())
		<-done
		r.Close()
	})
	return c
}

func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// await waits until the condition holds.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 20*time.Second, 5*time.Millisecond, what)
}

// write makes a file.
func write(t testing.TB, path, content string, mode os.FileMode) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), mode))
	require.NoError(t, os.Chmod(path, mode))
	return path
}
