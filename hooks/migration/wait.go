// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/hooks/await"
)

// tryTime bounds one try to connect while the database comes up.
const tryTime = 5 * time.Second

// OpenWait is [Open] that tries again for at most wait while the database
// cannot be reached. What cannot get better is returned at once.
func OpenWait(ctx context.Context, o Options, wait time.Duration) (*Migrator, error) {
	var m *Migrator
	var last error
	service := await.NewService("the database", func(ctx context.Context) error {
		var connect *ConnectError
		if m, last = Open(ctx, o); last != nil && (!errors.As(last, &connect) || connect.Permanent) {
			return await.Permanent(last)
		}
		return last
	})
	err := await.Run(ctx, []await.Service{service}, await.Options{
		Timeout: wait, TryTimeout: tryTime, Heartbeat: cmp.Or(o.Heartbeat, defaultHeartbeat), Log: o.Log,
	}).Err()
	switch {
	case err == nil:
		return m, nil
	case m != nil: // too late
		m.Close()
	}
	switch {
	case errors.Is(err, await.ErrPermanent):
		return nil, last
	case errors.Is(err, await.ErrNotReady):
		return nil, fmt.Errorf("the database was not up within %s (%w): %w", wait, context.DeadlineExceeded, last)
	}
	return nil, err
}
