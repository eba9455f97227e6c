// SPDX-License-Identifier: Apache-2.0

package await

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// mostOfOutput is how much of a program's output is kept.
const mostOfOutput = 4 << 10

// Exec is exec:/path?arg=A&arg=B: the program ends with 0. It inherits the
// environment, its standard input is empty, and the last line that it writes is
// the reason why not. A program that is missing or can't be executed is a
// permanent failure; one that takes too long is killed with all it started.
// Parse's environ must then be that of programs.
func Exec(programs *reaper.Reaper) Scheme {
	return Scheme{names: []string{"exec"}, parse: func(t *target) (Check, error) {
		path := t.Path
		if t.Opaque != "" {
			path = t.Opaque
		}
		if path == "" || t.Host != "" {
			return nil, errors.New("not a program: exec:/path/program?arg=A&arg=B is accepted")
		}
		p := program{reaper: programs, name: path, args: t.Query()["arg"], env: t.environ}
		for key := range t.Query() {
			if key != "arg" {
				return nil, fmt.Errorf("unknown parameter %q: only arg is possible, once for each argument", key)
			}
		}
		_, err := hooks.Lookup(path, t.environ, nil)
		return p.check, err
	}}
}

type program struct {
	reaper *reaper.Reaper
	name   string
	args   []string
	env    []string
}

func (p program) check(ctx context.Context) error {
	path, err := hooks.Lookup(p.name, p.env, nil)
	if err != nil {
		return Permanent(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	// A file in memory and no pipe: nobody waits for a daemon that keeps it open.
	fd, err := unix.MemfdCreate("await-output", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memory file for the output: %w", err)
	}
	output := os.NewFile(uintptr(fd), "output")
	defer output.Close()

	child, err := p.reaper.StartContext(ctx, reaper.Command{
		Path: path, Args: append([]string{p.name}, p.args...), Env: p.env,
		Files: []uintptr{null.Fd(), output.Fd(), output.Fd()},
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		err = hooks.StartError(path, err)
		var broken *hooks.LookupError
		if errors.As(err, &broken) {
			return Permanent(err)
		}
		return err
	}
	select {
	case <-child.Done():
	case <-ctx.Done():
		p.reaper.End(reaper.Ending{Of: child})
		return ctx.Err()
	}
	if code := child.Exit().Code(); code != 0 {
		return fmt.Errorf("exit code %d%s", code, lastLine(output))
	}
	return nil
}

// lastLine is the last line of a program's output, after a colon.
func lastLine(output *os.File) string {
	info, err := output.Stat()
	if err != nil {
		return ""
	}
	text := make([]byte, min(info.Size(), mostOfOutput))
	if _, err := output.ReadAt(text, info.Size()-int64(len(text))); err != nil {
		return ""
	}
	text = bytes.TrimSpace(text)
	line := string(text[bytes.LastIndexByte(text, '\n')+1:])
	if line == "" {
		return ""
	}
	return ": " + cut(line, 200)
}
