// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"context"
	"time"
)

const (
	defaultBackoff = time.Second
	longestBackoff = 30 * time.Second
)

// pauseAfter is the time to wait after so many failed tries (1 or more): base,
// doubled with each one up to 30 s (a longer base stays as it is), of which
// random, from 0 to 1, takes the upper half. So hooks that failed together do
// not come back together.
func pauseAfter(base time.Duration, failed int, random float64) time.Duration {
	limit := max(base, longestBackoff)
	pause := base
	for range failed - 1 {
		if pause >= limit || pause == 0 {
			break
		}
		pause *= 2
	}
	half := min(pause, limit) / 2
	return half + time.Duration(random*float64(half))
}

// Pause waits for d, or returns the cause when the context ends first.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
