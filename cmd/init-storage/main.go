// SPDX-License-Identifier: Apache-2.0

// Command init-storage makes the directories and marker files that an
// application needs on its volumes, sets their modes and owners and proves that
// they can be written.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/cli"
	"github.com/cleanstart-dev/cleanimg-init/hooks/storage"
)

func main() { cli.Main(tool()) }

// settings are the options as they were given.
type settings struct {
	flags     *cli.Flags
	spec      string
	plan      storage.Plan
	recursive bool
}

func tool() cli.Tool {
	var s settings
	return cli.Tool{
		Name: "init-storage", Prefix: "INIT_STORAGE",
		Usage: "init-storage --dir PATH[:MODE[:UID[:GID]]] … [--file PATH[:MODE[:UID[:GID]]] …] [options]",
		About: `Makes directories (with their parents) and empty marker files, and sets their
modes and owners. What is there already is kept; a second run changes nothing.
MODE is octal and may have the setuid, setgid and sticky bits: 2770, 1777.
Files are made last, when everything else has succeeded.`,
		Notes: `Examples:
  init-storage --dir /app/data:0700 --dir /app/logs:0755 --dir /app/tmp:1777 \
               --file /app/data/.ready --verify-writable
  init-storage --spec /etc/app/volumes.yaml      with
    dirs:
    - /app/logs:0755
    - {path: /app/data, mode: "2770", gid: 65532, recursive: true}
    files: [/app/data/.ready]`,
		Flags: s.register,
		Check: s.complete,
		Run: func(ctx context.Context, p *cli.Process) error {
			return storage.Prepare(ctx, s.plan, p.Log)
		},
	}
}

func (s *settings) register(f *cli.Flags) {
	s.flags = f
	f.Var((*entries)(&s.plan.Dirs), "dir", "`PATH[:MODE[:UID[:GID]]]` a directory that must be there; may be repeated")
	f.Var((*entries)(&s.plan.Files), "file", "`PATH[:MODE[:UID[:GID]]]` a marker file that must be there; may be repeated")
	f.StringVar(&s.spec, "spec", "", "`FILE` a YAML file with more directories and files")
	f.BoolVar(&s.recursive, "recursive", false, "give mode and owner to all that is in a directory, too, unless it has them already itself")
	f.BoolVar(&s.plan.Verify, "verify-writable", false, "prove that each directory can be written: write, sync, read back, rename and remove a file")
	f.Size(&s.plan.MinFree, "min-free", "how much room there must be, like 1Gi")
	f.Int64Var(&s.plan.MinInodes, "min-inodes", 0, "`N` how many files it must be possible to make")
}

// complete adds what is not an option of its own.
func (s *settings) complete(p *cli.Process) error {
	var problems []error
	if len(p.Args) > 0 {
		problems = append(problems, fmt.Errorf("unexpected word %q: directories are given by --dir, files by --file", p.Args[0]))
	}
	if s.spec != "" {
		problems = append(problems, s.load())
	}
	given := s.flags.Changed("dir") || s.flags.Changed("file") || s.spec != ""
	if !given {
		problems = append(problems, errors.New("nothing to do: give --dir, --file or --spec, or INIT_STORAGE_DIR, INIT_STORAGE_FILE or INIT_STORAGE_SPEC"))
	}
	if s.plan.MinInodes < 0 {
		problems = append(problems, fmt.Errorf("--min-inodes %d: accepted is a whole number from 0", s.plan.MinInodes))
	}
	for i := range s.plan.Dirs {
		s.plan.Dirs[i].Recursive = s.plan.Dirs[i].Recursive || s.recursive
	}
	return errors.Join(problems...)
}

// load adds what the file of --spec lists.
func (s *settings) load() error {
	f, err := os.Open(s.spec)
	if err != nil {
		return fmt.Errorf("--spec: %w", err)
	}
	defer f.Close()
	if err := s.plan.Load(f); err != nil {
		return fmt.Errorf("--spec %s: %w", s.spec, err)
	}
	if len(s.plan.Dirs)+len(s.plan.Files) == 0 {
		return fmt.Errorf("--spec %s: it lists neither dirs nor files", s.spec)
	}
	return nil
}

// entries is the value of an option that may be repeated.
type entries []storage.Entry

func (e *entries) Type() string   { return "entry" }
func (e *entries) String() string { return "" }

func (e *entries) Set(s string) error {
	entry, err := storage.ParseEntry(s)
	if err != nil {
		return err
	}
	*e = append(*e, entry)
	return nil
}

// The methods of pflag.SliceValue, by which a variable may hold several.

func (e *entries) Append(s string) error { return e.Set(s) }

func (e *entries) Replace(all []string) error {
	*e = nil
	for _, s := range all {
		if err := e.Set(s); err != nil {
			return err
		}
	}
	return nil
}

func (e *entries) GetSlice() (all []string) {
	for _, entry := range *e {
		all = append(all, entry.Path)
	}
	return all
}
