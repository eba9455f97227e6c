// SPDX-License-Identifier: Apache-2.0

package download

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

// A partial is what there is of a file so far. It lies beside the output and is
// locked: whoever wants the same output waits for the lock and then finds it
// done.
type partial struct {
	*os.File
	size int64
	sum  Sum       // that is wanted; zero: none
	hash hash.Hash // of the first size bytes; nil without a wanted sum

	// validator is what the server calls this version (a strong ETag, or a
	// date): by it another range of the same version is asked for.
	validator string
	total     int64 // -1: not known
}

const lockPause = 200 * time.Millisecond

// openPartial opens and locks the file, and waits for the lock as long as ctx
// allows.
func openPartial(ctx context.Context, path string, log *slog.Logger) (*partial, error) {
	told := false
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, permanentError{err}
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		// What was locked may have been published, or removed, meanwhile.
		if (err == nil || errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.EOPNOTSUPP)) && samePath(f, path) {
			if err != nil {
				log.Warn("no lock: this file system has none, do not fetch the same output twice at once", "file", path, "err", err)
			}
			return &partial{File: f, total: -1}, nil
		}
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) && !told {
			told = true
			log.Info("waiting: another fetch works on the same output", "file", path)
		}
		if err := hooks.Pause(ctx, lockPause); err != nil {
			return nil, err
		}
	}
}

func samePath(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(opened, named)
}

// begin takes what an earlier run has left, if its sum can be told in the end,
// or nothing.
func (p *partial) begin(ctx context.Context, sum Sum) error {
	p.sum = sum
	if sum.Hex == "" {
		return p.restart()
	}
	p.hash = sum.hash()
	n, err := io.Copy(p.hash, bound{ctx, p.File})
	p.size = n
	return err
}

// restart throws away what there is.
func (p *partial) restart() error {
	p.size, p.validator, p.total = 0, "", -1
	if p.hash != nil {
		p.hash.Reset()
	}
	if err := p.Truncate(0); err != nil {
		return permanentError{err}
	}
	return nil
}

// empty tells whether there is nothing in the file, even if nobody has read it.
func (p *partial) empty() bool {
	info, err := p.Stat()
	return err == nil && info.Size() == 0
}

// Write appends.
func (p *partial) Write(b []byte) (int, error) {
	n, err := p.WriteAt(b, p.size)
	p.size += int64(n)
	if p.hash != nil {
		p.hash.Write(b[:n])
	}
	if err != nil {
		return n, permanentError{err}
	}
	return n, nil
}

// verify compares the sum.
func (p *partial) verify() error {
	if p.hash == nil {
		return nil
	}
	if got := p.sum.of(p.hash); got != p.sum {
		return &sumError{want: p.sum, got: got}
	}
	return nil
}

type sumError struct{ want, got Sum }

func (e *sumError) Error() string {
	return fmt.Sprintf("wrong content: its %s is %s, want %s", e.got.Algorithm, e.got.Hex, e.want.Hex)
}
