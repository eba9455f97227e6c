// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/cli"
)

// The test binary is the tool when this variable is set, so that it can be run
// as another user.
const roleVariable = "INIT_STORAGE_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		os.Unsetenv(roleVariable)
		cli.Main(tool())
	}
	os.Exit(m.Run())
}

// A user runs the tool: who, and what to set up before.
type user struct {
	uid, gid int
	groups   []uint32
	env      []string
	squashed bool // root of a user namespace in which other users are nobody
}

var (
	root    = user{}
	nonroot = user{uid: 65532, gid: 65532}
)

type result struct {
	code   int
	stderr string
}

func (u user) run(t *testing.T, args ...string) result {
	t.Helper()
	needRoot(t)
	self, err := os.Executable()
	require.NoError(t, err)
	// A copy that everyone may run: go test builds into a directory of ours.
	bin := filepath.Join(openTemp(t), "init-storage")
	require.NoError(t, os.Link(self, bin))
	cmd := exec.Command(bin, args...)
	cmd.Env = append(u.env, roleVariable+"=1")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.gid), Groups: u.groups}}
	if u.squashed {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			Credential:  &syscall.Credential{NoSetGroups: true},
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65532, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65532, Size: 1}},
		}
	}
	out, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); !exited {
		require.NoError(t, err)
	}
	return result{cmd.ProcessState.ExitCode(), string(out)}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run the tool as several users")
	}
}

// openTemp is a directory that other users can reach.
func openTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "init-storage-test-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// volume is a directory with an owner and a mode.
func volume(t *testing.T, uid, gid int, mode uint32) string {
	t.Helper()
	needRoot(t)
	dir := filepath.Join(openTemp(t), "volume")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Chown(dir, uid, gid))
	require.NoError(t, unix.Chmod(dir, mode))
	return dir
}

// look describes a file like ls -l.
func look(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Lstat(path, &st), path)
	return fmt.Sprintf("%04o %d:%d", st.Mode&0o7777, st.Uid, st.Gid)
}

// The volume pattern of the product page.
func TestVolumePattern(t *testing.T) {
	t.Parallel()
	for name, u := range map[string]user{"as root": root, "as 65532": nonroot} {
		t.Run(name, func(t *testing.T) {
			app := volume(t, u.uid, u.gid, 0o755)
			args := []string{
				"--dir", app + "/data:0700", "--dir", app + "/logs:0755", "--dir", app + "/tmp:1777", "--dir", app + "/a/b:2770",
				"--file", app + "/data/.ready", "--verify-writable",
			}
			got := u.run(t, args...)
			require.Equal(t, 0, got.code, got.stderr)
			owner := fmt.Sprintf(" %d:%d", u.uid, u.gid)
			want := map[string]string{"/data": "0700", "/logs": "0755", "/tmp": "1777", "/a": "0755", "/a/b": "2770", "/data/.ready": "0644"}
			for path, mode := range want {
				assert.Equal(t, mode+owner, look(t, app+path), path)
			}
			require.NoError(t, os.WriteFile(app+"/data/.ready", []byte("kept"), 0o600))
			before := snapshot(t, app)
			got = u.run(t, args...)
			require.Equal(t, 0, got.code, got.stderr)
			assert.Equal(t, before, snapshot(t, app), "a second run changes nothing")
		})
	}
}

// snapshot is what a tree looks like; the proof of writability leaves nothing
// but a later mtime of the directory.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		all[path] = look(t, path)
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			info, err := d.Info()
			require.NoError(t, err)
			all[path] += string(data) + info.ModTime().String()
		}
		return nil
	}))
	return all
}

func TestSettings(t *testing.T) {
	t.Parallel()
	dir := volume(t, 65532, 65532, 0o755)
	spec := filepath.Join(openTemp(t), "volumes.yaml")
	require.NoError(t, os.WriteFile(spec, []byte("dirs:\n- "+dir+"/logs:0755\n- {path: "+dir+"/data, mode: 0750, gid: 65532}\nfiles: ["+dir+"/data/.ready]\n"), 0o644))
	u := nonroot
	u.env = []string{"INIT_STORAGE_DIR= " + dir + "/one:0700\n" + dir + "/two", "INIT_STORAGE_SPEC=" + spec, "INIT_STORAGE_VERIFY_WRITABLE=true"}
	got := u.run(t)
	require.Equal(t, 0, got.code, got.stderr)
	for path, mode := range map[string]string{"/one": "0700", "/two": "0755", "/logs": "0755", "/data": "0750", "/data/.ready": "0644"} {
		assert.Equal(t, mode+" 65532:65532", look(t, dir+path), path)
	}
	assert.Equal(t, 5, strings.Count(got.stderr, ` ready"`), got.stderr)

	require.NoError(t, os.WriteFile(spec, []byte("dirs:\n- /a:99\n- {path: /b, mode: 0888, owner: 1}\n- {mode: \"0700\"}\n- [x]\nfiles:\n- /c:0644:joe\n"), 0o644))
	got = nonroot.run(t, "--spec", spec)
	assert.Equal(t, 125, got.code)
	for _, want := range []string{`line 2: "/a:99": mode "99"`, `line 3: mode "0888"`, `unknown key "owner"`, "line 4: path is missing", "line 5: accepted are", `line 7: "/c:0644:joe": owner "joe"`} {
		assert.Contains(t, got.stderr, want)
	}
}

