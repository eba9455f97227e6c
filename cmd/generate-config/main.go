// SPDX-License-Identifier: Apache-2.0

// Command generate-config turns a directory of templates into a directory of
// configuration files, all of them or none. Linked as validate-config it only
// renders and checks.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/cli"
	"github.com/cleanstart-dev/cleanimg-init/hooks/config"
	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

func main() { cli.Main(tool()) }

const about = `
Renders every file below the template directory, checks the results, and then
writes them to the output directory: all, or nothing when one is not right.

NAME.tmpl is a Go template and becomes NAME. In every other text file ${VAR},
${VAR:-default}, ${VAR:?message} and ${VAR:+alternative} are expanded; $${ is a
dollar sign and a brace. Binary files are copied. values*.yaml, NAME.schema.json
and _*.tpl (definitions for the templates) are input only.

Templates see .Values, .Env, .Secrets, .Environment and .Limits. Values come,
the later over the earlier, from values.yaml and values.<environment>.yaml among
the templates, --values, GENERATE_CONFIG_VALUE_DB__HOST for db.host, and
--secrets-dir. ${VAR} and .Env are the environment, where VAR_FILE names a file
with the value of VAR; ${VAR} may be the name of a secret too.`

const notes = `
Examples:
  generate-config --environment production --output-dir /config
  generate-config --output-dir /config --secrets-dir /run/secrets --mode '*.sh=0755'
  generate-config --check --output-dir /config
  validate-config --template-dir templates --environment production

--check exits with 0 when nothing would change, 1 when something would, 125 when
the templates are not right. All about templates: docs/generate-config.md.`

// settings are the options.
type settings struct {
	config.Options
	modes           []string
	check, validate bool
}

func tool() cli.Tool {
	s := &settings{}
	return cli.Tool{
		Name:   "generate-config",
		Prefix: "GENERATE_CONFIG",
		Usage:  "generate-config [options] --output-dir DIR\nvalidate-config [options]",
		About:  about,
		Notes:  notes,
		Codes:  "  1    --check: something would change\n",
		Known:  func(variable string) bool { return strings.HasPrefix(variable, config.ValuePrefix) },
		Flags:  s.register,
		Check:  s.complete,
		Run:    s.run,
	}
}

func (s *settings) register(f *cli.Flags) {
	f.StringVar(&s.OutputDir, "output-dir", "", "`DIR` where the files go; it is made if it is missing")
	f.StringVar(&s.TemplateDir, "template-dir", "/templates", "`DIR` where the templates are")
	f.StringVar(&s.Environment, "environment", "", "`NAME` the environment: its values are in values.NAME.yaml, and templates see it as .Environment")
	f.StringArrayVar(&s.Values, "values", nil, "`FILE` values (YAML, JSON, TOML) that go over those among the templates; may be repeated")
	f.StringArrayVar(&s.SecretDirs, "secrets-dir", nil, "`DIR` a directory with a file for each secret; may be repeated")
	f.StringSliceVar(&s.Only, "only", nil, "`NAMES` the variables to expand, names or globs separated by commas; any other ${VAR} stays as it is")
	f.StringArrayVar(&s.modes, "mode", nil, "`GLOB=MODE[:UID:GID]` mode and owner of the files that match, by the last that does. Without one a file has 0644, and with a secret in it 0600, or 0640 in a setgid directory")
	f.StringArrayVar(&s.Unchecked, "no-check", nil, "`GLOB` files that are not parsed although they are called .yaml, .json or .toml; may be repeated")
	f.BoolVar(&s.AtomicDir, "atomic-dir", false, "publish all files at once, by swapping one link, as ConfigMap volumes do")
	f.BoolVar(&s.check, "check", false, "write nothing; print what would change, without secrets")
	f.BoolVar(&s.validate, "validate", false, "only render and check")
}

func (s *settings) run(ctx context.Context, p *cli.Process) error {
	out, err := config.Render(ctx, s.Options)
	if err != nil {
		return err
	}
	switch {
	case s.validate:
		p.Log.Info("templates are valid", "template_dir", s.TemplateDir, "environment", s.Environment, "files", len(out.Names()))
		return nil
	case s.check:
		different, err := out.Diff(p.Stdout)
		if err == nil && different {
			return cli.Exit(1, nil)
		}
		return err
	}
	result, err := out.Commit(ctx)
	if err != nil {
		return err
	}
	p.Log.Info("configuration written", "output_dir", s.OutputDir, "environment", s.Environment, "written", len(result.Written), "unchanged", len(result.Unchanged))
	p.Log.LogAttrs(ctx, slog.LevelDebug, "files", slog.Any("written", result.Written), slog.Any("unchanged", result.Unchanged))
	return nil
}

// complete checks the options, and adds to them what the process knows.
func (s *settings) complete(p *cli.Process) error {
	var problems []error
	s.validate = s.validate || p.Name == "validate-config"
	if len(p.Args) > 0 {
		problems = append(problems, fmt.Errorf("unexpected word %q: see --help", p.Args[0]))
	}
	if s.check && s.validate {
		problems = append(problems, errors.New("--check and --validate: take one of them"))
	}
	if s.OutputDir == "" && !s.validate {
		problems = append(problems, errors.New("option --output-dir, or GENERATE_CONFIG_OUTPUT_DIR: where shall the files go?"))
	}
	for _, text := range s.modes {
		m, err := config.ParseMode(text)
		if err != nil {
			problems = append(problems, fmt.Errorf("option --mode %w", err))
		}
		s.Modes = append(s.Modes, m)
	}
	limits := cgroup.Where{}.Find(cgroup.CPU, cgroup.Memory).Limits()
	s.Limits = config.Limits{CPU: limits.CPU, Memory: limits.Memory}
	s.Environ, s.Log, s.Redact = p.Environ, p.Log, p.Redact
	return errors.Join(problems...)
}
