// SPDX-License-Identifier: Apache-2.0

package await

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Permanent marks an error of a check that waiting does not mend: Run then ends
// at once. Nil stays nil.
func Permanent(err error) error { return mark(err, permanent) }

// Denied marks an error of a check as rejected credentials: permanent unless
// Options.RetryAuth is set. Nil stays nil.
func Denied(err error) error { return mark(err, denied) }

func mark(err error, k kind) error {
	if err == nil {
		return nil
	}
	return &markedError{err, k}
}

type markedError struct {
	err  error
	kind kind
}

func (e *markedError) Error() string { return e.err.Error() }
func (e *markedError) Unwrap() error { return e.err }

// Garbled is deferred around a client that believes that what answers is as
// long as it should be: its panic becomes the error.
func Garbled(protocol string, err *error) {
	switch broken := recover().(type) {
	case nil:
	case runtime.Error:
		*err = fmt.Errorf("not the answer of a %s server: %w", protocol, broken)
	default:
		panic(broken)
	}
}

// A kind of error decides what comes next. They are in the order in which they
// come while a service starts: a later kind is progress.
type kind int

const (
	unnamed   kind = iota // its name does not resolve
	silent                // no answer in time
	nobody                // nothing listens there, no such file
	answered              // something answers, but it is not ready
	denied                // and rejects the credentials
	permanent             // and never will be
)

func kindOf(err error) kind {
	var marked *markedError
	var dns *net.DNSError
	var op interface{ Timeout() bool }
	switch {
	case errors.As(err, &marked):
		return marked.kind
	case errors.As(err, &dns):
		return unnamed
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return nobody
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &op) && op.Timeout():
		return silent
	}
	return answered
}

// explain returns one line that says why, without the layers that libraries put
// around the reason.
func explain(err error, limit time.Duration) string {
	var dns *net.DNSError
	var op *net.OpError
	var u *url.Error
	switch {
	case errors.As(err, &dns):
		text := dns.Err
		if dns.IsNotFound {
			text = "no such host"
		}
		return fmt.Sprintf("lookup %s: %s", dns.Name, text)
	case kindOf(err) == silent:
		return fmt.Sprintf("no answer within %v", limit)
	case errors.As(err, &u):
		err = u.Err // the rest is the URL
	case errors.As(err, &op) && op.Op == "dial":
		err = op
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
