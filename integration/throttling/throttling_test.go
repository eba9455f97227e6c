// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv(loadVariable) != "" {
		os.Exit(underLoad())
	}
	os.Exit(m.Run())
}

// charged is what is charged of the wall time of each row, where the machine
// does not let the load wait for a CPU: that is no throttling.
var charged = []struct{ from, upTo float64 }{
	{0.05, 0.6}, {0.05, 0.6}, {0.02, 0.5}, {0.85, 1}, {0.5, 0.95}, {1, 1},
}

// TestCharged has the kernel throttle real processes, and compares what their
// clocks charge with what they have used.
func TestCharged(t *testing.T) {
	for i, l := range rows() {
		t.Run(l.What+" at "+l.limit(), func(t *testing.T) {
			t.Parallel()
			if int64(runtime.NumCPU())*1000 < l.Millicores {
				t.Skip("needs more CPUs than the limit allows")
			}
			o := measureWell(t, l)
			t.Logf("%+v", o)
			assert.InDelta(t, float64(l.Millicores)/1000, o.Found, 1e-9)
			// For each period that the kernel calls throttled, what the quota would
			// not have lasted; never more.
			saved := float64(o.Throttled) * max(0, 0.1-float64(l.Millicores)/10_000)
			credit := (o.Wall - o.Charged).Seconds()
			assert.LessOrEqual(t, credit, saved+1e-6)
			assert.InDelta(t, saved, credit, 0.25)
			if o.starved() {
				return
			}
			part := o.Charged.Seconds() / o.Wall.Seconds()
			assert.GreaterOrEqual(t, part, charged[i].from)
			assert.LessOrEqual(t, part, charged[i].upTo)
			if l.Threads == 1 && l.Sleep == 0 { // its CPU time, but for what starting took
				assert.InDelta(t, o.CPUTime.Seconds(), o.Charged.Seconds(), 0.7)
			}
		})
	}
}

// measureWell tries again when the machine is busy with something else.
func measureWell(t *testing.T, l load) (o observed) {
	t.Helper()
	for range 3 {
		var err error
		o, err = measure(l)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.EBUSY) {
			t.Skipf("needs root, and a cgroup file system that can be written: %v", err)
		}
		require.NoError(t, err)
		if !o.starved() {
			break
		}
	}
	return o
}

func TestCurve(t *testing.T) {
	l := load{Millicores: 250, Threads: 1, Busy: time.Second, Curve: 100 * time.Millisecond}
	o := measureWell(t, l)
	require.GreaterOrEqual(t, len(o.Points), 3)
	for i, p := range o.Points[1:] {
		assert.GreaterOrEqual(t, p.Wall, o.Points[i].Wall)
		assert.LessOrEqual(t, p.Charged, p.Wall)
	}
	assert.Equal(t, point{o.Wall, o.Charged}, o.Points[len(o.Points)-1])
}

// TestDocs: the page and the picture show what was measured, with nothing
// changed by hand.
func TestDocs(t *testing.T) {
	const top = "../.."
	text, err := os.ReadFile(filepath.Join(top, measuredPath))
	require.NoError(t, err)
	var m measured
	require.NoError(t, json.Unmarshal(text, &m))
	again := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(again, "docs"), 0o755))
	page, err := os.ReadFile(filepath.Join(top, pagePath))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(again, pagePath), page, 0o600))
	require.NoError(t, draw(again, m))
	for _, name := range []string{pagePath, figurePath} {
		want, err := os.ReadFile(filepath.Join(again, name))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(top, name))
		require.NoError(t, err)
		assert.Equal(t, string(want), string(got), "%s: write it with go run ./integration/throttling -draw", name)
	}
	for i, o := range m.Rows {
		assert.Equal(t, rows()[i], o.load, "measured.json is of other rows")
		part := o.Charged.Seconds() / o.Wall.Seconds()
		assert.True(t, charged[i].from <= part && part <= charged[i].upTo, "%s: %v", o.What, part)
	}
}

// The picture is well-formed, and a step that is ended is not drawn any further.
func TestFigure(t *testing.T) {
	curves := curves()
	drawn := figure([]observed{
		{load: curves[0], Points: []point{{}, {2 * time.Second, 2 * time.Second}}},
		{load: curves[1], Points: []point{{}, {4 * time.Second, time.Second}}},
		{load: curves[2], Points: []point{{}, {8 * time.Second, 2 * time.Second}, {9 * time.Second, 3 * time.Second}}},
	})
	decoder := xml.NewDecoder(strings.NewReader(drawn))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
	for what, fate := range map[string]string{"it only waits": "ended after 2 s", "1 s of work": "done after 4 s", "work without end": "ended after 8 s"} {
		assert.True(t, regexp.MustCompile(what+`</tspan><tspan[^>]*>`+fate+"<").MatchString(drawn), "%s: %s in\n%s", what, fate, drawn)
	}
	assert.NotContains(t, drawn, "%!")
}

func TestWithTable(t *testing.T) {
	_, err := withTable("no marks", "")
	assert.Error(t, err)
	page, err := withTable("a\n"+tableBegin+"old"+tableEnd+"b\n", "new\n")
	require.NoError(t, err)
	assert.Equal(t, "a\n"+tableBegin+"\nnew\n\n"+tableEnd+"b\n", page)
}
