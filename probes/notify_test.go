// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

func TestParseNotification(t *testing.T) {
	t.Parallel()
	tests := []struct {
		said string
		want notification
	}{
		{"READY=1", notification{ready: true}},
		{"READY=1\n", notification{ready: true}},
		{"READY=1\x00", notification{ready: true}},
		{"READY=0", notification{}},
		{"READY", notification{}},
		{"ready=1", notification{}},
		{"STATUS=a=b \xff\nREADY=1\nX_OTHER=1\n\n=\n", notification{ready: true, hasStatus: true, status: "a=b \xff"}},
		{"STATUS=", notification{hasStatus: true}},
		{"RELOADING=1\nMONOTONIC_USEC=123", notification{reloading: true}},
		{"STOPPING=1\nERRNO=2", notification{stopping: true, errno: 2}},
		{"ERRNO=-2", notification{}},
		{"WATCHDOG=1", notification{fed: true}},
		{"WATCHDOG=trigger", notification{trigger: true}},
		{"WATCHDOG_USEC=5000000", notification{hasInterval: true, interval: 5 * time.Second}},
		{"WATCHDOG_USEC=18446744073709551615", notification{hasInterval: true}},
		{"WATCHDOG_USEC=99999999999999999999", notification{}},
		{"WATCHDOG_USEC=-1", notification{}},
		{"EXTEND_TIMEOUT_USEC=1000", notification{extend: time.Millisecond}},
		{"MAINPID=17\nMAINPID=x", notification{mainPID: 17}},
		{"FDSTORE=1\nFDNAME=x", notification{store: true}},
		{"BARRIER=1", notification{}},
	}
	for _, tt := range tests {
		got, ok := parseNotification([]byte(tt.said))
		assert.True(t, ok, tt.said)
		assert.Equal(t, tt.want, got, tt.said)
	}
	for _, bad := range []string{"", "\x00", "READY=1\x00\x00", "READY=1\x00STATUS=x", strings.Repeat("x", 4097)} {
		_, ok := parseNotification([]byte(bad))
		assert.False(t, ok, "%.20q", bad)
	}
}

func FuzzParseNotification(f *testing.F) {
	for _, seed := range []string{
		"READY=1\nSTATUS=up", "STOPPING=1", "WATCHDOG=trigger\nWATCHDOG_USEC=1", "EXTEND_TIMEOUT_USEC=18446744073709551615",
		"MAINPID=1\nFDSTORE=1\nERRNO=9", "STATUS=\xff\x1b[31m\u202e", "\x00", "=\n=", "BARRIER=1",
	} {
		f.Add([]byte(seed), []byte("WATCHDOG=1"))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		s := NewService(time.Hour, func(report.Notify) {}, func(s string) string { return s }, func(string) {})
		defer s.Stop()
		for _, datagram := range [][]byte{a, b} {
			n, ok := parseNotification(datagram)
			if !ok {
				continue
			}
			s.apply(n)
			state := s.State()
			if len(state.Status) > maxStatus || !utf8.ValidString(state.Status) || strings.ContainsAny(state.Status, "\n\x1b\x00") {
				t.Fatalf("status %q", state.Status)
			}
			if state.WatchdogSeconds < 0 || state.WatchdogSeconds > 3600 {
				t.Fatalf("watchdog %v", state.WatchdogSeconds)
			}
		}
	})
}

// told collects what a Service tells.
type told struct {
	*Service
	changes []report.Notify
	refused []string
}

func newTold(watchdog time.Duration) *told {
	s := &told{}
	s.Service = NewService(watchdog, func(n report.Notify) { s.changes = append(s.changes, n) },
		func(text string) string { return strings.ReplaceAll(text, "secret", "***") },
		func(what string) { s.refused = append(s.refused, what) })
	return s
}

func (s *told) say(text string) {
	n, ok := parseNotification([]byte(text))
	if ok {
		s.apply(n)
	}
}

func TestService(t *testing.T) {
	t.Parallel()
	s := newTold(0)
	s.say("STATUS=loading 1 of 3")
	assert.Equal(t, report.Notify{Status: "loading 1 of 3"}, s.State())
	s.say("READY=1\nSTATUS=\x1b[31mup\x1b[0m, the secret\tis \u202e known\xff")
	assert.Equal(t, report.Notify{Ready: true, Status: "up, the *** is   known\ufffd"}, s.State())
	s.say("RELOADING=1\nSTATUS=" + strings.Repeat("\u00e9", 200))
	assert.True(t, s.State().Ready, "a reload changes nothing")
	assert.True(t, s.State().Reloading)
	assert.Len(t, s.State().Status, 256)
	s.say("READY=1\nSTATUS=")
	assert.Equal(t, report.Notify{Ready: true}, s.State())
	s.say("READY=1")
	s.say("WATCHDOG=1")
	assert.Len(t, s.changes, 4, "what changes nothing is not told: %v", s.changes)
	s.say("MAINPID=7\nFDSTORE=1")
	s.say("MAINPID=8")
	assert.Len(t, s.refused, 2, "each once: %v", s.refused)
	s.say("STOPPING=1\nERRNO=5")
	assert.Equal(t, report.Notify{Ready: true, Stopping: true, Errno: 5}, s.State())
}

