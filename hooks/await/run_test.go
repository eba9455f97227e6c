// SPDX-License-Identifier: Apache-2.0

package await

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

var (
	errBusy    = errors.New("busy")
	errRefused = fmt.Errorf("dial: %w", os.NewSyscallError("connect", syscall.ECONNREFUSED))
)

// after is a check that is good from d on.
func after(d time.Duration, err error) Check {
	start := time.Now()
	return func(context.Context) error {
		if time.Since(start) < d {
			return err
		}
		return nil
	}
}

// always is a check that fails in always the same way.
func always(err error) Check { return func(context.Context) error { return err } }

// hangs is a check that never gets an answer.
func hangs(ctx context.Context) error {
	<-ctx.Done()
	return fmt.Errorf("read: %w", os.ErrDeadlineExceeded)
}

func TestRunWaitsForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rep := Run(t.Context(), []Service{
			NewService("early", always(nil)),
			NewService("late", after(10*time.Second, errBusy)),
			NewService("refused", after(time.Minute, errRefused)),
		}, Options{})
		require.NoError(t, rep.Err())
		assert.True(t, rep.Ready)
		assert.Equal(t, []State{Ready, Ready, Ready}, []State{rep.Services[0].State, rep.Services[1].State, rep.Services[2].State})
		assert.Equal(t, 1, rep.Services[0].Attempts)
		assert.Less(t, rep.Services[1].After, 15*time.Second, "pauses end at 5 s")
		assert.Less(t, rep.Services[1].Attempts, 30, "pauses grow")
		assert.Less(t, rep.Services[2].After, time.Minute+nobodyInterval, "a port that opens is seen soon")
		assert.Equal(t, "busy", rep.Services[1].LastError)
	})
}

func TestRunTimesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rep := Run(t.Context(), []Service{
			NewService("good", always(nil)), NewService("busy", always(errBusy)), NewService("hole", hangs),
		}, Options{Timeout: time.Minute})
		err := rep.Err()
		require.ErrorIs(t, err, ErrNotReady)
		assert.Equal(t, time.Minute, rep.Elapsed)
		assert.ErrorContains(t, err, "2 of 3 services not ready after 1m0s: busy (busy, ")
		assert.ErrorContains(t, err, "hole (no answer within 3s, ")
		assert.Greater(t, rep.Services[2].Attempts, 5, "a try that gets no answer does not eat the whole time")
	})
}

// A try that the timeout cuts short says less than the one before.
func TestRunTimesOutDuringATry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		then := func(ctx context.Context) error {
			if tries++; tries == 1 {
				return errBusy
			}
			return hangs(ctx)
		}
		rep := Run(t.Context(), []Service{NewService("hole", hangs), NewService("busy", then)}, Options{Timeout: 2 * time.Second})
		require.ErrorIs(t, rep.Err(), ErrNotReady)
		assert.Equal(t, []Result{
			{Service: "hole", State: NotReady, Attempts: 1, After: 2 * time.Second, LastError: "no answer within 2s"},
			{Service: "busy", State: NotReady, Attempts: 1, LastError: "busy"},
		}, rep.Services)
	})
}

func TestRunEndsAtOnce(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		check   Check
		options Options
		want    error
	}{
		{"permanent", always(Permanent(errBusy)), Options{}, ErrPermanent},
		{"denied", always(Denied(errBusy)), Options{}, ErrPermanent},
		{"denied, retried", always(Denied(errBusy)), Options{RetryAuth: true, Timeout: time.Minute}, ErrNotReady},
		{"permanent, retried", always(Permanent(errBusy)), Options{RetryAuth: true}, ErrPermanent},
		{"a mistake is no way to be gone", always(Permanent(errBusy)), Options{Invert: true}, ErrPermanent},
		{"once", always(errBusy), Options{Once: true}, ErrNotReady},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				rep := Run(t.Context(), []Service{NewService("late", after(time.Hour, errBusy)), NewService("it", tt.check)}, tt.options)
				require.ErrorIs(t, rep.Err(), tt.want)
				assert.Equal(t, tt.options.Timeout, rep.Elapsed.Truncate(time.Minute), "%v", rep)
			})
		})
	}
}

