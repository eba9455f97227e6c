// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The pages that say how big a program is agree with the build, and so with
// each other.
func TestSizes(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		t.Skip("the pages have the sizes for amd64")
	}
	sizeOf := func(path string) float64 {
		info, err := os.Stat(path)
		require.NoError(t, err)
		return float64(info.Size()) / 1e6
	}
	sizes := map[string]float64{}
	entries, err := os.ReadDir(binDir)
	require.NoError(t, err)
	total := 0.0
	for _, e := range entries {
		if e.Type().IsRegular() {
			sizes[e.Name()] = sizeOf(filepath.Join(binDir, e.Name()))
			total += sizes[e.Name()]
		}
	}
	for name, tags := range map[string]string{
		"await without Kafka": "no_kafka", "await with none": "no_http,no_postgres,no_mysql,no_redis,no_kafka,no_amqp,no_nats,no_mongodb",
	} {
		small := filepath.Join(t.TempDir(), "await")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-tags", tags, "-o", small, "../cmd/await")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := build.CombinedOutput()
		require.NoError(t, err, "%s", out)
		sizes[name] = sizeOf(small)
	}
	assert.Less(t, total, 60.0, "README.md says so of the image")
	for _, claim := range []struct{ page, text, program string }{
		{"comparison.md", `(?m)^\| size \| ([0-9.]+) MB \| 0\.03 MB`, "cleanimg-init"},
		{"comparison.md", `(?m)^\| size \| ([0-9.]+) MB \| 30 MB`, "await"},
		{"comparison.md", `(?m)^\| size \| ([0-9.]+) MB \| 112 MB`, "generate-config"},
		{"await.md", `One static binary of ([0-9.]+) MB`, "await"},
		{"await.md", `without Kafka it is ([0-9.]+) MB`, "await without Kafka"},
		{"await.md", `with none of them ([0-9.]+) MB`, "await with none"},
		{"fetch.md", `(?m)^\| fetch.* \| ([0-9.]+) \|$`, "fetch"},
		{"init-storage.md", `(?m)^\| init-storage.* \| ([0-9.]+) \|$`, "init-storage"},
		{"generate-config.md", `(?m)^\| generate-config.* \| ([0-9.]+) \|$`, "generate-config"},
	} {
		text, err := os.ReadFile(claim.page)
		require.NoError(t, err)
		found := regexp.MustCompile(claim.text).FindAllStringSubmatch(string(text), -1)
		assert.NotEmpty(t, found, "%s has no %s", claim.page, claim.text)
		for _, m := range found {
			said, err := strconv.ParseFloat(m[1], 64)
			require.NoError(t, err)
			// What rounding takes away, or what another Go adds.
			_, digits, _ := strings.Cut(m[1], ".")
			tolerance := max(0.5*math.Pow10(-len(digits)), 0.02*said)
			assert.InDelta(t, sizes[claim.program], said, tolerance, "%s, MB of %s: %s", claim.page, claim.program, m[0])
		}
	}
}

// What comparison.md says of start and memory is what performance.md has
// measured.
func TestComparisonHasWhatWasMeasured(t *testing.T) {
	text, err := os.ReadFile("performance.md")
	require.NoError(t, err)
	column := map[string]int{}
	_, table, ok := strings.Cut(string(text), "\n| init |")
	require.True(t, ok)
	header, _, _ := strings.Cut(table, "\n")
	for i, name := range strings.Split(header, "|") {
		if name = strings.TrimSpace(name); column[name] == 0 {
			column[name] = i + 1
		}
	}
	// figure is that of an init, by the head of its column.
	figure := func(init, head string, next int) float64 {
		_, row, ok := strings.Cut(table, "\n| "+init+" |")
		require.True(t, ok, init)
		cells := strings.Split(row, "|")
		require.Contains(t, column, head)
		value, err := strconv.ParseFloat(strings.TrimSpace(cells[column[head]-1+next]), 64)
		require.NoError(t, err, "%s of %s", head, init)
		return value
	}
	start, memory := "| start of the command, against tini |", "| memory of its own, idle ([how](performance.md)) |"
	for _, init := range []string{"cleanimg-init", "tini", "dumb-init", "catatonit"} {
		start += fmt.Sprintf(" %.1f × |", figure(init, "start µs", 1))
		memory += fmt.Sprintf(" %.2f MB |", figure(init, "dirty kB", 0)/1000)
	}
	shown, err := os.ReadFile("comparison.md")
	require.NoError(t, err)
	want := string(shown)
	for _, row := range []string{start + " |", memory + " several processes |"} {
		head, _, _ := strings.Cut(row[1:], "|")
		line := regexp.MustCompile(`(?m)^\|` + regexp.QuoteMeta(head) + `\|.*$`)
		require.Regexp(t, line, want)
		want = line.ReplaceAllLiteralString(want, row)
	}
	if *update {
		require.NoError(t, os.WriteFile("comparison.md", []byte(want), 0o644))
		return
	}
	assert.Equal(t, want, string(shown), "run: go test ./docs -run Comparison -update")
}

// How a grace period is divided is in shutdown.md as the program does it, which
// says so of a drain delay that does not fit.
func TestGracePeriodIsDividedAsSaid(t *testing.T) {
	text, err := os.ReadFile("shutdown.md")
	require.NoError(t, err)
	rows := regexp.MustCompile(`(?m)^\| .* \| (\d\S*) \| (\d\S*) \| (\d\S*) \|$`).FindAllStringSubmatch(string(text), -1)
	require.Len(t, rows, 3)
	for _, row := range rows {
		check := exec.Command(filepath.Join(binDir, entrypoint), "--check")
		check.Env = []string{"CLEANIMG_INIT_GRACE_PERIOD=" + row[1], "CLEANIMG_INIT_DRAIN_DELAY=" + row[1]}
		out, err := check.CombinedOutput()
		require.Error(t, err)
		said := regexp.MustCompile(`: (\S+) of that are kept .*; want less than (\S+)\n`).FindStringSubmatch(string(out))
		require.NotNil(t, said, "%s", out)
		for shown, is := range map[string]string{row[2]: said[2], row[3]: said[1]} {
			a, err := time.ParseDuration(shown)
			require.NoError(t, err)
			b, err := time.ParseDuration(is)
			require.NoError(t, err)
			assert.Equal(t, b, a, row[0])
		}
	}
}
