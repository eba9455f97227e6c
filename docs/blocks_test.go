// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBlocks runs what the pages show. The blocks of a page share a directory,
// in the order in which they are read: an empty one, or for an example a copy
// of its own. By language:
//
//	sh          is run, and must end with 0
//	console     every line after "$ " is run, and prints the lines below it; … is anything
//	yaml        is YAML, and a valid step file where it has "run:"
//	dockerfile  is built, on our image in the place of its base
//	json        is valid
//	others      are shown only, and have no commands
//
// A second word after the language is a file name: the block is written there.
func TestBlocks(t *testing.T) {
	t.Parallel()
	for _, p := range pages(t) {
		t.Run(p.path, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "page")
			if strings.HasPrefix(p.path, "../examples/") {
				require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Dir(p.path))))
			} else {
				require.NoError(t, os.Mkdir(dir, 0o755))
			}
			for _, b := range p.blocks() {
				name := fmt.Sprintf("line %d", b.line)
				if b.notRun != "" {
					t.Logf("%s is not run: %s", name, b.notRun)
					continue
				}
				dir := dir
				if b.source {
					dir = copyOfTheSource(t)
				}
				t.Run(name, func(t *testing.T) { b.run(t, dir) })
			}
		})
	}
}

func (b block) run(t *testing.T, dir string) {
	if b.file != "" {
		path := filepath.Join(dir, b.file)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(b.text), 0o644))
	}
	switch {
	case b.lang == "yaml":
		checkYAML(t, b.text)
	case b.lang == "dockerfile":
		buildDockerfile(t, dir, b.text)
	case b.lang == "json":
		assert.True(t, json.Valid([]byte(b.text)), b.text)
	case b.file != "": // some other file
	case b.lang == "sh":
		var env []string
		if b.source {
			env = goEnv()
		}
		out, err := shell(dir, b.text, env...)
		assert.NoError(t, err, "%s", out)
	case b.lang == "console":
		runConsole(t, dir, b.text)
	default:
		for line := range strings.Lines(b.text) {
			assert.False(t, isCommand.MatchString(line), "a command that is not run: %sFence it as sh or console, or say why not, as the package comment says", line)
		}
	}
}

// isCommand recognises a command line by its first word, behind variables.
var isCommand = regexp.MustCompile(`^(\$ )?([A-Z_]+=\S* )*(cleanimg-init|await|check-deps|generate-config|validate-config|migrate|init-storage|fetch|make|go|docker|kubectl|helm|kustomize|curl|cosign) \S`)

// shell runs a script as in an image with our programs, and returns all of its
// output. What it leaves behind is ended.
func shell(dir, script string, env ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-eu", "-c", script)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + binDir + ":/usr/local/bin:/usr/bin:/bin", "HOME=" + dir, "DATABASE_URL=sqlite://" + dir + "/app.db",
		// The tests of several pages run at once.
		"CLEANIMG_INIT_HTTP_LISTEN=off",
	}
	cmd.Env = append(cmd.Env, env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return out.String(), err
}

// copyOfTheSource is what a clone has that is needed to build and test.
func copyOfTheSource(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "source")
	for _, name := range []string{"cmd", "docs", "hooks", "integration", "probes", "reaper", "supervisor"} {
		require.NoError(t, os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join("..", name))))
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join("..", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o644))
	}
	return dir
}

// goEnv has what the go command would otherwise make anew in another home.
var goEnv = sync.OnceValue(func() (env []string) {
	path, err := exec.LookPath("go")
	if err != nil {
		return nil
	}
	names := []string{"GOCACHE", "GOMODCACHE", "GOPATH", "GOPROXY", "GOSUMDB", "GOFLAGS", "GOTOOLCHAIN"}
	values, err := exec.Command(path, append([]string{"env"}, names...)...).Output()
	if err != nil {
		return nil
	}
	for i, value := range strings.Split(strings.TrimSuffix(string(values), "\n"), "\n") {
		env = append(env, names[i]+"="+value)
	}
	return append(env, "PATH="+binDir+":"+filepath.Dir(path)+":/usr/local/bin:/usr/bin:/bin")
})

// runConsole runs the commands of a session, and compares what they print.
func runConsole(t *testing.T, dir, session string) {
	require.True(t, strings.HasPrefix(session, "$ "), "a console block begins with a command")
	for _, part := range strings.Split("\n"+session, "\n$ ")[1:] {
		command, want, _ := strings.Cut(part, "\n")
		for strings.HasSuffix(command, `\`) { // goes on in the next line
			var next string
			next, want, _ = strings.Cut(want, "\n")
			command += "\n" + next
		}
		out, err := shell(dir, command)
		require.NoError(t, err, "$ %s\n%s", command, out)
		assert.Regexp(t, pattern(want), strings.TrimRight(out, "\n")+"\n", "$ %s", command)
	}
}

// pattern is a regular expression for what a page shows as output.
func pattern(shown string) string {
	var b strings.Builder
	b.WriteString(`\A`)
	for line := range strings.Lines(strings.TrimRight(shown, "\n") + "\n") {
		if strings.TrimSpace(line) == "…" {
			b.WriteString(`(.*\n)*?`)
			continue
		}
		b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*"))
	}
	return b.String() + `\z`
}

func TestPattern(t *testing.T) {
	assert.Regexp(t, pattern("a … b\n…\nc\n"), "a 1 b\n2\n3\nc\n")
	assert.Regexp(t, pattern("a\n…\nc\n"), "a\nc\n")
	assert.NotRegexp(t, pattern("a\n"), "a\nb\n")
	assert.NotRegexp(t, pattern(""), "a\n")
	assert.Regexp(t, pattern(""), "\n")
}