func TestServiceWatchdog(t *testing.T) {
	t.Parallel()
	type step struct {
		after time.Duration
		say   string
		want  report.WatchdogState
	}
	const waiting, fed, missed = report.WatchdogWaiting, report.WatchdogFed, report.WatchdogMissed
	s := time.Second
	tests := []struct {
		name     string
		interval time.Duration
		steps    []step
	}{
		{"none", 0, []step{{0, "READY=1", ""}, {time.Hour, "WATCHDOG=1", ""}, {time.Hour, "", ""}}},
		{"armed by READY", 10 * s, []step{{0, "", waiting}, {time.Hour, "STATUS=x", waiting}, {0, "READY=1", fed}, {9 * s, "", fed}, {2 * s, "", missed}}},
		{"READY again is no food", 10 * s, []step{{0, "READY=1", fed}, {9 * s, "READY=1", fed}, {2 * s, "", missed}}},
		{"fed", 10 * s, []step{{0, "READY=1", fed}, {9 * s, "WATCHDOG=1", fed}, {9 * s, "WATCHDOG=1", fed}, {9 * s, "", fed}, {2 * s, "", missed}}},
		{"armed by the first food", 10 * s, []step{{time.Hour, "WATCHDOG=1", fed}, {11 * s, "", missed}}},
		{"fed again", 10 * s, []step{{0, "READY=1", fed}, {11 * s, "", missed}, {0, "WATCHDOG=1", fed}, {11 * s, "", missed}}},
		{"given up", 10 * s, []step{{0, "READY=1", fed}, {0, "WATCHDOG=trigger", missed}, {0, "WATCHDOG=1", missed}}},
		{"given up without one", 0, []step{{0, "WATCHDOG=trigger", missed}, {0, "READY=1", missed}}},
		{"another interval", 10 * s, []step{{0, "READY=1", fed}, {0, "WATCHDOG_USEC=60000000", fed}, {59 * s, "", fed}, {2 * s, "", missed}}},
		{"an interval of its own", 0, []step{{0, "READY=1", ""}, {0, "WATCHDOG_USEC=2000000\nWATCHDOG=1", fed}, {3 * s, "", missed}}},
		{"one that is too short", 10 * s, []step{{0, "READY=1\nWATCHDOG_USEC=1", fed}, {900 * time.Millisecond, "", fed}, {s, "", missed}}},
		{"switched off", 10 * s, []step{{0, "READY=1", fed}, {0, "WATCHDOG_USEC=0", ""}, {time.Hour, "", ""}}},
		{"for ever is off", 10 * s, []step{{0, "READY=1", fed}, {0, "WATCHDOG_USEC=18446744073709551615", ""}, {time.Hour, "", ""}}},
		{"extended", 10 * s, []step{{0, "READY=1", fed}, {s, "EXTEND_TIMEOUT_USEC=60000000", fed}, {59 * s, "", fed}, {2 * s, "", missed}}},
		{"extended by less", 10 * s, []step{{0, "READY=1", fed}, {s, "EXTEND_TIMEOUT_USEC=1000000", fed}, {8 * s, "", fed}, {2 * s, "", missed}}},
		{"stopping", 10 * s, []step{{0, "READY=1", fed}, {0, "STOPPING=1", fed}, {time.Hour, "", fed}, {0, "WATCHDOG=trigger", fed}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				service := newTold(tt.interval)
				for i, step := range tt.steps {
					time.Sleep(step.after)
					synctest.Wait()
					service.say(step.say)
					assert.Equal(t, step.want, service.State().Watchdog, "step %d", i)
				}
				service.Stop()
				last := service.State()
				service.say("WATCHDOG=trigger")
				assert.Equal(t, last, service.State(), "after the end there is no watchdog")
			})
		})
	}
}

// notifyListener serves a notify socket that lets this process in, and collects.
type notifyListener struct {
	*NotifySocket
	mu      sync.Mutex
	states  []report.Notify
	refused []string
}

func listenNotify(t *testing.T, accept func(unix.Ucred) bool) *notifyListener {
	socket, err := ListenNotify(slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	l := &notifyListener{NotifySocket: socket}
	service := NewService(0, func(n report.Notify) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.states = append(l.states, n)
	}, func(s string) string { return s }, func(what string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.refused = append(l.refused, what)
	})
	done := make(chan struct{})
	go func() { defer close(done); l.Serve(accept, service) }()
	t.Cleanup(func() { l.Close(); l.Close(); <-done })
	return l
}

func (l *notifyListener) last() report.Notify {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.states) == 0 {
		return report.Notify{}
	}
	return l.states[len(l.states)-1]
}

