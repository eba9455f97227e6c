// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseExport(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", nil},
		{"lines", "A=1\nB=two words \n", []string{"A=1", "B=two words "}},
		{"no end of line", "A=1", []string{"A=1"}},
		{"empty value", "A=\n", []string{"A="}},
		{"equals signs", "A=b=c<<d\n", []string{"A=b=c<<d"}},
		{"blank lines", "\n  \nA=1\n\n", []string{"A=1"}},
		{"CRLF", "A=1\r\n\r\nB=2\r\n", []string{"A=1", "B=2"}},
		{"later wins", "A=1\nB=2\nA=3\n", []string{"A=3", "B=2"}},
		{"block", "A<<END\none\n\nB=2\nEND\nC=3\n", []string{"A=one\n\nB=2", "C=3"}},
		{"empty block", "A<<END\nEND", []string{"A="}},
		{"block with =", "A<<x=y\n1\nx=y\n", []string{"A=1"}},
		{"block keeps CR", "A<<END\r\none\r\ntwo\r\nEND\r\n", []string{"A=one\r\ntwo\r"}},
		{"not quite the end", "A<<END\n END\nEND \nEND\n", []string{"A= END\nEND "}},
		{"names", "_a9=1\nz=2\n", []string{"_a9=1", "z=2"}},
		{"any bytes", "A=\xff\x01ä\n", []string{"A=\xff\x01ä"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseExport([]byte(tt.in))
			require.NoError(t, err)
			if tt.want == nil {
				assert.Empty(t, got)
				return
			}
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestParseExportErrors(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"no value", "A=1\nhunter2\n", "line 2: neither KEY=value nor KEY<<END"},
		{"bad name", "my hunter2=1\n", "line 1: what is before the value is not a variable's name (letters, digits, _)"},
		{"export", "export A=1\n", "line 1: what is before the value is not a variable's name (letters, digits, _)"},
		{"no name", "=1\n", "line 1: what is before the value is not a variable's name (letters, digits, _)"},
		{"digit", "1A=1\n", "line 1: what is before the value is not a variable's name (letters, digits, _)"},
		{"ours", "CLEANIMG_INIT_MODE=hunter2\n", "line 1: CLEANIMG_INIT_MODE: names that start with CLEANIMG_INIT_ are not for hooks to set"},
		{"ours in a block", "CLEANIMG_INIT_X<<E\nhunter2\nE\n", "line 1: CLEANIMG_INIT_X: names that start with CLEANIMG_INIT_ are not for hooks to set"},
		{"no end", "A<<END\nhunter2\n", "line 1: A: the line that ends it is missing"},
		{"no word", "A<<\nhunter2=1\n", "line 1: A: no word after <<"},
		{"NUL", "A=1\nB=\x00\n", "line 2: a NUL byte, which no variable can hold"},
		{"several", "a b=1\nok=1\nhunter2\n", "line 1: what is before the value is not a variable's name (letters, digits, _)\nline 3: neither KEY=value nor KEY<<END"},
		{"long value", "A=1\nB=" + strings.Repeat("x", longestValue) + "\n", "line 2: B: larger than a variable can be (127 KiB)"},
		{"large", strings.Repeat("x", largestExport+1), "larger than 1 MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseExport([]byte(tt.in))
			require.EqualError(t, err, tt.want)
			assert.Nil(t, got)
		})
	}
}

func FuzzParseExport(f *testing.F) {
	for _, s := range []string{"A=1\nB<<END\nx\nEND\n", "A<<\n", "A=\x00", "A=1\r\n", "CLEANIMG_INIT_X=1", "=", "<<"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseExport(data)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		var again strings.Builder
		for _, entry := range entries {
			name, value, _ := strings.Cut(entry, "=")
			if !isName(name) || strings.HasPrefix(name, ownPrefix) || strings.Contains(value, "\x00") || seen[name] {
				t.Fatalf("entry %q", entry)
			}
			seen[name] = true
			again.WriteString(name + "<<end of it\n" + value + "\nend of it\n")
		}
		if strings.Contains(string(data), "end of it") {
			return
		}
		// As blocks, the same comes out again, up to a value's own line ends.
		back, err := parseExport([]byte(again.String()))
		if err != nil || len(back) != len(entries) {
			t.Fatalf("%q came back as %q, %v", entries, back, err)
		}
		for i := range back {
			if back[i] != entries[i] {
				t.Fatalf("%q came back as %q", entries[i], back[i])
			}
		}
	})
}
