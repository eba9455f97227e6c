// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"bytes"
	"math"
	"strconv"
	"time"
)

// maxNotification is the longest datagram that is taken, as in systemd.
const maxNotification = 4096

// notification is what one datagram of sd_notify(3) says.
type notification struct {
	ready, reloading, stopping bool
	fed, trigger               bool // WATCHDOG=
	store                      bool // FDSTORE=1

	hasStatus bool
	status    string
	errno     int

	hasInterval bool
	interval    time.Duration // WATCHDOG_USEC=; 0 is none
	extend      time.Duration // EXTEND_TIMEOUT_USEC=
	mainPID     int           // MAINPID=
}

// parseNotification reads a datagram: lines of KEY=value. What it does not
// know is left out, as the protocol wants it. ok is false where nothing of it
// can be trusted.
func parseNotification(b []byte) (n notification, ok bool) {
	b = bytes.TrimSuffix(b, []byte{0}) // some clients send the end of their string
	if len(b) == 0 || len(b) > maxNotification || bytes.IndexByte(b, 0) >= 0 {
		return n, false
	}
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		key, value, found := bytes.Cut(line, []byte("="))
		if !found {
			continue
		}
		n.set(string(key), string(value))
	}
	return n, true
}

func (n *notification) set(key, value string) {
	switch key {
	case "READY":
		n.ready = n.ready || value == "1"
	case "RELOADING":
		n.reloading = n.reloading || value == "1"
	case "STOPPING":
		n.stopping = n.stopping || value == "1"
	case "STATUS":
		n.hasStatus, n.status = true, value
	case "ERRNO":
		if number, err := strconv.Atoi(value); err == nil && number > 0 {
			n.errno = number
		}
	case "WATCHDOG":
		n.fed = n.fed || value == "1"
		n.trigger = n.trigger || value == "trigger"
	case "WATCHDOG_USEC":
		if d, ok := parseMicroseconds(value); ok {
			n.hasInterval, n.interval = true, d
		}
	case "EXTEND_TIMEOUT_USEC":
		if d, ok := parseMicroseconds(value); ok {
			n.extend = d
		}
	case "MAINPID":
		if pid, err := strconv.Atoi(value); err == nil && pid > 0 {
			n.mainPID = pid
		}
	case "FDSTORE":
		n.store = n.store || value == "1"
	}
}

// parseMicroseconds reads a time. What is too long for us is for ever, which
// is none.
func parseMicroseconds(text string) (time.Duration, bool) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, false
	}
	if n > uint64(math.MaxInt64/time.Microsecond) {
		return 0, true
	}
	return time.Duration(n) * time.Microsecond, true
}