// Who asks once wants to know of all, whatever becomes of one.
func TestOnceAsksAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context) error {
			_ = hooks.Pause(ctx, time.Second)
			return nil
		}
		rep := Run(t.Context(), []Service{NewService("denied", always(Denied(errBusy))), NewService("slow", slow)}, Options{Once: true})
		require.ErrorIs(t, rep.Err(), ErrPermanent)
		assert.Equal(t, Failed, rep.Services[0].State)
		assert.Equal(t, Ready, rep.Services[1].State)
	})
}

func TestRunAny(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rep := Run(t.Context(), []Service{
			NewService("denied", always(Denied(errBusy))), NewService("late", after(10*time.Second, errBusy)), NewService("hole", hangs),
		}, Options{Any: true})
		require.NoError(t, rep.Err())
		assert.Equal(t, []State{Failed, Ready, NotReady}, []State{rep.Services[0].State, rep.Services[1].State, rep.Services[2].State})
	})
	synctest.Test(t, func(t *testing.T) {
		rep := Run(t.Context(), []Service{NewService("denied", always(Denied(errBusy))), NewService("mistake", always(Permanent(errBusy)))}, Options{Any: true})
		require.ErrorIs(t, rep.Err(), ErrPermanent, "nothing is left that could become ready")
	})
}

func TestRunInvert(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		leaves := func(context.Context) error {
			if time.Since(start) < 10*time.Second {
				return nil
			}
			return errRefused
		}
		rep := Run(t.Context(), []Service{NewService("leaves", leaves)}, Options{Invert: true})
		require.NoError(t, rep.Err())
		assert.GreaterOrEqual(t, rep.Elapsed, 10*time.Second)
		rep = Run(t.Context(), []Service{NewService("stays", always(nil))}, Options{Invert: true, Timeout: time.Minute})
		require.ErrorIs(t, rep.Err(), ErrNotReady)
		assert.ErrorContains(t, rep.Err(), "1 of 1 services still ready after 1m0s: stays")
	})
}

func TestRunStable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		flaps := func(context.Context) error {
			if tries++; tries == 3 {
				return errBusy
			}
			return nil
		}
		rep := Run(t.Context(), []Service{NewService("flaps", flaps)}, Options{Stable: 3})
		require.NoError(t, rep.Err())
		assert.Equal(t, 6, rep.Services[0].Attempts, "two good ones, one bad, three good")
		assert.Greater(t, rep.Elapsed, 4*time.Second, "a second between good ones")
	})
}

func TestRunStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		errTerm := errors.New("stopped by SIGTERM")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errTerm) })
		rep := Run(ctx, []Service{NewService("hole", hangs), NewService("busy", always(errBusy))}, Options{})
		require.ErrorIs(t, rep.Err(), errTerm)
		assert.Equal(t, time.Second, rep.Elapsed)
		assert.ErrorContains(t, rep.Err(), "busy (busy, ")
	})
}

func TestRunLogs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		Run(t.Context(), []Service{NewService("hole", hangs), NewService("good", always(nil))},
			Options{Timeout: 35 * time.Second, Heartbeat: 10 * time.Second, Log: slog.New(slog.NewTextHandler(&log, nil))})
		assert.Equal(t, 3, strings.Count(log.String(), "still waiting"), "%s", &log)
		assert.Contains(t, log.String(), `waiting=1 of=2`)
		assert.Contains(t, log.String(), `msg="service is ready" service=good`)
	})
}

