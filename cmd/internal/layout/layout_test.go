// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestWrap(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "  a b\n", Wrap("  ", "a  b"))
	eight := strings.Repeat("é", 8)
	assert.Equal(t, strings.Repeat(" "+eight, 8)+"\n "+eight+"\n", Wrap(" ", strings.Repeat(eight+" ", 9)))
	long := strings.Repeat("x", 100)
	assert.Equal(t, "  a\n  "+long+"\n  b\n", Wrap("  ", "a "+long+" b"), "a long word stands alone")
}
