// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"cmp"
	"fmt"
	"time"
)

// Mode says how time is charged.
type Mode string

// The modes.
const (
	// Throttle stops the clock while the kernel throttles the box: of each
	// period in which the quota was used up, only the time is charged that the
	// quota would have lasted on Rule.CPUs.
	Throttle Mode = "throttle"
	// Scale lets the clock run slower by as much as the limit is below Rule.CPUs.
	Scale Mode = "scale"
	// Wall is plain time.
	Wall Mode = "wall"
)

// A Rule says what a timeout means.
type Rule struct {
	Mode    Mode    // empty: Throttle
	CPUs    float64 // that the timeout was written for; 0 is 1
	Stretch float64 // in wall time no timeout becomes longer than by this factor; 0 is 10
}

func (r Rule) cpus() float64 { return cmp.Or(r.CPUs, 1) }

func (r Rule) stretch() float64 { return cmp.Or(r.Stretch, 10) }

// AtMost is the wall time that a timeout can become under a limit of so many
// cores (0: none) that stays as it is.
func (r Rule) AtMost(timeout time.Duration, limit float64) time.Duration {
	if r.Mode == Wall || limit <= 0 || r.factor(limit) == 1 {
		return timeout
	}
	return longer(timeout, r.factor(limit))
}

// longer is d times factor, or about the longest time that there is.
func longer(d time.Duration, factor float64) time.Duration {
	if product := float64(d) * factor; product < 1<<62 {
		return time.Duration(product)
	}
	return max(d, 1<<62)
}

// factor is by how much the limit makes a busy step slower.
func (r Rule) factor(limit float64) float64 {
	return min(max(1, r.cpus()/limit), r.stretch())
}

// credit is what is not charged of the wall time between two samples.
func (r Rule) credit(wall time.Duration, from, to CPUCounters) time.Duration {
	switch {
	case from.Quota == 0 || to.Quota == 0:
		return 0
	case r.Mode == Scale:
		factor := min(r.factor(cores(from.Quota, from.Period)), r.factor(cores(to.Quota, to.Period)))
		return wall - time.Duration(float64(wall)/factor)
	}
	// In a period the quota would have lasted so long on the reference CPUs; if
	// it was changed meanwhile, what gives less counts.
	saved := min(r.saved(from), r.saved(to))
	throttled, burst := to.Throttled-from.Throttled, to.Burst-from.Burst
	if throttled <= 0 || burst < 0 { // none, or counted from the beginning again
		return 0
	}
	credit := float64(throttled)*saved - float64(burst)/r.cpus()
	return time.Duration(min(max(credit, 0), float64(wall)))
}

func (r Rule) saved(c CPUCounters) float64 {
	return max(0, float64(c.Period)-float64(c.Quota)/r.cpus())
}

// Spent is how the time of a clock was spent.
type Spent struct {
	// Expired says that the time is over; Hard, that it was so in wall time,
	// with less of it charged.
	Expired, Hard bool
	Charged, Wall time.Duration
	Limit         float64 // cores, as it was at the end; 0: none
	// Of the Periods in which something ran, the quota was used up in Throttled.
	Periods, Throttled int64
}

// Plain says that there is nothing to tell: no limit, and all of the time
// charged.
func (s Spent) Plain() bool {
	return s.Limit == 0 && !s.Hard && s.Wall-s.Charged < oftenest
}

// String says it in words that can follow "after": "30s", or "30s charged (112s
// wall): CPU limit 250m, throttled in 1098 of 1124 periods".
func (s Spent) String() string {
	text := seconds(s.Charged)
	if s.Hard {
		text = fmt.Sprintf("%s wall, the most that is allowed (%s charged)", seconds(s.Wall), seconds(s.Charged))
	} else if s.Wall-s.Charged >= 50*time.Millisecond {
		text += fmt.Sprintf(" charged (%s wall)", seconds(s.Wall))
	}
	if s.Limit > 0 {
		text += ": CPU limit " + Millicores(s.Limit)
		if s.Periods > 0 {
			text += fmt.Sprintf(", throttled in %d of %d periods", s.Throttled, s.Periods)
		}
	}
	return text
}

