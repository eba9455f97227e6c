// SPDX-License-Identifier: Apache-2.0

package download

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// unpack takes the archive apart beside the output, and puts the whole in its
// place when every entry was good.
func (x *fetch) unpack(ctx context.Context, part *partial) error {
	dir, prefix := x.workDir(), "."+filepath.Base(x.Output)+".unpack-"
	// What a run that was killed has left; nobody else works on it now.
	if left, err := filepath.Glob(filepath.Join(dir, prefix+"*")); err == nil {
		for _, stage := range left {
			_ = os.RemoveAll(stage)
		}
	}
	stage, err := os.MkdirTemp(dir, prefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	if err := x.likeOutput(stage); err != nil {
		return err
	}
	files, err := extract(ctx, part.File, part.size, stage, x.Strip, x.o.MaxUnpacked)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	data, err := json.Marshal(unpacked{x.version, x.Strip})
	if err != nil {
		return err
	}
	// The archive may have something of that name, even a link.
	marker := filepath.Join(stage, markerName)
	if err := errors.Join(os.RemoveAll(marker), os.WriteFile(marker, append(data, '\n'), 0o644)); err != nil {
		return err
	}
	// Everything of the stage is on disk before its name is.
	if err := syncFS(stage); err != nil {
		return err
	}
	if dir == x.Output {
		err = intoMount(stage, x.Output)
	} else {
		err = exchange(stage, x.Output)
	}
	if err != nil {
		return err
	}
	x.o.Log.Info("fetched and unpacked", "output", x.Output, "files", files, "bytes", part.size, "sum", x.Sum.String(), "from", shownURL(x.URL))
	return errors.Join(os.Remove(part.Name()), syncDir(dir))
}

// likeOutput gives the stage mode and group of the directory that it is to
// replace. A new one keeps the setgid bit that it has from its parent: on a
// volume with fsGroup all belongs to the group.
func (x *fetch) likeOutput(stage string) error {
	made, err := os.Stat(stage)
	if err != nil {
		return err
	}
	mode := 0o755 | made.Mode()&fs.ModeSetgid
	old, err := os.Stat(x.Output)
	if err == nil && x.workDir() != x.Output && os.Chown(stage, -1, int(old.Sys().(*syscall.Stat_t).Gid)) == nil {
		mode = old.Mode() | 0o700 // we have to get into it
	}
	return os.Chmod(stage, mode)
}

func syncFS(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// exchange puts a directory in the place of another, in one step where the
// kernel and the file system can; what was there is then where the new one was,
// and removed.
func exchange(stage, output string) error {
	info, err := os.Lstat(output)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return os.Rename(stage, output)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is in the way: it is not a directory", output)
	}
	if x, err := os.ReadDir(output); err == nil && len(x) > 0 && !isOurs(output) {
		return fmt.Errorf("%s has files that we did not unpack (there is no %s): empty it, or name another directory", output, markerName)
	}
	err = unix.Renameat2(unix.AT_FDCWD, stage, unix.AT_FDCWD, output, unix.RENAME_EXCHANGE)
	if err == nil || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	old := stage + ".old"
	if err := os.Rename(output, old); err != nil {
		return err
	}
	if err := os.Rename(stage, output); err != nil {
		return errors.Join(err, os.Rename(old, output))
	}
	return os.RemoveAll(old)
}

func isOurs(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, markerName))
	return err == nil
}

// intoMount moves each entry into a directory that is itself a mount, onto
// which nothing can be renamed; the marker comes last. Entries of an earlier
// archive that this one hasn't are left alone.
func intoMount(stage, output string) error {
	if err := os.Remove(filepath.Join(output, markerName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(stage)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == markerName {
			continue
		}
		from, to := filepath.Join(stage, e.Name()), filepath.Join(output, e.Name())
		if err := replace(from, to); err != nil {
			return err
		}
	}
	return os.Rename(filepath.Join(stage, markerName), filepath.Join(output, markerName))
}

// replace renames onto whatever is there.
func replace(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	switch {
	case err == nil:
		return os.RemoveAll(from)
	case errors.Is(err, unix.ENOENT):
		return os.Rename(from, to)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		return os.Rename(from, to)
	}
	return err
}

// placed is where an entry belongs, without its leading parts: empty when it
// belongs nowhere. A name that leaves the directory is an error.
func placed(name string, strip int) (string, error) {
	clean := strings.TrimSuffix(name, "/")
	if strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("entry %q: its name begins with / or is none", name)
	}
	var parts []string
	for _, part := range strings.Split(clean, "/") {
		switch part {
		case "", ".":
		case "..":
			return "", fmt.Errorf("entry %q leaves the directory", name)
		default:
			parts = append(parts, part)
		}
	}
	if len(parts) <= strip {
		return "", nil
	}
	return filepath.Join(parts[strip:]...), nil
}

// inside tells whether a symbolic link at name stays within the directory, if
// there are no other links on its way.
func inside(name, target string) bool {
	return target != "" && !filepath.IsAbs(target) && filepath.IsLocal(filepath.Join(filepath.Dir(name), target))
}

// climbs tells whether a path goes up from where it has gone down to, which may
// be a link.
func climbs(target string) bool {
	down := false
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if down {
				return true
			}
		default:
			down = true
		}
	}
	return false
}
