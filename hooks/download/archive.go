// SPDX-License-Identifier: Apache-2.0

package download

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// An extraction unpacks into a directory which nothing can lead out of: names
// are checked, and the kernel is asked for each (os.Root).
type extraction struct {
	ctx   context.Context
	root  *os.Root
	strip int
	room  int64 // bytes that may still be unpacked; -1: any
	files int
	links bool // there are symbolic ones
	dirs  []dirTime
}

// A directory gets its times and mode last: what is made in it changes them.
type dirTime struct {
	name string
	mode fs.FileMode
	time time.Time
}

// extract unpacks an archive of size bytes into dir, and returns how many
// entries it had. One bad entry is an error for the whole.
func extract(ctx context.Context, r io.ReaderAt, size int64, dir string, strip int, most int64) (files int, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	e := &extraction{ctx: ctx, root: root, strip: strip, room: -1}
	if most > 0 {
		e.room = most
	}
	in := bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 1<<20)
	head, _ := in.Peek(265)
	if bytes.HasPrefix(head, []byte("PK\x03\x04")) || bytes.HasPrefix(head, []byte("PK\x05\x06")) {
		err = e.zip(r, size)
	} else {
		err = e.compressedTar(in, head)
	}
	if err == nil && e.files == 0 && strip > 0 {
		err = fmt.Errorf("nothing is left of it without %d leading parts of each name", strip)
	}
	if err == nil && e.links {
		err = e.checkLinks()
	}
	if err == nil {
		err = e.finishDirs()
	}
	return e.files, err
}

// compressedTar unpacks a tar archive, compressed in one of the ways that are
// told by the first bytes.
func (e *extraction) compressedTar(in io.Reader, head []byte) error {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		defer z.Close()
		return e.tar(z)
	case bytes.HasPrefix(head, []byte("BZh")):
		return e.tar(bzip2.NewReader(in))
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		// A frame may ask for a window of gigabytes.
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return err
		}
		defer z.Close()
		return e.tar(z)
	case len(head) > 262 && string(head[257:262]) == "ustar":
		return e.tar(in)
	}
	return errors.New("it is no archive that we know: there are tar, tar.gz, tar.bz2, tar.zst and zip")
}

func (e *extraction) tar(r io.Reader) error {
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := e.tarEntry(h, t); err != nil {
			return err
		}
	}
}

func (e *extraction) tarEntry(h *tar.Header, r io.Reader) error {
	name, err := placed(h.Name, e.strip)
	if err != nil {
		return err
	}
	mode := fs.FileMode(h.Mode).Perm()
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeDir:
		return e.dir(name, mode, h.ModTime)
	case tar.TypeReg:
		return e.file(name, mode, h.ModTime, r)
	case tar.TypeSymlink:
		return e.link(name, h.Linkname)
	case tar.TypeLink:
		target, err := placed(h.Linkname, e.strip)
		if err != nil || target == "" {
			return leaves(h.Name, h.Linkname)
		}
		if name == "" {
			return nil
		}
		return errors.Join(e.makeRoom(name), e.root.Link(target, name))
	}
	return fmt.Errorf("entry %q is a device, a pipe or something else that is no file", h.Name)
}

func (e *extraction) zip(r io.ReaderAt, size int64) error {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return err
	}
	for _, f := range z.File {
		if err := e.zipEntry(f); err != nil {
			return err
		}
	}
	return nil
}

func (e *extraction) zipEntry(f *zip.File) error {
	name, err := placed(f.Name, e.strip)
	if err != nil {
		return err
	}
	mode := f.Mode()
	if mode.IsDir() {
		return e.dir(name, mode.Perm(), f.Modified)
	}
	if !mode.IsRegular() && mode&fs.ModeType != fs.ModeSymlink {
		return fmt.Errorf("entry %q is a device, a pipe or something else that is no file", f.Name)
	}
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if mode.IsRegular() {
		return e.file(name, mode.Perm(), f.Modified, r)
	}
	target, err := io.ReadAll(io.LimitReader(r, 4096))
	if err != nil {
		return err
	}
	return e.link(name, string(target))
}

