// SPDX-License-Identifier: Apache-2.0

package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestCommit(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{"a": "1", "conf.d/deep/b": "2", "c.tmpl": "3"})
	assert.Equal(t, Result{Written: []string{"a", "c", "conf.d/deep/b"}}, f.commit())
	assert.Equal(t, "123", f.read("a")+f.read("conf.d/deep/b")+f.read("c"))
	f.onlyHas("a", "c", "conf.d")
	writeFile(t, filepath.Join(f.OutputDir, "other"), "somebody else's")

	// What is as it should be is left alone, times too.
	past := time.Now().Add(-time.Hour).Truncate(time.Second)
	require.NoError(t, os.Chtimes(filepath.Join(f.OutputDir, "a"), past, past))
	f.templates(map[string]string{"c.tmpl": "4"})
	assert.Equal(t, Result{Written: []string{"c"}, Unchanged: []string{"a", "conf.d/deep/b"}}, f.commit())
	info, err := os.Stat(filepath.Join(f.OutputDir, "a"))
	require.NoError(t, err)
	assert.Equal(t, past, info.ModTime())

	// The mode is part of what is compared.
	require.NoError(t, os.Chmod(filepath.Join(f.OutputDir, "a"), 0o666))
	assert.Equal(t, []string{"a"}, f.commit().Written)
	assert.EqualValues(t, 0o644, f.mode("a"))
	f.onlyHas("a", "c", "conf.d", "other")
}

// TestCommitIsAllOrNothing: whatever the n-th file cannot be written for, the
// others are as they were.
func TestCommitIsAllOrNothing(t *testing.T) {
	t.Parallel()
	for name, breaks := range map[string]func(t *testing.T, out string) (heal func()){
		"a directory in the place of a file": func(t *testing.T, out string) func() {
			require.NoError(t, os.Mkdir(filepath.Join(out, "z"), 0o755))
			return func() { os.Remove(filepath.Join(out, "z")) }
		},
		"a file in the place of a directory": func(t *testing.T, out string) func() {
			writeFile(t, filepath.Join(out, "sub"), "x")
			return func() { os.Remove(filepath.Join(out, "sub")) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setUp(t, map[string]string{"a": "old", "m": "old"})
			f.commit()
			f.templates(map[string]string{"a": "new", "b": "new", "deep/er/d": "new", "m": "new", "sub/s": "new", "z": "new"})
			heal := breaks(t, f.OutputDir)
			_, err := f.render().Commit(t.Context())
			require.Error(t, err)
			assert.Equal(t, "oldold", f.read("a")+f.read("m"))
			heal()
			f.onlyHas("a", "m")
			f.commit()
			f.onlyHas("a", "b", "deep", "m", "sub", "z")
			assert.Equal(t, "newnew", f.read("a")+f.read("m"))
		})
	}
}

// TestRollback fails the replacement of the last file, after all the others
// have been replaced: the target becomes a directory in between.
func TestRollback(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{"a": "old", "m": "old", "z": "old"})
	f.commit()
	require.NoError(t, os.Chmod(filepath.Join(f.OutputDir, "a"), 0o604))
	before := stat(t, filepath.Join(f.OutputDir, "a"))
	f.templates(map[string]string{"a": "new", "b": "new", "m": "new", "z": "new"})
	out := f.render()
	changes, unchanged, err := out.changes()
	require.NoError(t, err)
	require.Len(t, changes, 4)
	assert.Empty(t, unchanged)
	// Where the old file cannot be linked there is a copy of it.
	taken := fmt.Sprintf("%s%0*d", beside(filepath.Join(f.OutputDir, "m"), oldMark), uniqueLen, os.Getpid())
	writeFile(t, taken, "in the way of a link")
	for _, c := range changes {
		require.NoError(t, out.stage(c))
	}
	for _, c := range changes[:3] {
		require.NoError(t, out.replace(c))
	}
	assert.Equal(t, "newnewnew", f.read("a")+f.read("b")+f.read("m"))
	require.NoError(t, os.Remove(changes[3].target))
	require.NoError(t, os.Mkdir(changes[3].target, 0o755))
	require.Error(t, out.replace(changes[3]))
	require.NoError(t, syncStaged(changes))
	require.NoError(t, rollback(changes))
	for _, c := range changes {
		c.clean(false)
	}
	require.NoError(t, os.Remove(taken))
	assert.True(t, changes[2].copied)
	assert.Equal(t, "oldold", f.read("a")+f.read("m"))
	f.onlyHas("a", "m", "z")
	assert.True(t, os.SameFile(before, stat(t, filepath.Join(f.OutputDir, "a"))), "the very file is back, with mode and times")
	assert.EqualValues(t, 0o604, f.mode("a"))
}

