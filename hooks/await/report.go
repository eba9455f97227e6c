// SPDX-License-Identifier: Apache-2.0

package await

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// State is what came of a service.
type State string

// The states of a service.
const (
	Ready    State = "ready"     // with Options.Invert: it is not ready, as wished
	NotReady State = "not ready" // not yet
	Failed   State = "failed"    // for good
)

// Result is what came of one service.
type Result struct {
	Service   string
	State     State
	Attempts  int           // tries that ended
	After     time.Duration // from the start to the end of the last of them
	LastError string        // one line, without secrets; empty if there was none
}

// MarshalJSON spells the time in seconds.
func (r Result) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Service  string  `json:"service"`
		State    State   `json:"state"`
		Attempts int     `json:"attempts"`
		Seconds  float64 `json:"seconds"`
		Error    string  `json:"lastError,omitempty"`
	}{r.Service, r.State, r.Attempts, seconds(r.After), r.LastError})
}

// Report is what came of all services, in the order in which they were given.
type Report struct {
	Ready    bool // what was waited for has come
	Services []Result
	Elapsed  time.Duration

	cause             error // why the caller's context ended
	any, once, invert bool
	timeout           time.Duration
}

// MarshalJSON spells the time in seconds.
func (r Report) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Ready    bool     `json:"ready"`
		Seconds  float64  `json:"seconds"`
		Services []Result `json:"services"`
	}{r.Ready, seconds(r.Elapsed), r.Services})
}

// ErrPermanent is the cause when a service can't become ready, ErrNotReady when
// it only was not within the time, or the one try.
var (
	ErrPermanent = errors.New("waiting does not help")
	ErrNotReady  = errors.New("not ready")
)

// Err is nil when what was waited for has come. Else it is [ErrPermanent],
// [ErrNotReady], or the cause with which the caller's context ended, with the
// services that are to blame and the last error of each in the text.
func (r Report) Err() error {
	if r.Ready {
		return nil
	}
	var failed []string
	for _, s := range r.Services {
		if s.State == Failed {
			failed = append(failed, s.Service+": "+s.LastError)
		}
	}
	if len(failed) > 0 && (!r.any || len(failed) == len(r.Services)) {
		return fmt.Errorf("%w: %s", ErrPermanent, strings.Join(failed, "; "))
	}
	waiting, text := summary(r.Services, errorNames)
	count := fmt.Sprintf("%d of %d services", waiting, len(r.Services))
	switch {
	case r.cause != nil:
		return fmt.Errorf("%w while waiting for %s: %s", r.cause, count, text)
	case r.invert:
		return fmt.Errorf("%s still ready after %v: %s (%w to leave)", count, rounded(r.Elapsed), text, ErrNotReady)
	}
	return fmt.Errorf("%s %w after %v: %s", count, ErrNotReady, rounded(r.Elapsed), text)
}

const (
	heartbeatNames = 5  // services that a heartbeat names
	errorNames     = 10 // and an error
)

// summary counts the services that are not ready and describes the first of
// them.
func summary(results []Result, most int) (waiting int, text string) {
	var named []string
	for _, s := range results {
		if s.State == Ready {
			continue
		}
		waiting++
		if waiting <= most {
			named = append(named, describe(s))
		}
	}
	if waiting > most {
		named = append(named, fmt.Sprintf("and %d more", waiting-most))
	}
	return waiting, strings.Join(named, "; ")
}

func describe(s Result) string {
	reason := s.LastError
	switch {
	case s.Attempts == 0:
		reason = "no answer yet"
	case reason == "":
		reason = "ready, but not for long enough"
	}
	return fmt.Sprintf("%s (%s, %s)", s.Service, reason, plural(s.Attempts, "attempt"))
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// WriteTable writes a line for each service: its state, the number of tries,
// when the last one ended, and the last error.
func (r Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tSTATE\tATTEMPTS\tAFTER\tLAST ERROR")
	for _, s := range r.Services {
		reason := s.LastError
		if reason == "" {
			reason = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%v\t%s\n", s.Service, s.State, s.Attempts, rounded(s.After), cut(reason, 200))
	}
	return t.Flush()
}

// rounded is a time as people want it.
func rounded(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

// cut shortens s to at most so many characters.
func cut(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}
