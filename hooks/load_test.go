// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const script = "#!/bin/sh\nexit 0\n"

// names flattens a plan: stages separated by "|", hooks of one by a blank.
func names(stages [][]Step) string {
	var text []string
	for _, stage := range stages {
		var one []string
		for _, s := range stage {
			one = append(one, s.Name)
		}
		text = append(text, strings.Join(one, " "))
	}
	return strings.Join(text, "|")
}

func TestLoadNothing(t *testing.T) {
	plan, err := Load(Options{Dirs: []string{"/no/hooks.d"}, StopDirs: []string{"/no/stop.d"}, Timeout: time.Minute})
	require.NoError(t, err)
	assert.Equal(t, Plan{}, plan)
	assert.Zero(t, plan.Len())
	assert.Zero(t, plan.Longest(nil))
}

func TestLoadOrderAndSkippedNames(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"20-b", "10-a-b", "100-c", "Z", "a", "9-z"} {
		write(t, filepath.Join(dir, name), script, 0o755)
	}
	write(t, filepath.Join(dir, "10-a.yaml"), "run: [/x]\n", 0o600)
	write(t, filepath.Join(dir, "10-a-c.yml"), "run: [/x]\n", 0o777&^0o022)
	for _, name := range []string{".hidden", "a~", "a.bak", "README.md", "notes.txt", "a.dpkg-old", "a.rpmsave", "a.rpmnew"} {
		write(t, filepath.Join(dir, name), "x", 0o644)
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "folder"), 0o755))
	plan, err := Load(Options{Dirs: []string{dir}, DirsNamed: true})
	require.NoError(t, err)
	assert.Equal(t, "10-a|10-a-b|10-a-c|100-c|20-b|9-z|Z|a", names(plan.Stages))
	assert.Equal(t, 8, plan.Len())
	assert.Equal(t, []string{dir + "/folder is a folder: not a hook, skipped"}, plan.Warnings)
}

func TestLoadOverridesAndMasks(t *testing.T) {
	image, operator := t.TempDir(), t.TempDir()
	write(t, filepath.Join(image, "10-a"), script, 0o755)
	write(t, filepath.Join(image, "20-b"), script, 0o755)
	write(t, filepath.Join(image, "30-c"), "broken", 0o644) // and masked: no error
	write(t, filepath.Join(image, "40-d.yaml"), "run: [/old]\n", 0o644)
	write(t, filepath.Join(image, "50-e"), "", 0o644) // masks nothing
	write(t, filepath.Join(image, "60-f"), "", 0o644)
	write(t, filepath.Join(operator, "20-b"), "", 0o644)
	require.NoError(t, os.Symlink("/dev/null", filepath.Join(operator, "30-c")))
	write(t, filepath.Join(operator, "40-d.yaml"), "run: [/new]\n", 0o644)
	write(t, filepath.Join(operator, "60-f"), script, 0o755)
	plan, err := Load(Options{Dirs: []string{image, operator}, DirsNamed: true})
	require.NoError(t, err)
	assert.Equal(t, "10-a|40-d|60-f", names(plan.Stages))
	assert.Equal(t, []string{"/new"}, plan.Stages[1][0].program)
	assert.Equal(t, operator+"/40-d.yaml", plan.Stages[1][0].File)
}

func TestLoadConfigMapLinks(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "..2026_11_22", "10-a"), script, 0o755)
	require.NoError(t, os.Symlink("..2026_11_22", filepath.Join(dir, "..data")))
	require.NoError(t, os.Symlink("..data/10-a", filepath.Join(dir, "10-a")))
	plan, err := Load(Options{Dirs: []string{dir}})
	require.NoError(t, err)
	assert.Equal(t, "10-a", names(plan.Stages))
	assert.Empty(t, plan.Warnings)
}

func TestLoadStages(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"05-a", "10-a", "10-b", "10", "20-a", "x-a", "x-b"} {
		write(t, filepath.Join(dir, name), script, 0o755)
	}
	plan, err := Load(Options{Dirs: []string{dir}, StopDirs: []string{dir}, Parallel: 4})
	require.NoError(t, err)
	assert.Equal(t, "05-a|10 10-a 10-b|20-a|x-a|x-b", names(plan.Stages))
	assert.Len(t, plan.Stop, 7)
	plan, err = Load(Options{Dirs: []string{dir}, Parallel: 1})
	require.NoError(t, err)
	assert.Len(t, plan.Stages, 7)

	for name, want := range map[string]string{"": "", "a": "", "0": "0", "000-a": "0", "007": "7", "10a": "10"} {
		assert.Equal(t, want, leadingNumber(name), name)
	}
}

