// SPDX-License-Identifier: Apache-2.0

package await

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// mostOfFile is how much of a file is looked through.
const mostOfFile = 1 << 20

// File is file:///path: the file (or directory, or anything) exists, and has
// #contains=TEXT in its first MiB.
func File() Scheme {
	return Scheme{names: []string{"file"}, options: []string{"contains"}, parse: func(t *target) (Check, error) {
		path, err := t.file()
		f := &file{path: path, contains: []byte(t.options.Get("contains"))}
		return f.check, err
	}}
}

type file struct {
	path     string
	contains []byte
	asked    chan error // a look that hangs, on a file system that does
}

// check looks in a goroutine: a file system may never answer. There is one at
// most.
func (f *file) check(ctx context.Context) error {
	if f.asked == nil {
		asked := make(chan error, 1)
		f.asked = asked
		go func() { asked <- f.look() }()
	}
	select {
	case err := <-f.asked:
		f.asked = nil
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *file) look() error {
	if _, err := os.Stat(f.path); err != nil || len(f.contains) == 0 {
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s does not exist%w", f.path, hidden{err})
		}
		return err
	}
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, mostOfFile))
	switch {
	case err != nil:
		return err
	case !bytes.Contains(text, f.contains):
		return fmt.Errorf("%s does not contain %q", f.path, f.contains)
	}
	return nil
}

// hidden is a cause that the text has told already.
type hidden struct{ error }

func (hidden) Error() string   { return "" }
func (h hidden) Unwrap() error { return h.error }
