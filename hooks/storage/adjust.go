// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// adjust gives the target its owner, then its mode: a change of owner may clear
// the setgid bit. What we may not do to a mode is refused, and may be harmless;
// an owner that can't be given is an error, explained.
func (d *target) adjust(e Entry, log *slog.Logger) (refused, err error) {
	if err := d.chown(e, log); err != nil {
		return nil, d.explain(err)
	}
	if e.Mode == Keep || d.mode() == e.Mode {
		return nil, nil
	}
	err = chmod(d.fd, "", uint32(e.Mode))
	if statErr := d.stat(); statErr != nil {
		return nil, opError("stat", d.path, statErr)
	}
	switch {
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS):
		return opError("change the mode to "+octal(e.Mode), d.path, err), nil
	case err != nil:
		return nil, d.explain(opError("change the mode to "+octal(e.Mode), d.path, err))
	case d.mode() != e.Mode:
		// chmod(2): without CAP_FSETID the bit goes when the group is not ours.
		return nil, d.explain(fmt.Errorf("%s: asked for mode %s, the kernel made it %s: the setgid bit can be set only for one of our groups",
			d.path, octal(e.Mode), octal(d.mode())))
	}
	return nil, nil
}

// chown gives the target its owner, or where only root may do that at least its
// group, if that gives whoever was meant the same access.
func (d *target) chown(e Entry, log *slog.Logger) error {
	uid, gid := wanted(e.UID, d.st.Uid), wanted(e.GID, d.st.Gid)
	if uid == Keep && gid == Keep {
		return nil
	}
	err := unix.Fchownat(d.fd, "", uid, gid, unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EPERM) && uid != Keep && groupWillDo(e) {
		if gid == Keep || unix.Fchownat(d.fd, "", Keep, gid, unix.AT_EMPTY_PATH) == nil {
			log.Warn("owner not changed: only root may give a file away; its group has the same rights",
				"path", d.path, "owner", fmt.Sprintf("%d:%d", d.st.Uid, e.GID), "wanted", fmt.Sprintf("%d:%d", e.UID, e.GID))
			err = nil
		}
	}
	if err != nil {
		return &ownerError{uid: uid, gid: gid, err: opError("change the owner to "+ids(uid, gid)+" of", d.path, err)}
	}
	return d.stat()
}

// wanted is the id to set, or Keep when it is so already.
func wanted(id int, is uint32) int {
	if id == int(is) {
		return Keep
	}
	return id
}

// ids is an owner as chown(1) writes it.
func ids(uid, gid int) string {
	text := ""
	if uid != Keep {
		text = fmt.Sprint(uid)
	}
	if gid != Keep {
		text += fmt.Sprintf(":%d", gid)
	}
	return text
}

// An ownerError is an owner that could not be given; what is Keep was right.
type ownerError struct {
	uid, gid int
	err      error
}

func (e *ownerError) Error() string { return e.err.Error() }

func (e *ownerError) Unwrap() error { return e.err }

// groupWillDo tells whether the group, which fsGroup gives us, may do what the
// owner may.
func groupWillDo(e Entry) bool {
	owner, group := e.Mode>>6&7, e.Mode>>3&7
	return e.Mode != Keep && e.GID != Keep && owner&^group == 0 && slices.Contains(groups(), e.GID)
}

func groups() []int {
	all, _ := os.Getgroups()
	return append(all, os.Getegid())
}

// chmod changes the mode of a name in a directory, or of what fd itself is when
// the name is empty, and never follows a link. fchmodat2(2) needs Linux 6.6 and
// is refused by older seccomp profiles; before, there is only the way by /proc.
func chmod(fd int, name string, mode uint32) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	err := unix.Fchmodat(fd, name, mode, flags)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) {
		return err
	}
	if name != "" {
		if fd, err = unix.Openat(fd, name, openPath, 0); err != nil {
			return err
		}
		defer unix.Close(fd)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.EOPNOTSUPP // a link has no mode
	}
	if again := unix.Chmod(procPath(fd), mode); !errors.Is(again, unix.ENOENT) {
		return again
	}
	return err // without /proc there is no way
}

// procPath names the object behind an O_PATH descriptor, on which fchmod(2) and
// openat(2) do not work.
func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
