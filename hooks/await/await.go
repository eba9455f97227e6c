// SPDX-License-Identifier: Apache-2.0

// Package await waits until services are ready, each asked by its own protocol.
//
// [Parse] makes a [Service] of a URL, [Run] asks all of them in parallel, again
// and again, until they are ready, the time is over, or one says what cannot get
// better. The [Report] tells what came of each.
//
// "Ready" means that the service does its work, not that a port is open: a
// PostgreSQL that is still replaying its log, or a Redis that is loading its
// dump, accepts connections and is not ready.
//
// Passwords, and what else is secret in a URL, never appear in names, errors and
// log lines of this package.
package await

import (
	"context"
	"log/slog"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// A Check asks a service once and returns nil when it is ready, or why it is
// not. It returns soon after its context has ended, is called again after it
// has returned, and never concurrently. [Permanent] marks an error that no later
// try can mend, [Denied] one that needs other credentials.
type Check func(ctx context.Context) error

// A Service is something to wait for. [Parse] and [NewService] make them.
type Service struct {
	name   string
	check  Check
	redact *report.Redactor
}

// NewService returns a service with a check of the caller's own. What the check
// returns is shown to people as it is, except for passwords in URLs and the like.
func NewService(name string, check Check) Service {
	return Service{name: name, check: check}
}

// String is the service's name for people: its URL without user, password,
// query and settings of the check that may be secret.
func (s Service) String() string { return s.name }

// Options says how to wait. The zero value waits for all services, forever.
type Options struct {
	Timeout    time.Duration // for all together; 0 is none
	TryTimeout time.Duration // for one try; 0 is 3 s
	// MaxInterval bounds the pause between two tries; 0 is 5 s. Pauses are random,
	// up to a bound that grows by half with each try. Where nobody listens yet, so that
	// a try costs nobody anything, it stays at half a second.
	MaxInterval time.Duration

	Once      bool // one try for each service
	Any       bool // one ready service is enough
	Invert    bool // wait until they are not ready
	Stable    int  // so many good answers in a row, a second apart; 0 is 1
	RetryAuth bool // rejected credentials may become valid

	// Heartbeat is how often to log what is being waited for; 0 is never.
	Heartbeat time.Duration
	// Log is told of each service that is ready or hopeless, and gets the
	// heartbeat. Nil: nothing is logged.
	Log *slog.Logger
	// Event is told of each try, in order and never concurrently. It must be
	// quick. May be nil.
	Event func(Event)
}

// An Event is the end of a try.
type Event struct {
	Index  int           // of the service, in what Run was given
	Result Result        // so far
	Pause  time.Duration // until the next try; 0 when there is none
}

const (
	defaultTry      = 3 * time.Second
	defaultInterval = 5 * time.Second
	firstInterval   = 100 * time.Millisecond
	// nobodyInterval bounds the pauses while connections are refused: a try is
	// then one packet, answered by a kernel.
	nobodyInterval = 500 * time.Millisecond
	// nobodyRate is how many of those tries a second are fine: with more services
	// the bound grows.
	nobodyRate     = 100
	stableInterval = time.Second
	// triesAtOnce keeps us below the smallest usual limit of open files.
	triesAtOnce = 256
)

func (o Options) withDefaults(services int) Options {
	if o.TryTimeout <= 0 {
		o.TryTimeout = defaultTry
	}
	if o.MaxInterval <= 0 {
		o.MaxInterval = defaultInterval
	}
	o.Stable = max(1, o.Stable)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}
