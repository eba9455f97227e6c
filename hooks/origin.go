// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"cmp"
	"net/url"
	"strings"
)

// SameOrigin tells whether two URLs are of one scheme, host and port, so that
// credentials for the one are for the other too. The port that a URL of http or
// https has without naming it is the same as that one named.
func SameOrigin(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		return cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}
