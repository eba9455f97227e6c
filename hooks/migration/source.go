// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	gm "github.com/golang-migrate/migrate/v4/source"
)

// DefaultSource is where an image or a ConfigMap has its migrations.
const DefaultSource = "/migrations"

// A file is one migration in one direction.
type file struct {
	name string // 001_initial_schema.up.sql
	text string
	sum  string // SHA-256 of the content
}

// A version is what the files of one number make.
type version struct {
	number   int64
	title    string
	up, down *file // nil: there is none
}

// name is that of the version's file, for messages.
func (v version) name() string {
	if v.up != nil {
		return v.up.name
	}
	return v.down.name
}

// files are the migrations of a directory in the order of their numbers.
type files struct {
	dir      string
	versions []version
	ignored  []string // names that look as if they were meant to be migrations
}

// plainName is the form without a direction: an up migration.
var plainName = regexp.MustCompile(`^([0-9]+)_(.*)\.sql$`)

// foreign recognises files of tools that keep both directions in one file.
var foreign = regexp.MustCompile(`(?mi)^(--\s*\+(?:goose|migrate)\s+(?:up|down)|--\s*migrate:(?:up|down)\b|---- create above / drop below ----)`)

// readFiles reads the directory that source names: a file:// URL as
// golang-migrate has it, or a path. All problems are reported at once.
func readFiles(source string) (files, error) {
	dir, err := sourceDir(source)
	if err != nil {
		return files{}, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return files{}, fmt.Errorf("read migrations: %w", err)
	}
	all := files{dir: dir}
	byNumber := map[int64]*version{}
	var errs []error
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || strings.HasSuffix(name, ".bak") {
			continue // ..data of a ConfigMap, editors' files
		}
		m, err := parseName(name)
		switch {
		case errors.Is(err, gm.ErrParse):
			if strings.HasSuffix(strings.ToLower(name), ".sql") {
				all.ignored = append(all.ignored, name)
			}
			continue
		case err != nil:
			errs = append(errs, fmt.Errorf("migration %s: %w", filepath.Join(dir, name), err))
			continue
		}
		// Stat follows the links of a ConfigMap.
		switch info, err := os.Stat(filepath.Join(dir, name)); {
		case err == nil && info.IsDir():
			continue
		case err == nil && !info.Mode().IsRegular(): // a pipe would keep us for ever
			errs = append(errs, fmt.Errorf("migration %s is not a regular file", filepath.Join(dir, name)))
			continue
		}
		errs = append(errs, add(byNumber, dir, m))
	}
	for _, v := range byNumber {
		all.versions = append(all.versions, *v)
	}
	slices.SortFunc(all.versions, func(a, b version) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	if err := errors.Join(errs...); err != nil {
		return files{}, err
	}
	if len(all.versions) == 0 {
		return files{}, fmt.Errorf("no migrations in %s: accepted are names like 001_title.up.sql, 001_title.down.sql and 001_title.sql%s", dir, also(all.ignored))
	}
	return all, nil
}

func also(ignored []string) string {
	if len(ignored) == 0 {
		return ""
	}
	return "; not recognised: " + strings.Join(ignored, ", ")
}

// add reads one file and adds it to the versions.
func add(versions map[int64]*version, dir string, m *gm.Migration) error {
	path := filepath.Join(dir, m.Raw)
	if uint64(m.Version) > math.MaxInt64 {
		return fmt.Errorf("migration %s: the version is too large, at most %d", path, int64(math.MaxInt64))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read migration: %w", err)
	}
	if mark := foreign.Find(text); mark != nil && plainName.MatchString(m.Raw) && strings.Count(m.Raw, ".") == 1 {
		return fmt.Errorf("migration %s: %q is of another tool's format, which has the way back in the same file: "+
			"split it into %[3]s.up.sql and %[3]s.down.sql", path, mark, strings.TrimSuffix(m.Raw, ".sql"))
	}
	sum := sha256.Sum256(text)
	f := &file{name: m.Raw, text: string(text), sum: hex.EncodeToString(sum[:])}
	number := int64(m.Version)
	v := versions[number]
	if v == nil {
		v = &version{number: number, title: m.Identifier}
		versions[number] = v
	}
	slot := &v.up
	if m.Direction == gm.Down {
		slot = &v.down
	}
	if *slot != nil {
		return fmt.Errorf("two files for version %d %s in %s: %s and %s", number, m.Direction, dir, (*slot).name, m.Raw)
	}
	*slot = f
	return nil
}

// parseName reads a file name of golang-migrate's form or of the plain one.
func parseName(name string) (*gm.Migration, error) {
	m, err := gm.Parse(name)
	if err == nil || !errors.Is(err, gm.ErrParse) {
		return m, err
	}
	parts := plainName.FindStringSubmatch(name)
	if parts == nil {
		return nil, gm.ErrParse
	}
	number, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return nil, err
	}
	return &gm.Migration{Version: uint(number), Identifier: parts[2], Direction: gm.Up, Raw: name}, nil
}

// sourceDir is the directory of a source: "file:///migrations",
// "file://relative/path" or a path.
func sourceDir(source string) (string, error) {
	scheme, rest, ok := strings.Cut(source, "://")
	if !ok {
		return filepath.Abs(source)
	}
	if scheme != "file" {
		return "", fmt.Errorf("source %s://…: only directories are read, as file:///migrations or /migrations", scheme)
	}
	if unescaped, err := url.PathUnescape(rest); err == nil {
		rest = unescaped
	}
	return filepath.Abs(rest)
}

// find returns the version with this number.
func (f files) find(number int64) (version, bool) {
	for _, v := range f.versions {
		if v.number == number {
			return v, true
		}
	}
	return version{}, false
}

func (f files) highest() int64 { return f.versions[len(f.versions)-1].number }
