// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const ms = time.Millisecond

// script is a box whose counters depend on the time since the start.
type script struct {
	at     func(since time.Duration) (CPUCounters, error)
	start  time.Time
	closed int
	reads  int
}

func (s *script) CPU() (CPUCounters, error) { s.reads++; return s.at(time.Since(s.start)) }

func (s *script) Close() { s.closed++ }

// busy are the counters of a box that is throttled in every period.
func busy(quota time.Duration) func(time.Duration) (CPUCounters, error) {
	return func(since time.Duration) (CPUCounters, error) {
		n := int64(since / (100 * ms))
		return CPUCounters{Quota: quota, Period: 100 * ms, Periods: n, Throttled: n}, nil
	}
}

// idle are those of one that is not.
func idle(quota time.Duration) func(time.Duration) (CPUCounters, error) {
	return func(since time.Duration) (CPUCounters, error) {
		return CPUCounters{Quota: quota, Period: 100 * ms, Periods: int64(since / (100 * ms))}, nil
	}
}

func TestClock(t *testing.T) {
	tests := []struct {
		name    string
		rule    Rule
		timeout time.Duration
		at      func(time.Duration) (CPUCounters, error)
		wall    time.Duration // until the end
		within  time.Duration // how exactly
		hard    bool
		lost    bool
	}{
		{"plain time", Rule{}, 30 * time.Second, nil, 30 * time.Second, 0, false, false},
		{"no limit", Rule{}, 30 * time.Second, idle(0), 30 * time.Second, 0, false, false},
		{"an odd time without a limit", Rule{}, 130 * ms, idle(0), 130 * ms, 0, false, false},
		{"busy at a quarter of a CPU", Rule{}, 30 * time.Second, busy(25 * ms), 120 * time.Second, time.Second, false, false},
		{"busy at a tenth", Rule{Stretch: 100}, 10 * time.Second, busy(10 * ms), 100 * time.Second, time.Second, false, false},
		{"the cap in wall time", Rule{Stretch: 2}, 10 * time.Second, busy(10 * ms), 20 * time.Second, 0, true, false},
		{"no stretch at all", Rule{Stretch: 1}, 10 * time.Second, busy(10 * ms), 10 * time.Second, 0, true, false},
		{"asleep under a limit", Rule{}, 30 * time.Second, idle(25 * ms), 30 * time.Second, 50 * ms, false, false},
		{"a limit above the reference", Rule{}, 10 * time.Second, busy(150 * ms), 10 * time.Second, 50 * ms, false, false},
		{"a reference of two", Rule{CPUs: 2}, 10 * time.Second, busy(100 * ms), 20 * time.Second, time.Second, false, false},
		{"wall mode", Rule{Mode: Wall}, 10 * time.Second, nil, 10 * time.Second, 0, false, false},
		{"scale mode counts sleep too", Rule{Mode: Scale}, 10 * time.Second, idle(25 * ms), 40 * time.Second, time.Second, false, false},
		{"scale mode is capped", Rule{Mode: Scale, Stretch: 3}, 10 * time.Second, idle(25 * ms), 30 * time.Second, 0, true, false},
		{"half of it busy", Rule{}, 10 * time.Second, func(since time.Duration) (CPUCounters, error) {
			return busy(25 * ms)(min(since, 4*time.Second)) // charged 1 s of 4 s
		}, 13 * time.Second, time.Second, false, false},
		// Within one sample interval (2.5 s here) the smaller credit counts.
		{"the quota is raised", Rule{}, 10 * time.Second, func(since time.Duration) (CPUCounters, error) {
			c, _ := busy(25 * ms)(min(since, 20*time.Second))
			if since > 20*time.Second {
				c.Quota = 0
			}
			return c, nil
		}, 25 * time.Second, 2500 * ms, false, false},
		{"the quota is cut", Rule{}, 10 * time.Second, func(since time.Duration) (CPUCounters, error) {
			if since < 5*time.Second {
				return idle(0)(since)
			}
			c, err := busy(50 * ms)(since - 5*time.Second)
			return c, err
		}, 15 * time.Second, 2500 * ms, false, false},
		{"the counters begin again", Rule{}, 10 * time.Second, func(since time.Duration) (CPUCounters, error) {
			if since > 8*time.Second {
				since -= 8 * time.Second
			}
			return busy(50 * ms)(since)
		}, 18 * time.Second, 2500 * ms, false, false}, // what was counted in the sample with the break is lost
		{"a burst was used too", Rule{}, 10 * time.Second, func(since time.Duration) (CPUCounters, error) {
			c, err := busy(50 * ms)(since)
			c.Burst = time.Duration(c.Throttled) * 25 * ms // 75 ms of each 100 had CPU
			return c, err
		}, 13333 * ms, 500 * ms, false, false},
		{"a file vanishes", Rule{}, 10 * time.Second, func(since time.Duration) (CPUCounters, error) {
			if since > 8*time.Second {
				return CPUCounters{}, errors.New("gone")
			}
			return busy(50 * ms)(since)
		}, 14 * time.Second, 2500 * ms, false, true},
		{"it was never there", Rule{}, 10 * time.Second, func(time.Duration) (CPUCounters, error) {
			return CPUCounters{}, errors.New("gone")
		}, 10 * time.Second, 0, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var source sampler
				box := &script{at: tt.at, start: start}
				if tt.at != nil {
					source = box
				}
				lost := 0
				c := tt.rule.start(source, tt.timeout, func(error) { lost++ })
				<-c.Expired()
				took := time.Since(start)
				time.Sleep(time.Hour) // nothing counts after the end
				spent := c.Stop()
				assert.InDelta(t, tt.wall.Seconds(), took.Seconds(), tt.within.Seconds(), "%v", spent)
				assert.Equal(t, took, spent.Wall)
				assert.True(t, spent.Expired)
				assert.Equal(t, tt.hard, spent.Hard)
				if !tt.hard {
					assert.InDelta(t, tt.timeout.Seconds(), spent.Charged.Seconds(), 0.11, "%v", spent)
				}
				assert.Equal(t, tt.lost, lost == 1, "told %d times", lost)
				if tt.at != nil {
					assert.Equal(t, 1, box.closed)
				}
			})
		})
	}
}

