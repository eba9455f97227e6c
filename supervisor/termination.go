// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

// messageMax keeps the message within what the pod's status has room for:
// the kubelet reads 4096 bytes, but shares 12 KiB among all containers of a pod
// (kubernetes/pkg/kubelet/status/status_manager.go).
const messageMax = 1000

// A terminationLog is the file that the kubelet shows in the pod's status. The
// kubelet made it; where it is missing, everything here does nothing.
type terminationLog struct {
	path string
	mu   sync.Mutex
	ours int64 // the length of what we wrote last
}

// write replaces the content.
func (t *terminationLog) write(text string) {
	t.open(func(fd int, _ int64) { t.replace(fd, text) })
}

// add replaces the content if it is ours, or there is none: while the command
// runs, the file belongs to the command.
func (t *terminationLog) add(text string) {
	t.open(func(fd int, size int64) {
		if size == 0 || size == t.ours {
			t.replace(fd, text)
		}
	})
}

// retract takes back what was added.
func (t *terminationLog) retract() {
	if t.wrote() {
		t.open(func(fd int, size int64) {
			if size == t.ours {
				t.replace(fd, "")
			}
		})
	}
}

// wrote tells whether something of ours may be there.
func (t *terminationLog) wrote() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ours > 0
}

// empty gives the file to the command.
func (t *terminationLog) empty() { t.write("") }

// replace cuts the file to its length only afterwards, so that whoever kills us
// never leaves it empty.
func (t *terminationLog) replace(fd int, text string) {
	_ = hooks.WriteAll(fd, []byte(text))
	_ = unix.Ftruncate(fd, int64(len(text)))
	t.ours = int64(len(text))
}

func (t *terminationLog) open(f func(fd int, size int64)) {
	if t.path == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	// NONBLOCK: a named pipe without a reader must not stop us.
	fd, err := unix.Open(t.path, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		f(fd, st.Size)
	}
}
