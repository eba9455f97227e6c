// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// install copies this program, and the named ones that stand beside it, into
// dir, which is made if it is missing. Each file appears complete or not at
// all, so a container that starts meanwhile never sees half a program. All are
// looked up before the first is copied.
func install(dir string, tools []string, stdout io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("--install: find this program: %w", err)
	}
	sources := []string{self}
	var problems []error
	for _, tool := range tools {
		source := filepath.Join(filepath.Dir(self), tool)
		info, err := os.Stat(source)
		switch {
		case tool == "" || strings.ContainsRune(tool, '/'):
			problems = append(problems, fmt.Errorf("--install %q: want the name of a tool, without a path", tool))
		case err != nil:
			problems = append(problems, fmt.Errorf("--install %s: no such tool beside %s: %w", tool, self, err))
		case !info.Mode().IsRegular():
			problems = append(problems, fmt.Errorf("--install %s: %s is not a program", tool, source))
		}
		sources = append(sources, source)
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("--install: make the directory: %w", err)
	}
	for i, source := range sources {
		name := "cleanimg-init" // whatever link we were started by
		if i > 0 {
			name = tools[i-1]
		}
		target := filepath.Join(dir, name)
		if err := installFile(source, target); err != nil {
			return fmt.Errorf("--install: %w", err)
		}
		fmt.Fprintln(stdout, target)
	}
	return nil
}

// installFile copies source to target by way of a temporary file beside it.
func installFile(source, target string) (err error) {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp, err := os.CreateTemp(filepath.Dir(target), ".cleanimg-init-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	_, copyErr := io.Copy(tmp, in)
	if err := errors.Join(copyErr, tmp.Chmod(0o755), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), target)
}
