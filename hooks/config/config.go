// SPDX-License-Identifier: Apache-2.0

// Package config turns a directory of templates into a directory of
// configuration files, all of them or none.
//
// [Render] does everything that can fail for a reason in the input: it reads
// the values, renders every template in memory and checks the results. What it
// returns, an [Output], has not touched the output directory yet; it can be
// compared with it ([Output.Diff]) or written to it ([Output.Commit]).
//
// Rendering is hermetic: no commands, no network, no clock, no random numbers.
// The same input gives the same bytes.
package config

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// Options say what is rendered from what, and to where.
type Options struct {
	TemplateDir string
	OutputDir   string   // may be empty for those who only render
	Environment string   // "production": which values.<environment>.yaml is read
	Values      []string // files of values, later over earlier, over those in TemplateDir
	SecretDirs  []string // directories with a file for each secret
	Only        []string // names or globs: other ${VAR} stay as they are; none: all are expanded
	Unchecked   []string // globs of outputs that are not parsed, nor held against a schema
	Modes       []Mode   // the last that matches counts
	AtomicDir   bool     // publish the directory as a whole, by one link
	Environ     []string // "KEY=value"
	Limits      Limits   // of the container
	Log         *slog.Logger
	// Redact hides secrets in errors. Render makes it know those that it finds.
	// Nil: what has no secret in the environment is shown.
	Redact *report.Redactor
}

// Limits are the container's: what templates see as .Limits.
type Limits struct {
	CPU    float64 // cores; 0 is no limit
	Memory int64   // bytes; 0 is no limit
	Cores  int     // of the machine, for .Limits.Workers; 0: what the runtime sees
}

// workers is how many threads are worth having: at least one.
func (l Limits) workers() int {
	cores := cmp.Or(l.Cores, runtime.NumCPU())
	if l.CPU <= 0 {
		return cores
	}
	n := int(l.CPU)
	if float64(n) < l.CPU {
		n++
	}
	return min(max(n, 1), max(cores, 1))
}

// Output is a set of rendered files that passed every check.
type Output struct {
	files   []file
	options Options
}

// file is one of the output.
type file struct {
	name    string // below the output directory, with slashes
	source  string // below the template directory
	content []byte
	// blind is the content as it would be with other secrets. Where it differs
	// from content there is a secret; nil where it could not be made, and then
	// every byte may belong to one.
	blind  []byte
	secret bool // a secret went in
	mode   fs.FileMode
	owner  owner
	given  bool // mode and owner were asked for
}

// Names are the files of the output, sorted, with slashes.
func (o *Output) Names() (names []string) {
	for _, f := range o.files {
		names = append(names, f.name)
	}
	return names
}

// Render reads the input, renders all templates and checks the results. The
// output directory is not touched. The error has every problem of every file,
// each with file and line, without secrets. It ends early when ctx does.
func Render(ctx context.Context, o Options) (*Output, error) {
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	o.Redact = cmp.Or(o.Redact, report.NewRedactor(o.Environ))
	in, err := o.read()
	if err != nil {
		return nil, o.redacted(err)
	}
	out := &Output{options: o}
	var problems []error
	for _, s := range in.sources {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("render %s: %w", o.TemplateDir, context.Cause(ctx))
		}
		f, found := in.render(s)
		problems = append(problems, found...)
		if len(found) == 0 {
			out.files = append(out.files, f)
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, o.redacted(err)
	}
	for _, name := range in.schemas.unused() {
		o.Log.Warn("a schema belongs to no output", "schema", name)
	}
	out.setModes()
	return out, nil
}

// redacted is err without secrets. Problems stay one a line.
func (o *Options) redacted(err error) error {
	text := o.Redact.String(err.Error())
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}

// input is everything that was read.
type input struct {
	options  *Options
	sources  []source
	partials []partial
	values   map[string]any
	env      *environment
	secrets  map[string]any
	schemas  *schemas
	library  template.FuncMap // the functions that are the same for all templates

	// A second view of the same with every secret replaced: what changes in
	// the output has a secret in it. Nil when there are no secrets.
	blind *input
}

func (o *Options) read() (*input, error) {
	if strings.ContainsAny(o.Environment, "/\x00") || strings.HasPrefix(o.Environment, ".") {
		return nil, fmt.Errorf("environment %q: accepted is a name as in values.<environment>.yaml", o.Environment)
	}
	if within(o.OutputDir, o.TemplateDir) {
		return nil, fmt.Errorf("output directory %s is in the template directory %s: what is written would be a template the next time", o.OutputDir, o.TemplateDir)
	}
	t, err := readTree(o.TemplateDir)
	if err != nil {
		return nil, err
	}
	in := &input{options: o, sources: t.sources, partials: t.partials, schemas: newSchemas(t.schemas), library: library()}
	secrets, err := readSecrets(o.SecretDirs)
	problems := []error{err}
	for _, leaf := range secrets {
		o.Redact.Add([]string{"SECRET=" + leaf.value})
	}
	in.env, err = newEnvironment(o.Environ, secrets, o.Only, o.Redact)
	problems = append(problems, err)
	layers, err := o.layers(t.values)
	problems = append(problems, err)
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	if in.values, err = mergeLayers(layers, o.Environ, secrets); err != nil {
		return nil, err
	}
	in.secrets = secretTree(secrets)
	texts := make([]string, 0, len(in.sources)+len(in.partials))
	for _, s := range in.sources {
		texts = append(texts, s.content)
	}
	for _, p := range in.partials {
		texts = append(texts, p.content)
	}
	in.env.without(texts)
	in.blind = in.blindfold(secrets)
	return in, nil
}

// within tells whether a directory is another one, or in it.
func within(dir, other string) bool {
	if dir == "" {
		return false
	}
	rel, err := filepath.Rel(resolvedPath(other), resolvedPath(dir))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// resolvedPath is a path without links, as far as it is there.
func resolvedPath(path string) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved
	}
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	return path
}
