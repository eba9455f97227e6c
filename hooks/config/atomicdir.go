// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// With AtomicDir the output directory looks as a ConfigMap volume does:
//
//	app.yaml -> ..data/app.yaml
//	conf.d   -> ..data/conf.d
//	..data   -> ..generate-config-0000004711
//	..generate-config-0000004711/
//
// All files are written to a new directory; then ..data, a link, is replaced by
// rename. Who opens ..data once and reads from there has all old or all new
// files.
const (
	dataLink = "..data"
	dataMark = "..generate-config-"
	linkMark = "..generate-config-link-"
)

func (o *Output) commitDir(ctx context.Context) (Result, error) {
	dir := o.options.OutputDir
	current, err := currentData(dir)
	if err != nil {
		return Result{}, err
	}
	tops := o.tops()
	if current != "" && o.published(filepath.Join(dir, current), tops) {
		sweepData(dir, current)
		return Result{Unchanged: o.Names()}, nil
	}
	sweepData(dir, current)
	if current, err = adopt(dir, current, tops); err != nil {
		return Result{}, err
	}
	data, err := o.writeData(ctx, current)
	if err != nil {
		return Result{}, fmt.Errorf("%w; nothing was changed", err)
	}
	if err := publish(ctx, dir, data, tops); err != nil {
		if current != "" {
			err = errors.Join(err, link(dir, current, dataLink))
		}
		os.RemoveAll(filepath.Join(dir, data))
		removeStale(dir)
		return Result{}, fmt.Errorf("publish %s: %w; nothing was changed", dir, err)
	}
	result := o.compared(filepath.Join(dir, current), current != "")
	removeStale(dir)
	sweepData(dir, data)
	return result, nil
}

// publish makes the data the current one.
func publish(ctx context.Context, dir, data string, tops []string) error {
	// Links to what is not there yet lead nowhere: a new file is missing until
	// the moment in which all of them are there.
	for _, top := range tops {
		if err := link(dir, path.Join(dataLink, top), top); err != nil {
			return err
		}
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := link(dir, data, dataLink); err != nil {
		return err
	}
	return syncDir(dir)
}

// currentData is the name of the directory that ..data leads to, or "".
func currentData(dir string) (string, error) {
	current, err := os.Readlink(filepath.Join(dir, dataLink))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("output directory: %s in it is no link: %w", dataLink, err)
	case !strings.HasPrefix(current, dataMark) || strings.Contains(current, "/"):
		return "", fmt.Errorf("output directory: %s in it leads to %s, which is not ours: take another directory", dataLink, current)
	}
	return current, nil
}

// tops are the names that the output has directly in the output directory.
func (o *Output) tops() (tops []string) {
	for _, f := range o.files {
		top, _, _ := strings.Cut(f.name, "/")
		if !slices.Contains(tops, top) {
			tops = append(tops, top)
		}
	}
	return tops
}

// published tells whether everything is there as it should be, and nothing else.
func (o *Output) published(data string, tops []string) bool {
	for _, top := range tops {
		if target, err := os.Readlink(filepath.Join(o.options.OutputDir, top)); err != nil || target != path.Join(dataLink, top) {
			return false
		}
	}
	have := 0
	err := filepath.WalkDir(data, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			have++
		}
		return err
	})
	return err == nil && have == len(o.files) && len(o.compared(data, true).Written) == 0
}

// removed are the files that the next commit takes away: those that are
// published and no longer in the output.
func (o *Output) removed() (names []string, err error) {
	current, err := currentData(o.options.OutputDir)
	if err != nil || current == "" {
		return nil, err
	}
	data, have := filepath.Join(o.options.OutputDir, current), o.Names()
	err = filepath.WalkDir(data, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(data, file)
		if err == nil && !slices.Contains(have, filepath.ToSlash(name)) {
			names = append(names, filepath.ToSlash(name))
		}
		return err
	})
	return names, err
}

// compared says which files differ from those in a directory.
func (o *Output) compared(data string, there bool) (r Result) {
	for _, f := range o.files {
		if there && f.isAt(filepath.Join(data, filepath.FromSlash(f.name))) {
			r.Unchanged = append(r.Unchanged, f.name)
		} else {
			r.Written = append(r.Written, f.name)
		}
	}
	return r
}

// isAt tells whether the file is there as it should be.
func (f *file) isAt(name string) bool {
	content, info, err := readOld(name)
	return err == nil && info != nil && bytes.Equal(content, f.content) && !f.wrongMode(info)
}

