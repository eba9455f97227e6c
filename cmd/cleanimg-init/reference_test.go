// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/supervisor"
)

var update = flag.Bool("update", false, "write the table of settings into docs/reference.md")

// The reference shows the settings that the program has, and no others.
func TestReferenceShowsTheSettings(t *testing.T) {
	const path, begin, end = "../../docs/reference.md", "<!-- settings -->\n", "<!-- /settings -->"
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	head, rest, ok := strings.Cut(string(text), begin)
	require.True(t, ok)
	_, tail, ok := strings.Cut(rest, end)
	require.True(t, ok)

	var table strings.Builder
	table.WriteString("| variable | default | |\n|---|---|---|\n")
	for _, v := range supervisor.Variables() {
		def := "none"
		if v.Default != "" {
			def = "`" + v.Default + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", v.Name, def, v.Desc)
	}
	want := head + begin + table.String() + end + tail
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
		return
	}
	assert.Equal(t, want, string(text), "run: go test ./cmd/cleanimg-init -run Reference -update")
}
