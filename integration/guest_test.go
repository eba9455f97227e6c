// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The guest is a kernel with nothing but cgroup v2, what a current node has and
// a machine for building mostly has not: user-mode Linux, an ordinary process.
// It boots once, within two seconds, and runs this very test binary there,
// built without anything dynamic, as root and with -guest. There, too, [Run]
// makes containers; and the tests of guestTests run.

const guestKernel = "linux.uml"

var guestFlag = flag.Bool("guest", false, "we are in the guest: run the tests that need its kernel")

// guestTests are the tests that run there, by name.
var guestTests = map[string]func(*testing.T){
	"Clock":       guestClock,
	"Find":        guestFind,
	"Jump":        guestJump,
	"Kill":        guestKill,
	"OutOfMemory": guestOutOfMemory,
	"NoRoom":      TestNoRoomForAStep, // the same as on this machine
	"Pids":        guestPids,
	"Rows":        guestRows,
}

// TestGuest runs the tests of the guest, and reports each as a test of its own.
// A part of their names after a slash in -run is passed on.
func TestGuest(t *testing.T) {
	if *guestFlag {
		for _, name := range slices.Sorted(maps.Keys(guestTests)) {
			t.Run(name, guestTests[name])
		}
		return
	}
	kernel, err := exec.LookPath(guestKernel)
	if err != nil {
		t.Skip("needs user-mode Linux (Debian's user-mode-linux) for a pure cgroup v2: " + err.Error())
	}
	t.Parallel()
	bootGuest(t, kernel).report()
}

// A guestRun is one boot.
type guestRun struct {
	t       *testing.T
	console Output // of the kernel, and of its init
	lines   bytes.Buffer
	err     error
}

func bootGuest(t *testing.T, kernel string) *guestRun {
	t.Helper()
	root := filepath.Join(guestMemory(t), "root")
	for _, dir := range []string{"bin", "dev", "proc", "sys", "tmp"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	build := exec.Command("go", "test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(root, "bin")+"/", ".", "./throttling")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, program := range []string{testprogPath, Binary(t, "cleanimg-init")} {
		text, err := os.ReadFile(program)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(root, "bin", filepath.Base(program)), text, 0o755))
	}
	_, pattern, _ := strings.Cut(flag.Lookup("test.run").Value.String(), "/")
	job, err := json.Marshal(map[string]any{
		"Args": []string{
			"/bin/integration.test", "-guest", "-bin", "/bin",
			"-test.v=test2json", "-test.timeout=3m", "-test.parallel=4", "-test.run=^TestGuest$/" + pattern,
		},
		"Env": []string{"PATH=/bin", "TMPDIR=/tmp"},
	})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(root, "job"), job, 0o644))

	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	g := &guestRun{t: t}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	cmd := exec.CommandContext(ctx, kernel, "uml_dir="+filepath.Dir(root)+"/", "mem=768M", "root=/dev/root", "rootfstype=hostfs", "rootflags="+root, "rw",
		"init=/bin/testprog", "cgroup_no_v1=all", "con=null", "con0=null,fd:1", "con1=null,fd:3", "console=tty0", "quiet", "panic=-1", "--", "guest")
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Dir(root))
	cmd.Stdout, cmd.Stderr = &g.console, &g.console
	cmd.ExtraFiles = []*os.File{w}
	require.NoError(t, cmd.Start())
	w.Close()
	_, err = io.Copy(&g.lines, r)
	require.NoError(t, err)
	g.err = cmd.Wait()
	return g
}

// guestMemory returns a directory for the guest's memory, which it keeps in a
// file, and its files: in memory where there is enough of it.
func guestMemory(t *testing.T) string {
	t.Helper()
	const enough = 1 << 30
	var fs unix.Statfs_t
	if unix.Statfs("/dev/shm", &fs) == nil && fs.Bavail*uint64(fs.Bsize) >= enough {
		if dir, err := os.MkdirTemp("/dev/shm", "cleanimg-init-guest-"); err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		}
	}
	return t.TempDir()
}

// outcome is how a test in the guest ended.
type outcome struct {
	action string // pass, fail, skip; empty when the guest ended first
	output strings.Builder
	inner  []string // names of its subtests
}

// report turns what the guest printed into subtests.
func (g *guestRun) report() {
	g.t.Helper()
	test2json := exec.Command("go", "tool", "test2json")
	test2json.Stdin = &g.lines
	events, err := test2json.Output()
	require.NoError(g.t, err)
	tests := map[string]*outcome{g.t.Name(): {}}
	for decoder := json.NewDecoder(bytes.NewReader(events)); ; {
		var e struct{ Action, Test, Output string }
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			break
		}
		require.NoError(g.t, err)
		o := tests[e.Test]
		switch {
		case e.Action == "run" && o == nil:
			tests[e.Test] = &outcome{}
			if outer := tests[path.Dir(e.Test)]; outer != nil {
				outer.inner = append(outer.inner, e.Test)
			}
		case o == nil:
		case e.Action == "output":
			o.output.WriteString(e.Output)
		case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
			o.action = e.Action
		}
	}
	g.replay(g.t, tests, g.t.Name())
	ended := g.err == nil && strings.Contains(g.console.String(), "guest: exit 0")
	if g.t.Failed() || !ended {
		g.t.Errorf("the guest's kernel ended with %v, its console:\n%s", g.err, tail(g.console.String()))
	}
}

// replay ends a test here as it ended in the guest, after its subtests.
func (g *guestRun) replay(t *testing.T, tests map[string]*outcome, name string) {
	o := tests[name]
	for _, inner := range o.inner {
		t.Run(path.Base(inner), func(t *testing.T) { g.replay(t, tests, inner) })
	}
	switch o.action {
	case "pass":
		t.Log(o.output.String())
	case "skip":
		t.Skip(o.output.String())
	case "fail":
		t.Error(o.output.String())
	default:
		t.Errorf("did not end in the guest:\n%s", &o.output)
	}
}
