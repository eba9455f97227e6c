// SPDX-License-Identifier: Apache-2.0

// Command demo shows what cleanimg-init does, in about four seconds and
// without a container engine.
//
// It makes a root file system of three files: bin/cleanimg-init, itself, and
// two hooks. It starts cleanimg-init in there as PID 1 of new namespaces, as
// uid 65532, read-only, with no capability: as root with plain namespaces, as
// anybody else in a user namespace. Then it looks at the probes from outside
// while the hooks run, while the command runs and while it is stopped, and
// prints the report.
//
// It fails when something is not as promised. "make demo" runs it; with -v it
// also shows the container's log. It has to be built with CGO_ENABLED=0,
// because the container has no C library.
package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

const (
	waits    = 700 * time.Millisecond // what the first hook waits for
	drains   = 400 * time.Millisecond
	answers  = time.Second // what the slow request takes
	orphans  = 50
	greeting = "hello, says a hook"
	limit    = 15 * time.Second // for everything
)

func main() {
	if role, ok := roleOf(os.Args); ok {
		os.Exit(role())
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout *os.File, stderr io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	program := flags.String("init", "bin/cleanimg-init", "the cleanimg-init `FILE` to show")
	verbose := flags.Bool("v", false, "show the container's log too")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()

	var log lockedBuffer
	err := show(ctx, *program, newScreen(stdout), &log)
	if err != nil || *verbose {
		fmt.Fprintf(stderr, "\nThe container's log:\n%s", log.String())
	}
	if err != nil {
		fmt.Fprintf(stderr, "\ndemo: %v\n", err)
		return 1
	}
	return 0
}

// show is the demonstration. It returns what was not as promised.
func show(ctx context.Context, program string, s *screen, log io.Writer) (err error) {
	root, err := makeRoot(program)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	c, err := startContainer(ctx, root, log)
	if err != nil {
		return err
	}
	defer c.kill()

	s.title("A web server behind two hooks, and cleanimg-init as its PID 1")
	s.text("The image holds no shell and no library: cleanimg-init, the server, and in hooks.d")
	s.text("  10-wait.yaml  a step file that runs a program, here one that waits %v", waits)
	s.text("  20-greeting   an executable that exports a variable through descriptor 3")
	s.text("It runs %s.", c.surroundings)

	s.title("Start")
	s.start()
	for _, part := range []func(*screen) error{c.showHooks, c.showCommand, c.showOrphans, c.showStop} {
		if err := part(s); err != nil {
			return err
		}
	}
	return c.showReport(s)
}

// showHooks: before the command runs, the container is alive and not ready.
func (c *container) showHooks(s *screen) error {
	if err := c.probesBecome(503, 200, 503); err != nil {
		return fmt.Errorf("while the hooks run: %w", err)
	}
	s.probes("the hooks run", 503, 200, 503)
	return nil
}

func (c *container) showCommand(s *screen) error {
	if err := c.probesBecome(200, 200, 200); err != nil {
		return fmt.Errorf("when the command runs: %w", err)
	}
	s.probes("the server runs", 200, 200, 200)
	body, err := c.ask("/")
	if err != nil {
		return err
	}
	if body != greeting {
		return fmt.Errorf("the server answers %q: it has not got the hook's variable", body)
	}
	s.line("the server answers %q: the variable of the hook", body)
	return nil
}

// showOrphans lets the server lose children, and waits until PID 1 has
// collected them all.
func (c *container) showOrphans(s *screen) error {
	before, err := c.status()
	if err != nil {
		return err
	}
	if _, err := c.ask("/orphans"); err != nil {
		return err
	}
	var reaped int
	var zombies string
	err = c.until(func() error {
		now, err := c.status()
		if err != nil {
			return err
		}
		if zombies, err = c.ask("/zombies"); err != nil {
			return err
		}
		if reaped = now.Reaped - before.Reaped; reaped < orphans || zombies != "0" {
			return fmt.Errorf("%d orphans: %d reaped, %s zombies", orphans, reaped, zombies)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.line("the server loses %d children: %d reaped by PID 1, %s zombies", orphans, reaped, zombies)
	return nil
}

// showStop sends TERM in the middle of a request.
func (c *container) showStop(s *screen) error {
	slow, err := c.client.Get(c.server + "/slow")
	if err != nil {
		return err
	}
	defer slow.Body.Close()

	s.title("Stop")
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	s.line("TERM to PID 1, in the middle of a request")
	if err := c.probesBecome(200, 200, 503); err != nil {
		return fmt.Errorf("while it is drained: %w", err)
	}
	if _, err := c.ask("/"); err != nil {
		return fmt.Errorf("the server should serve until DRAIN_DELAY is over: %w", err)
	}
	s.probes(fmt.Sprintf("draining %v, the server serves", drains), 200, 200, 503)
	body, err := io.ReadAll(slow.Body)
	if err != nil || string(body) != "done" {
		return fmt.Errorf("the request that was on its way: %q, %w", body, err)
	}
	s.line("the server has been told, and finishes the request")
	code, err := c.wait()
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("the exit code is %d, the server's is 0", code)
	}
	s.line("all gone, exit code %d: the server's own", code)
	return nil
}

// showReport prints REPORT_FILE as a table.
func (c *container) showReport(s *screen) error {
	data, err := os.ReadFile(c.report)
	if err != nil {
		return err
	}
	var r report.Report
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("REPORT_FILE: %w", err)
	}
	if len(r.Steps) != 2 || r.Command == nil {
		return fmt.Errorf("REPORT_FILE should have two steps and a command: %s", data)
	}

	s.title("What each step took, from REPORT_FILE")
	for _, step := range r.Steps {
		s.row(step.Name, seconds(step.Seconds), string(step.Result))
	}
	s.row("the server", r.Command.EndedAt.Sub(r.Command.StartedAt), fmt.Sprintf("code %d", *r.Command.Code))
	s.row("all", r.EndedAt.Sub(r.StartedAt), fmt.Sprintf("%d reaped, phase %s", r.Reaped, r.Phase))
	s.title("Everything was as promised.")
	return nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// A container is cleanimg-init in its namespaces.
type container struct {
	surroundings string // in words
	probe        string // URL of the probes
	server       string // URL of the command
	report       string // path of REPORT_FILE out here

	ctx    context.Context
	cmd    *exec.Cmd
	group  bool          // it leads a process group, and has no namespace
	ended  chan struct{} // closed after cmd.Wait
	client *http.Client
}

// startContainer starts cleanimg-init with the server as its command. Where
// namespaces are not allowed it is an ordinary process, and surroundings says
// so. The caller kills the container.
func startContainer(ctx context.Context, root string, log io.Writer) (*container, error) {
	probe, err := freeAddress()
	if err != nil {
		return nil, err
	}
	server, err := freeAddress()
	if err != nil {
		return nil, err
	}
	c := &container{
		probe: "http://" + probe, server: "http://" + server, report: filepath.Join(root, "out", "report.json"),
		ctx: ctx, ended: make(chan struct{}),
		client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	prefix := "" // of the paths inside
	if c.cmd, c.surroundings, err = isolated(root); err != nil {
		prefix = root
		c.cmd = exec.Command(filepath.Join(root, "cleanimg-init"))
		c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		c.group = true
		c.surroundings = fmt.Sprintf("as an ordinary process: namespaces are not allowed here (%v)", err)
	}
	if err := writeHooks(root, prefix); err != nil {
		return nil, err
	}
	c.cmd.Args = append(c.cmd.Args, "--", prefix+"/demo", "server", server)
	c.cmd.Env = []string{
		"CLEANIMG_INIT_HTTP_LISTEN=" + probe,
		"CLEANIMG_INIT_HOOKS_DIR=" + prefix + "/hooks.d",
		"CLEANIMG_INIT_REPORT_FILE=" + prefix + "/out/report.json",
		"CLEANIMG_INIT_DRAIN_DELAY=" + drains.String(),
	}
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.WaitDelay = time.Second // what is left may hold the log's pipe
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.cmd.Wait() // its error is the state
		close(c.ended)
	}()
	return c, nil
}

// kill ends what is left, if anything is: with PID 1 goes its namespace, and
// without one its process group.
func (c *container) kill() {
	if c.group {
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	}
	_ = c.cmd.Process.Kill()
	<-c.ended
}

// wait returns the exit code, minus the signal's number when one killed it.
func (c *container) wait() (int, error) {
	select {
	case <-c.ended:
	case <-c.ctx.Done():
		return 0, fmt.Errorf("the container did not end within %v", limit)
	}
	status := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return -int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// probesBecome waits until the three probes answer as they should.
func (c *container) probesBecome(startup, live, ready int) error {
	return c.until(func() error {
		for _, p := range []struct {
			path string
			want int
		}{{"/health/startup", startup}, {"/health/live", live}, {"/health/ready", ready}} {
			resp, err := c.client.Get(c.probe + p.path)
			if err != nil {
				return err
			}
			resp.Body.Close()
			if resp.StatusCode != p.want {
				return fmt.Errorf("%s answers %d, not %d", p.path, resp.StatusCode, p.want)
			}
		}
		return nil
	})
}

// until tries again until the condition holds, the container has ended, or
// time is up. Its error is the condition's last one.
func (c *container) until(holds func() error) error {
	for {
		err := holds()
		if err == nil {
			return nil
		}
		select {
		case <-c.ended:
			return fmt.Errorf("the container ended too early (%v): %w", c.cmd.ProcessState, err)
		case <-c.ctx.Done():
			return fmt.Errorf("waited in vain: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// ask sends a request to the server.
func (c *container) ask(path string) (string, error) {
	var body string
	// The command was started a moment ago: it may not listen yet.
	err := c.until(func() (err error) {
		body, err = c.get(c.server + path)
		return err
	})
	return body, err
}

func (c *container) status() (r report.Report, err error) {
	body, err := c.get(c.probe + "/status")
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal([]byte(body), &r)
}

func (c *container) get(url string) (string, error) {
	resp, err := c.client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, bytes.TrimSpace(body))
	}
	return string(body), err
}

// freeAddress is a port that nothing listens on now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// writeHooks makes hooks.d. The paths in it begin with prefix.
func writeHooks(root, prefix string) error {
	dir := filepath.Join(root, "hooks.d")
	step := fmt.Sprintf("run: [%s/demo, wait, %v]\ntimeout: 10s\n", prefix, waits)
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "10-wait.yaml"), []byte(step), 0o644),
		os.Link(filepath.Join(root, "demo"), filepath.Join(dir, greetingHook)),
	)
}

// makeRoot makes the root file system: a temporary folder, which the caller
// removes.
func makeRoot(program string) (root string, err error) {
	if root, err = os.MkdirTemp("", "cleanimg-init-demo-"); err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return root, err
	}
	err = errors.Join(
		os.Chmod(root, 0o755), // the container's user is not us
		copyProgram(program, filepath.Join(root, "cleanimg-init")),
		copyProgram(self, filepath.Join(root, "demo")),
		os.Mkdir(filepath.Join(root, "hooks.d"), 0o755),
		os.Mkdir(filepath.Join(root, "proc"), 0o755),
		os.Mkdir(filepath.Join(root, "out"), 0o755),
	)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w (make build makes it)", err)
	}
	if err != nil {
		err = errors.Join(err, os.RemoveAll(root))
	}
	return root, err
}

func copyProgram(from, to string) error {
	program, err := elf.Open(from)
	if err != nil {
		return err
	}
	libraries, err := program.ImportedLibraries()
	program.Close()
	if err != nil {
		return err
	}
	if len(libraries) > 0 {
		return fmt.Errorf("%s needs %v, which the container has not: build it with CGO_ENABLED=0, as make demo does", from, libraries)
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}
