// SPDX-License-Identifier: Apache-2.0

package await

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// A network policy drops packets, a server hangs: every scheme gives up after
// the time of a try and says so.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() }) // the kernel accepts, and nobody answers
	for _, scheme := range Schemes(new(reaper.Reaper)) {
		for _, name := range scheme.names {
			switch name {
			case "tcp", "unix", "file", "dns", "exec", "mongodb+srv":
				continue // not by an answer of this server
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s, err := Parse(name+"://"+l.Addr().String(), nil, []Scheme{scheme})
				require.NoError(t, err)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				rep := Run(ctx, []Service{s}, Options{Once: true, TryTimeout: 200 * time.Millisecond})
				require.ErrorIs(t, rep.Err(), ErrNotReady)
				assert.Equal(t, "no answer within 200ms", rep.Services[0].LastError)
			})
		}
	}
}
