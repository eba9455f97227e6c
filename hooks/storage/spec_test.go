// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseEntry(t *testing.T) {
	t.Parallel()
	tests := map[string]Entry{
		"/a":              {Path: "/a", Mode: Keep, UID: Keep, GID: Keep},
		"/a:0700":         {Path: "/a", Mode: 0o700, UID: Keep, GID: Keep},
		"a/b:1777:0":      {Path: "a/b", Mode: 0o1777, UID: 0, GID: Keep},
		"/a:2770:10:2000": {Path: "/a", Mode: 0o2770, UID: 10, GID: 2000},
		"/a::10":          {Path: "/a", Mode: Keep, UID: 10, GID: Keep},
		"/a:::10":         {Path: "/a", Mode: Keep, UID: Keep, GID: 10},
		"/a:700":          {Path: "/a", Mode: 0o700, UID: Keep, GID: Keep},
		"/a:0":            {Path: "/a", Mode: 0, UID: Keep, GID: Keep},
	}
	for text, want := range tests {
		got, err := ParseEntry(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", ":0700", "/a:rwx", "/a:0800", "/a:10000", "/a:-1", "/a:0700:joe", "/a:0700:-1", "/a:0700:1:4294967295", "/a:1:2:3:4"} {
		_, err := ParseEntry(text)
		assert.Error(t, err, text)
	}
}

// What would not be read, or only one of two, is an error.
func TestLoadReadsAll(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"dirs: [/a]\n---\ndirs: [/b]\n":               "line 2: a second document",
		"dirs: [/a]\n---\n]\n":                        "yaml: ",
		"dirs:\n- {path: /a, mode: 0700, mode: 0755}": "line 2: the key \"mode\" is there twice",
		"dirs: [/a]\ndirs: [/b]\n":                    "already defined",
	} {
		assert.ErrorContains(t, new(Plan).Load(strings.NewReader(text)), want, text)
	}
	var p Plan
	require.NoError(t, p.Load(strings.NewReader("---\ndirs: [/a]\r\n...\n")))
	assert.Len(t, p.Dirs, 1)
}

func FuzzParseEntry(f *testing.F) {
	for _, s := range []string{"/a:0700:1:2", "::::", "/a:::", "a:7777", "\x00:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseEntry(s)
		if err != nil {
			return
		}
		if e.Path == "" || e.Mode < Keep || e.Mode > 0o7777 || e.UID < Keep || e.GID < Keep {
			t.Errorf("%q gave %+v", s, e)
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add("dirs: [/a:0700, {path: /b, recursive: true}]\nfiles: [/c]\n")
	f.Add("dirs: {a: b}\n")
	f.Add("dirs:\n- &a [*a]\n")
	f.Fuzz(func(t *testing.T, s string) {
		var p Plan
		if err := p.Load(strings.NewReader(s)); err == nil {
			for _, e := range append(p.Dirs, p.Files...) {
				if e.Path == "" {
					t.Errorf("%q gave an entry without a path", s)
				}
			}
		}
	})
}