func stat(t *testing.T, name string) fs.FileInfo {
	t.Helper()
	info, err := os.Stat(name)
	require.NoError(t, err)
	return info
}

func TestCommitIsInterrupted(t *testing.T) {
	t.Parallel()
	for _, atomic := range []bool{false, true} {
		f := setUp(t, map[string]string{"a": "old"})
		f.AtomicDir = atomic
		f.commit()
		f.templates(map[string]string{"a": "new", "b": "new"})
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("enough"))
		_, err := f.render().Commit(ctx)
		require.ErrorContains(t, err, "enough")
		assert.Equal(t, "old", f.read("a"))
		assert.NoFileExists(t, filepath.Join(f.OutputDir, "b"))
		_, err = Render(ctx, f.Options)
		require.ErrorContains(t, err, "enough")
	}
}

// TestCommitSweeps removes what a killed run left, and waits for one that is
// still at work.
func TestCommitSweeps(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{"a": "1"})
	writeFile(t, filepath.Join(f.OutputDir, ".a"+newMark+"0000000001"), "left")
	writeFile(t, filepath.Join(f.OutputDir, ".a"+oldMark+"0000000001"), "left")
	unlock, err := f.render().lock(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = f.render().Commit(ctx)
	require.ErrorContains(t, err, "another generate-config is writing there")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Equal(t, 1, strings.Count(f.log.String(), "waiting for another generate-config"))
	unlock()
	f.commit()
	f.onlyHas("a")
}

func TestOwners(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{"a": "1", "b": "2"})
	mine, err := ParseMode("a=0640:" + uid())
	require.NoError(t, err)
	f.Modes = []Mode{mine}
	f.commit()
	assert.Empty(t, f.commit().Written)
	if os.Geteuid() == 0 {
		foreign, err := ParseMode("b=0600:65532:65532")
		require.NoError(t, err)
		f.Modes = append(f.Modes, foreign)
		f.commit()
		assert.Equal(t, owner{65532, 65532}, ownerOf(stat(t, filepath.Join(f.OutputDir, "b"))))
		assert.Empty(t, f.commit().Written)
	}
}

// uid is our user and group, as --mode wants them.
func uid() string { return fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid()) }

func TestAtomicDir(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{"a": "1", "conf.d/b": "1", "gone": "1"})
	f.AtomicDir = true
	writeFile(t, filepath.Join(f.OutputDir, "other"), "somebody else's")
	f.commit()
	first, err := os.Readlink(filepath.Join(f.OutputDir, dataLink))
	require.NoError(t, err)
	assert.Equal(t, "111", f.read("a")+f.read("conf.d/b")+f.read("gone"))
	target, err := os.Readlink(filepath.Join(f.OutputDir, "conf.d"))
	require.NoError(t, err)
	assert.Equal(t, "..data/conf.d", target)
	assert.Empty(t, f.commit().Written)
	unchanged := stat(t, filepath.Join(f.OutputDir, "a"))

	require.NoError(t, os.Remove(filepath.Join(f.TemplateDir, "gone")))
	f.templates(map[string]string{"conf.d/b": "2", "new": "2"})
	text, different := f.diff()
	assert.True(t, different)
	assert.Contains(t, text, "file gone is removed\n")
	assert.Equal(t, Result{Written: []string{"conf.d/b", "new"}, Unchanged: []string{"a"}}, f.commit())
	second, err := os.Readlink(filepath.Join(f.OutputDir, dataLink))
	require.NoError(t, err)
	assert.NotEqual(t, first, second)
	f.onlyHas("a", "conf.d", "new", "other", dataLink, second)
	assert.Equal(t, "122", f.read("a")+f.read("conf.d/b")+f.read("new"))
	assert.True(t, os.SameFile(unchanged, stat(t, filepath.Join(f.OutputDir, "a"))), "what has not changed is the same file")

	// What a killed run left is removed.
	writeFile(t, filepath.Join(f.OutputDir, dataMark+"0000000001", "half"), "x")
	f.commit()
	f.onlyHas("a", "conf.d", "new", "other", dataLink, second)

	// Without the option links become files again.
	f.AtomicDir = false
	f.templates(map[string]string{"a": "3"})
	f.commit()
	assert.Equal(t, "3", f.read("a"))
}

