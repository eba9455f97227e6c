// SPDX-License-Identifier: Apache-2.0

// Package cgroup knows the box that the kernel has put us into: where our
// control group is, what its limits and counters are, and, by them, how much of
// a timeout a step has used up while the kernel throttled it.
//
// Each controller is looked for by itself, on cgroup v1 and v2, so that a
// machine that has both needs no special case. Everything is read only, and
// nothing is read from a directory that is not ours. Nothing here waits for
// anything but a [Clock], and nothing allocates while it samples.
package cgroup

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
)

// A Controller is one of those that we read.
type Controller int

// The controllers.
const (
	CPU Controller = iota
	CPUAcct
	Memory
	Pids

	controllers // how many there are
)

var names = [controllers]string{"cpu", "cpuacct", "memory", "pids"}

// Where says where to look. The zero value is this process on this machine.
type Where struct {
	Proc string // where procfs is; empty: /proc
	Root string // what stands before the mount points in mountinfo
	PID  int    // whose group it is, as cgroup.procs shows it; 0: ours
}

// A Box is the control group that we are in. A nil Box is one of which nothing
// is known: it has no limits and no counters.
type Box struct{ at [controllers]place }

// place is a controller's directory.
type place struct {
	dir, top string // top is the highest directory that can be seen; dir is "" where nothing was found
	v2       bool
}

// Dir is the directory of a controller, or "" where it is not known, and
// whether it is a cgroup v2 one.
func (b *Box) Dir(c Controller) (dir string, v2 bool) {
	if b == nil {
		return "", false
	}
	return b.at[c].dir, b.at[c].v2
}

// Find returns the box, or nil where no group is visible. Of the controllers
// only the given ones are looked for, or all if there is none: on v1 each costs
// some system calls.
func (w Where) Find(only ...Controller) *Box {
	w = w.filled()
	text, err := readFile(w.Proc+"/self/cgroup", slices.Grow([]byte(nil), 4096)) // not on the stack, which would have to grow
	if err != nil {
		return nil
	}
	groups, _ := memberships(text)
	if text, err = readFile(w.Proc+"/self/mountinfo", text); err != nil {
		return nil
	}
	b, found := &Box{}, false
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, newline)
		m, ok := parseMount(line)
		if !ok {
			continue
		}
		var last place // of this mount: several controllers mostly share one
		for c, g := range groups {
			if b.at[c].dir != "" || !m.has(c, g) || len(only) > 0 && !slices.Contains(only, Controller(c)) {
				continue
			}
			if last.dir == "" {
				last = w.locate(m, g.path)
			}
			b.at[c] = last
			found = found || last.dir != ""
		}
	}
	if !found {
		return nil
	}
	return b
}

// filled is w with its defaults.
func (w Where) filled() Where {
	w.Proc, w.PID = cmp.Or(w.Proc, "/proc"), cmp.Or(w.PID, os.Getpid())
	return w
}

// membership is the group that we are in, as the kernel tells it, for one
// controller.
type membership struct {
	path string // "" where there is none
	v2   bool
}

// memberships reads /proc/self/cgroup: for each controller, and the v2
// hierarchy's whether it has any or not. A controller that no v1 hierarchy has
// belongs to v2.
func memberships(text []byte) (groups [controllers]membership, unified string) {
	v1, unified, err := cgroups.ParseCgroupFromReaderUnified(bytes.NewReader(text))
	if err != nil {
		return groups, "" // no such line is the kernel's
	}
	for c := range groups {
		if p, ok := v1[names[c]]; ok {
			groups[c] = membership{p, false}
		} else {
			groups[c] = membership{unified, true}
		}
	}
	return groups, unified
}

// mount is a cgroup mount of mountinfo.
type mount struct {
	root, point string
	v2          bool
	options     string // of the file system: on v1 the controllers are among them
}

func (m mount) has(c int, g membership) bool {
	return g.path != "" && m.v2 == g.v2 && (m.v2 || hasWord(m.options, names[c]))
}

// parseMount takes a line of mountinfo apart:
//
//	36 35 98:0 /root /point rw,noatime shared:1 - cgroup cgroup rw,cpu
func parseMount(line []byte) (m mount, ok bool) {
	if !bytes.Contains(line, []byte(" - cgroup")) {
		return m, false // most lines
	}
	mounted, system, _ := strings.Cut(string(line), " - ")
	left, right := strings.Fields(mounted), strings.Fields(system)
	if len(left) < 6 || len(right) < 3 || right[0] != "cgroup" && right[0] != "cgroup2" {
		return m, false
	}
	return mount{unescape(left[3]), unescape(left[4]), right[0] == "cgroup2", right[2]}, true
}

// unescape undoes the octal escapes (\040) of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func octal(c byte) bool { return '0' <= c && c <= '7' }

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// locate returns the directory in which the group is in a mount, if it is
// ours. A directory that was not verified may be the host's.
func (w Where) locate(m mount, group string) place {
	top := w.Root + m.point
	if rel, ok := below(group, m.root); ok {
		if dir := path.Join(top, rel); w.ours(dir) {
			return place{dir, top, m.v2}
		}
	}
	// A mount that was made outside of our cgroup namespace has a root that
	// cannot be compared with our path.
	if w.ours(top) {
		return place{top, top, m.v2}
	}
	return place{}
}

// below returns what follows root in group, both paths from the root of our
// cgroup namespace.
func below(group, root string) (rel string, ok bool) {
	if strings.Contains(group, "/..") || strings.Contains(root, "/..") {
		return "", false
	}
	if root == "/" {
		return group, true
	}
	rel, ok = strings.CutPrefix(group, root)
	return rel, ok && (rel == "" || rel[0] == '/')
}

// ours tells whether the process is in the directory's group.
func (w Where) ours(dir string) bool {
	fd, err := open(dir + "/cgroup.procs")
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	buf := make([]byte, 256)
	for kept := 0; ; { // of a line whose end was not read yet
		n, err := unix.Read(fd, buf[kept:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return false
		}
		text := buf[:kept+n]
		for {
			line, rest, whole := bytes.Cut(text, newline)
			if !whole {
				kept = copy(buf, text)
				break
			}
			if pid, ok := number(line); ok && pid == int64(w.PID) {
				return true
			}
			text = rest
		}
	}
}

// readFile reads a whole file into the room of buf, or more.
func readFile(name string, buf []byte) ([]byte, error) {
	fd, err := open(name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf = buf[:0]
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, err
		case n == 0:
			return buf, nil
		default:
			buf = buf[:len(buf)+n]
		}
	}
}

// readShort reads a file of one line. It returns nothing when there is none.
func readShort(name string, buf []byte) []byte {
	fd, err := open(name)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, buf)
		if !errors.Is(err, unix.EINTR) {
			return buf[:max(0, n)]
		}
	}
}

func open(name string) (fd int, err error) {
	for {
		fd, err = unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
