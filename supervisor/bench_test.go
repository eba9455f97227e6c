// SPDX-License-Identifier: Apache-2.0

package supervisor

import "testing"

// What settings cost at every start.
func BenchmarkParseConfig(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ParseConfig(nil, nil, Flags{}, []string{"true"}); err != nil {
			b.Fatal(err)
		}
	}
}
