// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// atOnce is how many directories are worked on at the same time: changing
// owners waits for the disk, or for a server.
const atOnce = 16

// A walk gives all that is in a tree its owner and mode. Everything is named
// relative to a directory that is open, and no link is followed, so that
// whoever changes the tree meanwhile can't lead it elsewhere (the kernel's
// RESOLVE_BENEATH, one step at a time). It stays on the file system that it
// began on.
type walk struct {
	ctx     context.Context
	entry   Entry
	listed  map[string]bool // directories that have an entry of their own
	device  uint64
	changed atomic.Int64
	running sync.WaitGroup
	slots   chan struct{}

	mu       sync.Mutex
	problems []error
	more     int // that are not in problems
}

// walk changes everything below d, and returns how many things that were.
func (d *target) walk(ctx context.Context, e Entry, listed map[string]bool) (changed int, err error) {
	w := &walk{ctx: ctx, entry: e, listed: listed, device: d.st.Dev, slots: make(chan struct{}, atOnce)}
	// Our own directory may be closed to us: its mode comes last, but for this.
	if int(d.st.Uid) == os.Geteuid() && d.mode()&0o500 != 0o500 {
		if err := chmod(d.fd, "", uint32(d.mode())|0o700); err != nil {
			return 0, d.explain(opError("open", d.path, err))
		}
	}
	w.dir(d.fd, ".", d.path)
	w.running.Wait()
	changed = int(w.changed.Load())
	if err := context.Cause(ctx); err != nil {
		return changed, err
	}
	if len(w.problems) > 0 {
		return changed, d.explain(w.joined())
	}
	return changed, nil
}

// dir changes what is in one directory, and what is in those in it.
func (w *walk) dir(parent int, name, full string) {
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		w.problem(opError("open", full, err))
		return
	}
	f := os.NewFile(uintptr(fd), full)
	defer f.Close()
	var inside sync.WaitGroup
	defer inside.Wait() // those below need fd
	for w.ctx.Err() == nil {
		names, err := f.Readdirnames(256)
		for _, name := range names {
			w.one(fd, name, path.Join(full, name), &inside)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				w.problem(err)
			}
			return
		}
	}
}

// one changes one entry of the directory fd; a directory after all that is in
// it, so that a walk which was cut short is seen by the next.
func (w *walk) one(fd int, name, full string, inside *sync.WaitGroup) {
	var st unix.Stat_t
	if w.ctx.Err() != nil || w.listed[full] {
		return
	}
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if !errors.Is(err, unix.ENOENT) { // gone meanwhile
			w.problem(opError("stat", full, err))
		}
		return
	}
	if st.Dev != w.device {
		return
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		w.change(fd, name, full, &st)
		return
	}
	below := func() {
		if int(st.Uid) == os.Geteuid() && st.Mode&0o500 != 0o500 {
			_ = chmod(fd, name, st.Mode&0o7777|0o700)
			st.Mode |= 0o700
		}
		w.dir(fd, name, full)
		w.change(fd, name, full, &st)
	}
	select {
	case w.slots <- struct{}{}:
		inside.Go(func() {
			defer func() { <-w.slots }()
			below()
		})
	default:
		below()
	}
}

// change gives one entry its owner and mode, if they are others.
func (w *walk) change(fd int, name, full string, st *unix.Stat_t) {
	if w.ctx.Err() != nil {
		return
	}
	changed := false
	if uid, gid := wanted(w.entry.UID, st.Uid), wanted(w.entry.GID, st.Gid); uid != Keep || gid != Keep {
		err := unix.Fchownat(fd, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.EPERM) && uid != Keep && groupWillDo(w.entry) {
			if err = nil; gid != Keep {
				err = unix.Fchownat(fd, name, Keep, gid, unix.AT_SYMLINK_NOFOLLOW)
			}
		}
		if err != nil {
			w.problem(&ownerError{uid: uid, gid: gid, err: opError("change the owner to "+ids(uid, gid)+" of", full, err)})
			return
		}
		changed = true
	}
	if mode, ok := w.mode(st.Mode); ok && (mode != st.Mode&0o7777 || changed && mode&0o6000 != 0) {
		if err := chmod(fd, name, mode); err != nil {
			w.problem(opError("change the mode to "+octal(int(mode)), full, err))
			return
		}
		changed = true
	}
	if changed {
		w.changed.Add(1)
	}
}

// mode is the one that an entry of the tree is to have, if any: of a file
// without the bits that mean something for directories only, and x where it
// was.
func (w *walk) mode(is uint32) (uint32, bool) {
	want := uint32(w.entry.Mode)
	switch {
	case w.entry.Mode == Keep || is&unix.S_IFMT == unix.S_IFLNK:
		return 0, false
	case is&unix.S_IFMT == unix.S_IFDIR:
		return want, true
	case is&0o111 == 0:
		return want & 0o666, true
	default:
		return want & 0o777, true
	}
}

const problemsShown = 5

func (w *walk) problem(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.problems) == problemsShown {
		w.more++
		return
	}
	w.problems = append(w.problems, err)
}

func (w *walk) joined() error {
	err := errors.Join(w.problems...)
	if w.more > 0 {
		err = errors.Join(err, moreError(w.more))
	}
	return err
}