func self(c unix.Ucred) bool { return int(c.Pid) == os.Getpid() && int(c.Uid) == os.Getuid() }

// TestNotifySocketWithGoSystemd is a client that many Go programs have.
func TestNotifySocketWithGoSystemd(t *testing.T) {
	l := listenNotify(t, self)
	t.Setenv("NOTIFY_SOCKET", l.Name())
	sent, err := daemon.SdNotify(false, "STATUS=up\n"+daemon.SdNotifyReady)
	require.NoError(t, err)
	assert.True(t, sent)
	closed(t, send(t, l, "BARRIER=1", 1), "a barrier")
	assert.Equal(t, report.Notify{Ready: true, Status: "up"}, l.last(), "when the barrier is answered, all before it is known")

	t.Setenv("WATCHDOG_USEC", "30000000")
	interval, err := daemon.SdWatchdogEnabled(false)
	require.NoError(t, err)
	assert.Equal(t, 30*time.Second, interval, "no WATCHDOG_PID is needed")
}

// TestNotifyMainPID: that it is itself is nothing new of a command.
func TestNotifyMainPID(t *testing.T) {
	t.Parallel()
	l := listenNotify(t, self)
	for text, refused := range map[string]int{fmt.Sprintf("READY=1\nMAINPID=%d", os.Getpid()): 0, "MAINPID=1": 1} {
		closed(t, send(t, l, text, 1), text)
		l.mu.Lock()
		assert.Len(t, l.refused, refused, text)
		l.refused = nil
		l.mu.Unlock()
	}
}

// send sends a datagram with the read ends of pipes, and returns the write
// ends: writing fails once nobody has the other.
func send(t *testing.T, l *notifyListener, text string, pipes int) (ends []int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	var passed []int
	for range pipes {
		var p [2]int
		require.NoError(t, unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
		passed, ends = append(passed, p[0]), append(ends, p[1])
	}
	var rights []byte
	if pipes > 0 {
		rights = unix.UnixRights(passed...)
	}
	require.NoError(t, unix.Sendmsg(fd, []byte(text), rights, &unix.SockaddrUnix{Name: l.Name()}, 0))
	closeAll(passed)
	return ends
}

// closed waits until nobody has the other ends any more.
func closed(t *testing.T, ends []int, text string) {
	t.Helper()
	for _, end := range ends {
		assert.Eventually(t, func() bool {
			_, err := unix.Write(end, []byte("x"))
			return err == unix.EPIPE
		}, time.Minute, time.Millisecond, "%.20q: the descriptor is closed", text)
		unix.Close(end)
	}
}

// TestNotifyHostile: nothing that is sent ends the server, changes what it
// should not, or leaves a descriptor open.
func TestNotifyHostile(t *testing.T) {
	t.Parallel()
	l := listenNotify(t, self)
	send(t, l, "STATUS=before", 0)
	for _, tt := range []struct {
		text  string
		pipes int
	}{
		{"", 0},
		{"", 1},
		{"READY=1\x00STATUS=nul", 1},
		{"READY=1\nSTATUS=" + strings.Repeat("x", 4096), 2},
		{strings.Repeat("STATUS=long\n", 1000), 0},
		{"FDSTORE=1\nFDNAME=x", 3},
		{"BARRIER=1", 1},
		{"BARRIER=1", maxPassed},
		{"\xff\xfe\xfd", 1},
		{"=", 0},
	} {
		closed(t, send(t, l, tt.text, tt.pipes), tt.text)
	}
	assert.Equal(t, report.Notify{Status: "before"}, l.last())
	send(t, l, "READY=1", 0)
	assert.Eventually(t, func() bool { return l.last().Ready }, time.Minute, time.Millisecond, "it still listens")
}

func TestNotifyStrangers(t *testing.T) {
	t.Parallel()
	asked := make(chan unix.Ucred, 1)
	l := listenNotify(t, func(c unix.Ucred) bool { asked <- c; return false })
	closed(t, send(t, l, "READY=1", 1), "a stranger's")
	assert.True(t, self(<-asked), "the kernel says who has sent it")
	assert.False(t, l.last().Ready)
}

// TestNotifyFlood: a sender that does not stop waits, it does not take our
// processor.
func TestNotifyFlood(t *testing.T) {
	t.Parallel()
	l := listenNotify(t, self)
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: l.Name(), Net: "unixgram"})
	require.NoError(t, err)
	defer conn.Close()
	const total = 3 * burst
	begin := time.Now()
	for i := range total {
		_, err := fmt.Fprintf(conn, "STATUS=%d", i)
		require.NoError(t, err)
	}
	want := fmt.Sprint(total - 1)
	require.Eventually(t, func() bool { return l.last().Status == want }, time.Minute, time.Millisecond, "none is lost")
	assert.GreaterOrEqual(t, time.Since(begin), burstPeriod)
}