func TestLoadSkip(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "10-a"), "broken", 0o644)
	write(t, filepath.Join(dir, "20-b.yaml"), "run: [/x]\n", 0o644)
	plan, err := Load(Options{Dirs: []string{dir}, Skip: []string{"10-a", "typo"}})
	require.NoError(t, err, "a skipped hook is not checked")
	assert.Equal(t, "20-b", names(plan.Stages))
	assert.Equal(t, []string{"10-a"}, plan.Skipped)
	assert.Equal(t, []string{`CLEANIMG_INIT_HOOKS_SKIP: no hook is called "typo"`}, plan.Warnings)

	plan, err = Load(Options{Dirs: []string{dir}, StopDirs: []string{dir}, Skip: []string{"*"}})
	require.NoError(t, err)
	assert.Zero(t, plan.Len())
	assert.Empty(t, plan.Stop)
	assert.Equal(t, []string{"10-a", "20-b", "10-a", "20-b"}, plan.Skipped)
}

func TestLoadTimeouts(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "10-own.yaml"), "run: [/x]\ntimeout: 2m\n", 0o644)
	write(t, filepath.Join(dir, "20-over.yaml"), "run: [/x]\ntimeout: 2m\n", 0o644)
	write(t, filepath.Join(dir, "30-none.yaml"), "run: [/x]\ntimeout: 0\n", 0o644)
	write(t, filepath.Join(dir, "40-default"), script, 0o755)
	write(t, filepath.Join(dir, "50-named"), script, 0o755)
	options := Options{
		Dirs: []string{dir}, Timeout: time.Minute,
		Timeouts: map[string]time.Duration{"20-over": time.Hour, "50-named": time.Second, "99-typo": 1},
	}
	plan, err := Load(options)
	require.NoError(t, err)
	var got []time.Duration
	for _, stage := range plan.Stages {
		got = append(got, stage[0].Timeout)
	}
	assert.Equal(t, []time.Duration{2 * time.Minute, time.Hour, 0, time.Minute, time.Second}, got)
	assert.Equal(t, []string{`CLEANIMG_INIT_STEP_TIMEOUTS: no hook is called "99-typo"`}, plan.Warnings)
	assert.Zero(t, plan.Longest(nil), "one has no limit")
	options.Timeouts["30-none"] = time.Second
	plan, err = Load(options)
	require.NoError(t, err)
	assert.Equal(t, 63*time.Minute+2*time.Second, plan.Longest(nil))
}

func TestLongest(t *testing.T) {
	step := func(timeout time.Duration, retries int) Step {
		return Step{Timeout: timeout, retries: retries, backoff: time.Second}
	}
	assert.Equal(t, 33*time.Second, Plan{Stages: [][]Step{{step(10*time.Second, 2)}}}.Longest(nil), "three tries, pauses of 1 s and 2 s")
	stage := []Step{step(4*time.Second, 0), step(6*time.Second, 0), step(10*time.Second, 0)}
	assert.Equal(t, 10*time.Second, Plan{Stages: [][]Step{stage}, parallel: 3}.Longest(nil))
	assert.Equal(t, 15*time.Second, Plan{Stages: [][]Step{stage}, parallel: 2}.Longest(nil))
	assert.Positive(t, Plan{Stages: [][]Step{{step(1<<62, 5)}}}.Longest(nil))
	assert.Positive(t, Plan{Stages: [][]Step{{step(1<<62, 0)}, {step(1<<62, 0)}}}.Longest(nil))
	assert.Equal(t, 2*365*24*time.Hour, Plan{Stages: [][]Step{{{Timeout: time.Nanosecond, retries: 2*365*24*3600*1e9 - 1}}}}.Longest(nil),
		"takes no time for a number of tries that is meant to be for ever")
	assert.Positive(t, Plan{Stages: [][]Step{{step(time.Nanosecond, math.MaxInt)}}}.Longest(nil))
	double := func(d time.Duration) time.Duration { return 2 * d }
	assert.Equal(t, 63*time.Second, Plan{Stages: [][]Step{{step(10*time.Second, 2)}}}.Longest(double), "the pauses stay as they are")
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) { write(t, filepath.Join(dir, name), content, mode) }
	file("10-mode", script, 0o644)
	file("20-text", "no script", 0o755)
	file("30-both.yaml", "run: [/x]\n", 0o644)
	file("30-both.yml", "run: [/x]\n", 0o644)
	file("40-both", script, 0o755)
	file("40-both.yaml", "run: [/x]\n", 0o644)
	file("50-bad.yaml", "run: /x\n", 0o644)
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "60-link")))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "70-fifo"), 0o755))
	file("80-config.json", "{}", 0o644)
	want := []string{
		dir + "/60-link is a broken link: nowhere does not exist: remove the link or make what it leads to",
		`hook "10-mode": ` + dir + "/10-mode is not executable: mode 0644: set defaultMode: 0755 on the ConfigMap volume, or chmod 0755",
		`hook "20-text": ` + dir + "/20-text is neither an ELF program nor a script: its first line must be #! and the path of the interpreter",
		dir + "/30-both.yaml and " + dir + `/30-both.yml are both the hook "30-both": rename one, or mask one with an empty file of its name`,
		dir + "/40-both and " + dir + `/40-both.yaml are both the hook "40-both": rename one, or mask one with an empty file of its name`,
		dir + `/50-bad.yaml:1: run: "/x": accepted is a list, one argument an item, there is no shell: run: [/path/of/program, argument]`,
		dir + "/70-fifo is not a regular file: remove it, or give it a name that is skipped (one with a dot in front)",
		`hook "80-config.json": ` + dir + "/80-config.json is not executable: mode 0644: set defaultMode: 0755 on the ConfigMap volume, or chmod 0755",
	}
	_, err := Load(Options{
		Dirs: []string{dir, "/no/such"}, DirsNamed: true,
		StopDirs: []string{filepath.Join(dir, "10-mode")}, StopDirsNamed: true,
	})
	want = append([]string{want[0], "CLEANIMG_INIT_HOOKS_DIR: the directory /no/such does not exist: make it, or leave it out"}, want[1:]...)
	want = append(want, "CLEANIMG_INIT_STOP_HOOKS_DIR: "+dir+"/10-mode is not a directory")
	require.Error(t, err)
	assert.Equal(t, want, strings.Split(err.Error(), "\n"))
	var lookup *LookupError
	assert.NotErrorAs(t, err, &lookup, "a bad hook is 125")
}

