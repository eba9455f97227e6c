// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Mode says which mode and owner some of the output gets.
type Mode struct {
	Glob  string // as of [path.Match]; without a slash it is for the base name
	Mode  fs.FileMode
	owner owner
}

// owner is who a file shall belong to; -1 leaves it as it is.
type owner struct{ uid, gid int }

var unowned = owner{-1, -1}

// ParseMode parses GLOB=0640, GLOB=0640:UID:GID. UID or GID may be left out.
func ParseMode(s string) (Mode, error) {
	const accepted = "accepted are GLOB=0640 and GLOB=0640:UID:GID"
	i := strings.LastIndexByte(s, '=')
	if i <= 0 {
		return Mode{}, fmt.Errorf("%q: %s", s, accepted)
	}
	m := Mode{Glob: s[:i], owner: unowned}
	if _, err := path.Match(m.Glob, ""); err != nil {
		return Mode{}, fmt.Errorf("%q: a glob's [ needs its ]: %s", s, accepted)
	}
	bits, ids, owned := strings.Cut(s[i+1:], ":")
	n, err := strconv.ParseUint(bits, 8, 32)
	if err != nil || n > 0o777 || len(bits) < 3 {
		return Mode{}, fmt.Errorf("%q: the mode has three or four octal digits, at most 0777: %s", s, accepted)
	}
	m.Mode = fs.FileMode(n)
	if !owned {
		return m, nil
	}
	uid, gid, _ := strings.Cut(ids, ":")
	if m.owner.uid, err = parseID(uid); err == nil {
		m.owner.gid, err = parseID(gid)
	}
	if err != nil {
		return Mode{}, fmt.Errorf("%q: an owner is a number: %s", s, accepted)
	}
	return m, nil
}

// parseID parses a user's or group's number; nothing is -1.
func parseID(s string) (int, error) {
	if s == "" {
		return -1, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err
}

// setModes decides the mode and the owner of every file.
func (o *Output) setModes() {
	used := make([]bool, len(o.options.Modes))
	for i := range o.files {
		f := &o.files[i]
		f.owner = unowned
		switch {
		case f.secret && o.sharedWithGroup(f.name):
			f.mode = 0o640
		case f.secret:
			f.mode = 0o600
		case f.mode == 0:
			f.mode = 0o644
		}
		for j, m := range o.options.Modes {
			if matches(m.Glob, f.name) {
				f.mode, f.owner, f.given, used[j] = m.Mode, m.owner, true, true
			}
		}
		if f.secret && f.given && f.mode&0o004 != 0 {
			o.options.Log.Warn("every user may read a file with secrets, as its mode asks for", "file", f.name, "mode", modeText(f.mode))
		}
	}
	for j, m := range o.options.Modes {
		if !used[j] {
			o.options.Log.Warn("a mode is for no file", "glob", m.Glob)
		}
	}
}

// sharedWithGroup tells whether the directory of a file hands its group on: an
// fsGroup volume, whose group is how several users read it. A directory that is
// not there yet takes after the one above it.
func (o *Output) sharedWithGroup(name string) bool {
	if o.options.OutputDir == "" {
		return false
	}
	dir := filepath.Dir(filepath.Join(o.options.OutputDir, filepath.FromSlash(name)))
	for {
		info, err := os.Stat(dir)
		if err == nil {
			return info.Mode()&fs.ModeSetgid != 0
		}
		above := filepath.Dir(dir)
		if above == dir {
			return false
		}
		dir = above
	}
}

func modeText(mode fs.FileMode) string { return fmt.Sprintf("%04o", mode.Perm()) }
