// SPDX-License-Identifier: Apache-2.0

// Command config measures generate-config beside gomplate and envsubst: many
// small templates to as many files. It prints a table of Markdown.
//
// gomplate and a8m/envsubst are built from the module proxy into a temporary
// directory; what cannot be had is named and left out.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/cleanstart-dev/cleanimg-init/integration/bench/program"
)

// template is what each file has in it, in the language of the candidate.
const template = `# number %[1]d
server:
  host: %[2]s
  port: %[3]s
database:
  url: jdbc:postgresql://%[4]s/app
  user: %[5]s
`

var variables = []string{"HOST=0.0.0.0", "PORT=8080", "DB_HOST=postgres:5432", "DB_USER=app"}

// A candidate renders all templates of one directory to another.
type candidate struct {
	name     string
	path     string
	language func(variable string) string
	suffix   string // of the templates' names
	render   func(c candidate, from, to string, files []string) (program.Usage, error)
	runs     []program.Usage
}

func main() {
	files := flag.Int("files", 1000, "how many templates")
	runs := flag.Int("runs", 7, "how often each is measured")
	flag.Parse()
	if err := run(os.Stdout, *files, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, files, runs int) error {
	dir, err := os.MkdirTemp("", "bench-config-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	candidates, err := find(dir)
	if err != nil {
		return err
	}
	names := make([]string, files)
	for i := range names {
		names[i] = fmt.Sprintf("%04d.yaml", i)
	}
	for i := range candidates {
		if err := candidates[i].prepare(filepath.Join(dir, fmt.Sprint("templates", i)), names); err != nil {
			return err
		}
	}
	for r := range runs {
		for i := range candidates { // in turn, so that a busy moment is nobody's alone
			c := &candidates[i]
			fresh := filepath.Join(dir, fmt.Sprint("out", i, "-", r))
			if err := os.Mkdir(fresh, 0o755); err != nil {
				return err
			}
			u, err := c.render(*c, filepath.Join(dir, fmt.Sprint("templates", i)), fresh, names)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if err := same(filepath.Join(dir, "out0-0"), fresh, names); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.runs = append(c.runs, u)
		}
	}
	return table(out, candidates, files)
}

// find builds our program and looks for the others.
func find(dir string) ([]candidate, error) {
	ours, err := program.Build(dir, "generate-config")
	if err != nil {
		return nil, err
	}
	braces := func(variable string) string { return "${" + variable + "}" }
	function := func(variable string) string { return `{{ getenv "` + variable + `" }}` }
	all := []candidate{
		{name: "generate-config, templates", path: ours, language: function, suffix: ".tmpl", render: generate},
		{name: "generate-config, ${VAR}", path: ours, language: braces, render: generate},
		{name: "generate-config, nothing changed", path: ours, language: function, suffix: ".tmpl", render: generateAgain},
	}
	if gomplate, err := program.Install(dir, "github.com/hairyhenderson/gomplate/v4/cmd/gomplate@latest"); err != nil {
		fmt.Fprintln(os.Stderr, "bench: without gomplate:", err)
	} else {
		all = append(all, candidate{name: "gomplate", path: gomplate, language: function, render: gomplateDir})
	}
	if envsubst, err := program.Install(dir, "github.com/a8m/envsubst/cmd/envsubst@latest"); err != nil {
		fmt.Fprintln(os.Stderr, "bench: without a8m/envsubst:", err)
	} else {
		all = append(all, candidate{name: "a8m/envsubst, a process a file", path: envsubst, language: braces, render: eachFile})
	}
	if envsubst, err := exec.LookPath("envsubst"); err != nil {
		fmt.Fprintln(os.Stderr, "bench: without gettext's envsubst:", err)
	} else {
		all = append(all, candidate{name: "gettext envsubst, a process a file", path: envsubst, language: braces, render: eachFile})
	}
	return all, nil
}

// prepare writes the templates.
func (c *candidate) prepare(dir string, names []string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i, name := range names {
		text := fmt.Sprintf(template, i, c.language("HOST"), c.language("PORT"), c.language("DB_HOST"), c.language("DB_USER"))
		if err := os.WriteFile(filepath.Join(dir, name+c.suffix), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func generate(c candidate, from, to string, _ []string) (program.Usage, error) {
	return once(exec.Command(c.path, "--template-dir", from, "--output-dir", to, "--log-level", "error"))
}

// generateAgain measures a second run, as at every restart of a container.
func generateAgain(c candidate, from, to string, names []string) (program.Usage, error) {
	if u, err := generate(c, from, to, names); err != nil {
		return u, err
	}
	return generate(c, from, to, names)
}

func gomplateDir(c candidate, from, to string, _ []string) (program.Usage, error) {
	return once(exec.Command(c.path, "--input-dir", from, "--output-dir", to))
}

// eachFile runs the program for each file, as a shell script does.
func eachFile(c candidate, from, to string, names []string) (sum program.Usage, err error) {
	for _, name := range names {
		u, err := oneFile(c, filepath.Join(from, name), filepath.Join(to, name))
		if sum.Add(u); err != nil {
			return sum, err
		}
	}
	return sum, nil
}

func oneFile(c candidate, from, to string) (u program.Usage, err error) {
	in, err := os.Open(from)
	if err != nil {
		return u, err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return u, err
	}
	defer out.Close()
	cmd := exec.Command(c.path)
	cmd.Stdin, cmd.Stdout = in, out
	return once(cmd)
}

func once(cmd *exec.Cmd) (program.Usage, error) {
	cmd.Env = variables
	return program.Run(cmd)
}

// same checks that all of them have done the same work.
func same(want, got string, names []string) error {
	for _, name := range names {
		a, err := os.ReadFile(filepath.Join(want, name))
		if err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(got, name))
		if err != nil {
			return err
		}
		if string(a) != string(b) {
			return fmt.Errorf("%s is %q and not %q", name, b, a)
		}
	}
	return nil
}

func table(out io.Writer, candidates []candidate, files int) error {
	fmt.Fprintf(out, "%d templates to files, medians of %d runs\n\n", files, len(candidates[0].runs))
	fmt.Fprint(out, "| | wall ms | CPU ms | RSS MB | binary MB |\n| --- | --- | --- | --- | --- |\n")
	for _, c := range candidates {
		cells, err := program.Columns(c.runs, c.path)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "| %s | %s |\n", c.name, cells)
	}
	return nil
}
