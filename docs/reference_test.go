// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const entrypoint = "cleanimg-init"

// The reference shows what --help of every program says. (The settings of
// cleanimg-init have a test beside its main.)
func TestReferenceShowsThePrograms(t *testing.T) {
	entries, err := os.ReadDir(binDir)
	require.NoError(t, err)
	var tools strings.Builder
	var list []string
	for _, e := range entries {
		if e.Type().IsRegular() && e.Name() != entrypoint {
			tools.WriteString(toolSection(t, e.Name()))
			list = append(list, fmt.Sprintf("[%s](#%[1]s)", e.Name()))
		}
	}
	help := helpOf(t, entrypoint)
	shown, err := os.ReadFile("reference.md")
	require.NoError(t, err)
	want := string(shown)
	for name, content := range map[string]string{
		"list":  "- the tools: " + strings.Join(list, ", ") + "\n",
		"usage": usage(help),
		"flags": flagTable(help),
		"codes": exitCodes(help, "the command's own, or the failing hook's", "128+n when signal n killed it"),
		"tools": tools.String(),
	} {
		begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->"
		head, rest, ok := strings.Cut(want, begin)
		require.True(t, ok, "reference.md has no %s", begin)
		_, tail, ok := strings.Cut(rest, end)
		require.True(t, ok, "reference.md has no %s", end)
		want = head + begin + content + end + tail
	}
	if *update {
		require.NoError(t, os.WriteFile("reference.md", []byte(want), 0o644))
		return
	}
	assert.Equal(t, want, string(shown), "run: go test ./docs -run Reference -update")
}

func helpOf(t *testing.T, program string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(binDir, program), "--help").Output()
	require.NoError(t, err)
	return string(out)
}

// part is what stands in the help below a heading, up to an empty line.
func part(help, heading string) string {
	_, rest, _ := strings.Cut("\n"+help, "\n"+heading+"\n")
	text, _, _ := strings.Cut(rest, "\n\n")
	return strings.TrimRight(text, "\n")
}

func usage(help string) string {
	forms := "\n" + part(help, "Usage:")
	return "<!-- not run: forms, and no commands -->\n```text" + strings.ReplaceAll(forms, "\n  ", "\n") + "\n```\n"
}

var flagLine = regexp.MustCompile(`(?m)^  (-.+?) {2,}(.+)$`)

// flagTable has the options of cleanimg-init that are no settings.
func flagTable(help string) string {
	_, rest, _ := strings.Cut(help, "\nOptions that are no settings")
	block, _, _ := strings.Cut(rest, "\n\n")
	var b strings.Builder
	b.WriteString("| option | |\n|---|---|\n")
	for _, m := range flagLine.FindAllStringSubmatch(block, -1) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", m[1], cell(m[2]))
	}
	return b.String()
}

var (
	optionLines  = regexp.MustCompile(`(?m)^  (?:(-\w), )?--([a-z0-9-]+)(?: (.+))?((?:\n {6}.+)+)$`)
	withDefault  = regexp.MustCompile(`^(.+?)(?: \(default (.+)\))?$`)
	exampleWords = regexp.MustCompile(`Every option has a variable: ([A-Z_]+) is --([a-z0-9-]+)`)
)

// toolSection is the section of an init tool.
func toolSection(t *testing.T, tool string) string {
	help := helpOf(t, tool)
	example := exampleWords.FindStringSubmatch(help)
	require.NotNil(t, example, "%s --help", tool)
	prefix := strings.TrimSuffix(example[1], strings.ToUpper(strings.ReplaceAll(example[2], "-", "_")))
	page := tool + ".md"
	require.FileExists(t, page)

	var b strings.Builder
	fmt.Fprintf(&b, "\n## %s\n\n[%s](%s) says what it is for.\n\n%s\n", tool, page, page, usage(help))
	b.WriteString("| option | variable | default | |\n|---|---|---|---|\n")
	for _, m := range optionLines.FindAllStringSubmatch(part(help, "Options:"), -1) {
		short, name, value := m[1], m[2], m[3]
		said := withDefault.FindStringSubmatch(strings.Join(strings.Fields(m[4]), " "))
		text, def := said[1], said[2]
		option := "`" + strings.TrimSpace("--"+name+" "+value) + "`"
		if short != "" {
			option = "`" + short + "`, " + option
		}
		variable := "`" + prefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "`"
		if name == "help" || name == "version" {
			variable = ""
		}
		if def != "" {
			def = "`" + def + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", cell(option), variable, def, cell(text))
	}
	b.WriteString("\n" + exitCodes(help))
	return b.String()
}

var codeLine = regexp.MustCompile(`(?m)^  (\d[\d, ]*?) {2,}(.+)$`)

// exitCodes is a table of what the help says; first is a row before them.
func exitCodes(help string, first ...string) string {
	var b strings.Builder
	b.WriteString("| exit code | |\n|---|---|\n")
	if len(first) > 0 {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(first, " | "))
	}
	for _, m := range codeLine.FindAllStringSubmatch(part(help, "Exit codes:"), -1) {
		fmt.Fprintf(&b, "| %s | %s |\n", m[1], cell(m[2]))
	}
	return b.String()
}

