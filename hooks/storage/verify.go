// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// block is what is written for a proof: on a full file system an empty file can
// still be made, and access(2) says that it can be written.
const block = 4096

// verify proves that the directory can be written: it makes a file, writes and
// syncs a block, reads it back, renames and removes it.
func (d *target) verify() (err error) {
	dir, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		dir, err = unix.Openat(d.fd, ".", openPath|unix.O_DIRECTORY, 0) // writing needs no reading
	}
	if err != nil {
		return opError("open", d.path, err)
	}
	defer unix.Close(dir)
	name := ".init-storage-" + rand.Text()
	fd, err := unix.Openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return opError("make a file in", d.path, err)
	}
	defer unix.Close(fd)
	current := name
	defer func() {
		if removed := unix.Unlinkat(dir, current, 0); err == nil && removed != nil {
			err = opError("remove a file in", d.path, removed)
		}
	}()
	data := make([]byte, block)
	_, _ = rand.Read(data)
	switch n, err := unix.Pwrite(fd, data, 0); {
	case err != nil:
		return opError("write 4 KiB in", d.path, err)
	case n < block:
		return opError(fmt.Sprintf("write 4 KiB in (%d bytes were taken)", n), d.path, unix.ENOSPC)
	}
	if err := unix.Fsync(fd); err != nil {
		return opError("sync a file in", d.path, err)
	}
	back := make([]byte, block)
	if n, err := unix.Pread(fd, back, 0); err != nil || !bytes.Equal(back[:n], data) {
		return opError("read back what was written in", d.path, errors.Join(err, errors.New("it is not what was written")))
	}
	if err := unix.Renameat(dir, name, dir, name+".renamed"); err != nil {
		return opError("rename a file in", d.path, err)
	}
	current += ".renamed"
	return nil
}

// room tells whether there are enough bytes and inodes for such as us. A file
// system that counts no inodes has enough of them.
func (d *target) room(bytes, inodes int64) error {
	if bytes == 0 && inodes == 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(d.fd, &st); err != nil {
		return opError("look for room in", d.path, err)
	}
	free := int64(min(st.Bavail, uint64(1<<62)/uint64(max(st.Frsize, 1)))) * max(int64(st.Frsize), 1)
	var problems []error
	if free < bytes {
		problems = append(problems, fmt.Errorf("%s has %s free, %s are asked for: %w", d.path, cgroup.Bytes(free), cgroup.Bytes(bytes), unix.ENOSPC))
	}
	if st.Files > 0 && int64(st.Ffree) < inodes {
		problems = append(problems, fmt.Errorf("%s has %d free inodes, %d are asked for: %w", d.path, st.Ffree, inodes, unix.ENOSPC))
	}
	return errors.Join(problems...)
}
