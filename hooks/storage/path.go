// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	openPath = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC

	defaultDir  = 0o755
	defaultFile = 0o644

	maxLinks = 40 // that a path may go through, as in the kernel
)

// openDir opens the directory, and makes it and its parents where they are
// missing.
func openDir(e Entry, log *slog.Logger) (d *target, made bool, err error) {
	parent, name, err := openParent(e.Path, log)
	if err != nil {
		return nil, false, err
	}
	defer unix.Close(parent)
	mode := uint32(defaultDir)
	if e.Mode != Keep {
		mode = uint32(e.Mode) & 0o777
	}
	fd, made, err := openOrMakeDir(parent, name, e.Path, mode)
	if err != nil {
		return nil, false, err
	}
	d = &target{path: e.Path, fd: fd}
	if err := d.stat(); err != nil {
		d.close()
		return nil, false, opError("stat", e.Path, err)
	}
	return d, made, nil
}

// makeFile makes one marker file as it should be.
func makeFile(e Entry, log *slog.Logger) error {
	parent, name, err := openParent(e.Path, log)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	mode := uint32(defaultFile)
	if e.Mode != Keep {
		mode = uint32(e.Mode) & 0o777
	}
	fd, err := unix.Openat(parent, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	made := err == nil
	if made {
		err = unix.Fsync(fd)
		_ = unix.Close(fd)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return explainPath(parent, e.Path, opError("make the file", e.Path, err))
	}
	fd, err = unix.Openat(parent, name, openPath, 0)
	if err != nil {
		return opError("open", e.Path, err)
	}
	d := &target{path: e.Path, fd: fd}
	defer d.close()
	if err := d.stat(); err != nil {
		return opError("stat", e.Path, err)
	}
	if d.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is %s, not a regular file: remove it, or name another path", e.Path, kind(d.st.Mode))
	}
	refused, err := d.adjust(e, log)
	if err != nil {
		return err
	}
	if refused != nil {
		return d.explain(refused)
	}
	if made {
		syncDir(parent)
	}
	log.Info("file ready", "file", e.Path, "mode", octal(d.mode()), "owner", d.owner(), "made", made)
	return nil
}

// syncDir makes a new entry of a directory last.
func syncDir(fd int) {
	if f, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Fsync(f)
		_ = unix.Close(f)
	}
}

// openParent opens the directory that the last part of name is in, and makes
// the directories on the way that are missing. A link on the way is followed
// only if it is root's or ours: whoever else can put links there would choose
// what we change.
func openParent(name string, log *slog.Logger) (fd int, last string, err error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return -1, "", opError("resolve", name, err)
	}
	if abs == "/" {
		fd, err = unix.Open("/", openPath|unix.O_DIRECTORY, 0)
		return fd, ".", err
	}
	parts := split(path.Dir(abs))
	if fd, err = unix.Open("/", openPath|unix.O_DIRECTORY, 0); err != nil {
		return -1, "", opError("open", "/", err)
	}
	at, links := "/", 0
	for len(parts) > 0 {
		part := parts[0]
		parts = parts[1:]
		here := path.Join(at, part)
		target, err := followed(fd, part, here)
		if err != nil {
			_ = unix.Close(fd)
			return -1, "", err
		}
		if target != "" {
			if links++; links > maxLinks {
				_ = unix.Close(fd)
				return -1, "", opError("open", name, unix.ELOOP)
			}
			// Dots in a link are about where the link leads to, so that the
			// text of the path can't tell: the kernel says where ".." is.
			parts = slices.Concat(split(target), parts)
			if strings.HasPrefix(target, "/") {
				next, err := unix.Open("/", openPath|unix.O_DIRECTORY, 0)
				_ = unix.Close(fd)
				if err != nil {
					return -1, "", opError("open", "/", err)
				}
				fd, at = next, "/"
			}
			continue
		}
		next, made, err := openOrMakeDir(fd, part, here, defaultDir)
		_ = unix.Close(fd)
		if err != nil {
			return -1, "", err
		}
		if made {
			log.Info("parent directory made", "dir", here, "mode", octal(defaultDir))
		}
		fd, at = next, here
	}
	return fd, path.Base(abs), nil
}

func split(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(s string) bool { return s == "" || s == "." })
}

// followed returns where the link leads to, or "" for what is none.
func followed(dir int, name, full string) (string, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", nil // whoever opens it says what is wrong
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s is a link that belongs to uid %d, who could lead us anywhere: replace it by a directory", full, st.Uid)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", opError("readlink", full, err)
	}
	return string(buf[:n]), nil
}

// openOrMakeDir opens a directory in a directory, and makes it if it is not
// there.
func openOrMakeDir(parent int, name, full string, mode uint32) (fd int, made bool, err error) {
	fd, err = unix.Openat(parent, name, openPath|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		switch err = unix.Mkdirat(parent, name, mode); {
		case err == nil:
			made = true
		case !errors.Is(err, unix.EEXIST): // somebody else was faster
			return -1, false, explainPath(parent, full, opError("make the directory", full, err))
		}
		fd, err = unix.Openat(parent, name, openPath|unix.O_DIRECTORY, 0)
	}
	if errors.Is(err, unix.ENOTDIR) {
		var st unix.Stat_t
		if unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			return -1, false, fmt.Errorf("%s is %s, not a directory: remove it, or name another path", full, kind(st.Mode))
		}
	}
	if err != nil {
		return -1, false, explainPath(parent, full, opError("open", full, err))
	}
	return fd, made, nil
}

func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return "a link"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFREG:
		return "a file"
	default:
		return "a special file"
	}
}