// Many more services than tries at the same time.
func TestRunThousand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var services []Service
		for i := range 1000 {
			services = append(services, NewService(fmt.Sprint(i), after(time.Minute, errRefused)))
		}
		rep := Run(t.Context(), services, Options{})
		require.NoError(t, rep.Err())
		tries := 0
		for _, s := range rep.Services {
			tries += s.Attempts
		}
		assert.Less(t, tries, 60*1000, "less than one a second for each")
	})
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	b := newBackoff(5*time.Second, 1, func() float64 { return 1 })
	var bounds []time.Duration
	for _, k := range []kind{nobody, nobody, nobody, nobody, nobody, nobody, answered, answered, nobody, answered} {
		bounds = append(bounds, b.after(k).Round(time.Millisecond))
	}
	const ms = time.Millisecond
	assert.Equal(t, []time.Duration{
		100 * ms, 150 * ms, 225 * ms, 338 * ms, 500 * ms, 500 * ms, // nobody there
		100 * ms, 150 * ms, // somebody: soon ready
		225 * ms, 338 * ms, // gone again, and that is no progress
	}, bounds)
	for range 20 {
		bounds = append(bounds, b.after(answered))
	}
	assert.Equal(t, 5*time.Second, bounds[len(bounds)-1])
	b = newBackoff(5*time.Second, 1, func() float64 { return 0 })
	assert.Positive(t, b.after(nobody))
}

func TestExplain(t *testing.T) {
	t.Parallel()
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: errRefused}
	tests := []struct {
		err  error
		want string
	}{
		{fmt.Errorf("unable to connect to `user=x`:\n\t%w", dial), "dial tcp: dial: connect: connection refused"},
		{fmt.Errorf("x: %w", &net.DNSError{Err: "server misbehaving", Name: "db"}), "lookup db: server misbehaving"},
		{&net.DNSError{Err: "no such host", Name: "db", IsNotFound: true, Server: "1.2.3.4"}, "lookup db: no such host"},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), "no answer within 3s"},
		{errors.New("two\n\tlines"), "two lines"},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, explain(tt.err, 3*time.Second))
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	rep := Report{Elapsed: 2500 * time.Millisecond, Services: []Result{
		{Service: "tcp://db:5432", State: Ready, Attempts: 2, After: 150 * time.Millisecond, LastError: "connection refused"},
		{Service: "redis://cache:6379", State: NotReady},
	}}
	var table bytes.Buffer
	require.NoError(t, rep.WriteTable(&table))
	assert.Equal(t, "SERVICE             STATE      ATTEMPTS  AFTER  LAST ERROR\n"+
		"tcp://db:5432       ready      2         150ms  connection refused\n"+
		"redis://cache:6379  not ready  0         0s     -\n", table.String())
	text, err := json.Marshal(rep)
	require.NoError(t, err)
	assert.JSONEq(t, `{"ready":false,"seconds":2.5,"services":[
		{"service":"tcp://db:5432","state":"ready","attempts":2,"seconds":0.15,"lastError":"connection refused"},
		{"service":"redis://cache:6379","state":"not ready","attempts":0,"seconds":0}]}`, string(text))
	assert.ErrorContains(t, rep.Err(), "1 of 2 services not ready after 2.5s: redis://cache:6379 (no answer yet, 0 attempts)")
}

func TestProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var screen syncBuffer
		services := []Service{NewService("late", after(3*time.Second, errors.New("bell \a"))), NewService("good", always(nil))}
		p := NewProgress(&screen, func() (int, int) { return 60, 10 }, services)
		Run(t.Context(), services, Options{Event: p.Event})
		time.Sleep(redrawEvery)
		p.Close()
		text := screen.String()
		assert.Contains(t, text, "- late  ")
		assert.Contains(t, text, ": bell  \x1b[K\n", "what a server says does not ring")
		assert.Contains(t, text, "+ good  ready after 0s\x1b[K\n")
		assert.Contains(t, text, "+ late  ready after ")
		assert.True(t, strings.HasSuffix(text, "\x1b[2A\x1b[J"), "nothing of it stays: %q", text[len(text)-40:])
	})
}

func TestProgressOfManyServices(t *testing.T) {
	t.Parallel()
	p := &Progress{size: func() (int, int) { return 40, 5 }}
	for i := range 9 {
		p.results = append(p.results, Result{Service: fmt.Sprintf("service-with-a-long-name-%d", i), State: NotReady})
	}
	p.results[0].State = Ready
	lines := p.lines()
	require.Len(t, lines, 4, "one less than the terminal has: %q", lines)
	assert.Equal(t, "  1 of 9 ready, 5 more not shown", lines[3])
	for _, l := range lines {
		assert.Less(t, len([]rune(l)), 40)
		assert.NotContains(t, l, "name-0")
	}
}
