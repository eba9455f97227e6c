// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// What is ours in the output directory for a moment has a name with one of
// these in it.
const (
	newMark  = ".generate-config-new-"  // is going to be renamed
	oldMark  = ".generate-config-old-"  // what was there, for going back
	keptMark = ".generate-config-kept-" // a copy of what is written in place

	uniqueLen = 10 // digits behind them
)

// beside is how a name of ours beside a file begins.
func beside(target, mark string) string {
	dir, base := filepath.Split(target)
	return dir + "." + base + mark
}

// sweep removes what killed runs left, but no kept copies: these may be all
// that is left of a file. The lock says that nobody else's are among them.
func (o *Output) sweep() {
	dirs := map[string]bool{}
	for _, f := range o.files {
		dirs[filepath.Join(o.options.OutputDir, filepath.FromSlash(path.Dir(f.name)))] = true
	}
	for dir := range dirs {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") && (strings.Contains(e.Name(), newMark) || strings.Contains(e.Name(), oldMark)) {
				os.Remove(filepath.Join(dir, e.Name()))
			}
		}
	}
}

// writeNew writes a file under a new name that begins with prefix, with its mode
// and owner, and returns the name. It is on the disk after [syncFiles].
func writeNew(prefix string, f file, warn func(name string, err error)) (name string, err error) {
	w, name, err := createNew(prefix)
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, w.Close()); err != nil {
			os.Remove(name)
			name = ""
		}
	}()
	if _, err = w.Write(f.content); err != nil {
		return name, err
	}
	// Before the mode, because a change of the owner may take bits away.
	if f.owner != unowned {
		switch err := w.Chown(f.owner.uid, f.owner.gid); {
		case err != nil && f.given:
			return name, fmt.Errorf("give it to %d:%d: %w", f.owner.uid, f.owner.gid, err)
		case err != nil:
			warn(f.name, err)
		}
	}
	return name, w.Chmod(f.mode)
}

// syncFiles waits until files are on the disk: together, because a file system
// writes many of them nearly as fast as one.
func syncFiles(names []string) error {
	const atOnce = 16
	problems := make([]error, len(names))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(atOnce, len(names)) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(names); i = int(next.Add(1)) - 1 {
				problems[i] = syncFile(names[i])
			}
		})
	}
	workers.Wait()
	return errors.Join(problems...)
}

func syncFile(name string) error {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrPermission) { // its mode may keep us from reading
		f, err = os.OpenFile(name, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// createNew creates a file that nobody else can read, under a name that is new.
func createNew(prefix string) (*os.File, string, error) {
	for i := uint32(os.Getpid()); ; i++ {
		name := fmt.Sprintf("%s%0*d", prefix, uniqueLen, i)
		w, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
		switch {
		case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
			return nil, "", cannotWrite(filepath.Dir(prefix), err)
		case !errors.Is(err, fs.ErrExist):
			return w, name, err
		}
	}
}

// cannotWrite says who we are and whose the directory is.
func cannotWrite(dir string, err error) error {
	info, statErr := os.Stat(dir)
	if statErr != nil || errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%w: mount a volume on %s", err, dir)
	}
	o := ownerOf(info)
	return fmt.Errorf("%w: we are %d:%d, %s belongs to %d:%d and has mode %s: set fsGroup: %[3]d in the pod's securityContext, or give us the directory",
		err, os.Geteuid(), os.Getegid(), dir, o.uid, o.gid, modeText(info.Mode()))
}

// cannotMake is cannotWrite for where a directory, or one above it, has to be made.
func cannotMake(dir string, err error) error {
	var at *fs.PathError
	switch {
	case errors.Is(err, unix.EROFS):
		return cannotWrite(dir, err)
	case errors.Is(err, fs.ErrPermission) && errors.As(err, &at):
		return cannotWrite(filepath.Dir(at.Path), err)
	}
	return err
}

// warnMode says that a file could not be given its mode or owner where nobody
// asked for it.
func (o *Output) warnMode(name string, err error) {
	o.options.Log.Warn("mode or owner stay as they are", "file", name, "err", err)
}

// wrongMode tells whether a file has another mode or owner than it should. What
// belongs to somebody else may have any, if nobody asked for one: we could not
// change it.
func (f *file) wrongMode(info fs.FileInfo) bool {
	have, us := ownerOf(info), os.Geteuid()
	if !f.given && us != 0 && have.uid != us {
		return false
	}
	return info.Mode().Perm() != f.mode ||
		f.owner.uid >= 0 && f.owner.uid != have.uid ||
		f.owner.gid >= 0 && f.owner.gid != have.gid
}

func ownerOf(info fs.FileInfo) owner {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return owner{int(st.Uid), int(st.Gid)}
	}
	return unowned
}