func TestAtomicDirAdoptsFiles(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{"a": "old", "b": "old"})
	f.commit()
	f.AtomicDir = true
	f.templates(map[string]string{"a": "new", "c": "new"})
	f.commit()
	assert.Equal(t, "newoldnew", f.read("a")+f.read("b")+f.read("c"))

	f = setUp(t, map[string]string{"conf.d/a": "x"})
	f.commit()
	f.AtomicDir = true
	_, err := f.render().Commit(t.Context())
	require.ErrorContains(t, err, "is a directory that was not made with --atomic-dir")

	for what, make := range map[string]func(string) error{
		"leads to /etc, which is not ours": func(name string) error { return os.Symlink("/etc", name) },
		"is no link":                       func(name string) error { return os.Mkdir(name, 0o755) },
	} {
		f = setUp(t, map[string]string{"a": "x"})
		f.AtomicDir = true
		require.NoError(t, os.MkdirAll(f.OutputDir, 0o755))
		require.NoError(t, make(filepath.Join(f.OutputDir, dataLink)))
		_, err = f.render().Commit(t.Context())
		require.ErrorContains(t, err, what)
	}
}

// TestMountedFile writes onto files that something is mounted on, as subPath
// volumes are, in a mount namespace of its own; see inMountedFile.
func TestMountedFile(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{"app.conf": "longer new content\n", "other": "new"})
	volume := filepath.Join(t.TempDir(), "volume")
	writeFile(t, volume, "old content of the volume\n")
	writeFile(t, filepath.Join(f.OutputDir, "app.conf"), "below the mount")
	out, err := role(t, unix.CLONE_NEWNS, "mounted", f.TemplateDir, f.OutputDir, volume).CombinedOutput()
	if err != nil && strings.Contains(string(out), "operation not permitted") && os.Getenv("CI") == "" {
		t.Skipf("no mount namespaces here: %s", out)
	}
	require.NoError(t, err, "%s", out)
	data, err := os.ReadFile(volume)
	require.NoError(t, err)
	assert.Equal(t, "longer new content\n", string(data))
	assert.Equal(t, "below the mount", f.read("app.conf"))
	f.onlyHas("app.conf", "other")
}

// inMountedFile is the process of TestMountedFile.
func inMountedFile(templates, out, volume string) error {
	target := filepath.Join(out, "app.conf")
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount(volume, target, "", unix.MS_BIND, "")); err != nil {
		return err
	}
	if !isMountPoint(target) || isMountPoint(templates) {
		return errors.New("which of the two is a mount point?")
	}
	output, err := Render(context.Background(), Options{TemplateDir: templates, OutputDir: out})
	if err != nil {
		return err
	}
	// The same with a rename that finds out, and a failure after it.
	changes, _, err := output.changes()
	if err != nil {
		return err
	}
	for _, c := range changes {
		if err := output.stage(c); err != nil {
			return err
		}
	}
	i := slices.IndexFunc(changes, func(c *change) bool { return c.name == "app.conf" })
	staged, err := writeNew(beside(target, newMark), changes[i].file, output.warnMode)
	if err != nil {
		return err
	}
	kept := changes[i].backup
	changes[i].inPlace, changes[i].staged, changes[i].backup = false, staged, ""
	if err := output.replace(changes[i]); err != nil {
		return err
	}
	if data, _ := os.ReadFile(changes[i].backup); changes[i].backup != kept || string(data) != "old content of the volume\n" {
		return errors.New("there is no copy of the old content")
	}
	if err := rollback(changes); err != nil {
		return err
	}
	if data, _ := os.ReadFile(target); string(data) != "old content of the volume\n" {
		return errors.New("rolled back: " + string(data))
	}
	for _, c := range changes {
		c.clean(false)
	}
	_, err = output.Commit(context.Background())
	return err
}

