// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

// notPID1 starts cleanimg-init as a child of PID 1, beside a neighbour that
// is none of its business.
func notPID1(t *testing.T, o Options) *Instance {
	t.Helper()
	o.Program = "/bin/testprog"
	o.Args = append([]string{
		"setsid", "trap", "-quiet", "-ready", "/tmp/neighbour", "-file", "/tmp/neighbour-got", ";", "await", "/tmp/neighbour", ";",
		"under", "/bin/cleanimg-init",
	}, o.Args...)
	return Run(t, o)
}

func TestNotPID1(t *testing.T) {
	t.Parallel()
	in := notPID1(t, Options{
		Args: do("storm", "100", ";", "daemon", "trap", "-quiet", "-ready", "/tmp/worker", "-on", "TERM=0", "-delay", "1s", "-write", "/tmp/cleaned-up", ";",
			"await", "/tmp/worker", ";", "trap", "-on", "TERM=17"),
		Files: []File{Hook("10-a", ran("a")), StopHook("10-stop", ran("stop"))},
	})
	in.WaitStdout("ready")
	settle()
	in.eventually("orphans to be reaped by us, for PID 1 does not", func() bool { return in.Zombies() == 0 })
	assert.Regexp(t, `(?i)pid 1`, in.Stderr.String(), "that we are not PID 1 is said")
	in.Signal(syscall.SIGTERM)
	assert.Equal(t, 17, in.Wait())
	assert.NotEmpty(t, in.File("/tmp/cleaned-up"), "%s", in.Stderr)
	assert.Equal(t, []string{"a", "stop"}, order(in))

	out := in.Stdout.String()
	assert.Equal(t, 1, strings.Count(out, "under: left"), "only the neighbour is left:\n%s", out)
	assert.NotContains(t, out, "left gone")
	assert.Empty(t, in.File("/tmp/neighbour-got"), "the neighbour was touched")
}

func TestNotPID1KillsOnlyItsOwn(t *testing.T) {
	t.Parallel()
	in := notPID1(t, Options{
		Args:  do("daemon", "trap", "-quiet", "-ready", "/tmp/worker", ";", "await", "/tmp/worker", ";", "exit", "3"),
		Env:   env("CLEANIMG_INIT_KILL_GRACE=500ms"),
		Files: []File{Step("10-a.yaml", runs("daemon", "trap", "-quiet", ";", "sleep", "1h"), "timeout: 500ms", "onFailure: continue")},
	})
	assert.Equal(t, 3, in.Wait(), "%s", in.Stderr)
	assert.Equal(t, 1, strings.Count(in.Stdout.String(), "under: left"), "only the neighbour is left:\n%s", in.Stdout)
	assert.Empty(t, in.File("/tmp/neighbour-got"), "the neighbour was touched")
}

func TestNotPID1ExitCodes(t *testing.T) {
	t.Parallel()
	for code, command := range map[int][]string{0: {"exit", "0"}, 42: {"exit", "42"}, 139: {"die", "SEGV"}, 137: {"die", "KILL"}} {
		in := notPID1(t, Options{Args: do(command...)})
		assert.Equal(t, code, in.Wait())
	}
}
