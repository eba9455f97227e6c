// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is ok can be sent, and nothing else.
func TestParseHeader(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	for line, want := range map[string][2]string{
		"X-A: b":            {"X-A", "b"},
		" X-A :b c:d\t":     {"X-A", "b c:d"},
		"X-A:":              {"X-A", ""},
		"X-A":               {"X-A", ""},
		"X_A.~: \"é\"\tx":   {"X_A.~", "\"é\"\tx"},
		"":                  {},
		": b":               {},
		"X A: b":            {},
		"X-Ä: b":            {},
		"\ufeffX-A: b":      {},
		"X-A(1): b":         {},
		"X-A: a\nX-B: b":    {},
		"X-A: a\x00b":       {},
		"X-A: a\x7fb":       {},
		"X-A: a\x1b[31mb":   {},
		"Authorization: \r": {"Authorization", ""},
	} {
		name, value, ok := ParseHeader(line)
		assert.Equal(t, want[0] != "", ok, "%q", line)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, http.NoBody)
		require.NoError(t, err)
		req.Header = http.Header{name: {value}}
		resp, err := s.Client().Do(req)
		if !ok {
			assert.Error(t, err, "%q", line)
			continue
		}
		assert.Equal(t, want, [2]string{name, value}, "%q", line)
		if assert.NoError(t, err, "%q", line) {
			resp.Body.Close()
		}
	}
}
