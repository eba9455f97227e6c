// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSameOrigin(t *testing.T) {
	t.Parallel()
	tests := []struct {
		a, b string
		want bool
	}{
		{"http://api/a", "http://api/b", true},
		{"http://api", "http://API:80", true},
		{"https://api:443", "https://api", true},
		{"http://[::1]", "http://[::1]:80", true},
		{"http://api:", "http://api", true},
		{"http://api:443", "http://api", false},
		{"https://api", "https://api:80", false},
		{"http://api:80", "https://api:80", false},
		{"http://api:8080", "http://api", false},
		{"http://api", "http://api.example", false},
	}
	for _, tt := range tests {
		a, err := url.Parse(tt.a)
		require.NoError(t, err)
		b, err := url.Parse(tt.b)
		require.NoError(t, err)
		assert.Equal(t, tt.want, SameOrigin(a, b), "%s %s", tt.a, tt.b)
		assert.Equal(t, tt.want, SameOrigin(b, a), "%s %s", tt.b, tt.a)
	}
}
