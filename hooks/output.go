// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"time"

	"golang.org/x/sys/unix"
)

// Output says what becomes of the hooks' output.
type Output int

const (
	// Plain leaves standard output alone and passes standard error on as it is,
	// with its end remembered.
	Plain Output = iota
	// Prefix puts "[name] " before each line of both.
	Prefix
	// Inherit leaves both alone; nothing is remembered.
	Inherit
)

// drainLimit is how long the end of a hook may wait for a stalled destination.
const drainLimit = 100 * time.Millisecond

// outputs are the descriptors 1 and 2 of one try, and the relays behind them.
type outputs struct {
	stdout, stderr int
	relays         []*relay
	ends           []int  // to close when the process has them
	errors         *relay // that of standard error, if there is one
}

// open prepares the output of a try for a process of user uid (-1: ours), which
// is to arrive at the streams.
//
// A terminal is passed on as it is. Where both descriptors are one file they
// share one pipe: through two, what came first could arrive last.
func (o *outputs) open(stdout, stderr *Stream, mode Output, prefix string, uid int) (err error) {
	o.stdout, o.stderr = stdout.FD, stderr.FD
	if mode == Inherit {
		return nil
	}
	if mode == Plain {
		prefix = ""
	}
	if canPipe(stderr.FD) {
		if o.errors, o.stderr, err = o.pipe(stderr, prefix, uid); err != nil {
			return err
		}
		if sameFile(stdout.FD, stderr.FD) {
			o.stdout = o.stderr
			return nil
		}
	}
	if mode == Prefix && canPipe(stdout.FD) {
		_, o.stdout, err = o.pipe(stdout, prefix, uid)
	}
	return err
}

func (o *outputs) pipe(to *Stream, prefix string, uid int) (l *relay, end int, err error) {
	if l, end, err = newRelay(to, prefix); err != nil {
		return nil, end, err
	}
	// So that another user can open /dev/stderr: a pipe is its maker's, 0600.
	if uid >= 0 && unix.Fchown(end, uid, -1) != nil {
		_ = unix.Fchmod(end, 0o622) // without CAP_CHOWN
	}
	o.relays, o.ends = append(o.relays, l), append(o.ends, end)
	return l, end, nil
}

// closeEnds closes what only the process is to hold.
func (o *outputs) closeEnds() {
	for _, fd := range o.ends {
		_ = unix.Close(fd)
	}
	o.ends = nil
}

// start begins to pass on what the process writes.
func (o *outputs) start() {
	for _, l := range o.relays {
		l.start()
	}
}

// drain waits, within the limit, for what the process wrote before it ended.
func (o *outputs) drain() {
	deadline := time.Now().Add(drainLimit)
	for _, l := range o.relays {
		l.drain(time.Until(deadline))
	}
}

func (o *outputs) last() []byte {
	if o.errors == nil {
		return nil
	}
	return o.errors.last()
}

// canPipe tells whether fd is open and not a terminal.
func canPipe(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err != nil && err != unix.EBADF
}

func sameFile(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}
