// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// defaultPath is searched when the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const (
	codeOwn           = 125
	codeNotExecutable = 126
	codeNotFound      = 127
)

// A LookupError says why a program cannot be executed, and what to do.
type LookupError struct {
	Name    string // as it was asked for
	Problem string
	code    int
}

func (e *LookupError) Error() string { return e.Problem }

// Code is the exit code that a shell would report: 127 when the program or its
// interpreter was not found, else 126.
func (e *LookupError) Code() int { return e.code }

// Lookup finds the program as execvp(3) does: a name with a slash is a path,
// any other is looked for in the directories of PATH of env. It makes sure that
// we may execute it and that the kernel could: format, architecture,
// interpreter or loader, and mount. "We" are who, where that is not nil. The
// error is a [*LookupError].
func Lookup(name string, env []string, who *Identity) (path string, err error) {
	return lookup(name, name, "", env, who)
}

// lookup is Lookup for a program that is run in dir by who. In messages the
// program is called shown.
func lookup(name, shown, dir string, env []string, who *Identity) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(inDir(dir, name), shown, who); err != nil {
			return "", err
		}
		return name, nil
	}
	path, _ := lookupIn(env)("PATH")
	path = cmp.Or(path, defaultPath)
	var denied error
	for _, folder := range filepath.SplitList(path) {
		candidate := cmp.Or(folder, ".") + "/" + name
		info, err := os.Stat(inDir(dir, candidate))
		if name == "" || err != nil || info.IsDir() {
			continue
		}
		called := shown
		if shown == name {
			called = candidate
		}
		// What cannot be executed does not hide what can be, further on.
		if err = executable(inDir(dir, candidate), called, who); err == nil {
			return candidate, nil
		}
		denied = cmp.Or(denied, err)
	}
	if denied != nil {
		return "", denied
	}
	return "", &LookupError{
		Name: shown, code: codeNotFound,
		Problem: fmt.Sprintf("not found: %q is in no directory of PATH (%s): %s", shown, path, cmp.Or(remedy(shown), "write its full path, or set PATH")),
	}
}

// remedy is what to do about a name that is not found because of how a Dockerfile
// was written, or "". CMD without a list runs a shell.
func remedy(name string) string {
	switch base := filepath.Base(name); {
	case slices.Contains([]string{"sh", "ash", "bash", "dash"}, base):
		return fmt.Sprintf(`where an image has no %s, name the program itself, in a Dockerfile as a list: CMD ["/app/server", "--verbose"]`, base)
	case strings.Contains(name, " "):
		return "it is one argument, with a space in it: make each word an item of the list"
	}
	return ""
}

// inDir is the path for us of what is path for a process that runs in dir.
func inDir(dir, path string) string {
	if dir == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// executable returns nil when who (nil: we) can execute the file, as far as
// that can be told without doing it.
func executable(file, shown string, who *Identity) error {
	problem, code := inspect(file, shown, who)
	if problem == "" {
		return nil
	}
	return &LookupError{Name: shown, Problem: problem, code: code}
}

func inspect(file, shown string, who *Identity) (problem string, code int) {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		if target, err := os.Readlink(file); err == nil && shown == file {
			return fmt.Sprintf("not found: %s is a link to %s, which does not exist", shown, target), codeNotFound
		}
		return strings.TrimSuffix("not found: "+shown+": "+remedy(shown), ": "), codeNotFound
	case err != nil:
		return fmt.Sprintf("%s: %v", shown, errors.Unwrap(err)), codeNotExecutable
	case info.IsDir():
		return shown + " is a directory, not a program", codeNotExecutable
	case !info.Mode().IsRegular():
		return shown + " is not a regular file", codeNotExecutable
	case isMounted(file, unix.ST_NOEXEC):
		return shown + " is on a noexec mount: mount it without noexec, or put the file into the image", codeNotExecutable
	case !mayExecute(file, info, who):
		as := ""
		if who != nil {
			as = fmt.Sprintf(" for user %d", who.UID)
		}
		return fmt.Sprintf("%s is not executable%s: mode %04o: set defaultMode: 0755 on the ConfigMap volume, or chmod 0755",
			shown, as, info.Mode().Perm()), codeNotExecutable
	}
	return inspectFormat(file, shown)
}

// isMounted tells whether the file is on a mount with the flag.
func isMounted(file string, flag int64) bool {
	var fs unix.Statfs_t
	return unix.Statfs(file, &fs) == nil && int64(fs.Flags)&flag != 0
}

// mayExecute asks the kernel for us and for others goes by the mode, as the
// kernel does without access control lists.
func mayExecute(file string, info os.FileInfo, who *Identity) bool {
	mode := uint32(info.Mode().Perm())
	var stat unix.Stat_t
	if who == nil || unix.Stat(file, &stat) != nil {
		return unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS) == nil
	}
	switch {
	case who.UID == 0:
		return mode&0o111 != 0
	case who.UID == int(stat.Uid):
		return mode&0o100 != 0
	case who.GID == int(stat.Gid) || slices.Contains(who.Groups, int(stat.Gid)):
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}

// StartError explains why the kernel did not start the program at path, which
// [Lookup] had accepted. It is a [*LookupError] when the program is to blame;
// anything else is 125.
func StartError(path string, err error) error { return startError(path, path, err, nil) }

func startError(file, shown string, err error, who *Identity) error {
	switch {
	case errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("start %s: %w: the pids limit is reached (pids.max of the container, podPidsLimit of the node, or ulimit -u)", shown, err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("start %s: %w: the memory limit leaves no room for a process", shown, err)
	case errors.Is(err, unix.E2BIG):
		return refused(shown, err, codeNotExecutable, ": arguments and environment have at most a quarter of the stack limit, each string 128 KiB")
	case errors.Is(err, unix.EPERM) && who != nil:
		return refused(shown, err, codeNotExecutable, fmt.Sprintf(": we may not become %d:%d, or it has file capabilities that the container has not", who.UID, who.GID))
	case errors.Is(err, unix.EPERM):
		return refused(shown, err, codeNotExecutable, ": it has file capabilities that the container has not: add them, or take them off with setcap -r")
	}
	// It was all right when it was looked up: say what has changed.
	if changed := executable(file, shown, who); changed != nil {
		return changed
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return refused(shown, err, codeNotFound, "")
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOEXEC), errors.Is(err, unix.ETXTBSY), errors.Is(err, unix.ENOTDIR):
		return refused(shown, err, codeNotExecutable, "")
	default:
		return fmt.Errorf("start %s: %w", shown, err)
	}
}

func refused(shown string, err error, code int, hint string) error {
	return &LookupError{Name: shown, code: code, Problem: fmt.Sprintf("start %s: %v%s", shown, err, hint)}
}