func TestLoadWritableByOthers(t *testing.T) {
	if !isRoot() {
		t.Skip("matters to root only")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "10-a"), script, 0o757)
	write(t, filepath.Join(dir, "20-b.yaml"), "run: [/x]\n", 0o646)
	write(t, filepath.Join(dir, "30-c"), script, 0o775)
	open := t.TempDir()
	require.NoError(t, os.Chmod(open, 0o777))
	write(t, filepath.Join(open, "program"), script, 0o755)
	require.NoError(t, os.Symlink(filepath.Join(open, "program"), filepath.Join(dir, "40-d")))
	sticky := t.TempDir()
	require.NoError(t, os.Chmod(sticky, 0o777|os.ModeSticky))
	write(t, filepath.Join(sticky, "program"), script, 0o755)
	require.NoError(t, os.Symlink(filepath.Join(sticky, "program"), filepath.Join(dir, "50-e")))
	_, err := Load(Options{Dirs: []string{dir}})
	require.Error(t, err)
	assert.Equal(t, []string{
		dir + "/10-a can be written by every user while we are root: mode 0757: chmod o-w, or mount it read-only",
		dir + "/20-b.yaml can be written by every user while we are root: mode 0646: chmod o-w, or mount it read-only",
		"directory " + open + " can be written by every user while we are root: mode 0777: chmod o-w, or mount it read-only",
	}, strings.Split(err.Error(), "\n"))
}

func TestMissing(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "10-a.yaml"), "run: [/no/such]\n", 0o644)
	write(t, filepath.Join(dir, "20-b.yaml"), "run: [\"${UNSET}/x\"]\n", 0o644)
	write(t, filepath.Join(dir, "30-c.yaml"), "run: [sh]\n", 0o644)
	write(t, filepath.Join(dir, "40-d.yaml"), "run: [\"${SECRET}\"]\n", 0o644)
	plan, err := Load(Options{Dirs: []string{dir}})
	require.NoError(t, err)
	var got []string
	for _, stage := range plan.Stages {
		if err := stage[0].Missing([]string{"SECRET=hunter2"}); err != nil {
			got = append(got, err.Error())
		}
	}
	assert.Equal(t, []string{
		dir + "/10-a.yaml: not found: /no/such",
		dir + `/40-d.yaml: not found: "${SECRET}" is in no directory of PATH (` + defaultPath + "): write its full path, or set PATH",
	}, got)
}

// TestLoadAllocatesLittle bounds what PID 1 pays where there are no hooks.
func TestLoadAllocatesLittle(t *testing.T) {
	options := Options{Dirs: []string{"/no/hooks.d"}, StopDirs: []string{"/no/stop.d"}}
	assert.Less(t, testing.AllocsPerRun(100, func() { _, _ = Load(options) }), 25.0)
}
