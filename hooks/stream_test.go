// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestStreamHasLinesOfItsOwn(t *testing.T) {
	output := newCapture(t)
	s := &Stream{FD: int(output.file.Fd())}
	for _, text := range []string{"first\n", "", "half", "way"} {
		require.NoError(t, s.pass([]byte(text)))
	}
	require.NoError(t, s.WriteLine([]byte("log\n")))
	require.NoError(t, s.WriteLine([]byte("log again\n")))
	require.NoError(t, s.pass([]byte("last")))
	await(t, "output", func() bool { return len(output.String()) >= len("first\nhalfway\nlog\nlog again\nlast") })
	assert.Equal(t, "first\nhalfway\nlog\nlog again\nlast", output.String())
}
