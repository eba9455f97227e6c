// SPDX-License-Identifier: Apache-2.0

package reaper

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseStat(t *testing.T) {
	stat := func(name, state, threads string) string {
		return "42 (" + name + ") " + state + " 1 7 -1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 " + threads + " 0 12345 0 0\n"
	}
	tests := []struct {
		name, text string
		want       Proc
	}{
		{"plain", stat("sh", "S", "1"), Proc{PID: 42, PPID: 1, PGID: 7, SID: -1, Start: 12345, Name: "sh", State: "S"}},
		{"a name like the rest", stat("a) R 9 (b", "R", "2"), Proc{PID: 42, PPID: 1, PGID: 7, SID: -1, Start: 12345, Name: "a) R 9 (b", State: "R"}},
		{"ended", stat("sh", "Z", "1"), Proc{PID: 42, PPID: 1, PGID: 7, SID: -1, Start: 12345, Name: "sh", State: "Z", ended: true}},
		{"its first thread has ended", stat("java", "Z", "3"), Proc{PID: 42, PPID: 1, PGID: 7, SID: -1, Start: 12345, Name: "java", State: "Z"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseStat([]byte(tt.text))
			require.True(t, ok)
			assert.Equal(t, tt.want, got)
		})
	}
	for _, text := range []string{"", "1", "()", "1 (a", "x (a) S 1 1 1", "1 (a) S 1", "1 (a) S x 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"} {
		_, ok := parseStat([]byte(text))
		assert.False(t, ok, "%q", text)
	}
}

// What we read is what procfs reads.
func TestStatOfUs(t *testing.T) {
	got, err := statOf(os.Getpid())
	require.NoError(t, err)
	proc, err := procfs.NewProc(os.Getpid())
	require.NoError(t, err)
	want, err := proc.Stat()
	require.NoError(t, err)
	assert.Equal(t, []any{want.PID, want.PPID, want.PGRP, want.Session, want.Comm, want.Starttime},
		[]any{got.PID, got.PPID, got.PGID, got.SID, got.Name, got.Start})
}

// An environment can be larger than any buffer that we begin with.
func TestReadWhole(t *testing.T) {
	sleeper := exec.Command("sleep", "60")
	sleeper.Env = []string{"LONG=" + strings.Repeat("x", 100_000), "LAST=1"}
	require.NoError(t, sleeper.Start())
	t.Cleanup(func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() })
	proc, err := procfs.NewProc(sleeper.Process.Pid)
	require.NoError(t, err)
	var want []string
	require.Eventually(t, func() bool { // the kernel shows it a moment after the exec
		want, err = proc.Environ()
		return err == nil && len(want) > 0
	}, 10*time.Second, time.Millisecond)
	got, err := readWhole(strconv.Itoa(sleeper.Process.Pid) + "/environ")
	require.NoError(t, err)
	assert.Equal(t, want, strings.Split(strings.TrimSuffix(string(got), "\x00"), "\x00"))
}

func FuzzParseStat(f *testing.F) {
	f.Add("42 (sh) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0")
	f.Add("1 ()) Z -1 -1 -1")
	f.Add(")(")
	f.Fuzz(func(t *testing.T, text string) {
		if p, ok := parseStat([]byte(text)); ok {
			assert.NotEmpty(t, p.State)
		}
	})
}
