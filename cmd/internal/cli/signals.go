// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Signal is the cause with which a tool's context ends when one came.
type Signal struct{ syscall.Signal }

func (s Signal) Error() string { return "stopped by " + unix.SignalName(s.Signal) }

// untilSignal returns a context that ends with the first stop signal, and the
// function that gives the signals back; it returns the one that came, or 0.
// What is ignored stays so: nohup means it.
func untilSignal(parent context.Context) (context.Context, func() syscall.Signal) {
	ctx, cancel := context.WithCancelCause(parent)
	came := make(chan os.Signal, 2)
	for _, sig := range []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT} {
		if !signal.Ignored(sig) {
			signal.Notify(came, sig)
		}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	var first syscall.Signal
	go func() {
		defer close(ended)
		for {
			select {
			case sig := <-came:
				number := sig.(syscall.Signal)
				if first != 0 {
					os.Exit(128 + int(number))
				}
				first = number
				cancel(Signal{number})
			case <-done:
				return
			}
		}
	}()
	return ctx, func() syscall.Signal {
		close(done)
		<-ended
		signal.Stop(came)
		cancel(nil)
		return first
	}
}
