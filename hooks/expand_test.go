// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var expandEnv = lookupIn([]string{"A=one", "B=two", "EMPTY=", "SECRET=hunter2", "A=1"})

func TestExpand(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"plain", "plain"},
		{"${A}", "1"},
		{"x${A}y${B}z", "x1ytwoz"},
		{"${EMPTY}", ""},
		{"$A $1 $ a$", "$A $1 $ a$"},
		{"$$", "$"},
		{"$${A}", "${A}"},
		{"$$$$", "$$"},
		{"$$(A)", "$(A)"},
		{"${NO:-}", ""},
		{"${NO:-d}", "d"},
		{"${EMPTY:-d}", "d"},
		{"${A:-d}", "1"},
		{"${NO:-${A}}", "1"},
		{"${NO:-${NO2:-x${B}}y}z", "xtwoyz"},
		{"${NO:-$${A$}}", "${A$}"},
		{"${NO:-a b:-c}", "a b:-c"},
		{"${A:?must be set}", "1"},
		{"a}b{c", "a}b{c"},
		{"${A}}", "1}"},
		{"äö${A}", "äö1"},
	}
	for _, tt := range tests {
		got, err := expand(tt.in, expandEnv)
		require.NoError(t, err, tt.in)
		assert.Equal(t, tt.want, got, tt.in)
	}
}

func TestExpandErrors(t *testing.T) {
	tests := []struct{ in, want string }{
		{"${NO}", "${NO} is not set: set it, or write ${NO:-} for empty"},
		{"${SECRET}${NO} ${NO2}", "${NO} is not set: set it, or write ${NO:-} for empty\n${NO2} is not set: set it, or write ${NO2:-} for empty"},
		{"${NO:-${NO2}}", "${NO2} is not set: set it, or write ${NO2:-} for empty"},
		{"${NO:?the database's address}", "${NO}: the database's address"},
		{"${EMPTY:?}", "${EMPTY} is not set or empty"},
		{"${NO:?${SECRET}}", "${NO}: ${SECRET"},
		{"$(A)", "$(…) is not expanded: write ${VAR}, or $$( for these two characters"},
		{"${NO:-$(date)}", "$(…) is not expanded: write ${VAR}, or $$( for these two characters"},
		{"${", "${ without a variable's name: accepted are ${VAR}, ${VAR:-default}, ${VAR:?message}; $$ is a dollar sign"},
		{"${1}", "${ without a variable's name: accepted are ${VAR}, ${VAR:-default}, ${VAR:?message}; $$ is a dollar sign"},
		{"${A", "${ without its }: close it, or write $$ for a dollar sign"},
		{"${A:-x", "${ without its }: close it, or write $$ for a dollar sign"},
		{"${A:?x", "${ without its }: close it, or write $$ for a dollar sign"},
		{"${A-x}", "${A…}: accepted are ${VAR}, ${VAR:-default}, ${VAR:?message}"},
		{"${A:+x}", "${A…}: accepted are ${VAR}, ${VAR:-default}, ${VAR:?message}"},
		{strings.Repeat("${A:-", 20) + strings.Repeat("}", 20), "defaults are nested more than 16 deep"},
	}
	for _, tt := range tests {
		got, err := expand(tt.in, expandEnv)
		require.EqualError(t, err, tt.want, tt.in)
		assert.Empty(t, got)
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "$", "$$", "${A}", "${NO:-${B}x}", "${A:?m}", "$(A)", "a${", "${A:-}}", "$${A}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := expand(s, expandEnv)
		if err != nil {
			if strings.Contains(err.Error(), "hunter2") && !strings.Contains(s, "hunter2") {
				t.Fatalf("a value in the error: %v", err)
			}
			return
		}
		if !strings.Contains(s, "$") && got != s {
			t.Fatalf("%q became %q", s, got)
		}
		// With every dollar doubled nothing is left to expand.
		literal, err := expand(strings.ReplaceAll(s, "$", "$$"), expandEnv)
		if err != nil || literal != s {
			t.Fatalf("%q came back as %q, %v", s, literal, err)
		}
	})
}