// smallVolume mounts a small file system.
func smallVolume(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	require.NoError(t, os.MkdirAll(dir, 0o755))
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("a tmpfs can't be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// TestFullDisk: when one file cannot be written the others are as they were.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 100_000)
	for name, atomic := range map[string]bool{"file by file": false, "atomic directory": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setUp(t, map[string]string{"a": "old", "m": "old"})
			smallVolume(t, f.OutputDir)
			f.AtomicDir = atomic
			f.commit()
			entries, err := os.ReadDir(f.OutputDir)
			require.NoError(t, err)
			f.templates(map[string]string{"a": "new", "m": "new", "z": big})
			_, err = f.render().Commit(t.Context())
			require.ErrorIs(t, err, unix.ENOSPC)
			require.ErrorContains(t, err, "write z: ")
			require.ErrorContains(t, err, "nothing was changed")
			assert.Equal(t, "oldold", f.read("a")+f.read("m"))
			after, err := os.ReadDir(f.OutputDir)
			require.NoError(t, err)
			assert.Len(t, after, len(entries), "nothing is left behind: %v", after)
			f.templates(map[string]string{"z": "small"})
			f.commit()
			assert.Equal(t, "newnewsmall", f.read("a")+f.read("m")+f.read("z"))
		})
	}
	// A file that something is mounted on is written in place, after those
	// before it were replaced: they are put back.
	t.Run("mounted file", func(t *testing.T) {
		t.Parallel()
		f := setUp(t, map[string]string{"a": "old", "z": "old"})
		f.commit()
		small := filepath.Join(t.TempDir(), "small")
		smallVolume(t, small)
		writeFile(t, filepath.Join(small, "z"), "old on the volume")
		target := filepath.Join(f.OutputDir, "z")
		require.NoError(t, unix.Mount(filepath.Join(small, "z"), target, "", unix.MS_BIND, ""))
		t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
		f.templates(map[string]string{"a": "new", "b": "new", "z": big})
		_, err := f.render().Commit(t.Context())
		require.ErrorIs(t, err, unix.ENOSPC)
		require.ErrorContains(t, err, "write z: ")
		require.ErrorContains(t, err, "all files are put back")
		assert.Equal(t, "old"+"old on the volume", f.read("a")+f.read("z"))
		f.onlyHas("a", "z")
	})
}

// TestMayNotWrite: the message says who would have to change what.
func TestMayNotWrite(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{"a": "1"})
	for dir := f.OutputDir; filepath.Dir(dir) != os.TempDir() && dir != "/"; {
		dir = filepath.Dir(dir)
		require.NoError(t, os.Chmod(dir, 0o755)) // somebody else shall get in
	}
	require.NoError(t, os.Mkdir(f.OutputDir, 0o555))
	require.NoError(t, os.Chmod(f.OutputDir, 0o555))
	program := filepath.Join(filepath.Dir(f.OutputDir), "program")
	for output, wants := range map[string][]string{
		f.OutputDir:              {"write a: ", "nothing was changed"},
		f.OutputDir + "/new/dir": {"output directory: mkdir " + f.OutputDir + "/new: "},
	} {
		cmd, who := role(t, 0, "once", f.TemplateDir, output), os.Geteuid()
		if who == 0 {
			who = 65532
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65532, Gid: 65532}
			if err := os.Link(cmd.Path, program); !errors.Is(err, fs.ErrExist) {
				require.NoError(t, err)
			}
			require.NoError(t, os.Chmod(program, 0o755))
			cmd.Path = program
		}
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		for _, want := range append(wants, "permission denied: we are "+strconv.Itoa(who), f.OutputDir+" belongs to ", "has mode 0555: set fsGroup: ") {
			assert.Contains(t, string(out), want)
		}
	}
}

