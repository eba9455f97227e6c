// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Explained is a problem with what is known of the place, and the lines of a
// pod that would help.
type Explained struct {
	Err   error
	Facts string // the mount, the owner, who we are: one line
	Help  string // what to do; its lines of YAML are indented
}

func (e *Explained) Error() string {
	text := e.Err.Error() + "\n  " + e.Facts
	if e.Help != "" {
		text += "\n  " + strings.ReplaceAll(e.Help, "\n", "\n  ")
	}
	return text
}

func (e *Explained) Unwrap() error { return e.Err }

// explain adds to a problem what a person needs to mend it.
func (d *target) explain(err error) error {
	mount := mountOf(d.fd, d.path)
	facts := fmt.Sprintf("%s is %s:%d mode %s on %s; we are uid %d, gid %d, groups %s, capabilities %s",
		d.path, ownerName(d.st.Uid), d.st.Gid, octal(d.mode()), mount, os.Geteuid(), os.Getegid(), list(groups()), capabilities())
	return &Explained{Err: err, Facts: facts, Help: d.help(err, mount)}
}

// explainPath explains what can't be made by the directory where it would be.
func explainPath(parent int, path string, err error) error {
	// What the path leads to is no matter of permissions.
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, unix.EINVAL) {
		return err
	}
	d := &target{path: "the directory of " + path, missing: path, fd: parent}
	if statErr := d.stat(); statErr != nil {
		return err
	}
	return d.explain(err)
}

// help is the part of a pod that would have to be different.
func (d *target) help(err error, mount mount) string {
	var owner *ownerError
	switch {
	case errors.As(err, &owner) && errors.Is(err, unix.EPERM) && owner.uid != Keep:
		return "only root may give a file to another user (and adding the capability CHOWN to one who is not root does nothing); as that user, in the pod:\n" +
			head + fmt.Sprintf("  runAsUser: %d", owner.uid)
	case errors.As(err, &owner) && errors.Is(err, unix.EPERM):
		return "a file can be given to a group that we are in; in the pod:\n" + head + fmt.Sprintf("  fsGroup: %d", owner.gid)
	case errors.Is(err, unix.EROFS) && mount.root:
		at := d.path
		if d.missing != "" {
			at = d.missing
		}
		return "the root file system is read-only, as it should be: mount a volume there\n" +
			"volumeMounts:\n- {name: data, mountPath: " + at + "}"
	case errors.Is(err, unix.EROFS):
		return "the volume is mounted read-only: remove readOnly from the volume and its mount\n" +
			"volumeMounts:\n- {mountPath: " + mount.point + ", readOnly: false}"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return "there is no room: a larger volume (resources.requests.storage of the claim, sizeLimit of an emptyDir), or remove what is not needed"
	case errors.Is(err, unix.EACCES) && int(d.st.Uid) == os.Geteuid() && d.mode()&0o300 != 0o300:
		return d.path + " is ours, but its mode gives its owner no right to write: ask for one like 0700"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "in the pod:\n" + d.securityContext()
	}
	return ""
}

const head = "securityContext:\n"

// securityContext is the one under which the directory would be ours to write.
func (d *target) securityContext() string {
	switch mode := d.mode(); {
	case mode&0o020 != 0 && !slices.Contains(groups(), int(d.st.Gid)) && d.st.Gid != 0:
		return head + fmt.Sprintf("  supplementalGroups: [%d]", d.st.Gid)
	case d.st.Uid != 0 && int(d.st.Uid) != os.Geteuid() && mode&0o200 != 0:
		return head + fmt.Sprintf("  runAsUser: %d\n  runAsGroup: %d", d.st.Uid, d.st.Gid)
	default:
		group := os.Getegid()
		if group == 0 {
			group = os.Geteuid()
		}
		return head + fmt.Sprintf("  fsGroup: %d\n  fsGroupChangePolicy: OnRootMismatch", group) +
			"\n(where the driver of the volume does not do that, as with hostPath and many NFS servers, its owner has to be changed there)"
	}
}

// A mount is the file system that something is on.
type mount struct {
	point, kind, source string
	root, readOnly      bool
}

func (m mount) String() string {
	if m.point == "" {
		return "an unknown mount"
	}
	access := "read-write"
	if m.readOnly {
		access = "read-only"
	}
	return fmt.Sprintf("%s (%s, %s)", m.point, m.kind, access)
}

// mountOf finds the mount by its number, which statx(2) tells since Linux 5.8.
func mountOf(fd int, path string) mount {
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st) != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return mount{}
	}
	mounts, err := procfs.GetMounts()
	if err != nil {
		return mount{}
	}
	for _, m := range mounts {
		if uint64(m.MountID) != st.Mnt_id {
			continue
		}
		_, ro := m.Options["ro"]
		_, superRO := m.SuperOptions["ro"]
		return mount{point: m.MountPoint, kind: m.FSType, source: m.Source, root: m.MountPoint == "/", readOnly: ro || superRO}
	}
	return mount{}
}

// capabilities are the sets of this thread, by the names that matter for files.
func capabilities() string {
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return "unknown"
	}
	var sets []string
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		kind, ok := strings.CutPrefix(name, "Cap")
		if !ok {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err == nil && (kind == "Eff" || kind == "Prm" || kind == "Bnd") {
			sets = append(sets, map[string]string{"Eff": "effective", "Prm": "permitted", "Bnd": "bounding"}[kind]+" "+capabilityNames(bits))
		}
	}
	return strings.Join(sets, ", ")
}

func capabilityNames(bits uint64) string {
	var names []string
	for bit, name := range map[int]string{unix.CAP_CHOWN: "CHOWN", unix.CAP_DAC_OVERRIDE: "DAC_OVERRIDE", unix.CAP_FOWNER: "FOWNER", unix.CAP_FSETID: "FSETID"} {
		if bits&(1<<bit) != 0 {
			names = append(names, name)
			bits &^= 1 << bit
		}
	}
	slices.Sort(names)
	if bits != 0 && len(names) > 0 {
		names = append(names, "others")
	}
	if len(names) == 0 {
		if bits != 0 {
			return "none for files"
		}
		return "none"
	}
	return strings.Join(names, "+")
}

func ownerName(uid uint32) string {
	if uid == 0 {
		return "root"
	}
	return strconv.Itoa(int(uid))
}

func list(ids []int) string {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	text := make([]string, len(ids))
	for i, id := range ids {
		text[i] = strconv.Itoa(id)
	}
	return strings.Join(text, ",")
}

func moreError(n int) error { return fmt.Errorf("and %d more", n) }
