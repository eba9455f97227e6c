// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestLookup(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a", "plain"), "#!/bin/sh\n", 0o644)
	good := write(t, filepath.Join(dir, "b", "plain"), "#!/bin/sh\n", 0o755)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a", "folder"), 0o755))
	env := []string{"PATH=" + dir + "/none:" + dir + "/a:" + dir + "/b"}

	got, err := Lookup("plain", env, nil)
	require.NoError(t, err)
	assert.Equal(t, good, got, "what may not be executed is passed over")

	got, err = Lookup(self(t), nil, nil)
	require.NoError(t, err)
	assert.Equal(t, self(t), got)

	got, err = Lookup("sh", nil, nil)
	require.NoError(t, err, "without PATH there is a default")
	assert.Contains(t, got, "/sh")

	got, err = lookup("./plain", "./plain", filepath.Join(dir, "b"), nil, nil)
	require.NoError(t, err)
	assert.Equal(t, "./plain", got, "relative to the step's directory")
}

// elf makes the head of an ELF program.
func elf(class, data byte, kind, machine uint16, loader string) string {
	order := byteOrder(data)
	head := make([]byte, 4096)
	copy(head, "\x7fELF")
	head[4], head[5], head[6] = class, data, 1
	order.PutUint16(head[16:], kind)
	order.PutUint16(head[18:], machine)
	offset, count := 64, 1
	if loader == "" {
		count = 0
	}
	if class == elfClass64 {
		order.PutUint64(head[32:], uint64(offset))
		order.PutUint16(head[56:], uint16(count))
		order.PutUint64(head[offset+8:], 512)
		order.PutUint64(head[offset+32:], uint64(len(loader)+1))
	} else {
		order.PutUint32(head[28:], uint32(offset))
		order.PutUint16(head[44:], uint16(count))
		order.PutUint32(head[offset+4:], 512)
		order.PutUint32(head[offset+16:], uint32(len(loader)+1))
	}
	order.PutUint32(head[offset:], elfInterp)
	copy(head[512:], loader)
	return string(head)
}

func TestLookupErrors(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the ELF files of this test are for amd64")
	}
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		return write(t, filepath.Join(dir, name), content, mode)
	}
	require.NoError(t, os.Symlink("/no/such/target", filepath.Join(dir, "link")))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o755))
	tests := []struct {
		name, program string
		code          int
		want          string
	}{
		{"missing", "/no/such", 127, "not found: /no/such"},
		{"below a file", file("f", "#!/bin/sh\n", 0o755) + "/x", 127, "not found: "},
		{"no name", "", 127, `not found: "" is in no directory of PATH (` + dir + ")"},
		{"a shell", "/no/bash", 127, `not found: /no/bash: where an image has no bash, name the program itself, in a Dockerfile as a list: CMD ["/app/server", "--verbose"]`},
		{"a shell in PATH", "sh", 127, `not found: "sh" is in no directory of PATH (` + dir + "): where an image has no sh, "},
		{"a line", "/no/such --verbose", 127, "not found: /no/such --verbose: it is one argument, with a space in it: make each word an item of the list"},
		{"not in PATH", "nope", 127, `not found: "nope" is in no directory of PATH (` + dir + "): write its full path, or set PATH"},
		{"broken link", dir + "/link", 127, "is a link to /no/such/target, which does not exist"},
		{"directory", dir, 126, "is a directory, not a program"},
		{"fifo", dir + "/fifo", 126, "is not a regular file"},
		{"mode", file("mode", "#!/bin/sh\n", 0o644), 126, "mode 0644: set defaultMode: 0755 on the ConfigMap volume, or chmod 0755"},
		{"mode, in PATH", "mode", 126, "mode 0644: set defaultMode: 0755"},
		{"empty", file("empty", "", 0o755), 126, "is empty"},
		{"text", file("text", "echo hello\n", 0o755), 126, "neither an ELF program nor a script"},
		{"interpreter", file("i", "#!/no/bash -e\n", 0o755), 127, "needs the interpreter /no/bash, which is not in this image: let a step file (NAME.yaml) or CMD name one that is"},
		{"interpreter mode", file("im", "#! /etc/passwd\n", 0o755), 126, "needs the interpreter /etc/passwd, which is not executable"},
		{"empty interpreter", file("ei", "#!\n", 0o755), 126, "#! line without an interpreter"},
		{"CRLF", file("crlf", "#!/bin/sh\r\n", 0o755), 126, "ends in CRLF: save the file with LF"},
		{"loader", file("l", elf(2, 1, 3, 62, "/lib64/ld-nowhere.so"), 0o755), 127, "needs the loader /lib64/ld-nowhere.so, which is not in this image: link the program statically"},
		{"loader, 32 bit", file("l32", elf(1, 1, 2, 3, "/lib/ld-nowhere.so"), 0o755), 127, "needs the loader /lib/ld-nowhere.so"},
		{"architecture", file("arm", elf(2, 1, 2, 183, ""), 0o755), 126, "wrong architecture: it is for arm64, this machine is amd64"},
		{"byte order", file("s390", elf(2, 2, 2, 22, ""), 0o755), 126, "it is for s390x"},
		{"unknown machine", file("odd", elf(2, 1, 2, 999, ""), 0o755), 126, "it is for another machine (ELF number 999)"},
		{"object file", file("o", elf(2, 1, 1, 62, ""), 0o755), 126, "an ELF file, but not a program"},
		{"cut ELF", file("cut", elf(2, 1, 2, 62, "")[:30], 0o755), 126, "cut off"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Lookup(tt.program, []string{"PATH=" + dir}, nil)
			require.ErrorContains(t, err, tt.want)
			var lookup *LookupError
			require.ErrorAs(t, err, &lookup)
			assert.Equal(t, tt.code, lookup.Code())
			assert.NotContains(t, err.Error(), "\n")
		})
	}
	_, err := Lookup(file("static", elf(2, 1, 2, 62, ""), 0o755), nil, nil)
	assert.NoError(t, err)
}

