// SPDX-License-Identifier: Apache-2.0

package hooks

import "time"

// A Clock counts the time of one try. What it counts is the caller's affair.
type Clock interface {
	// Expired is closed when the time is over.
	Expired() <-chan struct{}
	// Stop stops the clock, and says how the time was spent in words that can
	// follow "timed out after". It is called once.
	Stop() string
}

func (r *Runner) clock(timeout time.Duration) Clock {
	if r.Clock != nil {
		return r.Clock(timeout)
	}
	w := wallClock{timeout: timeout, expired: make(chan struct{})}
	w.timer = time.AfterFunc(timeout, func() { close(w.expired) })
	return w
}

// wallClock counts plain time.
type wallClock struct {
	timeout time.Duration
	timer   *time.Timer
	expired chan struct{}
}

func (w wallClock) Expired() <-chan struct{} { return w.expired }

func (w wallClock) Stop() string {
	w.timer.Stop()
	return w.timeout.String()
}
