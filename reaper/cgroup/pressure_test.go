// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPressure(t *testing.T) {
	_, dir := v2(t, map[string]string{
		"cpu.pressure":    "some avg10=1.00 avg60=0.50 avg300=0.10 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n",
		"memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
	})
	p, ok := ReadPressure(dir, "cpu")
	assert.True(t, ok)
	assert.Equal(t, Pressure{1500 * time.Millisecond, 500 * time.Millisecond}, p)
	p, ok = ReadPressure(dir, "memory")
	assert.True(t, ok)
	assert.Zero(t, p)
	_, ok = ReadPressure(dir, "io")
	assert.False(t, ok, "the kernel was told not to")
}

func TestThrottledTime(t *testing.T) {
	b, _ := v2(t, map[string]string{"cpu.stat": "usage_usec 1\nnr_throttled 271\nthrottled_usec 21000000\n"})
	assert.Equal(t, 21*time.Second, b.ThrottledTime())

	b = machine{"1:cpu:/\n", mounts("/ /cg/cpu cgroup rw,cpu"), map[string]string{
		"/cg/cpu/cgroup.procs": "7\n", "/cg/cpu/cpu.stat": "nr_periods 10\nnr_throttled 3\nthrottled_time 2000000000\n",
	}}.build(t).Find()
	require.NotNil(t, b)
	assert.Equal(t, 2*time.Second, b.ThrottledTime())
	assert.Equal(t, time.Duration(-1), (*Box)(nil).ThrottledTime())
}

func FuzzPressure(f *testing.F) {
	f.Add([]byte("some avg10=0.00 avg60=0.00 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"))
	f.Add([]byte("some total=-1\nfull  total=99999999999999999999\n"))
	f.Add([]byte("full total=\n\n total=1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, _ := parsePressure(text)
		assert.GreaterOrEqual(t, p.Some, time.Duration(0))
		assert.GreaterOrEqual(t, p.Full, time.Duration(0))
	})
}