// seconds is d in seconds, to a tenth of one: 112s, 0.5s.
func seconds(d time.Duration) string {
	tenths := d.Round(100 * time.Millisecond).Seconds()
	if d < time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return fmt.Sprintf("%gs", float64(int64(tenths*10+0.5))/10)
}

const (
	// oftenest is how often a clock looks while the end seems near.
	oftenest = 50 * time.Millisecond
	// seldomest is how often it looks for a limit that has changed.
	seldomest = 5 * time.Second
)

// sampler is what a clock reads; it is a Reader.
type sampler interface {
	CPU() (CPUCounters, error)
	Close()
}

// A Clock runs until its time is over, or until it is stopped.
type Clock struct {
	rule    Rule
	timeout time.Duration
	source  sampler // nil: plain time
	lost    func(error)
	expired chan struct{}
	stop    chan struct{}
	done    chan struct{}

	// Of the goroutine, and after its end of whoever has waited for it.
	spent   Spent
	last    CPUCounters
	sampled time.Time
}

// Start starts a clock for a timeout of more than 0. lost, which may be nil, is
// told when the box cannot be read any more; from then on wall time counts.
// Stop must be called.
func (r Rule) Start(b *Box, timeout time.Duration, lost func(error)) *Clock {
	var source sampler
	if r.Mode != Wall {
		if reader := b.Open(CPU); reader != nil {
			source = reader
		}
	}
	return r.start(source, timeout, lost)
}

func (r Rule) start(source sampler, timeout time.Duration, lost func(error)) *Clock {
	c := &Clock{
		rule: r, timeout: timeout, source: source, lost: lost,
		expired: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{}),
	}
	c.sampled = time.Now()
	if source != nil {
		c.last = c.read()
	}
	go c.run()
	return c
}

// Expired is closed when the time is over.
func (c *Clock) Expired() <-chan struct{} { return c.expired }

// Stop stops the clock and returns how the time was spent. It must be called
// once.
func (c *Clock) Stop() Spent {
	close(c.stop)
	<-c.done
	return c.spent
}

func (c *Clock) run() {
	defer close(c.done)
	timer := time.NewTimer(c.next())
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-c.stop:
			c.sample()
			c.close()
			return
		}
		c.sample()
		if c.over() {
			c.close()
			close(c.expired)
			<-c.stop
			return
		}
		timer.Reset(c.next())
	}
}

// next is the time until the next sample.
func (c *Clock) next() time.Duration {
	left := c.timeout - c.spent.Charged
	if c.source == nil {
		return left
	}
	d := min(left, seldomest, c.timeout/4)
	if c.last.Quota > 0 { // else all of it will be charged
		d = max(d, min(oftenest, c.timeout))
	}
	return min(d, c.hard()-c.spent.Wall)
}

// hard is the wall time at which it is over in any case.
func (c *Clock) hard() time.Duration { return longer(c.timeout, c.rule.stretch()) }

func (c *Clock) over() bool {
	switch {
	case c.spent.Charged >= c.timeout:
		c.spent.Expired = true
	case c.spent.Wall >= c.hard():
		c.spent.Expired, c.spent.Hard = true, true
	}
	return c.spent.Expired
}

// sample charges the time since the last one.
func (c *Clock) sample() {
	now := time.Now()
	wall := now.Sub(c.sampled)
	c.sampled = now
	credit := time.Duration(0)
	if c.source != nil {
		from, to := c.last, c.read()
		if c.source != nil {
			credit = c.rule.credit(wall, from, to)
			c.last = to
			c.spent.Periods += max(0, to.Periods-from.Periods)
			c.spent.Throttled += max(0, to.Throttled-from.Throttled)
			c.spent.Limit = 0
			if to.Quota > 0 {
				c.spent.Limit = cores(to.Quota, to.Period)
			}
		}
	}
	c.spent.Wall += wall
	c.spent.Charged += wall - credit
}

// read reads the counters; where that fails, never again.
func (c *Clock) read() CPUCounters {
	counters, err := c.source.CPU()
	if err != nil {
		c.close()
		if c.lost != nil {
			c.lost(err)
		}
	}
	return counters
}

func (c *Clock) close() {
	if c.source != nil {
		c.source.Close()
		c.source = nil
	}
}