// writeData writes all files to a new directory and returns its name. A file
// that has not changed is the same file, times and all, where the file system
// can link it.
func (o *Output) writeData(ctx context.Context, current string) (name string, err error) {
	root, name, err := newData(o.options.OutputDir)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(root)
		}
	}()
	made, dirs := newDirs{}, map[string]bool{root: true}
	var written []string
	for _, f := range o.files {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if err := made.create(root, path.Dir(f.name)); err != nil {
			return "", fmt.Errorf("write %s: %w", f.name, err)
		}
		target := filepath.Join(root, filepath.FromSlash(f.name))
		dirs[filepath.Dir(target)] = true
		old := filepath.Join(o.options.OutputDir, current, filepath.FromSlash(f.name))
		if current != "" && f.isAt(old) && os.Link(old, target) == nil {
			continue
		}
		staged, err := writeNew(beside(target, newMark), f, o.warnMode)
		if err == nil {
			err = os.Rename(staged, target)
		}
		if err != nil {
			return "", fmt.Errorf("write %s: %w", f.name, err)
		}
		written = append(written, target)
	}
	err = syncFiles(written)
	for dir := range dirs {
		err = errors.Join(err, syncDir(dir))
	}
	return name, err
}

// newData makes a directory for data.
func newData(dir string) (full, name string, err error) {
	for i := uint32(os.Getpid()); ; i++ {
		name = fmt.Sprintf("%s%0*d", dataMark, uniqueLen, i)
		full = filepath.Join(dir, name)
		if err = os.Mkdir(full, 0o755); !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err == nil {
		err = os.Chmod(full, dirMode(dir))
	}
	return full, name, err
}

// link makes name in dir a link to target, in the place of whatever link or
// file is there, at once.
func link(dir, target, name string) error {
	full := filepath.Join(dir, name)
	if have, err := os.Readlink(full); err == nil && have == target {
		return nil
	}
	staged := filepath.Join(dir, fmt.Sprintf("%s%0*d", linkMark, uniqueLen, os.Getpid()))
	os.Remove(staged)
	if err := os.Symlink(target, staged); err != nil {
		return err
	}
	err := os.Rename(staged, full)
	if err != nil {
		os.Remove(staged)
	}
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w: something is mounted there, which cannot be replaced together with the rest", err)
	}
	return err
}

// adopt makes a directory that has plain files in the place of links look as if
// we had published them, so that the first swap is one of all files too.
func adopt(dir, current string, tops []string) (string, error) {
	var plain []string
	for _, top := range tops {
		info, err := os.Lstat(filepath.Join(dir, top))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return "", fmt.Errorf("output directory: %w", err)
		case info.IsDir():
			return "", fmt.Errorf("output directory: %s is a directory that was not made with --atomic-dir: remove it, or take an empty output directory", filepath.Join(dir, top))
		case info.Mode().IsRegular():
			plain = append(plain, top)
		case info.Mode()&fs.ModeSymlink == 0:
			return "", fmt.Errorf("output directory: %s is not a regular file", filepath.Join(dir, top))
		}
	}
	if len(plain) == 0 {
		return current, nil
	}
	name, root, err := current, filepath.Join(dir, current), error(nil)
	if current == "" {
		root, name, err = newData(dir)
	}
	for _, top := range plain {
		if err == nil {
			err = copyFile(filepath.Join(dir, top), filepath.Join(root, top))
		}
	}
	if err == nil {
		err = errors.Join(syncDir(root), link(dir, name, dataLink))
	}
	for _, top := range plain {
		if err == nil {
			err = link(dir, path.Join(dataLink, top), top)
		}
	}
	if err != nil {
		return "", fmt.Errorf("output directory: turn its files into links: %w", err)
	}
	return name, syncDir(dir)
}

// copyFile makes a file, in the place of what there is, that is like another.
func copyFile(from, to string) error {
	os.Remove(to)
	if os.Link(from, to) == nil {
		return nil
	}
	content, info, err := readOld(from)
	if err != nil || info == nil {
		return err
	}
	like := file{content: content, mode: info.Mode().Perm(), owner: ownerOf(info)}
	staged, err := writeNew(beside(to, newMark), like, func(string, error) {})
	if err != nil {
		return err
	}
	return errors.Join(syncFile(staged), os.Rename(staged, to))
}

// removeStale removes links to files that are no longer among the data.
func removeStale(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		full := filepath.Join(dir, e.Name())
		if target, err := os.Readlink(full); err != nil || target != path.Join(dataLink, e.Name()) {
			continue
		}
		if _, err := os.Stat(full); errors.Is(err, fs.ErrNotExist) {
			os.Remove(full)
		}
	}
}

// sweepData removes the data that is not the current one.
func sweepData(dir, current string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), dataMark) && e.Name() != current {
			os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}