// TestTornFile: a run that was killed while it wrote onto a mounted file has
// left half of it, and the copy of what was there. See inTornFile.
func TestTornFile(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{"app.conf": "new\n", "other": "new"})
	volume := filepath.Join(t.TempDir(), "volume")
	writeFile(t, volume, "ne")
	writeFile(t, filepath.Join(f.OutputDir, "app.conf"), "below the mount")
	out, err := role(t, unix.CLONE_NEWNS, "torn", f.TemplateDir, f.OutputDir, volume).CombinedOutput()
	if err != nil && strings.Contains(string(out), "operation not permitted") && os.Getenv("CI") == "" {
		t.Skipf("no mount namespaces here: %s", out)
	}
	require.NoError(t, err, "%s", out)
	f.onlyHas("app.conf", "other")
}

// inTornFile is the process of TestTornFile.
func inTornFile(templates, out, volume string) error {
	target := filepath.Join(out, "app.conf")
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount(volume, target, "", unix.MS_BIND, "")); err != nil {
		return err
	}
	output, err := Render(context.Background(), Options{TemplateDir: templates, OutputDir: out})
	if err != nil {
		return err
	}
	// One copy beside the file, one where only a run that could not write there
	// would look.
	for _, dir := range []string{out, os.TempDir()} {
		kept := filepath.Join(dir, keptName(target))
		if err := errors.Join(os.WriteFile(target, []byte("ne"), 0o644), os.WriteFile(kept, []byte("old\n"), 0o600)); err != nil {
			return err
		}
		is := func(when, content string, copied bool) error {
			data, err := os.ReadFile(target)
			_, missing := os.Stat(kept)
			if err != nil || string(data) != content || copied != (missing == nil) {
				return fmt.Errorf("%s, copy in %s: the file is %q (%v), the copy: %v", when, dir, data, err, missing)
			}
			return nil
		}
		// Another file cannot even be prepared.
		c := &change{file: output.files[0], target: target}
		if c.before, c.old, err = readOld(target); err != nil {
			return err
		}
		if err := output.stage(c); err != nil {
			return err
		}
		c.clean(false)
		if err := is("not prepared", "ne", true); err != nil {
			return err
		}
		// The file is written, and put back because of another one, mode and all.
		c.mode = 0o400
		if err := errors.Join(output.stage(c), output.replace(c), is("written", "new\n", true), rollback([]*change{c})); err != nil {
			return err
		}
		c.clean(false)
		if err := is("put back", "old\n", false); err != nil {
			return err
		}
		if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o644 {
			return fmt.Errorf("put back with mode %v (%v)", info.Mode(), err)
		}
		// The run was killed when all was written, so that now nothing is.
		if err := errors.Join(os.WriteFile(target, []byte("new\n"), 0o644), os.WriteFile(kept, []byte("old\n"), 0o600)); err != nil {
			return err
		}
		if _, err := output.Commit(context.Background()); err != nil {
			return err
		}
		if err := is("unchanged", "new\n", false); err != nil {
			return err
		}
	}
	return nil
}

// TestReadOnlyFile: a mounted file may be read-only, as those of ConfigMaps
// are. See inReadOnlyFile.
func TestReadOnlyFile(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{"a": "new", "app.conf": "new"})
	volume := filepath.Join(t.TempDir(), "volume")
	writeFile(t, volume, "old")
	writeFile(t, filepath.Join(f.OutputDir, "app.conf"), "below the mount")
	out, err := role(t, unix.CLONE_NEWNS, "locked", f.TemplateDir, f.OutputDir, volume).CombinedOutput()
	if err != nil && strings.Contains(string(out), "operation not permitted") && os.Getenv("CI") == "" {
		t.Skipf("no mount namespaces here: %s", out)
	}
	require.Error(t, err)
	assert.Equal(t, "write app.conf: open "+f.OutputDir+"/app.conf: read-only file system; nothing was changed\n", string(out))
	f.onlyHas("app.conf")
}

// inReadOnlyFile is the process of TestReadOnlyFile.
func inReadOnlyFile(templates, out, volume string) error {
	target := filepath.Join(out, "app.conf")
	if err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount(volume, target, "", unix.MS_BIND, ""),
		unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""),
	); err != nil {
		return err
	}
	return renderOnce(templates, out)
}
