// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// TestUpInTimeOnly: a service manager above us that heard of the end is not told
// that the command is ready.
func TestUpInTimeOnly(t *testing.T) {
	for phase, want := range map[report.Phase]string{report.Running: "READY=1", report.Draining: "done", report.Stopping: "done"} {
		t.Run(string(phase), func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			above, err := net.ListenPacket("unixgram", socket)
			require.NoError(t, err)
			defer above.Close()
			s := newSupervisor(Config{}, Options{Stderr: 2})
			w := &watch{up: make(chan struct{}), upstream: socket}
			s.ledger.update(func(r *report.Report) { r.Phase, r.Started, r.Notify = phase, true, &report.Notify{} })
			s.notified(w, report.Notify{Ready: true})
			w.tell("done")
			buf := make([]byte, 64)
			n, _, err := above.ReadFrom(buf)
			require.NoError(t, err)
			assert.Equal(t, want, string(buf[:n]))
		})
	}
}

// TestCheckTellsOfWhatDoesNothing: --check warns of it as a run does.
func TestCheckTellsOfWhatDoesNothing(t *testing.T) {
	self, err := os.Executable() // a program of this architecture
	require.NoError(t, err)
	for listen, want := range map[string]string{"off": "checks do nothing: HTTP_LISTEN is off", "": ""} {
		c, _, err := parse(t, map[string]string{"READINESS_CHECK": "tcp://127.0.0.1:80", "HTTP_LISTEN": listen}, nil)
		require.NoError(t, err)
		c.Command = []string{self}
		var stderr strings.Builder
		assert.Zero(t, Check(c, Options{Environ: []string{"PATH=/usr/bin:/bin"}}, io.Discard, &stderr))
		if want == "" {
			assert.Empty(t, stderr.String())
		} else {
			assert.Contains(t, stderr.String(), want)
		}
	}
}
