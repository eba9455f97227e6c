// SPDX-License-Identifier: Apache-2.0

package download

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

// mostSums is how long a file with checksums may be.
const mostSums = 4 << 20

// findSum looks the sum up in the file with sums, if there is one.
func (x *fetch) findSum(ctx context.Context) error {
	if x.Checksums == "" || x.Sum.Hex != "" {
		return nil
	}
	sums, err := x.readSums(ctx)
	if err != nil {
		return fmt.Errorf("checksums %s: %w", shownURL(x.Checksums), err)
	}
	u, err := url.Parse(x.URL)
	if err != nil {
		return withoutURL(err)
	}
	if x.Sum, err = findSum(bytes.NewReader(sums), path.Base(u.Path)); err != nil {
		return fmt.Errorf("checksums %s: %w", shownURL(x.Checksums), err)
	}
	return nil
}

// readSums reads the file with sums. Its server gets as many tries as that of
// the artifact.
func (x *fetch) readSums(ctx context.Context) ([]byte, error) {
	u, err := url.Parse(x.Checksums)
	switch {
	case err != nil || u.Scheme == "":
		return readSumsFile(x.Checksums)
	case u.Scheme == "file":
		return readSumsFile(u.Path)
	}
	for failed := 1; ; failed++ {
		sums, err := x.getSums(ctx, u)
		if err == nil {
			return sums, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var never permanentError
		if errors.As(err, &never) || failed == x.o.Tries {
			return nil, err
		}
		pause := max(pauseAfter(failed), retryAfter(err))
		x.o.Log.Warn("once more", "checksums", shownURL(x.Checksums), "in", pause.Round(time.Millisecond), "err", err)
		if err := hooks.Pause(ctx, pause); err != nil {
			return nil, err
		}
	}
}

func readSumsFile(name string) ([]byte, error) {
	f, _, err := openRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAllSums(f)
}

func (x *fetch) getSums(ctx context.Context, u *url.URL) ([]byte, error) {
	ctx, progressed, done := x.unlessStalled(ctx)
	defer done()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, permanentError{withoutURL(err)}
	}
	if own, err := url.Parse(x.URL); err == nil && x.Header != nil && hooks.SameOrigin(own, u) {
		req.Header = x.Header.Clone()
	}
	resp, err := x.client.Do(req)
	if err != nil {
		return nil, cutShort(ctx, withoutURL(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(resp)
	}
	sums, err := readAllSums(watched{resp.Body, progressed})
	return sums, cutShort(ctx, err)
}

func readAllSums(r io.Reader) ([]byte, error) {
	sums, err := io.ReadAll(io.LimitReader(r, mostSums+1))
	if err == nil && len(sums) > mostSums {
		err = permanent("it has more than %d MiB", mostSums>>20)
	}
	return sums, err
}

// watched is a reader that tells of each byte.
type watched struct {
	io.Reader
	progressed func()
}

func (w watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 {
		w.progressed()
	}
	return n, err
}
