// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

// messageMax keeps the message within what the pod's status has room for:
// the kubelet reads 4096 bytes, but shares 12 KiB among all containers of a pod
// (kubernetes/pkg/kubelet/status/status_manager.go).
const messageMax = 1000

// A terminationLog is the file that the kubelet shows in the pod's status. The
// kubelet made it; where it is missing, everything here does nothing.
type terminationLog struct{ path string }

// write replaces the content. The file is cut to its length only afterwards,
// so that whoever kills us never leaves it empty.
func (t terminationLog) write(text string) {
	t.open(func(fd int) {
		hooks.WriteAll(fd, []byte(text))
		_ = unix.Ftruncate(fd, int64(len(text)))
	})
}

// empty gives the file to the command.
func (t terminationLog) empty() { t.open(func(fd int) { _ = unix.Ftruncate(fd, 0) }) }

// isEmpty tells whether the command, whose file it is, has written nothing.
func (t terminationLog) isEmpty() bool {
	var st unix.Stat_t
	return unix.Stat(t.path, &st) == nil && st.Size == 0
}

func (t terminationLog) open(f func(fd int)) {
	if t.path == "" {
		return
	}
	// NONBLOCK: a named pipe without a reader must not stop us.
	fd, err := unix.Open(t.path, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		f(fd)
	}
}
