// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

func same(b []byte) []byte { return b }

// pipe returns both ends of a pipe: a file to read from and a descriptor.
func pipe(t *testing.T) (*os.File, int) {
	t.Helper()
	var ends [2]int
	require.NoError(t, unix.Pipe2(ends[:], unix.O_CLOEXEC))
	r := os.NewFile(uintptr(ends[0]), "read end")
	t.Cleanup(func() { _ = r.Close() })
	return r, ends[1]
}

func TestSinkKeepsOrderAndRedacts(t *testing.T) {
	r, w := pipe(t)
	s := newSink(&hooks.Stream{FD: w}, func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("hunter2"), []byte("***")) })
	_, _ = io.WriteString(s, "one hunter2\n")
	_, _ = io.WriteString(s, "two\n")
	s.flush(10 * time.Second)
	require.NoError(t, unix.Close(w))
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.Equal(t, "one ***\ntwo\n", string(got))
}

// A reader that has stalled costs lines, never time; what was lost is said.
func TestSinkDropsLinesThatNobodyReads(t *testing.T) {
	r, w := pipe(t)
	s := newSink(&hooks.Stream{FD: w}, same)
	line := strings.Repeat("x", 1023) + "\n"
	const lines = 10 * sinkLines
	for range lines {
		_, _ = io.WriteString(s, line) // would block for ever if it waited
	}
	s.flush(time.Millisecond) // gives up
	read := make(chan string)
	go func() {
		all, _ := io.ReadAll(r)
		read <- string(all)
	}()
	s.flush(10 * time.Second)
	_, _ = io.WriteString(s, "after\n")
	s.flush(10 * time.Second)
	require.NoError(t, unix.Close(w))
	got := <-read
	assert.Contains(t, got, "log lines dropped")
	assert.True(t, strings.HasSuffix(got, "after\n"))
	assert.Less(t, strings.Count(got, line), lines)
}

func TestSinkSurvivesAReaderThatIsGone(t *testing.T) {
	r, w := pipe(t)
	require.NoError(t, r.Close())
	s := newSink(&hooks.Stream{FD: w}, same)
	for range 3 {
		_, _ = io.WriteString(s, "nobody reads this\n")
	}
	s.flush(10 * time.Second)
	assert.Zero(t, s.pending.Load())
	require.NoError(t, unix.Close(w))
}
