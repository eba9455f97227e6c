// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"context"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// Exec is what exec checks run with.
type Exec struct {
	Reaper *reaper.Reaper
	// Like is the command that is checked: its environment, directory and
	// credentials are those of the check's program.
	Like reaper.Command
	// Mark is the name of a variable by which the processes of a run are known.
	Mark string

	runs atomic.Int64
}

// run runs a program and returns why it did not end with 0. When ctx ends
// first, the program is killed with all that it has started. Its input is
// empty, its output goes nowhere.
func (e *Exec) run(ctx context.Context, program string, args []string) error {
	null, err := openNull()
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	defer unix.Close(null)
	c := e.Like
	mark := e.Mark + "=" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(e.runs.Add(1), 10)
	c.Path, c.Args = program, append([]string{path.Base(program)}, args...)
	c.Env = append(append(make([]string, 0, len(c.Env)+1), c.Env...), mark)
	c.Files = []uintptr{uintptr(null), uintptr(null), uintptr(null)}
	c.Foreground, c.Setsid, c.Terminal = false, false, false
	child, err := e.Reaper.StartContext(ctx, c)
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("%s: %w", program, err)
	}
	select {
	case <-child.Done():
	case <-ctx.Done():
		e.Reaper.End(reaper.Ending{Of: child, Mark: mark})
		<-child.Done() // later when it hangs in the kernel
		return context.Cause(ctx)
	}
	switch exit := child.Exit(); {
	case exit.Signal() != 0 && ctx.Err() != nil: // while it was being started
		return context.Cause(ctx)
	case exit.Signal() != 0:
		return fmt.Errorf("killed by %s", strings.ToUpper(unix.SignalName(exit.Signal())))
	case exit.Code() != 0:
		return fmt.Errorf("exit code %d", exit.Code())
	default:
		return nil
	}
}

// openNull opens what is empty and takes everything, also in an image without
// /dev.
func openNull() (int, error) {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		fd, err = unix.MemfdCreate("null", unix.MFD_CLOEXEC)
	}
	return fd, err
}
