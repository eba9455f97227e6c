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
	"time"

	"golang.org/x/sys/unix"
)

// Result is what a commit did: names of the output, sorted.
type Result struct {
	Written   []string
	Unchanged []string
}

// Commit writes the output: all of it, or when something fails or ctx ends,
// nothing; what has been replaced by then is put back. What is there already
// is left alone, its times too.
//
// Each file is replaced by rename, so that a reader sees the old or the new one
// and never a part, even if the process is killed or the machine dies; with
// AtomicDir that is true of the whole directory. Only a file that cannot be
// renamed onto, because something is mounted there, is written in place, after
// a copy of it was kept.
func (o *Output) Commit(ctx context.Context) (Result, error) {
	dir := o.options.OutputDir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Result{}, fmt.Errorf("output directory: %w", cannotMake(dir, err))
	}
	unlock, err := o.lock(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("lock output directory %s: %w", dir, err)
	}
	defer unlock()
	if o.options.AtomicDir {
		return o.commitDir(ctx)
	}
	return o.commitFiles(ctx)
}

// lock keeps others of our kind out until unlock is called. Where a file system
// has no locks there is none.
func (o *Output) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.Open(o.options.OutputDir)
	if err != nil {
		return nil, err
	}
	for said := false; ; said = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return func() { f.Close() }, nil
		}
		if !said {
			o.options.Log.Info("waiting for another generate-config that is writing there", "output_dir", o.options.OutputDir)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("another generate-config is writing there: %w", context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// A change is a file on its way to its place.
type change struct {
	file
	target  string
	old     fs.FileInfo // nil: there was none
	before  []byte      // the old content
	staged  string      // the new content beside the target, while it is there
	backup  string      // the old content: a link beside the target, or a copy
	copied  bool        // the backup is a copy
	torn    bool        // a killed run left the copy: what is there may be half of something
	inPlace bool        // because it cannot be renamed onto
	done    bool
}

func (o *Output) commitFiles(ctx context.Context) (result Result, err error) {
	changes, unchanged, err := o.changes()
	if err != nil {
		return Result{}, err
	}
	o.sweep()
	made := newDirs{}
	defer func() {
		for _, c := range changes {
			c.clean(err == nil)
		}
		if err != nil {
			made.remove()
		}
	}()
	for _, c := range changes {
		err := context.Cause(ctx)
		if err == nil {
			err = made.create(o.options.OutputDir, path.Dir(c.name))
		}
		if err == nil {
			err = o.stage(c)
		}
		if err != nil {
			return Result{}, fmt.Errorf("write %s: %w; nothing was changed", c.name, err)
		}
	}
	if err := syncStaged(changes); err != nil {
		return Result{}, fmt.Errorf("write to the disk: %w; nothing was changed", err)
	}
	for _, c := range changes {
		err := context.Cause(ctx)
		if err == nil {
			err = o.replace(c)
		}
		if err != nil {
			return Result{}, errors.Join(fmt.Errorf("write %s: %w; all files are put back", c.name, err), rollback(changes))
		}
	}
	if err := syncDirs(changes); err != nil {
		return Result{}, errors.Join(fmt.Errorf("write to the disk: %w; all files are put back", err), rollback(changes))
	}
	o.forget()
	result.Unchanged = unchanged
	for _, c := range changes {
		result.Written = append(result.Written, c.name)
	}
	return result, nil
}

// changes compares the output with what is there.
func (o *Output) changes() (changes []*change, unchanged []string, err error) {
	var problems []error
	for _, f := range o.files {
		c := &change{file: f, target: filepath.Join(o.options.OutputDir, filepath.FromSlash(f.name))}
		if c.before, c.old, err = readOld(c.target); err != nil {
			problems = append(problems, fmt.Errorf("write %s: %w", f.name, err))
			continue
		}
		if c.old != nil && bytes.Equal(c.before, f.content) && !f.wrongMode(c.old) {
			unchanged = append(unchanged, f.name)
			continue
		}
		changes = append(changes, c)
	}
	return changes, unchanged, errors.Join(problems...)
}

// stage prepares a file as far as that is possible without touching what is
// there: the new content lies beside it, and a way back too.
func (o *Output) stage(c *change) (err error) {
	dir := filepath.Dir(c.target)
	if c.old != nil && (isMountPoint(c.target) || !canCreate(dir)) {
		c.inPlace = true
		return o.keep(c)
	}
	if c.staged, err = writeNew(beside(c.target, newMark), c.file, o.warnMode); err != nil || c.old == nil {
		return err
	}
	c.backup = beside(c.target, oldMark) + c.staged[len(c.staged)-uniqueLen:]
	if err := os.Link(c.target, c.backup); err == nil {
		return nil
	}
	// Linking somebody else's file is often forbidden, or unknown to the file
	// system: then a copy.
	was := file{content: c.before, mode: c.old.Mode().Perm(), owner: ownerOf(c.old)}
	c.backup, err = writeNew(beside(c.target, oldMark), was, o.warnMode)
	c.copied = err == nil
	return err
}

// syncStaged waits until all that has been staged is on the disk.
func syncStaged(changes []*change) error {
	var names []string
	for _, c := range changes {
		if c.staged != "" {
			names = append(names, c.staged)
		}
		if c.copied {
			names = append(names, c.backup)
		}
	}
	return syncFiles(names)
}

// replace puts the new file in its place.
func (o *Output) replace(c *change) error {
	if !c.inPlace {
		err := os.Rename(c.staged, c.target)
		if err == nil {
			c.done, c.staged = true, ""
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || c.old == nil {
			return err
		}
		// Something is mounted on the file after all. The link would be one to
		// what is below the mount.
		os.Remove(c.backup)
		c.inPlace = true
		if err := o.keep(c); err != nil {
			return err
		}
	}
	c.done = true
	return o.overwrite(c)
}

// rollback undoes the changes that are done, the last first.
func rollback(changes []*change) error {
	var problems []error
	for i := len(changes) - 1; i >= 0; i-- {
		c := changes[i]
		if !c.done {
			continue
		}
		var err error
		switch {
		case c.inPlace:
			c.modeBack() // first, as the new one may forbid to write
			err = writeInPlace(c.target, c.before)
		case c.old == nil:
			err = os.Remove(c.target)
		default:
			if err = os.Rename(c.backup, c.target); err == nil {
				c.backup = ""
			}
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("put %s back: %w; the old one is kept as %s", c.name, err, c.backup))
			continue
		}
		c.done, c.torn = false, false
	}
	return errors.Join(append(problems, syncDirs(changes))...)
}

// modeBack undoes what overwrite did to mode and owner, which may be nothing.
func (c *change) modeBack() {
	is, err := os.Stat(c.target)
	if err != nil {
		return
	}
	if o := ownerOf(c.old); o != ownerOf(is) {
		_ = os.Chown(c.target, o.uid, o.gid)
	}
	if is.Mode().Perm() != c.old.Mode().Perm() {
		_ = os.Chmod(c.target, c.old.Mode().Perm())
	}
}

// clean removes what is beside the target, but not the copy of what could not
// be put back, or was half written before.
func (c *change) clean(committed bool) {
	if c.staged != "" {
		os.Remove(c.staged)
	}
	if c.backup != "" && (committed || !c.done && !c.torn) {
		os.Remove(c.backup)
	}
}

// syncDirs makes renames last.
func syncDirs(changes []*change) error {
	synced := map[string]bool{}
	for _, c := range changes {
		dir := filepath.Dir(c.target)
		if synced[dir] || c.inPlace {
			continue
		}
		synced[dir] = true
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	// Some file systems have nothing to do there, and say so.
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// newDirs are directories that this run made.
type newDirs map[string]bool

// create makes the directory at rel below root.
func (n newDirs) create(root, rel string) error {
	if rel == "." {
		return nil
	}
	if err := n.create(root, path.Dir(rel)); err != nil {
		return err
	}
	dir := filepath.Join(root, filepath.FromSlash(rel))
	err := os.Mkdir(dir, 0o755)
	switch {
	case err == nil:
		n[dir] = true
		return errors.Join(os.Chmod(dir, dirMode(root)), syncDir(filepath.Dir(dir)))
	case errors.Is(err, fs.ErrExist):
		if info, err := os.Stat(dir); err == nil && !info.IsDir() {
			return fmt.Errorf("%s is a file, and has to be a directory", dir)
		}
		return nil
	}
	return err
}

// dirMode is what a directory below root gets. In a volume that is shared by
// its group the group may write, as it may in root.
func dirMode(root string) fs.FileMode {
	if info, err := os.Stat(root); err == nil && info.Mode()&fs.ModeSetgid != 0 {
		return 0o755 | fs.ModeSetgid | info.Mode()&0o020
	}
	return 0o755
}

// remove removes those that are empty, the deepest first.
func (n newDirs) remove() {
	for range len(n) {
		for dir := range n {
			if os.Remove(dir) == nil {
				delete(n, dir)
			}
		}
	}
}