// A step that ends by itself has its time told as well.
func TestClockStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &script{at: busy(25 * ms), start: time.Now()}
		c := Rule{}.start(box, time.Minute, nil)
		time.Sleep(8 * time.Second)
		synctest.Wait()
		assert.LessOrEqual(t, box.reads, 3, "no more often than every 5 s")
		spent := c.Stop()
		assert.Equal(t, Spent{Charged: 2 * time.Second, Wall: 8 * time.Second, Limit: 0.25, Periods: 80, Throttled: 80}, spent)
		select {
		case <-c.Expired():
			assert.Fail(t, "it was stopped before its time was over")
		default:
		}
		assert.Equal(t, 1, box.closed)
	})
}

func TestSpentInWords(t *testing.T) {
	tests := []struct {
		want string
		Spent
	}{
		{"30s", Spent{Charged: 30 * time.Second, Wall: 30 * time.Second}},
		{"30s charged (112.4s wall): CPU limit 250m, throttled in 1098 of 1124 periods", Spent{Charged: 30041 * ms, Wall: 112400 * ms, Limit: 0.25, Periods: 1124, Throttled: 1098}},
		{"2s: CPU limit 2", Spent{Charged: 2 * time.Second, Wall: 2 * time.Second, Limit: 2}},
		{"500ms", Spent{Charged: 500 * ms, Wall: 500 * ms}},
		{"20s wall, the most that is allowed (2.3s charged): CPU limit 100m, throttled in 9 of 9 periods", Spent{Hard: true, Charged: 2300 * ms, Wall: 20 * time.Second, Limit: 0.1, Periods: 9, Throttled: 9}},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, tt.String())
	}
}

func TestAtMost(t *testing.T) {
	tests := []struct {
		rule  Rule
		limit float64
		want  time.Duration
	}{
		{Rule{}, 0.25, 2 * time.Minute},
		{Rule{}, 0.01, 5 * time.Minute},
		{Rule{}, 4, 30 * time.Second},
		{Rule{}, 0, 30 * time.Second},
		{Rule{Stretch: 2}, 0.25, time.Minute},
		{Rule{CPUs: 2}, 1, time.Minute},
		{Rule{Mode: Scale}, 0.5, time.Minute},
		{Rule{Mode: Wall}, 0.25, 30 * time.Second},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, tt.rule.AtMost(30*time.Second, tt.limit), "%+v at %v", tt.rule, tt.limit)
	}
	require.Positive(t, Rule{Stretch: 100}.AtMost(1<<62, 0.01), "no overflow")
}
