// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// How a database that is not up yet is waited for: exponential backoff with full
// jitter, so that many replicas don't come at once.
const (
	tryTime    = 5 * time.Second
	firstPause = 200 * time.Millisecond
	mostPause  = 5 * time.Second
)

// OpenWait is [Open] that tries again for at most wait while the database
// cannot be reached. What cannot get better is returned at once.
func OpenWait(ctx context.Context, o Options, wait time.Duration) (*Migrator, error) {
	if o.Log == nil {
		o.Log = discard()
	}
	began := time.Now()
	var said time.Time
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		left := wait - time.Since(began)
		try, cancel := context.WithTimeout(ctx, max(time.Millisecond, min(left, tryTime)))
		m, err := Open(try, o)
		cancel()
		var connect *ConnectError
		switch {
		case err == nil:
			return m, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case !errors.As(err, &connect) || connect.Permanent:
			return nil, err
		}
		if time.Since(said) >= tryTime {
			said = time.Now()
			o.Log.Info("waiting for the database", "reason", err, "seconds", seconds(time.Since(began)))
		}
		next := rand.N(pause)
		if time.Since(began)+next >= wait {
			return nil, fmt.Errorf("the database was not up within %s: %w (%w)", wait, context.DeadlineExceeded, err)
		}
		if err := sleep(ctx, next); err != nil {
			return nil, err
		}
	}
}