func TestLookupNoexec(t *testing.T) {
	// The thread, with a mount namespace of its own, ends with the test.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		t.Skipf("needs to mount: %v", err)
	}
	dir := t.TempDir()
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	require.NoError(t, unix.Mount("none", dir, "tmpfs", unix.MS_NOEXEC, "mode=0777"))
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(dir, 0)) })
	program := write(t, filepath.Join(dir, "x"), "#!/bin/sh\n", 0o755)
	_, err := Lookup(program, nil, nil)
	require.EqualError(t, err, program+" is on a noexec mount: mount it without noexec, or put the file into the image")

	require.NoError(t, os.Remove(program))
	write(t, filepath.Join(dir, "10-a.yaml"), "run: [/x]\n", 0o644)
	// A ConfigMap volume is a directory of mode 0777 that is mounted read-only.
	_, err = Load(Options{Dirs: []string{dir}})
	require.ErrorContains(t, err, "directory "+dir+" can be written by every user while we are root: mode 0777")
	require.NoError(t, unix.Mount("none", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, err = Load(Options{Dirs: []string{dir}})
	require.NoError(t, err)
}

func TestMayExecuteAsAnother(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "x"), "#!/bin/sh\n", 0o750)
	uid, gid := os.Geteuid(), os.Getegid()
	for _, tt := range []struct {
		name string
		who  Identity
		mode os.FileMode
		want bool
	}{
		{"owner", Identity{UID: uid, GID: 1}, 0o700, true},
		{"group", Identity{UID: 77, GID: gid}, 0o750, true},
		{"supplementary group", Identity{UID: 77, GID: 77, Groups: []int{5, gid}}, 0o710, true},
		{"group without", Identity{UID: 77, GID: gid}, 0o705, false},
		{"others", Identity{UID: 77, GID: 77}, 0o751, true},
		{"others without", Identity{UID: 77, GID: 77}, 0o750, false},
		{"root", Identity{}, 0o001, true},
	} {
		require.NoError(t, os.Chmod(file, tt.mode))
		info, err := os.Stat(file)
		require.NoError(t, err)
		assert.Equal(t, tt.want, mayExecute(file, info, &tt.who), tt.name)
	}
	require.NoError(t, os.Chmod(file, 0o700))
	_, err := lookup(file, file, "", nil, &Identity{UID: 77, GID: 77})
	assert.ErrorContains(t, err, "is not executable for user 77: mode 0700")
}

// TestELFLoader compares with what the toolchain's own programs say.
func TestELFLoader(t *testing.T) {
	f, err := os.Open("/bin/sh")
	if err != nil {
		t.Skip("no /bin/sh here")
	}
	defer f.Close()
	head := make([]byte, interpreterLine)
	_, err = f.Read(head)
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(elfLoader(f, head, binary.LittleEndian), "/lib"))
}

func FuzzInspectELF(f *testing.F) {
	f.Add(elf(2, 1, 3, 62, "/lib64/ld.so"))
	f.Add(elf(1, 2, 2, 3, "/lib/ld.so"))
	f.Fuzz(func(t *testing.T, content string) {
		if strings.HasPrefix(content, "\x7fELF") {
			_, _ = inspectELF(strings.NewReader(content), "x", []byte(content[:min(len(content), interpreterLine)]))
		}
	})
}

func TestStartError(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	for _, tt := range []struct {
		path string
		err  error
		code int
		want string
	}{
		{"/bin/sh", unix.EAGAIN, 125, "start /bin/sh: resource temporarily unavailable: the pids limit is reached"},
		{"/bin/sh", unix.ENOMEM, 125, "start /bin/sh: cannot allocate memory: the memory limit"},
		{"/bin/sh", unix.E2BIG, 126, "start /bin/sh: argument list too long: arguments and environment have at most"},
		{"/bin/sh", unix.EPERM, 126, "file capabilities"},
		{"/bin/sh", unix.EACCES, 126, "start /bin/sh: permission denied"},
		{"/bin/sh", unix.ENOENT, 127, "start /bin/sh: no such file or directory"},
		{"/bin/sh", unix.EMFILE, 125, "start /bin/sh: too many open files"},
		{gone, unix.ENOENT, 127, "not found: " + gone},
	} {
		err := StartError(tt.path, tt.err)
		require.ErrorContains(t, err, tt.want)
		assert.Equal(t, tt.code, Result{Cause: NotStarted, Err: err}.Code(), tt.want)
	}
}
