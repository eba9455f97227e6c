// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/reaper"
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

// A command may have ended before we see that it was started.
func TestCommandThatEndsAtOnce(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	require.NoError(t, err)
	defer null.Close()
	self, err := os.Executable()
	require.NoError(t, err)
	c, _, err := ParseConfig(nil, map[string]string{"TERMINATION_LOG": "/nowhere/log"}, Flags{}, []string{self, "-test.run=^$"})
	require.NoError(t, err)
	s := newSupervisor(c, Options{Stderr: int(null.Fd())})
	s.main, err = s.reaper.Start(reaper.Command{Path: self, Args: c.Command, Files: []uintptr{null.Fd(), null.Fd(), null.Fd()}})
	require.NoError(t, err)
	s.main.Exit()
	s.started = make(chan error, 1)
	s.started <- nil
	assert.Zero(t, s.runCommand())
	r := s.ledger.snapshot().Command
	assert.False(t, r.EndedAt.Before(r.StartedAt), "from %v to %v", r.StartedAt, r.EndedAt)
}
