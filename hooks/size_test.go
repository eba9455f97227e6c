// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSizes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"0": 0, "4096": 4096, "1Ki": 1024, "1.5Gi": 3 << 29, "500M": 5e8, "2k": 2000, "1Pi": 1 << 50} {
		got, err := ParseSize(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "Gi", "-1", "+1", "1 Gi", "1e3", "1GiB", "lots", "9999999Pi", "NaN", "0x10", "1.2.3"} {
		_, err := ParseSize(text)
		assert.Error(t, err, text)
	}
}
