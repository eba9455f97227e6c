// SPDX-License-Identifier: Apache-2.0

package report

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Cause is why a run failed.
type Cause string

// The causes.
const (
	Failed      Cause = "failed"  // it ended with a code, or by a signal that was not ours
	TimedOut    Cause = "timeout" // of the step, the hooks or the command
	OutOfMemory Cause = "oom"     // the kernel killed it at the memory limit
	PidsLimit   Cause = "pids"    // the pids limit was hit
	Stopped     Cause = "stopped" // a stop signal ended it
	Invalid     Cause = "invalid" // our own 125: a bad setting, a bad hook, an address in use
)

// HTTPStatus is the status of the startup and readiness probes after a failure.
// The kubelet's event shows nothing of an answer but its status, so that it has
// to carry the reason. That the command failed by itself is none: the container
// is about to end, which is 503 as for any other end.
func (f *Failure) HTTPStatus() int {
	switch f.Cause {
	case TimedOut:
		return 504
	case OutOfMemory, PidsLimit:
		return 507
	case Stopped:
		return 503
	case Failed:
		if f.Step == "" {
			return 503
		}
	}
	return 500
}

// Failure is why a run did not succeed.
type Failure struct {
	// Step is the step that failed. It is empty when that was the command, or,
	// with the cause [Invalid], cleanimg-init itself.
	Step   string `json:"step,omitempty"`
	Cause  Cause  `json:"cause"`
	Code   int    `json:"code"`             // the exit code
	Reason string `json:"reason,omitempty"` // what can follow a colon: limits, times, the remedy

	// Stderr is the end of what the step wrote to its standard error, starting
	// with a whole line; of the command nothing is kept. It is shown by Message
	// and nowhere else. Secrets are removed from it by whoever sets it: once a
	// line is cut to fit, a part of a secret would no longer be recognised.
	Stderr []byte `json:"-"`
}

// Summary is the failure in one line of words, without the reason, the output
// or a newline: `step "20-migrate" timed out (code 124)`. That of nil is
// empty.
func (f *Failure) Summary() string {
	if f == nil {
		return ""
	}
	code := " (code " + strconv.Itoa(f.Code) + ")"
	if f.Step == "" && f.Cause == Invalid {
		return "cleanimg-init" + code
	}
	subject := "command"
	if f.Step != "" {
		subject = "step " + Printable(f.Step)
	}
	switch f.Cause {
	case TimedOut:
		return subject + " timed out" + code
	case OutOfMemory:
		return subject + " ran out of memory" + code
	case PidsLimit:
		return subject + " hit the pids limit" + code
	case Stopped:
		return subject + " was stopped by a signal" + code
	case Invalid:
		return subject + " could not be run" + code
	default:
		return subject + " failed" + code
	}
}

// shortest is the least room in which the beginning of a line that does not
// fit still tells something.
const shortest = 24

const (
	tailHeader = "stderr:\n"
	ellipsis   = "…"
)

// Message is the text for the termination log: first the key facts, then as
// many of the last lines of stderr as fit whole; when not even the last one
// does, its beginning. It never has more than limit bytes, is valid UTF-8
// without control characters except newline and tab, and ends with a newline
// if that fits. The message of nil is empty.
func (f *Failure) Message(limit int) string {
	if f == nil || limit <= 0 {
		return ""
	}
	head := f.Summary()
	if reason := strings.TrimSpace(Clean(f.Reason)); reason != "" {
		head += ": " + reason
	}
	if len(head) >= limit {
		return cut(head, limit-1) + "\n"
	}
	head += "\n"
	return head + tail(Clean(string(f.Stderr)), limit-len(head))
}

// tail returns the last lines of text under a header, in at most room bytes,
// or nothing.
func tail(text string, room int) string {
	room -= len(tailHeader)
	text = strings.TrimLeft(strings.TrimRight(text, " \t\n"), "\n")
	if text == "" || room <= 0 {
		return ""
	}
	if len(text) < room {
		return tailHeader + text + "\n"
	}
	// The newline before the first whole line that fits: one byte of the room
	// is for the newline at the end.
	from := len(text) - room
	if i := strings.IndexByte(text[from:], '\n'); i >= 0 {
		return tailHeader + text[from+i+1:] + "\n"
	}
	if room < shortest {
		return ""
	}
	last := text[strings.LastIndexByte(text, '\n')+1:]
	return tailHeader + cut(last, room-1) + "\n"
}

// cut returns at most limit bytes of s, which end at a rune's boundary, and in
// an ellipsis where something is missing.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	dots := ellipsis
	if limit < shortest {
		dots = ""
	}
	limit -= len(dots)
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + dots
}

// Printable returns a step's name as it is, or quoted where that would spoil a
// line of text: a file's name may hold any byte but / and 0.
func Printable(name string) string {
	if q := strconv.Quote(name); q[1:len(q)-1] != name || strings.ContainsRune(name, ' ') {
		return q
	}
	return name
}

// Clean makes s printable: invalid UTF-8 becomes U+FFFD, colours and other
// control sequences of terminals go, and so does every control character but
// newline and tab.
func Clean(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		if n := escape(s[i:]); n > 0 {
			i += n
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == '\n' || r == '\t' || !unicode.IsControl(r) {
			b.WriteRune(r) // utf8.RuneError is U+FFFD
		}
		i += n
	}
	return b.String()
}

// escape returns the length of the control sequence (ECMA-48: ESC [,
// parameters, one final letter) that s begins with, or 0.
func escape(s string) int {
	if !strings.HasPrefix(s, "\x1b[") {
		return 0
	}
	for i := 2; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 0x40 && c <= 0x7e:
			return i + 1
		case c < 0x20 || c > 0x7e:
			return 0
		}
	}
	return 0
}
