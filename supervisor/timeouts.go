// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// The limits of the container, as hooks and command are told; absent where
// there is none.
const (
	cpuVariable    = Prefix + "_CPU_LIMIT"    // cores
	memoryVariable = Prefix + "_MEMORY_LIMIT" // bytes
)

// limitEnv returns the variables.
func limitEnv(l cgroup.Limits) (env []string) {
	if l.CPU > 0 {
		cores := math.Round(l.CPU*1e4) / 1e4
		env = append(env, cpuVariable+"="+strconv.FormatFloat(cores, 'f', -1, 64))
	}
	if l.Memory > 0 {
		env = append(env, memoryVariable+"="+strconv.FormatInt(l.Memory, 10))
	}
	return env
}

// withoutLimits returns env without what somebody else has found: the limits
// of another container.
func withoutLimits(env []string) []string {
	stale := func(entry string) bool {
		return strings.HasPrefix(entry, cpuVariable+"=") || strings.HasPrefix(entry, memoryVariable+"=")
	}
	if !slices.ContainsFunc(env, stale) {
		return env
	}
	return slices.DeleteFunc(slices.Clone(env), stale)
}

// timeoutRule is how timeouts count.
func (c *Config) timeoutRule() cgroup.Rule {
	return cgroup.Rule{Mode: cgroup.Mode(c.TimeoutMode), CPUs: float64(c.TimeoutCpus), Stretch: float64(c.TimeoutStretch)}
}

// commandTimeout is COMMAND_TIMEOUT where we are there to see to it, or 0.
func (c *Config) commandTimeout() time.Duration {
	if !c.supervises() {
		return 0
	}
	return c.CommandTimeout.Duration
}

// hasTimeout tells whether anything of the run has a timeout.
func hasTimeout(c *Config, plan hooks.Plan) bool {
	if c.commandTimeout() > 0 {
		return true
	}
	return slices.ContainsFunc(slices.Concat(append(plan.Stages, plan.Stop)...), func(s hooks.Step) bool { return s.Timeout > 0 })
}

// hooksLongest is the longest wall time that the hooks may take under the CPU
// limit, or 0: no limit. It is what a startup probe has to allow for.
func (c *Config) hooksLongest(plan hooks.Plan, limit float64) time.Duration {
	longest := plan.Longest(func(d time.Duration) time.Duration { return c.timeoutRule().AtMost(d, limit) })
	if d := c.HooksDeadline.Duration; d > 0 && (longest == 0 || d < longest) {
		return d
	}
	return longest
}

// stretched is a timeout, and what it can become under the CPU limit: it is
// for people.
func stretched(c *Config, d time.Duration, limit float64) string {
	if longest := c.timeoutRule().AtMost(d, limit); longest != d {
		return d.String() + ", CPU limit " + cgroup.Millicores(limit) + ": at most " + longest.String() + " of wall time"
	}
	return orNone(d)
}

// atMost is the wall time that a timeout can become as things are now.
func (s *supervisor) atMost(d time.Duration) time.Duration {
	return s.cfg.timeoutRule().AtMost(d, s.box.Limits().CPU)
}

// clock is a clock of the box as hooks wants one.
type clock struct {
	*cgroup.Clock
	timeout time.Duration
}

// newClock starts the clock of a step or of the command.
func (s *supervisor) newClock(timeout time.Duration) hooks.Clock {
	return clock{s.cfg.timeoutRule().Start(s.box, timeout, s.boxLost), timeout}
}

// Stop stops it and says how the time was spent.
func (c clock) Stop() string {
	spent := c.Clock.Stop()
	if spent.Plain() {
		return c.timeout.String()
	}
	return spent.String()
}

func (s *supervisor) boxLost(err error) {
	s.lost.Do(func() {
		s.log.Warn("from now on timeouts are plain wall time", "err", err)
	})
}
