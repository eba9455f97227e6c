// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/probes"
	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// The types of the settings. Each Decode is what envconfig calls with the
// value of the variable; its error says what is accepted.

// Duration is Go's (5m, 250ms), or a bare number of seconds; 0 is none.
type Duration struct{ time.Duration }

// Decode parses value.
func (d *Duration) Decode(value string) (err error) {
	d.Duration, err = hooks.ParseDuration(value)
	return err
}

// Count is a number of at least 1.
type Count int

// Decode parses value.
func (c *Count) Decode(value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		return errors.New("want a number from 1 on")
	}
	*c = Count(n)
	return nil
}

// TimeoutMode says how timeouts count; see [cgroup.Mode].
type TimeoutMode cgroup.Mode

// Decode parses value.
func (m *TimeoutMode) Decode(value string) error {
	return oneOf(m, value, TimeoutMode(cgroup.Throttle), TimeoutMode(cgroup.Scale), TimeoutMode(cgroup.Wall))
}

// Cores is a number of CPUs.
type Cores float64

// Decode parses value.
func (c *Cores) Decode(value string) error {
	return decodeFloat((*float64)(c), value, 0.01, 1024, "a number of CPUs")
}

// Factor is by how much something may grow.
type Factor float64

// Decode parses value.
func (f *Factor) Decode(value string) error {
	return decodeFloat((*float64)(f), value, 1, 100, "a factor")
}

func decodeFloat(to *float64, value string, least, most float64, what string) error {
	var n float64
	whole, err := strconv.Atoi(value) // as the defaults are: the other one is more to page in
	if n = float64(whole); err != nil {
		n, err = strconv.ParseFloat(value, 64)
	}
	if err != nil || !(n >= least && n <= most) { // NaN is neither
		return fmt.Errorf("want %s from %g to %g", what, least, most)
	}
	*to = n
	return nil
}

// Dirs are directories, separated by colons.
type Dirs []string

// Decode parses value.
func (d *Dirs) Decode(value string) error {
	*d = splitList(value, ":")
	for _, dir := range *d {
		if !path.IsAbs(dir) {
			return fmt.Errorf("%q is not an absolute path", dir)
		}
	}
	return nil
}

// Names are separated by commas.
type Names []string

// Decode parses value.
func (n *Names) Decode(value string) error {
	*n = splitList(value, ",")
	return nil
}

// Globs are names or patterns as of [path.Match], separated by commas.
type Globs []string

// Decode parses value.
func (g *Globs) Decode(value string) error {
	*g = splitList(value, ",")
	for _, glob := range *g {
		if _, err := path.Match(glob, ""); err != nil {
			return fmt.Errorf("%q is not a name or a pattern", glob)
		}
	}
	return nil
}

// AbsolutePath is a file's path from the root, or empty.
type AbsolutePath string

// Decode parses value.
func (p *AbsolutePath) Decode(value string) error {
	if !path.IsAbs(value) {
		return errors.New("want an absolute path")
	}
	*p = AbsolutePath(value)
	return nil
}

// Address is :PORT, IP:PORT, or off.
type Address string

// Decode parses value.
func (a *Address) Decode(value string) error {
	if value != "off" && !probes.Valid(value) {
		return errors.New("want :PORT or IP:PORT with a port from 1 to 65535, or off")
	}
	*a = Address(value)
	return nil
}

// CheckURL is a check as [probes.ParseCheck] reads it; nil: none.
type CheckURL struct{ *probes.Check }

// Decode parses value.
func (c *CheckURL) Decode(value string) error {
	check, err := probes.ParseCheck(value)
	if err == nil {
		c.Check = &check
	}
	return err
}

// Notify says whose word by sd_notify(3) counts.
type Notify string

// Nobody's, that of the command's process, or also that of its descendants.
const (
	NotifyOff  Notify = "off"
	NotifyMain Notify = "main"
	NotifyAll  Notify = "all"
)

// Decode parses value.
func (n *Notify) Decode(value string) error { return oneOf(n, value, NotifyOff, NotifyMain, NotifyAll) }

// User is who runs the command, as hooks.ResolveUser understands it; empty: us.
type User string

// Decode parses value. Who that is gets looked up later, with everything else.
func (u *User) Decode(value string) error {
	*u = User(value)
	return nil
}

// StepTimeouts are timeouts by the name of the step.
type StepTimeouts map[string]time.Duration