func TestBadSettingsChangeNothing(t *testing.T) {
	t.Parallel()
	dir := volume(t, 0, 0, 0o755)
	tests := map[string][]string{
		"nothing to do":      {},
		"unexpected word":    {"--dir", dir + "/x", dir},
		"listed twice":       {"--dir", dir + "/x:0700", "--dir", dir + "//x/:0755"},
		"accepted is PATH":   {"--dir", ":0700"},
		"octal number":       {"--dir", dir + "/x:0800"},
		"accepted are sizes": {"--dir", dir + "/x", "--min-free", "-1"},
		"whole number":       {"--dir", dir + "/x", "--min-inodes", "-1"},
		"no such file":       {"--dir", dir + "/x", "--spec", dir + "/none.yaml"},
		"unknown flag":       {"--dir", dir + "/x", "--mkdir"},
	}
	for want, args := range tests {
		got := root.run(t, args...)
		assert.Equal(t, 125, got.code, args)
		assert.Contains(t, got.stderr, want)
	}
	assert.NoDirExists(t, dir+"/x")
}

// What fsGroup gives: the volume is root's, setgid, and for a group we are in.
func TestGroupOfTheVolume(t *testing.T) {
	t.Parallel()
	u := user{uid: 65532, gid: 65532, groups: []uint32{2000}}
	dir := volume(t, 0, 2000, 0o2775)
	got := u.run(t, "--dir", dir+":0770", "--dir", dir+"/data:2770:1000:2000", "--dir", dir+"/mine:2770::2000", "--verify-writable")
	require.Equal(t, 0, got.code, got.stderr)
	assert.Equal(t, "2775 0:2000", look(t, dir))
	assert.Equal(t, "2770 65532:2000", look(t, dir+"/data"))
	assert.Equal(t, "2770 65532:2000", look(t, dir+"/mine"))
	assert.Contains(t, got.stderr, "mode not changed, but the directory can be written")
	assert.Contains(t, got.stderr, "only root may give a file away")
}

func TestWhatCannotBeDoneIsExplained(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		who      user
		uid, gid int
		mode     uint32
		entry    string // after the volume's path
		want     []string
	}{
		{
			name: "root's volume", who: nonroot, mode: 0o755, entry: "/data",
			want: []string{"make the directory", "permission denied", "is root:0 mode 0755 on", "we are uid 65532, gid 65532, groups 65532", "effective none", "securityContext:", "fsGroup: 65532", "OnRootMismatch"},
		},
		{name: "root's volume as the directory itself", who: nonroot, mode: 0o755, entry: ":0700", want: []string{"change the mode to 0700", "and make a file in", "fsGroup: 65532"}},
		{name: "another user's", who: nonroot, uid: 1000, gid: 1000, mode: 0o755, entry: "/data", want: []string{"runAsUser: 1000", "runAsGroup: 1000"}},
		{name: "another group's", who: nonroot, gid: 3000, mode: 0o775, entry: "/data", want: []string{"supplementalGroups: [3000]"}},
		{name: "given to another user", who: nonroot, uid: 65532, gid: 65532, mode: 0o755, entry: "/data:0700:1000:1000", want: []string{"change the owner to 1000:1000", "runAsUser: 1000"}},
		{name: "given to another group", who: nonroot, uid: 65532, gid: 65532, mode: 0o755, entry: "/data:0770::3000", want: []string{"change the owner to :3000", "fsGroup: 3000"}},
		{name: "a setgid bit for another group", who: nonroot, uid: 65532, gid: 3000, mode: 0o755, entry: ":2775", want: []string{"setgid bit can be set only for one of our groups"}},
		{name: "a mode that locks ourselves out", who: nonroot, uid: 65532, gid: 65532, mode: 0o755, entry: "/data:0500", want: []string{"make a file in", "/data is ours, but its mode gives its owner no right to write: ask for one like 0700"}},
		{name: "a server that makes root nobody", who: user{squashed: true}, uid: 0, gid: 0, mode: 0o755, entry: "/data", want: []string{"permission denied", "capabilities"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := volume(t, tt.uid, tt.gid, tt.mode)
			got := tt.who.run(t, "--dir", dir+tt.entry, "--file", dir+"/.ready", "--verify-writable")
			assert.Equal(t, 125, got.code, got.stderr)
			for _, want := range tt.want {
				assert.Contains(t, got.stderr, want)
			}
			assert.NoFileExists(t, dir+"/.ready", "what says that all is ready is made last")
		})
	}
}

