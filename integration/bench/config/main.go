// SPDX-License-Identifier: Apache-2.0

// Command config measures generate-config beside gomplate and envsubst: many
// small templates to as many files. It prints a table of Markdown.
//
// gomplate and a8m/envsubst are built from the module proxy into a temporary
// directory; what cannot be had is named and left out.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
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
	program  string
	language func(variable string) string
	suffix   string // of the templates' names
	render   func(c candidate, from, to string, files []string) usage
	runs     []usage
}

// usage is what one rendering took.
type usage struct {
	wall, cpu time.Duration
	rss       int64 // kB, of the largest process
	err       error
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
			u := c.render(*c, filepath.Join(dir, fmt.Sprint("templates", i)), fresh, names)
			if u.err != nil {
				return fmt.Errorf("%s: %w", c.name, u.err)
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
	ours := filepath.Join(dir, "generate-config")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", ours, "./cmd/generate-config")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build generate-config (bench runs from the top of the repository): %w: %s", err, out)
	}
	braces := func(variable string) string { return "${" + variable + "}" }
	function := func(variable string) string { return `{{ getenv "` + variable + `" }}` }
	all := []candidate{
		{name: "generate-config, templates", program: ours, language: function, suffix: ".tmpl", render: generate},
		{name: "generate-config, ${VAR}", program: ours, language: braces, render: generate},
		{name: "generate-config, nothing changed", program: ours, language: function, suffix: ".tmpl", render: generateAgain},
	}
	if gomplate, err := install(dir, "github.com/hairyhenderson/gomplate/v4/cmd/gomplate@latest"); err != nil {
		fmt.Fprintln(os.Stderr, "bench: without gomplate:", err)
	} else {
		all = append(all, candidate{name: "gomplate", program: gomplate, language: function, render: gomplateDir})
	}
	if envsubst, err := install(dir, "github.com/a8m/envsubst/cmd/envsubst@latest"); err != nil {
		fmt.Fprintln(os.Stderr, "bench: without a8m/envsubst:", err)
	} else {
		all = append(all, candidate{name: "a8m/envsubst, a process a file", program: envsubst, language: braces, render: eachFile})
	}
	if envsubst, err := exec.LookPath("envsubst"); err != nil {
		fmt.Fprintln(os.Stderr, "bench: without gettext's envsubst:", err)
	} else {
		all = append(all, candidate{name: "gettext envsubst, a process a file", program: envsubst, language: braces, render: eachFile})
	}
	return all, nil
}

// install builds a program from the module proxy.
func install(dir, module string) (program string, err error) {
	cmd := exec.Command("go", "install", "-trimpath", "-ldflags", "-s -w", module)
	cmd.Env = append(os.Environ(), "GOBIN="+filepath.Join(dir, "bin", filepath.Base(filepath.Dir(module))), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return "", fmt.Errorf("go install %s: %s", module, lines[len(lines)-1])
	}
	name, _, _ := strings.Cut(filepath.Base(module), "@")
	return filepath.Join(dir, "bin", filepath.Base(filepath.Dir(module)), name), nil
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

func generate(c candidate, from, to string, _ []string) usage {
	return once(exec.Command(c.program, "--template-dir", from, "--output-dir", to, "--log-level", "error"))
}

// generateAgain measures a second run, as at every restart of a container.
func generateAgain(c candidate, from, to string, names []string) usage {
	if first := generate(c, from, to, names); first.err != nil {
		return first
	}
	return generate(c, from, to, names)
}

func gomplateDir(c candidate, from, to string, _ []string) usage {
	return once(exec.Command(c.program, "--input-dir", from, "--output-dir", to))
}

// eachFile runs the program for each file, as a shell script does.
func eachFile(c candidate, from, to string, names []string) (sum usage) {
	for _, name := range names {
		in, err := os.Open(filepath.Join(from, name))
		if err != nil {
			return usage{err: err}
		}
		out, err := os.Create(filepath.Join(to, name))
		if err != nil {
			return usage{err: err}
		}
		cmd := exec.Command(c.program)
		cmd.Stdin, cmd.Stdout = in, out
		u := once(cmd)
		in.Close()
		out.Close()
		sum.wall, sum.cpu, sum.rss, sum.err = sum.wall+u.wall, sum.cpu+u.cpu, max(sum.rss, u.rss), cmp.Or(sum.err, u.err)
		if sum.err != nil {
			break
		}
	}
	return sum
}

func once(cmd *exec.Cmd) (u usage) {
	cmd.Env, cmd.Stderr = variables, os.Stderr
	start := time.Now()
	u.err = cmd.Run()
	u.wall = time.Since(start)
	if rusage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.cpu, u.rss = cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime(), rusage.Maxrss
	}
	return u
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
		info, err := os.Stat(c.program)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "| %s | %.0f | %.0f | %.1f | %.1f |\n", c.name,
			median(c.runs, func(u usage) float64 { return u.wall.Seconds() * 1000 }),
			median(c.runs, func(u usage) float64 { return u.cpu.Seconds() * 1000 }),
			median(c.runs, func(u usage) float64 { return float64(u.rss) / 1000 }), float64(info.Size())/1e6)
	}
	return nil
}

func median(runs []usage, f func(usage) float64) float64 {
	values := make([]float64, 0, len(runs))
	for _, u := range runs {
		values = append(values, f(u))
	}
	slices.Sort(values)
	return values[len(values)/2]
}