// Decode parses value.
func (t *StepTimeouts) Decode(value string) error {
	*t = StepTimeouts{}
	for _, item := range splitList(value, ",") {
		name, text, ok := cutLast(item, ":")
		d, err := hooks.ParseDuration(text)
		if !ok || name == "" || err != nil {
			return fmt.Errorf("%q: want NAME:DURATION, such as 20-migrate:30m", item)
		}
		if _, twice := (*t)[name]; twice {
			return fmt.Errorf("%q is given twice", name)
		}
		(*t)[name] = d
	}
	return nil
}

// Signals are names (TERM, SIGTERM, RTMIN+3) or numbers.
type Signals []syscall.Signal

// Decode parses value.
func (s *Signals) Decode(value string) error {
	*s = nil
	for _, name := range splitList(value, ",") {
		sig, err := ParseSignal(name)
		if err != nil {
			return err
		}
		if !CanReceive(int(sig)) {
			return fmt.Errorf("%s can't be received: want some of %s", name, forwardedNames())
		}
		*s = append(*s, sig)
	}
	return nil
}

func (s Signals) String() string {
	names := make([]string, len(s))
	for i, sig := range s {
		names[i] = SignalName(sig)
	}
	return strings.Join(names, ",")
}

// Rewrite maps a received signal to the one that is sent on; 0 drops it.
type Rewrite map[syscall.Signal]syscall.Signal

// Decode parses value.
func (r *Rewrite) Decode(value string) error {
	*r = Rewrite{}
	for _, item := range splitList(value, ",") {
		from, to, ok := strings.Cut(item, ":")
		received, err := ParseSignal(from)
		if !ok || err != nil {
			return fmt.Errorf("%q: want FROM:TO, such as TERM:QUIT, or FROM: to drop it", item)
		}
		if !CanReceive(int(received)) {
			return fmt.Errorf("%q: %s is never forwarded: want some of %s", item, from, forwardedNames())
		}
		if _, twice := (*r)[received]; twice {
			return fmt.Errorf("%s is given twice", from)
		}
		var sent syscall.Signal
		if to != "" {
			if sent, err = ParseSignal(to); err != nil {
				return fmt.Errorf("%q: %w", item, err)
			}
		}
		(*r)[received] = sent
	}
	return nil
}

// Target says who gets a forwarded signal.
type Target string

// The targets: the main process, its process group, or all our descendants.
const (
	TargetMain  Target = "main"
	TargetGroup Target = "group"
	TargetTree  Target = "tree"
)

// Decode parses value.
func (t *Target) Decode(value string) error {
	return oneOf(t, value, TargetMain, TargetGroup, TargetTree)
}

// Mode says what happens to us after the hooks.
type Mode string

// The modes: stay as PID 1, or be replaced by the command.
const (
	ModeSupervise Mode = "supervise"
	ModeExec      Mode = "exec"
)

// Decode parses value.
func (m *Mode) Decode(value string) error { return oneOf(m, value, ModeSupervise, ModeExec) }

// HookOutput says how the output of hooks is passed on.
type HookOutput string

// The ways: see the setting's text.
const (
	OutputPlain   HookOutput = "plain"
	OutputPrefix  HookOutput = "prefix"
	OutputInherit HookOutput = "inherit"
)

// Decode parses value.
func (o *HookOutput) Decode(value string) error {
	return oneOf(o, value, OutputPlain, OutputPrefix, OutputInherit)
}

func (o HookOutput) output() hooks.Output {
	switch o {
	case OutputPrefix:
		return hooks.Prefix
	case OutputInherit:
		return hooks.Inherit
	default:
		return hooks.Plain
	}
}

// LogFormat is slog's text or JSON form.
type LogFormat string

// The formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Decode parses value.
func (f *LogFormat) Decode(value string) error { return oneOf(f, value, LogText, LogJSON) }

// LogLevel is the least severe level that is logged.
type LogLevel struct{ slog.Level }

// Decode parses value.
func (l *LogLevel) Decode(value string) error {
	if err := l.UnmarshalText([]byte(value)); err != nil || strings.ContainsAny(value, "+-") {
		return errors.New("want debug, info, warn or error")
	}
	return nil
}

func oneOf[T ~string](t *T, value string, accepted ...T) error {
	if !slices.Contains(accepted, T(value)) {
		return fmt.Errorf("want one of %v", accepted)
	}
	*t = T(value)
	return nil
}

func splitList(value, separator string) []string {
	var list []string
	for item := range strings.SplitSeq(value, separator) {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}
