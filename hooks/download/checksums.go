// SPDX-License-Identifier: Apache-2.0

package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

// mostSums is how much of a file with checksums is read.
const mostSums = 4 << 20

// findSum looks the sum up in the file with sums, if there is one.
func (x *fetch) findSum(ctx context.Context) error {
	if x.Checksums == "" || x.Sum.Hex != "" {
		return nil
	}
	r, err := x.openSums(ctx)
	if err != nil {
		return fmt.Errorf("checksums %s: %w", shownURL(x.Checksums), withoutURL(err))
	}
	defer r.Close()
	u, err := url.Parse(x.URL)
	if err != nil {
		return withoutURL(err)
	}
	if x.Sum, err = findSum(io.LimitReader(r, mostSums), path.Base(u.Path)); err != nil {
		return fmt.Errorf("checksums %s: %w", shownURL(x.Checksums), err)
	}
	return nil
}

func (x *fetch) openSums(ctx context.Context) (io.ReadCloser, error) {
	u, err := url.Parse(x.Checksums)
	switch {
	case err != nil || u.Scheme == "":
		return os.Open(x.Checksums)
	case u.Scheme == "file":
		return os.Open(u.Path)
	}
	for failed := 1; ; failed++ {
		r, err := x.getSums(ctx, u)
		var never permanentError
		if err == nil || errors.As(err, &never) || failed == x.o.Tries {
			return r, err
		}
		if err := hooks.Pause(ctx, max(pauseAfter(failed), retryAfter(err))); err != nil {
			return nil, err
		}
	}
}

func (x *fetch) getSums(ctx context.Context, u *url.URL) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, permanentError{err}
	}
	if own, err := url.Parse(x.URL); err == nil && x.Header != nil && sameOrigin(own, u) {
		req.Header = x.Header.Clone()
	}
	resp, err := x.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, statusError(resp)
	}
	return resp.Body, nil
}