// cell is a text as the cell of a table.
func cell(text string) string { return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(text) }

// tableColumn returns what stands in back quotes in the first cells of the rows
// of a section.
func tableColumn(t *testing.T, heading string) (all []string) {
	t.Helper()
	shown, err := os.ReadFile("reference.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(shown), "\n## "+heading+"\n")
	require.True(t, ok, heading)
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if first, ok := strings.CutPrefix(line, "| "); ok {
			first, _, _ = strings.Cut(first, " |")
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(first, -1) {
				all = append(all, m[1])
			}
		}
	}
	require.NotEmpty(t, all, heading)
	return all
}

func freeAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// The endpoints in the reference are those that there are: each answers, and
// each that a wrong path's answer names is there.
func TestReferenceShowsTheEndpoints(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	cmd := exec.Command(filepath.Join(binDir, entrypoint), "--", "sleep", "600")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "CLEANIMG_INIT_HTTP_LISTEN=" + addr}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	get := func(path string) (status int, body string) {
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	require.Eventually(t, func() bool { status, _ := get("/readyz"); return status == 200 }, time.Minute, 10*time.Millisecond)
	shown := tableColumn(t, "Endpoints")
	for _, path := range shown {
		status, body := get(path)
		assert.Equal(t, 200, status, "%s: %s", path, body)
	}
	status, body := get("/nowhere")
	assert.Equal(t, 404, status)
	for _, path := range regexp.MustCompile(`/[a-z/]*`).FindAllString(body, -1) {
		assert.Contains(t, shown, path)
	}
}

// The variables in the reference are those that hooks, command, stop hooks and
// checks get from cleanimg-init.
func TestReferenceShowsWhatIsSeen(t *testing.T) {
	t.Parallel()
	shown := tableColumn(t, "What hooks and command see")
	dir := t.TempDir()
	step := fmt.Sprintf("run: [/bin/sh, -c, 'env >> %s/seen']\n", dir)
	for _, file := range []string{"hooks.d/10-see.yaml", "stop.d/10-see.yaml"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(step), 0o644))
	}
	check := filepath.Join(dir, "check")
	require.NoError(t, os.WriteFile(check, []byte("#!/bin/sh\nenv >> "+dir+"/seen\ntouch "+dir+"/checked\n"), 0o755))
	set := []string{
		"CLEANIMG_INIT_HTTP_LISTEN=" + freeAddr(t), "CLEANIMG_INIT_HOOKS_DIR=" + dir + "/hooks.d", "CLEANIMG_INIT_STOP_HOOKS_DIR=" + dir + "/stop.d",
		"CLEANIMG_INIT_STARTUP_CHECK=exec:" + check, "CLEANIMG_INIT_NOTIFY=main", "CLEANIMG_INIT_WATCHDOG=10s",
	}
	cmd := exec.Command(filepath.Join(binDir, entrypoint), "--", "/bin/sh", "-c", "env >> "+dir+"/seen; until test -e "+dir+"/checked; do sleep 0.01; done")
	cmd.Env = append([]string{"PATH=/usr/bin:/bin"}, set...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	seen, err := os.ReadFile(filepath.Join(dir, "seen"))
	require.NoError(t, err)
	var names []string
	for line := range strings.Lines(string(seen)) {
		name, _, _ := strings.Cut(line, "=")
		ours := strings.HasPrefix(name, "CLEANIMG_INIT_") || name == "NOTIFY_SOCKET" || name == "WATCHDOG_USEC"
		if ours && !slices.ContainsFunc(set, func(s string) bool { return strings.HasPrefix(s, name+"=") }) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		assert.Contains(t, shown, name)
	}
	for _, name := range shown {
		if !strings.HasSuffix(name, "_LIMIT") { // where there is none there is no variable
			assert.Contains(t, names, name)
		}
	}
}
