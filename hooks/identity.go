// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// An Identity is who a process is to run as.
type Identity struct {
	UID, GID int
	Groups   []int  // supplementary groups
	Home     string // "/" when nothing is known
}

// ResolveUser understands what `docker run --user` does: user or user:group,
// each a name or a number. Names come from /etc/passwd and /etc/group. A user
// without a group gets that of its passwd entry and the groups it is a member
// of; a number that has no entry needs a group.
func ResolveUser(spec string) (Identity, error) {
	return resolveUser(spec, "/etc/passwd", "/etc/group")
}

func resolveUser(spec, passwd, group string) (Identity, error) {
	name, groupName, hasGroup := strings.Cut(spec, ":")
	if name == "" || hasGroup && groupName == "" {
		return Identity{}, fmt.Errorf("%q: accepted are USER and USER:GROUP, each a name or a number", spec)
	}
	const unknown = -1
	found, err := user.GetExecUserPath(spec, &user.ExecUser{Gid: unknown, Home: "/"}, passwd, group)
	switch {
	case errors.Is(err, user.ErrNoPasswdEntries):
		return Identity{}, fmt.Errorf("no user %q in %s: write numbers, like 65532:65532", name, passwd)
	case errors.Is(err, user.ErrNoGroupEntries):
		return Identity{}, fmt.Errorf("no group %q in %s: write numbers, like 65532:65532", groupName, group)
	case err != nil:
		return Identity{}, fmt.Errorf("%q: %w", spec, err)
	case found.Gid == unknown:
		return Identity{}, fmt.Errorf("no group for user %s, which is not in %s: write %[1]s:GROUP", name, passwd)
	}
	if found.Home == "" {
		found.Home = "/"
	}
	return Identity{UID: found.Uid, GID: found.Gid, Groups: found.Sgids, Home: found.Home}, nil
}

// Credential returns what a process must be started with to have this identity,
// or nil when user and group are ours: then our other groups stay too, because
// an fsGroup is among them. The error says what we lack for it; it is one line
// with the securityContext to write.
func (i Identity) Credential() (*syscall.Credential, error) {
	sameUser, sameGroup := i.UID == os.Geteuid(), i.GID == os.Getegid()
	if sameUser && sameGroup {
		return nil, nil
	}
	ours, err := os.Getgroups()
	if err != nil {
		return nil, fmt.Errorf("read our groups: %w", err)
	}
	sameGroups := sameSet(i.Groups, ours, i.GID)
	if err := i.allowed(sameUser, sameGroup && sameGroups); err != nil {
		return nil, err
	}
	cred := &syscall.Credential{Uid: uint32(i.UID), Gid: uint32(i.GID), NoSetGroups: sameGroups}
	for _, g := range i.Groups {
		cred.Groups = append(cred.Groups, uint32(g))
	}
	return cred, nil
}

// sameSet tells whether two sets of groups give the same rights. The primary
// group gives its own with or without being in the set.
func sameSet(a, b []int, primary int) bool {
	normal := func(groups []int) []int {
		groups = slices.DeleteFunc(slices.Clone(groups), func(g int) bool { return g == primary })
		slices.Sort(groups)
		return slices.Compact(groups)
	}
	return slices.Equal(normal(a), normal(b))
}

// capability is one that changing the identity takes.
type capability struct {
	name string
	bit  uint
}

// allowed tells what we lack to become somebody else. KILL is needed to signal
// a process of another user, which is why we are here at all.
func (i Identity) allowed(sameUser, sameGroups bool) error {
	var needed []capability
	if !sameUser {
		needed = append(needed, capability{"SETUID", unix.CAP_SETUID})
	}
	if !sameGroups {
		needed = append(needed, capability{"SETGID", unix.CAP_SETGID})
	}
	if !sameUser {
		needed = append(needed, capability{"KILL", unix.CAP_KILL})
	}
	effective, err := capabilities()
	if err != nil {
		return fmt.Errorf("read our capabilities: %w", err)
	}
	var missing, all []string
	for _, c := range needed {
		all = append(all, c.name)
		if effective&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if !isRoot() {
		return fmt.Errorf("we are user %d:%d and cannot become %d:%d: leave it out and write securityContext: {runAsUser: %[3]d, runAsGroup: %d}",
			os.Geteuid(), os.Getegid(), i.UID, i.GID)
	}
	return fmt.Errorf("to become %d:%d the capabilities are missing: %s: "+
		"write securityContext: {capabilities: {drop: [ALL], add: [%s]}}, or without root {runAsUser: %[1]d, runAsGroup: %[2]d}",
		i.UID, i.GID, strings.Join(missing, ", "), strings.Join(all, ", "))
}

// capabilities returns our effective set; it does not need /proc.
func capabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, err
	}
	return uint64(data[0].Effective) | uint64(data[1].Effective)<<32, nil
}

// isRoot tells whether we may become another user, and have to be careful about
// what others may have written.
func isRoot() bool { return os.Geteuid() == 0 }
