// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
	"golang.org/x/sys/unix"
)

// place is where in the run a hook stands.
type place struct {
	stop       bool
	foreground bool
}

// a try is one start of a hook's program, up to its end.
type try struct {
	r       *Runner
	step    Step
	at      place
	attempt int
	mark    string // environment entry that only this try's processes have

	child   *reaper.Child
	clock   Clock // nil: no timeout
	started time.Time
	meter   Meter
	out     outputs
}

// try runs the hook once. It emits the start, before it happens: what the hook
// does may end us too. The caller, who knows what comes next, emits the end.
func (r *Runner) try(ctx context.Context, at place, s Step, attempt int, env []string) (exported []string, res Result) {
	t := &try{r: r, step: s, at: at, attempt: attempt, started: time.Now()}
	t.mark = ownPrefix + "STEP_ID=" + strconv.FormatUint(rand.Uint64(), 16)
	r.emit(Event{Step: s.Name, Stop: at.stop, Attempt: attempt, At: t.started})
	t.meter = r.meter(s.Name, at.stop)
	exported, res = t.run(ctx, env)
	res.Toll = t.meter.Stop()
	res.Timeout = t.step.Timeout
	res.Stderr = t.out.last()
	res.Wall = time.Since(t.started)
	return exported, res
}

func (t *try) run(ctx context.Context, env []string) (exported []string, res Result) {
	file, err := newExportFile()
	if err == nil {
		defer unix.Close(file)
		res, err = t.start(ctx, file, env)
	}
	if err != nil {
		return nil, Result{Cause: NotStarted, Err: err}
	}
	if res.Cause != Succeeded {
		return nil, res
	}
	res = t.wait(ctx)
	t.child.Release()
	t.out.drain()
	exported, err = readExport(file)
	t.r.tell(exported) // a failed one may have printed what it was about to hand on
	switch {
	case res.Cause != Succeeded:
		exported = nil
	case err != nil:
		res = Result{Cause: BadExport, Exit: res.Exit, Err: fmt.Errorf("environment file: %w", err)}
	}
	// A daemon of a hook that succeeded lives on. What a failed try left would
	// be in the way of the next one.
	failed := res.Cause == Exited || res.Cause == Killed || res.Cause == BadExport
	if failed && ctx.Err() == nil && (t.attempt <= t.step.retries || t.step.carryOn) {
		res.Left = t.end(ctx, t.r.KillGrace)
	}
	return exported, res
}

// start starts the process. A result that is not a success means that the step
// file can't be used in this environment, or that the try ended before its
// program was executed.
func (t *try) start(ctx context.Context, file int, env []string) (Result, error) {
	in, err := t.step.resolve(env, []string{
		ownPrefix + "STEP=" + t.step.Name,
		ownPrefix + "ATTEMPT=" + strconv.Itoa(t.attempt),
		ownPrefix + "ENV=/proc/self/fd/3",
		t.mark,
	})
	if err != nil {
		return Result{Cause: BadStep, Err: err}, nil
	}
	t.r.tell(in.set)
	path, err := t.step.find(in)
	if err != nil {
		return Result{}, err
	}
	command := reaper.Command{
		Path: path, Args: in.program, Env: in.env, Dir: in.dir,
		Foreground: t.r.Foreground && t.at.foreground, Group: true,
	}
	uid := -1
	if id := t.step.identity; id != nil {
		if command.Cred, err = id.Credential(); err != nil {
			return Result{}, err
		}
		uid = id.UID
	}
	defer t.out.closeEnds()
	if err := t.out.open(t.r.stdout(), t.r.stderr(), t.r.Output, "["+t.step.Name+"] ", uid); err != nil {
		t.out.start() // ends at once, with the pipe
		return Result{}, err
	}
	command.Files = []uintptr{0, uintptr(t.out.stdout), uintptr(t.out.stderr), uintptr(file)}
	t.started = time.Now()
	if t.step.Timeout > 0 {
		t.clock = t.r.clock(t.step.Timeout)
	}
	if res, err := t.launch(ctx, command); res.Cause != Succeeded {
		t.out.start()
		return res, nil
	} else if err != nil {
		t.stopClock()
		t.out.start()
		if errors.Is(err, reaper.ErrStuck) {
			return Result{}, err // the file is not to blame, nor to be looked at
		}
		called := t.step.program[0]
		if full := t.full(err); full != nil {
			return Result{}, full
		}
		return Result{}, startError(inDir(in.dir, path), called, err, t.step.identity)
	}
	t.meter.Started(t.child.PID())
	t.r.firstStart()
	attrs := []any{"step", t.step.Name, "attempt", t.attempt, "timeout", t.step.Timeout}
	if t.r.AtMost != nil {
		if longest := t.r.AtMost(t.step.Timeout); longest != t.step.Timeout {
			attrs = append(attrs, "at_most", longest)
		}
	}
	t.r.Log.Info(t.at.phrase("hook started", "stop hook started"), append(attrs, "pid", t.child.PID())...)
	// After that: the log should say that it started before it speaks.
	t.out.start()
	t.r.keep(t.out.relays)
	return Result{}, nil
}

// expired is closed when the try's time is over.
func (t *try) expired() <-chan struct{} {
	if t.clock == nil {
		return nil
	}
	return t.clock.Expired()
}

// stopClock says how the time was spent.
func (t *try) stopClock() string {
	if t.clock == nil {
		return ""
	}
	return t.clock.Stop()
}

