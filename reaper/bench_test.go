// SPDX-License-Identifier: Apache-2.0

package reaper_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// A start, and the way of the status back.
func BenchmarkStartExit(b *testing.B) {
	c := writePrograms(b).exit(0)
	for b.Loop() {
		child, err := shared.Start(c)
		require.NoError(b, err)
		<-child.Done()
	}
}

// One walk of /proc, with 100 processes below us, and for each process there is.
func BenchmarkDescendants(b *testing.B) {
	c := writePrograms(b).pause()
	for range 100 {
		startAnyway(b, c)
	}
	all, err := procfs.AllProcs()
	require.NoError(b, err)
	before := cpuTime(b)
	for b.Loop() {
		_, err := reaper.Descendants()
		require.NoError(b, err)
	}
	b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/float64(b.N)/float64(len(all)), "cpu-ns/process")
	shared.End(reaper.Ending{})
}

// What an orphan costs us in CPU time, when they come one after another.
func BenchmarkOrphan(b *testing.B) {
	stop := startChains(b, writePrograms(b), 1)
	before, orphans := cpuTime(b), shared.Orphans()
	for b.Loop() {
		time.Sleep(10 * time.Millisecond)
	}
	used, reaped := cpuTime(b)-before, shared.Orphans()-orphans
	stop()
	shared.End(reaper.Ending{})
	b.ReportMetric(float64(used.Nanoseconds())/float64(reaped), "cpu-ns/orphan")
	b.ReportMetric(float64(reaped)/b.Elapsed().Seconds(), "orphans/s")
}

func cpuTime(b *testing.B) time.Duration {
	var use syscall.Rusage
	require.NoError(b, syscall.Getrusage(unix.RUSAGE_SELF, &use))
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// A forwarded signal.
func BenchmarkSignal(b *testing.B) {
	child := start(b, "pause", os.Getpid())
	for b.Loop() {
		require.NoError(b, child.Signal(unix.SIGCONT))
	}
	shared.End(reaper.Ending{Of: child})
}