// mountTmpfs mounts a small file system.
func mountTmpfs(t *testing.T, options string, flags uintptr) string {
	t.Helper()
	needRoot(t)
	dir := filepath.Join(openTemp(t), "volume")
	require.NoError(t, os.Mkdir(dir, 0o755))
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		t.Skipf("tmpfs can't be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func TestFullAndReadOnlyVolumes(t *testing.T) {
	t.Parallel()
	full := mountTmpfs(t, "size=16k,mode=0777", 0)
	require.Error(t, os.WriteFile(full+"/filler", make([]byte, 64<<10), 0o644))
	got := nonroot.run(t, "--dir", full)
	assert.Equal(t, 0, got.code, "without proof nothing is wrong: %s", got.stderr)
	got = nonroot.run(t, "--dir", full, "--verify-writable")
	assert.Equal(t, 125, got.code)
	for _, want := range []string{"write 4 KiB in", "no space left on device", "(tmpfs, read-write)", "there is no room"} {
		assert.Contains(t, got.stderr, want)
	}
	entries, err := os.ReadDir(full)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing is left behind")

	small := mountTmpfs(t, "size=1M,nr_inodes=10,mode=0777", 0)
	got = nonroot.run(t, "--dir", small, "--min-free", "10Mi", "--min-inodes", "1000")
	assert.Equal(t, 125, got.code)
	assert.Regexp(t, `has 1Mi free, 10Mi are asked for`, got.stderr)
	assert.Regexp(t, `has \d free inodes, 1000 are asked for`, got.stderr)
	got = nonroot.run(t, "--dir", small, "--min-free", "100k", "--min-inodes", "2")
	assert.Equal(t, 0, got.code, got.stderr)

	readOnly := mountTmpfs(t, "mode=0777", unix.MS_RDONLY)
	got = nonroot.run(t, "--dir", readOnly, "--verify-writable")
	assert.Equal(t, 125, got.code)
	for _, want := range []string{"read-only file system", "(tmpfs, read-only)", "readOnly: false", "mountPath: " + readOnly} {
		assert.Contains(t, got.stderr, want)
	}
	got = nonroot.run(t, "--dir", readOnly+"/data:0700")
	assert.Equal(t, 125, got.code)
	assert.Contains(t, got.stderr, "make the directory")
}

func TestLinksAreNotFollowed(t *testing.T) {
	t.Parallel()
	victim := volume(t, 0, 0, 0o700)
	require.NoError(t, os.WriteFile(victim+"/file", []byte("x"), 0o600))
	dir := volume(t, 65532, 65532, 0o755)
	require.NoError(t, os.Symlink(victim, dir+"/link"))
	require.NoError(t, os.Symlink(victim+"/file", dir+"/filelink"))
	require.NoError(t, os.Lchown(dir+"/link", 65532, 65532))
	require.NoError(t, os.Lchown(dir+"/filelink", 65532, 65532))
	tests := map[string][]string{
		"is a link, not a directory":       {"--dir", dir + "/link:0777"},
		"is a link that belongs to uid":    {"--dir", dir + "/link/deeper:0777"},
		"is a link, not a regular file":    {"--file", dir + "/filelink:0777"},
		"/filelink is a link, not a direc": {"--dir", dir + "/filelink:0777"},
	}
	for want, args := range tests {
		got := root.run(t, args...)
		assert.Equal(t, 125, got.code, args)
		assert.Contains(t, got.stderr, want)
	}
	got := root.run(t, "--dir", dir+":0755:1000:1000", "--recursive")
	require.Equal(t, 0, got.code, got.stderr)
	assert.Equal(t, "0777 1000:1000", look(t, dir+"/link"), "the link itself is given away")
	assert.Equal(t, "0700 0:0", look(t, victim))
	assert.Equal(t, "0600 0:0", look(t, victim+"/file"))

	// Links of root, as an image or a ConfigMap has them, lead on.
	require.NoError(t, os.Symlink("../volume/real", dir+"/ours"))
	got = root.run(t, "--dir", dir+"/ours/data:0711")
	require.Equal(t, 0, got.code, got.stderr)
	assert.Equal(t, "0711 0:0", look(t, dir+"/real/data"))
	require.NoError(t, os.Symlink("round", dir+"/round"))
	got = root.run(t, "--dir", dir+"/round/data")
	assert.Equal(t, 125, got.code)
	assert.Contains(t, got.stderr, "too many levels of symbolic links")
}

func TestRecursive(t *testing.T) {
	t.Parallel()
	dir := volume(t, 0, 0, 0o755)
	for i := range 40 {
		sub := fmt.Sprintf("%s/%d/deep/er", dir, i%7)
		require.NoError(t, os.MkdirAll(sub, 0o755))
		require.NoError(t, os.WriteFile(fmt.Sprintf("%s/file%d", sub, i), nil, 0o600))
	}
	require.NoError(t, os.WriteFile(dir+"/run", nil, 0o700))
	require.NoError(t, os.MkdirAll(dir+"/own/inside", 0o700))
	require.NoError(t, os.Symlink("nowhere", dir+"/broken"))
	args := []string{"--dir", dir + ":2770:65532:2000", "--dir", dir + "/own:0711", "--recursive"}
	got := root.run(t, args...)
	require.Equal(t, 0, got.code, got.stderr)
	assert.Equal(t, "2770 65532:2000", look(t, dir))
	assert.Equal(t, "2770 65532:2000", look(t, dir+"/3/deep/er"))
	assert.Equal(t, "0660 65532:2000", look(t, dir+"/3/deep/er/file3"))
	assert.Equal(t, "0770 65532:2000", look(t, dir+"/run"), "x where it was")
	assert.Equal(t, "0711 0:0", look(t, dir+"/own"), "it has an entry of its own")
	assert.Equal(t, "0711 0:0", look(t, dir+"/own/inside"))
	assert.Equal(t, "0777 65532:2000", look(t, dir+"/broken"))

	// The root is as it should be: nobody looks further.
	require.NoError(t, os.Chmod(dir+"/run", 0o640))
	got = root.run(t, args...)
	require.Equal(t, 0, got.code, got.stderr)
	assert.Equal(t, "0640 65532:2000", look(t, dir+"/run"))
	// One that was cut short is taken up again, because the root comes last.
	require.NoError(t, os.Chown(dir, 0, 0))
	got = root.run(t, args...)
	require.Equal(t, 0, got.code, got.stderr)
	assert.Equal(t, "0660 65532:2000", look(t, dir+"/run"))

	// As an ordinary user: what is ours, also behind modes that keep us out.
	mine := volume(t, 65532, 65532, 0o100)
	require.NoError(t, os.MkdirAll(mine+"/shut", 0o755))
	require.NoError(t, os.WriteFile(mine+"/shut/file", nil, 0))
	for _, path := range []string{"/shut/file", "/shut"} {
		require.NoError(t, os.Chown(mine+path, 65532, 65532))
		require.NoError(t, os.Chmod(mine+path, 0))
	}
	got = nonroot.run(t, "--dir", mine+":0750", "--recursive")
	require.Equal(t, 0, got.code, got.stderr)
	assert.Equal(t, "0750 65532:65532", look(t, mine+"/shut"))
	assert.Equal(t, "0640 65532:65532", look(t, mine+"/shut/file"))
	require.NoError(t, os.Chown(mine+"/shut/file", 0, 0))
	require.NoError(t, os.Chmod(mine, 0o700))
	got = nonroot.run(t, "--dir", mine+":0770", "--recursive")
	assert.Equal(t, 125, got.code)
	assert.Contains(t, got.stderr, mine+"/shut/file: operation not permitted")
}

func TestTermination(t *testing.T) {
	t.Parallel()
	dir := volume(t, 0, 0, 0o755)
	for i := range 200 {
		require.NoError(t, os.MkdirAll(fmt.Sprintf("%s/%d/%d", dir, i%20, i), 0o755))
	}
	self, err := os.Executable()
	require.NoError(t, err)
	// Whatever the moment at which TERM comes: the root has the new owner only
	// when everything below has it.
	for delay := range 10 {
		cmd := exec.Command(self, "--dir", dir+fmt.Sprintf(":0755:%d", 1000+delay), "--recursive", "--log-format=json")
		cmd.Env = []string{roleVariable + "=1"}
		var out strings.Builder
		cmd.Stderr = &out
		require.NoError(t, cmd.Start())
		time.Sleep(time.Duration(delay) * time.Millisecond)
		require.NoError(t, cmd.Process.Signal(unix.SIGTERM))
		_ = cmd.Wait()
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
			continue // before it could ask for the signal
		}
		require.Contains(t, []int{0, 143}, cmd.ProcessState.ExitCode(), out.String())
		for line := range strings.Lines(out.String()) {
			assert.True(t, json.Valid([]byte(line)), line)
		}
		if strings.HasPrefix(look(t, dir)[5:], fmt.Sprint(1000+delay)) {
			assert.Equal(t, look(t, dir), look(t, dir+"/19/199"))
		}
	}
}