// wait waits for the end of the process, or brings it about.
func (t *try) wait(ctx context.Context) Result {
	select {
	case <-t.child.Done():
	case <-ctx.Done():
	case <-t.expired():
	}
	spent := t.stopClock()
	select {
	case <-t.child.Done(): // even when something else happened too
		if res := exitResult(t.child.Exit()); res.Cause == Succeeded || ctx.Err() == nil {
			return res
		}
	default:
	}
	res, grace := Result{Cause: TimedOut, Spent: spent}, t.r.KillGrace
	if ctx.Err() != nil {
		res = interrupted(ctx)
		grace = t.r.graceOf(ctx)
	} else {
		res.Usage = t.meter.Usage() // before nothing is left to be seen
	}
	res.Left = t.end(ctx, grace)
	select {
	case <-t.child.Done():
		res.Exit = t.child.Exit()
	case <-time.After(time.Second): // uninterruptible: nobody can say how it ended
	}
	return res
}

// full says which limit on processes has kept the program from being started.
func (t *try) full(err error) error {
	if !errors.Is(err, unix.EAGAIN) {
		return nil
	}
	if limit := t.meter.Full(); limit != "" {
		return &FullError{What: "step " + t.step.Name, Limit: limit}
	}
	return nil
}

func exitResult(e reaper.Exit) Result {
	switch {
	case e.Signal() != 0:
		return Result{Cause: Killed, Exit: e}
	case e.Code() != 0:
		return Result{Cause: Exited, Exit: e}
	default:
		return Result{Exit: e}
	}
}

// end ends all that the try has started and returns what could not be ended. A
// context that is cancelled meanwhile cuts the grace to its own.
func (t *try) end(ctx context.Context, grace time.Duration) []reaper.Proc {
	hurry := make(chan struct{})
	if ctx.Err() == nil {
		cancelled := context.AfterFunc(ctx, func() {
			time.AfterFunc(t.r.graceOf(ctx), func() { close(hurry) })
		})
		defer cancelled()
	}
	return t.r.Reaper.End(reaper.Ending{
		Of: t.child, Mark: t.mark, Grace: grace, Hurry: hurry,
		HoldOut: func(left []reaper.Proc) {
			if t.r.HoldOut != nil {
				t.r.HoldOut(t.step.Name, left)
			}
		},
	})
}

// phrase picks the words of a log line or message.
func (p place) phrase(hook, stopHook string) string {
	if p.stop {
		return stopHook
	}
	return hook
}

// invocation is a step with everything expanded.
type invocation struct {
	program  []string
	env      []string
	set      []string // of env, what the step file sets
	dir      string
	shownDir string
}

// resolve fills in the variables: entries of the step's own env see env and
// those before them, program and directory see all. The entries of own win.
func (s Step) resolve(env, own []string) (invocation, error) {
	// What a service manager said was meant for the command.
	env = WithEnv(WithoutEnv(env, "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"), own...)
	if s.identity != nil {
		env = WithEnv(env, "HOME="+s.identity.Home)
	}
	if s.raw {
		return invocation{program: s.program, env: env}, nil
	}
	var problems []error
	fill := func(text, key string) string {
		expanded, err := expand(text, lookupIn(env))
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", key, err))
		}
		return expanded
	}
	var set []string
	for _, e := range s.env {
		entry := e.name + "=" + fill(e.value, "env: "+e.name)
		env, set = WithEnv(env, entry), append(set, entry)
	}
	in := invocation{set: set, dir: fill(s.dir, "dir"), shownDir: s.dir}
	for i, argument := range s.program {
		in.program = append(in.program, fill(argument, fmt.Sprintf("run[%d]", i)))
	}
	in.env = WithEnv(env, own...)
	return in, errors.Join(problems...)
}

// find returns the path of the program.
func (s Step) find(in invocation) (string, error) {
	if s.raw {
		return in.program[0], nil
	}
	if in.dir != "" {
		if info, err := os.Stat(in.dir); err != nil {
			return "", &LookupError{Name: in.shownDir, code: codeNotExecutable, Problem: fmt.Sprintf("dir %s: %v", in.shownDir, errors.Unwrap(err))}
		} else if !info.IsDir() {
			return "", &LookupError{Name: in.shownDir, code: codeNotExecutable, Problem: fmt.Sprintf("dir %s is not a directory", in.shownDir)}
		}
	}
	return lookup(in.program[0], s.program[0], in.dir, in.env, s.identity)
}

// newExportFile makes the file that becomes descriptor 3: in memory, so that no
// path needs to be writable; always written at the end, so that ">&3" and
// ">> $CLEANIMG_INIT_ENV" can be mixed; and open to any user.
func newExportFile() (fd int, err error) {
	const name = "cleanimg-init-env"
	fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return -1, fmt.Errorf("make the environment file (memfd_create): %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_APPEND); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("prepare the environment file: %w", err)
	}
	return fd, nil
}

// readExport reads what was written, wherever the file's position is.
func readExport(fd int) ([]string, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || stat.Size == 0 {
		return nil, err
	}
	if stat.Size > largestExport {
		return nil, errors.New("larger than 1 MiB")
	}
	data := make([]byte, stat.Size)
	for n := 0; n < len(data); {
		got, err := syscall.Pread(fd, data[n:], int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, err
		case got == 0:
			return nil, io.ErrUnexpectedEOF
		default:
			n += got
		}
	}
	return parseExport(data)
}
