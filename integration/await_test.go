// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// awaitBox is a restricted container whose PID 1 is await.
func awaitBox(t *testing.T, args ...string) Options {
	return Options{
		Program: "/bin/await", Args: args,
		Mounts: []Mount{{Host: Binary(t, "await"), Inside: "/bin/await", ReadOnly: true}},
	}
}

func TestAwaitAsInitContainer(t *testing.T) {
	t.Parallel()
	in := Run(t, awaitBox(t, "file:///tmp/ready", "exec:/bin/testprog?arg=exit&arg=0", "--heartbeat", "50ms"))
	in.WaitStderr("still waiting")
	in.touch("/tmp/ready")
	assert.Equal(t, 0, in.Wait())
	assert.Contains(t, in.Stderr.String(), "/tmp/ready does not exist", "the table has the last error")
	assert.Empty(t, in.Message())
	assert.Empty(t, in.Stdout.String())
}

func TestAwaitSaysWhyAsPID1(t *testing.T) {
	t.Parallel()
	in := Run(t, awaitBox(t, "tcp://127.0.0.1:1", "--timeout", "300ms"))
	assert.Equal(t, 124, in.Wait())
	assert.Contains(t, in.Message(), "tcp://127.0.0.1:1 (dial tcp 127.0.0.1:1: connect: connection refused")
	in = Run(t, awaitBox(t, "redis://:hunter22@"))
	assert.Equal(t, 125, in.Wait())
	assert.NotContains(t, in.Message()+in.Stderr.String(), "hunter22")
}

func TestAwaitEndsAtTermAsPID1(t *testing.T) {
	t.Parallel()
	in := Run(t, awaitBox(t, "tcp://127.0.0.1:1", "--timeout", "0", "--heartbeat", "50ms", "--", "/bin/testprog", "exit", "0"))
	in.WaitStderr("still waiting")
	in.Signal(unix.SIGTERM)
	assert.Equal(t, 143, in.Wait())
}

// The command is PID 1 itself.
func TestAwaitBecomesTheCommand(t *testing.T) {
	t.Parallel()
	in := Run(t, awaitBox(t, append([]string{"file:///tmp", "--"}, do("exit", "7")...)...))
	assert.Equal(t, 7, in.Wait())
	require.Len(t, in.Stderr.Lines(), 3, "the service, and a table of one")
}

func TestAwaitAsHook(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args:   do("exit", "5"),
		Files:  []File{Step("05-await.yaml", "run: [/bin/await, \"file:///tmp/ready\", --heartbeat, 50ms]", "timeout: 0")},
		Mounts: []Mount{{Host: Binary(t, "await"), Inside: "/bin/await", ReadOnly: true}},
	})
	in.WaitStderr("still waiting")
	in.touch("/tmp/ready")
	assert.Equal(t, 5, in.Wait())
}

// With every protocol in it, and a template engine not: that would keep every
// method of every type alive.
func TestAwaitStaysSmall(t *testing.T) {
	t.Parallel()
	info, err := os.Stat(Binary(t, "await"))
	require.NoError(t, err)
	assert.Less(t, info.Size(), int64(15_000_000))
	for _, cmd := range []string{"./cmd/await", "./hooks/await"} {
		assert.NotContains(t, strings.Fields(goList(t, "-deps", cmd)), "text/template")
	}
}
