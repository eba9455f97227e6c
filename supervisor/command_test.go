// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

// A stop signal may come in the moment in which the command is found missing
// after the hooks: whichever is read first, there is nothing to send it to.
func TestStopMeetsAMissingCommand(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer null.Close()
	c, _, err := ParseConfig(nil, map[string]string{"TERMINATION_LOG": "/nowhere/log"}, Flags{}, []string{"/nowhere/program"})
	require.NoError(t, err)
	for range 100 { // the two are taken in any order
		s := newSupervisor(c, Options{Stderr: int(null.Fd())})
		s.plan = hooks.Plan{Stages: [][]hooks.Step{{{Name: "10-done"}}}}
		s.stops <- unix.SIGTERM
		assert.Equal(t, ExitNotFound, s.runCommand())
	}
}
