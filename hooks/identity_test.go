// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestResolveUser(t *testing.T) {
	dir := t.TempDir()
	passwd := write(t, filepath.Join(dir, "passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:2000::/home/app:/bin/sh\n", 0o644)
	group := write(t, filepath.Join(dir, "group"), "root:x:0:\napp:x:2000:\nextra:x:3000:app,root\n", 0o644)
	tests := []struct {
		spec string
		want Identity
	}{
		{"app", Identity{1000, 2000, []int{3000}, "/home/app"}},
		{"1000", Identity{1000, 2000, []int{3000}, "/home/app"}},
		{"app:extra", Identity{1000, 3000, []int{}, "/home/app"}},
		{"app:7", Identity{1000, 7, []int{}, "/home/app"}},
		{"65532:65532", Identity{65532, 65532, []int{}, "/"}},
		{"65532:app", Identity{65532, 2000, []int{}, "/"}},
	}
	for _, tt := range tests {
		got, err := resolveUser(tt.spec, passwd, group)
		require.NoError(t, err, tt.spec)
		assert.Equal(t, tt.want, got, tt.spec)
	}
	got, err := resolveUser("65532:65532", "/no/passwd", "/no/group")
	require.NoError(t, err, "no /etc/passwd is needed for numbers")
	assert.Equal(t, Identity{65532, 65532, []int{}, "/"}, got)
}

func TestResolveUserErrors(t *testing.T) {
	for spec, want := range map[string]string{
		"":        `"": accepted are USER and USER:GROUP, each a name or a number`,
		"app:":    `"app:": accepted are USER and USER:GROUP, each a name or a number`,
		":1":      `":1": accepted are USER and USER:GROUP, each a name or a number`,
		"app":     `no user "app" in /no/passwd: write numbers, like 65532:65532`,
		"1:staff": `no group "staff" in /no/group: write numbers, like 65532:65532`,
		"65532":   "no group for user 65532, which is not in /no/passwd: write 65532:GROUP",
	} {
		_, err := resolveUser(spec, "/no/passwd", "/no/group")
		require.EqualError(t, err, want, spec)
	}
	for _, spec := range []string{"-1:0", "1:-1", "99999999999:1", "a:b:c"} {
		_, err := resolveUser(spec, "/no/passwd", "/no/group")
		require.Error(t, err, spec)
	}
}

func TestCredentialOfOurselves(t *testing.T) {
	cred, err := Identity{UID: os.Geteuid(), GID: os.Getegid(), Groups: []int{12345}}.Credential()
	require.NoError(t, err)
	assert.Nil(t, cred)
}

func TestCredential(t *testing.T) {
	if !isRoot() {
		t.Skip("needs root to become another user")
	}
	cred, err := Identity{UID: 1, GID: 2, Groups: []int{3, 4}}.Credential()
	require.NoError(t, err)
	assert.Equal(t, &syscall.Credential{Uid: 1, Gid: 2, Groups: []uint32{3, 4}}, cred)
	assert.True(t, sameSet([]int{1, 2}, []int{2, 7, 1, 2}, 7))
	assert.False(t, sameSet(nil, []int{2}, 7))
}

func TestCredentialWithoutCapabilities(t *testing.T) {
	if !isRoot() {
		t.Skip("needs root to give capabilities away")
	}
	runtime.LockOSThread() // and the thread ends with the test
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	require.NoError(t, unix.Capget(&header, &data[0]))
	data[0].Effective &^= 1<<unix.CAP_SETUID | 1<<unix.CAP_KILL
	require.NoError(t, unix.Capset(&header, &data[0]))
	_, err := Identity{UID: 65532, GID: 65532}.Credential()
	require.EqualError(t, err, "to become 65532:65532 the capabilities are missing: SETUID, KILL: "+
		"write securityContext: {capabilities: {drop: [ALL], add: [SETUID, SETGID, KILL]}}, or without root {runAsUser: 65532, runAsGroup: 65532}")

	dir := t.TempDir()
	write(t, filepath.Join(dir, "10-a.yaml"), "run: [/x]\nuser: \"65532:65532\"\n", 0o644)
	_, err = Load(Options{Dirs: []string{dir}})
	require.ErrorContains(t, err, "10-a.yaml:2: user: to become 65532:65532 the capabilities are missing")
}
