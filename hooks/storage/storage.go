// SPDX-License-Identifier: Apache-2.0

// Package storage prepares the volumes of a container: it makes directories and
// marker files, sets their modes and owners, proves that they can be written
// and says what to change in the pod when they cannot.
//
// It needs no privilege: what an ordinary user may not do is done in the way
// that is open to one (the group that fsGroup gives), or explained. Running it
// again changes nothing.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// Keep, as a mode or an owner, is what stays as it is.
const Keep = -1

// An Entry is a directory or a marker file that must be there.
type Entry struct {
	Path string
	Mode int // permissions with setuid, setgid and sticky bit; [Keep]: 0755 or 0644 if it is made
	UID  int // [Keep]: ours if it is made
	GID  int // [Keep]: ours, or a setgid directory's, if it is made
	// Recursive gives all that is in a directory the owner and the mode too;
	// files get its x bits only where they had one. It is passed over when the
	// directory itself is as it should be, which is why that is changed last
	// (Kubernetes calls it fsGroupChangePolicy: OnRootMismatch).
	Recursive bool
}

// A Plan is what a volume has to look like. The zero value asks for nothing.
type Plan struct {
	Dirs  []Entry // made with their parents, in this order
	Files []Entry // made empty, after everything else has succeeded; content is kept
	// Verify proves that every directory can be written, by writing.
	Verify    bool
	MinFree   int64 // bytes that must be free in every directory for such as us; 0: any
	MinInodes int64 // files that it must still be possible to make; 0: any
}

// Prepare carries the plan out. It blocks; when ctx ends it stops between two
// changes. The error holds every problem, each explained; the files of the plan
// are only made when there is none.
func Prepare(ctx context.Context, p Plan, log *slog.Logger) error {
	if err := p.check(); err != nil {
		return err
	}
	var problems []error
	listed := map[string]bool{}
	for _, e := range p.Dirs {
		listed[path.Clean(e.Path)] = true
	}
	for _, e := range p.Dirs {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := p.dir(ctx, e, listed, log); err != nil {
			problems = append(problems, err)
		}
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	for _, e := range p.Files {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := makeFile(e, log); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// check finds what contradicts itself.
func (p Plan) check() error {
	var problems []error
	seen := map[string]bool{}
	for _, e := range slices.Concat(p.Dirs, p.Files) {
		clean := path.Clean(e.Path)
		switch {
		case e.Path == "":
			problems = append(problems, errors.New("an empty path"))
		case seen[clean]:
			problems = append(problems, fmt.Errorf("%s is listed twice", clean))
		}
		seen[clean] = true
	}
	return errors.Join(problems...)
}

// dir makes one directory as it should be, and proves it.
func (p Plan) dir(ctx context.Context, e Entry, listed map[string]bool, log *slog.Logger) error {
	d, made, err := openDir(e, log)
	if err != nil {
		return err
	}
	defer d.close()
	changed := 0
	if e.Recursive && !made && !d.matches(e) {
		if changed, err = d.walk(ctx, e, listed); err != nil {
			return err
		}
	}
	refused, err := d.adjust(e, log)
	if err != nil {
		return err
	}
	if refused != nil || p.Verify {
		if err := d.verify(); err != nil {
			if refused != nil {
				err = fmt.Errorf("%w, and %w", refused, err)
			}
			return d.explain(err)
		}
	}
	if refused != nil {
		log.Warn("mode not changed, but the directory can be written", "dir", e.Path, "mode", octal(d.mode()), "wanted", octal(e.Mode), "owner", d.owner())
	}
	if err := d.room(p.MinFree, p.MinInodes); err != nil {
		return d.explain(err)
	}
	attrs := []any{"dir", e.Path, "mode", octal(d.mode()), "owner", d.owner(), "made", made}
	if e.Recursive {
		attrs = append(attrs, "changed", changed)
	}
	log.Info("directory ready", append(attrs, "verified", p.Verify || refused != nil)...)
	return nil
}

// matches tells whether the directory itself is as e says.
func (d *target) matches(e Entry) bool {
	return (e.Mode == Keep || d.mode() == e.Mode) && (e.UID == Keep || int(d.st.Uid) == e.UID) && (e.GID == Keep || int(d.st.Gid) == e.GID)
}

// A target is a directory or a file that is open, with what is known of it.
type target struct {
	path    string
	missing string // what can't be made in it, for an explanation; empty: it is itself meant
	fd      int    // O_PATH: nobody can put another one in its place meanwhile
	st      unix.Stat_t
}

func (d *target) close() { _ = unix.Close(d.fd) }

func (d *target) stat() error { return unix.Fstat(d.fd, &d.st) }

func (d *target) mode() int { return int(d.st.Mode & 0o7777) }

func (d *target) owner() string { return fmt.Sprintf("%d:%d", d.st.Uid, d.st.Gid) }

func octal(mode int) string { return fmt.Sprintf("%04o", mode) }

// opError is what an operation on a path has met.
func opError(op, path string, err error) error { return &fs.PathError{Op: op, Path: path, Err: err} }
