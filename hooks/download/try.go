// SPDX-License-Identifier: Apache-2.0

package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

// whole downloads until everything is there and verified, or it is hopeless.
func (x *fetch) whole(ctx context.Context, part *partial) error {
	resumed := part.size > 0
	for failed := 0; ; {
		before := part.size
		err := x.try(ctx, part)
		if err == nil {
			if err = part.verify(); err == nil {
				return nil
			}
			if restarted := part.restart(); restarted != nil || !resumed {
				return errors.Join(err, restarted)
			}
			// Perhaps two versions were put together.
			x.o.Log.Warn("wrong content after a download in parts: once more from the start", "output", x.Output)
			resumed = false
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var never permanentError
		if errors.Is(err, errUnchanged) || errors.As(err, &never) {
			return err
		}
		if failed++; part.size > before {
			failed = 1
		}
		if failed >= x.o.Tries {
			return fmt.Errorf("given up after %d tries: %w", failed, err)
		}
		resumed = resumed || part.size > 0
		pause := max(pauseAfter(failed), retryAfter(err))
		x.o.Log.Warn("once more", "output", x.Output, "at", part.size, "in", pause.Round(time.Millisecond), "err", err)
		if err := hooks.Pause(ctx, pause); err != nil {
			return err
		}
	}
}

// try asks once for what is missing, and appends what comes.
func (x *fetch) try(ctx context.Context, part *partial) error {
	u, err := url.Parse(x.URL)
	if err != nil {
		return permanentError{withoutURL(err)}
	}
	if u.Scheme == "file" {
		return x.copyFile(ctx, u.Path, part)
	}
	ctx, progressed, done := x.unlessStalled(ctx)
	defer done()
	req, err := x.request(ctx, part)
	if err != nil {
		return permanentError{withoutURL(err)}
	}
	resp, err := x.client.Do(req)
	if err != nil {
		return cutShort(ctx, withoutURL(err))
	}
	defer resp.Body.Close()
	if done, err := x.accept(resp, part); err != nil || done {
		return err
	}
	return cutShort(ctx, x.read(resp.Body, part, progressed))
}

// unlessStalled returns a context that ends when progressed has not been called
// for too long, and a function that ends it.
func (x *fetch) unlessStalled(ctx context.Context) (_ context.Context, progressed, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stalled := fmt.Errorf("no byte for %v", x.o.Stall)
	watch := time.AfterFunc(x.o.Stall, func() { cancel(stalled) })
	return ctx, func() { watch.Reset(x.o.Stall) }, func() {
		watch.Stop()
		cancel(nil)
	}
}

// cutShort prefers the reason for which we cancelled a request.
func cutShort(ctx context.Context, err error) error {
	var never permanentError
	if err != nil && ctx.Err() != nil && !errors.As(err, &never) {
		return context.Cause(ctx)
	}
	return err
}

func (x *fetch) request(ctx context.Context, part *partial) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, x.URL, nil)
	if err != nil {
		return nil, err
	}
	if x.Header != nil {
		req.Header = x.Header.Clone()
	}
	// What is counted, resumed and verified is the file itself.
	req.Header.Set("Accept-Encoding", "identity")
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "cleanimg-init-fetch")
	}
	// Without a name for the version or a sum nobody could tell whether the
	// parts belong together.
	if part.size > 0 && (part.validator != "" || part.hash != nil) {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", part.size))
		if part.validator != "" {
			req.Header.Set("If-Range", part.validator)
		}
	}
	return req, nil
}

