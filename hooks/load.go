// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// loader collects hooks and everything that is wrong with them.
type loader struct {
	Options
	known    []string // names of all hooks found, skipped ones too
	skipped  []string
	warnings []string
	problems []error
}

// An entry is a file in a hook directory.
type entry struct {
	dir  string
	info fs.FileInfo // of what a link leads to
}

// load returns the hooks of the directories in the byte order of their names.
func (l *loader) load(dirs []string, named bool, kind string) []Step {
	entries := map[string]entry{}
	for _, dir := range dirs {
		l.readDir(entries, dir, named, kind)
	}
	if len(entries) == 0 {
		return nil
	}
	files := slices.SortedFunc(maps.Keys(entries), func(a, b string) int {
		if order := strings.Compare(hookName(a), hookName(b)); order != 0 {
			return order
		}
		return strings.Compare(a, b)
	})
	var steps []Step
	last := ""
	for i, file := range files {
		name, e := hookName(file), entries[file]
		if i > 0 && name == hookName(last) {
			l.problem("%s and %s are both the %s %q: rename one, or mask one with an empty file of its name",
				filepath.Join(entries[last].dir, last), filepath.Join(e.dir, file), strings.TrimSuffix(kind, "s"), name)
		}
		last = file
		l.known = append(l.known, name)
		if slices.Contains(l.Skip, name) || slices.Contains(l.Skip, "*") {
			l.skipped = append(l.skipped, name)
			continue
		}
		if step, ok := l.step(name, filepath.Join(e.dir, file), e); ok {
			steps = append(steps, step)
		}
	}
	return steps
}

// dirVariable is the setting that names the directories of a kind of hooks.
func dirVariable(kind string) string {
	return ownPrefix + strings.ToUpper(strings.ReplaceAll(kind, " ", "_")) + "_DIR"
}

// hookName is what a hook is called that is in a file of this name.
func hookName(file string) string {
	if isStepFile(file) {
		return strings.TrimSuffix(file, filepath.Ext(file))
	}
	return file
}

func isStepFile(file string) bool {
	return strings.HasSuffix(file, ".yaml") || strings.HasSuffix(file, ".yml")
}

// readDir enters the files of a directory over those of earlier ones.
func (l *loader) readDir(entries map[string]entry, dir string, named bool, kind string) {
	// One system call where there is no such directory, which is the usual case.
	files, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		return
	case errors.Is(err, fs.ErrNotExist):
		l.problem("%s: the directory %s does not exist: make it, or leave it out", dirVariable(kind), dir)
		return
	case errors.Is(err, fs.ErrPermission):
		l.problem("%s: the directory %s cannot be read by user %d: chmod 0755", dirVariable(kind), dir, os.Geteuid())
		return
	case errors.Is(err, unix.ENOTDIR):
		l.problem("%s: %s is not a directory", dirVariable(kind), dir)
		return
	case err != nil:
		l.problem("%s: the directory %s: %v", dirVariable(kind), dir, errors.Unwrap(err))
		return
	}
	found := false
	for _, file := range files {
		if !isSkippedName(file.Name()) && l.enter(entries, dir, file.Name()) {
			found = true
		}
	}
	if found {
		l.checkWritable(dir)
	}
}

// isSkippedName follows run-parts and systemd: what editors, package managers
// and people leave beside the files that count.
func isSkippedName(name string) bool {
	switch ext := filepath.Ext(name); {
	case strings.HasPrefix(name, "."), strings.HasSuffix(name, "~"):
		return true
	case ext == ".bak", ext == ".md", ext == ".txt":
		return true
	default:
		return strings.HasPrefix(ext, ".dpkg-") || strings.HasPrefix(ext, ".rpm")
	}
}

// enter adds one file, or lets it mask an earlier one; it tells whether there is
// a file to run.
func (l *loader) enter(entries map[string]entry, dir, name string) bool {
	path := filepath.Join(dir, name)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		target, _ := os.Readlink(path)
		l.problem("%s is a broken link: %s does not exist: remove the link or make what it leads to", path, target)
		return false
	case err != nil:
		l.problem("%s: %v", path, errors.Unwrap(err))
		return false
	case info.IsDir():
		l.warnings = append(l.warnings, fmt.Sprintf("%s is a folder: not a hook, skipped", path))
		return false
	case isMask(info):
		delete(entries, name)
		return false
	}
	entries[name] = entry{dir: dir, info: info}
	return true
}

// isMask tells whether a file only masks another: an empty one or /dev/null.
func isMask(info fs.FileInfo) bool {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode()&fs.ModeCharDevice != 0 {
		return uint64(stat.Rdev) == unix.Mkdev(1, 3)
	}
	return info.Mode().IsRegular() && info.Size() == 0
}