// isMountPoint tells whether something is mounted on a file: a subPath volume,
// or docker run --volume FILE:FILE. Then it is in another mount than its
// directory is.
func isMountPoint(name string) bool {
	var file, dir unix.Statx_t
	const id = unix.STATX_MNT_ID
	if unix.Statx(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW, id, &file) != nil ||
		unix.Statx(unix.AT_FDCWD, filepath.Dir(name), 0, id, &dir) != nil ||
		file.Mask&id == 0 || dir.Mask&id == 0 {
		return false // not known: rename will say
	}
	return file.Mnt_id != dir.Mnt_id
}

// canCreate tells whether a directory lets us make files.
func canCreate(dir string) bool {
	return unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS) == nil
}

// keep makes the copy of a file that is going to be written in place. A copy
// that a killed run left is the better one, and then what is put back.
func (o *Output) keep(c *change) error {
	// What may not be written, as on a read-only mount, needs no copy.
	w, err := os.OpenFile(c.target, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	w.Close()
	if c.backup = o.kept(c.target); c.backup != "" {
		o.options.Log.Warn("a run that was killed has kept the file as it was before", "file", c.name, "copy", c.backup)
		c.torn = true
		c.before, err = os.ReadFile(c.backup)
		return err
	}
	if c.old.Size() == 0 {
		return nil
	}
	var problems []error
	for _, dir := range o.keptDirs(c.target) {
		kept := filepath.Join(dir, keptName(c.target))
		staged, err := writeNew(kept+newMark, file{content: c.before, mode: 0o600, owner: unowned}, o.warnMode)
		if err == nil {
			if err = errors.Join(syncFile(staged), os.Rename(staged, kept)); err == nil {
				c.backup = kept
				return syncDir(dir)
			}
			os.Remove(staged)
		}
		problems = append(problems, err)
	}
	return fmt.Errorf("it can only be written in place, and there is nowhere to keep a copy of it: mount an emptyDir on %s: %w", os.TempDir(), errors.Join(problems...))
}

// kept is the copy of a file that a killed run left, or "".
func (o *Output) kept(target string) string {
	for _, dir := range o.keptDirs(target) {
		kept := filepath.Join(dir, keptName(target))
		if info, err := os.Lstat(kept); err == nil && info.Mode().IsRegular() && ownerOf(info).uid == os.Geteuid() {
			return kept
		}
	}
	return ""
}

// keptDirs are where the copy of a file may be: beside it, in the output
// directory, or in that for temporary files.
func (o *Output) keptDirs(target string) []string {
	return []string{filepath.Dir(target), o.options.OutputDir, os.TempDir()}
}

func keptName(target string) string {
	h := fnv.New64a()
	_, _ = io.WriteString(h, target)
	return fmt.Sprintf(".%s%s%016x", filepath.Base(target), keptMark, h.Sum64())
}

// forget removes what killed runs kept of files that are as they should be now.
func (o *Output) forget() {
	for _, f := range o.files {
		if kept := o.kept(filepath.Join(o.options.OutputDir, filepath.FromSlash(f.name))); kept != "" {
			os.Remove(kept)
		}
	}
}

// overwrite writes the new content into the file itself.
func (o *Output) overwrite(c *change) error {
	if err := writeInPlace(c.target, c.content); err != nil {
		return err
	}
	if !c.wrongMode(c.old) {
		return nil
	}
	err := os.Chmod(c.target, c.mode)
	if err == nil && c.owner != unowned {
		err = os.Chown(c.target, c.owner.uid, c.owner.gid)
	}
	switch {
	case err != nil && c.given:
		return err
	case err != nil:
		o.warnMode(c.name, err)
	}
	return nil
}

// writeInPlace writes into a file without taking it away. Shorter content is
// cut off at the end, so that a reader never finds the file empty.
func writeInPlace(name string, content []byte) (err error) {
	w, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if _, err := w.WriteAt(content, 0); err != nil {
		return err
	}
	if err := w.Truncate(int64(len(content))); err != nil {
		return err
	}
	return w.Sync()
}