// accept looks at the head of an answer, and makes part ready for its body. It
// is done when there is nothing to read.
func (x *fetch) accept(resp *http.Response, part *partial) (done bool, err error) {
	switch resp.StatusCode {
	case http.StatusOK:
		if err := part.restart(); err != nil {
			return false, err
		}
		part.total = resp.ContentLength
	case http.StatusPartialContent:
		if err := part.follows(resp.Header); err != nil {
			return false, errors.Join(err, part.restart())
		}
	case http.StatusRequestedRangeNotSatisfiable:
		// An earlier run may have had it all.
		if _, total, err := contentRange(resp.Header.Get("Content-Range")); err == nil && total == part.size && part.hash != nil && part.verify() == nil {
			return true, nil
		}
		return false, errors.Join(errors.New("the server has no more of it: once more from the start"), part.restart())
	default:
		return false, statusError(resp)
	}
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return false, permanent("the server sends it encoded (%q), though it was asked not to", encoding)
	}
	part.validator = validator(resp.Header)
	return false, x.begin(part, versionOf(resp.Header, part.total))
}

// follows takes the head of an answer that goes on where part ends.
func (p *partial) follows(h http.Header) error {
	from, total, err := contentRange(h.Get("Content-Range"))
	switch {
	case err != nil:
		return err
	case from != p.size:
		return fmt.Errorf("asked for what follows byte %d, was sent what follows byte %d", p.size, from)
	case p.validator != "" && p.validator != validator(h):
		return errors.New("the content has changed between two tries")
	}
	p.total = total
	return nil
}

// begin looks at what is to come: whether it is needed, allowed, and has room.
func (x *fetch) begin(part *partial, v version) error {
	x.version = v
	x.version.Sum = x.Sum.String()
	if part.size == 0 && x.Sum.Hex == "" && x.unchanged(v) {
		return errUnchanged
	}
	x.state.begin(part.size, part.total)
	if part.total < 0 {
		return nil
	}
	if x.o.MaxSize > 0 && part.total > x.o.MaxSize {
		return permanent("it has %d bytes, at most %d are allowed (--max-size)", part.total, x.o.MaxSize)
	}
	var st unix.Statfs_t
	if unix.Fstatfs(int(part.Fd()), &st) != nil {
		return nil
	}
	if free := st.Bavail * uint64(st.Bsize); uint64(part.total-part.size) > free {
		return permanent("%d bytes are missing, the volume has room for %d: %w", part.total-part.size, free, unix.ENOSPC)
	}
	return nil
}

// chunk is large enough that a system call doesn't count.
const chunk = 256 << 10

// read appends the body.
func (x *fetch) read(body io.Reader, part *partial, progressed func()) error {
	buf := make([]byte, chunk)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			progressed()
			if x.o.MaxSize > 0 && part.size+int64(n) > x.o.MaxSize {
				return errors.Join(permanent("it has more than the %d bytes that are allowed (--max-size)", x.o.MaxSize), part.restart())
			}
			if _, err := part.Write(buf[:n]); err != nil {
				return err
			}
			x.state.advance(part.size)
		}
		if err == io.EOF && part.total >= 0 && part.size != part.total {
			err = io.ErrUnexpectedEOF
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil && part.total >= 0:
			return fmt.Errorf("after %d of %d bytes: %w", part.size, part.total, err)
		case err != nil:
			return fmt.Errorf("after %d bytes: %w", part.size, err)
		}
	}
}

// copyFile is a try with a file URL.
func (x *fetch) copyFile(ctx context.Context, name string, part *partial) error {
	f, info, err := openRegular(name)
	if err != nil {
		return permanentError{err}
	}
	defer f.Close()
	if err := part.restart(); err != nil {
		return err
	}
	part.total = info.Size()
	if err := x.begin(part, version{LastModified: info.ModTime(), Length: info.Size()}); err != nil {
		return err
	}
	return x.read(bound{ctx, f}, part, func() {})
}

// openRegular opens a file, and nothing that would keep us waiting, as a pipe
// does.
func openRegular(name string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// bound is a reader that ends with its context, as those of the network do:
// what is read from a disk may be hundreds of gigabytes.
type bound struct {
	ctx context.Context
	io.Reader
}

func (b bound) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	return b.Reader.Read(p)
}