// step checks one file and makes a step of it.
func (l *loader) step(name, path string, e entry) (Step, bool) {
	before := len(l.problems)
	s := Step{Name: name, File: path, Timeout: l.timeout(name, l.Timeout), backoff: defaultBackoff}
	switch {
	case !e.info.Mode().IsRegular():
		l.problem("%s is not a regular file: remove it, or give it a name that is skipped (one with a dot in front)", path)
	case isStepFile(path):
		l.stepFile(&s)
	default:
		s.raw, s.program = true, []string{path}
		if problem, _ := inspect(path, path, nil); problem != "" {
			l.problem("hook %q: %s", name, problem)
		}
	}
	if e.info.Mode().IsRegular() {
		l.checkFileWritable(path, e.info)
	}
	return s, len(l.problems) == before
}

// timeout is what the operator says for the name, or else.
func (l *loader) timeout(name string, otherwise time.Duration) time.Duration {
	if d, ok := l.Timeouts[name]; ok {
		return d
	}
	return otherwise
}

func (l *loader) stepFile(s *Step) {
	data, err := readStepFile(s.File)
	if err != nil {
		l.problem("%s: %v", s.File, err)
		return
	}
	f, err := parseStepFile(s.File, data)
	if err != nil {
		l.problems = append(l.problems, err)
		return
	}
	s.program, s.retries, s.carryOn, s.env, s.dir = f.run, f.retries, f.carryOn, f.env, f.dir
	if f.timeout != "" {
		own, _ := ParseDuration(f.timeout) // it was checked
		s.Timeout = l.timeout(s.Name, own)
	}
	if f.backoff != "" {
		s.backoff, _ = ParseDuration(f.backoff)
	}
	if f.user != "" {
		l.user(s, f)
	}
}

func readStepFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open it as user %d: %w", os.Geteuid(), errors.Unwrap(err))
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, largestStepFile+1))
}

// user finds out who the step is to run as. Without root the key says nothing:
// the same image runs as root here and as somebody else there.
func (l *loader) user(s *Step, f stepFile) {
	id, err := ResolveUser(f.user)
	if !isRoot() {
		if err != nil || id.UID != os.Geteuid() {
			l.warnings = append(l.warnings, fmt.Sprintf("%s:%d: user %s is not used: we are not root but %d", f.file, f.userAt, f.user, os.Geteuid()))
		}
		return
	}
	if err == nil {
		_, err = id.Credential()
	}
	if err != nil {
		l.problem("%s:%d: user: %v", f.file, f.userAt, err)
		return
	}
	s.identity = &id
}

// checkFileWritable refuses a file that others may change while we are root:
// what they write would run as root.
func (l *loader) checkFileWritable(path string, info fs.FileInfo) {
	if !isRoot() {
		return
	}
	if info.Mode().Perm()&0o002 != 0 && !isMounted(path, unix.ST_RDONLY) {
		l.problem("%s can be written by every user while we are root: mode %04o: chmod o-w, or mount it read-only", path, info.Mode().Perm())
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil || filepath.Dir(real) == filepath.Dir(path) {
		return
	}
	// In a sticky directory others can add files, but not replace this one.
	if dir, err := os.Stat(filepath.Dir(real)); err == nil && dir.Mode()&fs.ModeSticky == 0 {
		l.checkWritable(filepath.Dir(real))
	}
}

// checkWritable does the same for a directory. A ConfigMap volume is mode 0777
// but mounted read-only.
func (l *loader) checkWritable(dir string) {
	if !isRoot() {
		return
	}
	info, err := os.Stat(dir)
	if err == nil && info.Mode().Perm()&0o002 != 0 && !isMounted(dir, unix.ST_RDONLY) {
		text := fmt.Sprintf("directory %s can be written by every user while we are root: mode %04o: chmod o-w, or mount it read-only", dir, info.Mode().Perm())
		if !slices.ContainsFunc(l.problems, func(err error) bool { return err.Error() == text }) {
			l.problems = append(l.problems, errors.New(text))
		}
	}
}

// warnUnknown warns of names in settings that no hook has.
func (l *loader) warnUnknown() {
	for _, name := range slices.Sorted(maps.Keys(l.Timeouts)) {
		if !slices.Contains(l.known, name) {
			l.warnings = append(l.warnings, fmt.Sprintf("CLEANIMG_INIT_STEP_TIMEOUTS: no hook is called %q", name))
		}
	}
	for _, name := range l.Skip {
		if name != "*" && !slices.Contains(l.known, name) {
			l.warnings = append(l.warnings, fmt.Sprintf("CLEANIMG_INIT_HOOKS_SKIP: no hook is called %q", name))
		}
	}
}

// problem notes one as a line. An error in args is shown, not wrapped: whatever
// is wrong with a hook, it is one bad hook to callers.
func (l *loader) problem(format string, args ...any) {
	l.problems = append(l.problems, fmt.Errorf(format, args...))
}