// makeRoom makes the directories above name, and takes away what an earlier
// entry of the same name has left.
func (e *extraction) makeRoom(name string) error {
	if err := e.ctx.Err(); err != nil {
		return context.Cause(e.ctx)
	}
	e.files++
	if dir := filepath.Dir(name); dir != "." {
		if err := e.root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if info, err := e.root.Lstat(name); err == nil && !info.IsDir() {
		return e.root.Remove(name)
	}
	return nil
}

func (e *extraction) dir(name string, mode fs.FileMode, modified time.Time) error {
	if name == "" {
		return nil
	}
	if err := e.makeRoom(name); err != nil {
		return err
	}
	// Ours to write until the end.
	if err := e.root.MkdirAll(name, 0o755); err != nil {
		return err
	}
	e.dirs = append(e.dirs, dirTime{name, mode, modified})
	return nil
}

func (e *extraction) file(name string, mode fs.FileMode, modified time.Time, r io.Reader) (err error) {
	if name == "" {
		return nil
	}
	if err := e.makeRoom(name); err != nil {
		return err
	}
	f, err := e.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := e.copy(f, r); err != nil {
		return fmt.Errorf("entry %q: %w", name, err)
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if modified.IsZero() {
		return nil
	}
	return e.root.Chtimes(name, modified, modified)
}

// copy writes as much as there is room for, and sees a stop signal.
func (e *extraction) copy(w io.Writer, r io.Reader) error {
	for {
		n, err := io.CopyN(w, r, 1<<20)
		if e.room >= 0 {
			if e.room -= n; e.room < 0 {
				return errors.New("there is more in the archive than is allowed (--max-unpacked)")
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = context.Cause(e.ctx)
		}
		if err != nil {
			return err
		}
	}
}

func (e *extraction) link(name, target string) error {
	if name == "" {
		return nil
	}
	if !inside(name, target) {
		return leaves(name, target)
	}
	e.links = true
	return errors.Join(e.makeRoom(name), e.root.Symlink(target, name))
}

// checkLinks looks where the symbolic links really lead, now that all is there:
// a .. behind another link is not what the names say. It looks at what is there
// and not at what entries said, because an entry may have come through a link,
// or be a hard link to one.
func (e *extraction) checkLinks() error {
	return filepath.WalkDir(e.root.Name(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != fs.ModeSymlink {
			return err
		}
		name, err := filepath.Rel(e.root.Name(), path)
		if err != nil {
			return err
		}
		target, err := e.root.Readlink(name)
		if err != nil {
			return err
		}
		switch _, err := e.root.Stat(name); {
		case !inside(name, target):
			return leaves(name, target)
		case err == nil:
			return nil
		case errors.Is(err, fs.ErrNotExist) && !climbs(target): // it may come yet
			return nil
		case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
			return fmt.Errorf("entry %q is a link to %q, which leads nowhere: %w", name, target, err)
		}
		return leaves(name, target)
	})
}

func leaves(name, target string) error {
	return fmt.Errorf("entry %q is a link to %q, which leaves the directory", name, target)
}

// finishDirs sets what the entries say of the directories, those below first.
func (e *extraction) finishDirs() error {
	for i := len(e.dirs) - 1; i >= 0; i-- {
		d := e.dirs[i]
		info, err := e.root.Lstat(d.name)
		if err != nil || !info.IsDir() { // a later entry has taken its place
			continue
		}
		inherited := info.Mode() & fs.ModeSetgid // without it the group is not that of the volume
		if err := e.root.Chmod(d.name, d.mode|0o700|inherited); err != nil {
			return err
		}
		if d.time.IsZero() {
			continue
		}
		if err := e.root.Chtimes(d.name, d.time, d.time); err != nil {
			return err
		}
	}
	return nil
}
