// SPDX-License-Identifier: Apache-2.0

// Command migrate brings a database to a version, with golang-migrate's command
// line, files, table and lock.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/cli"
	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/hooks/migration"
)

func main() { cli.Main(tool()) }

// settings are the options as they were given.
type settings struct {
	options      migration.Options
	todo         task
	path         string
	passwordFile string
	wait         time.Duration
	direction    string
	up, all      bool
	skip         bool
	dryRun       bool
	verbose      bool
	prefetch     uint
}

func tool() cli.Tool {
	var s settings
	return cli.Tool{
		Name: "migrate", Prefix: "MIGRATE", SingleDash: true,
		Usage: `migrate [options] up [N]             apply all migrations, or the next N
migrate [options] down N | --all     take back the last N, or all
migrate [options] goto V             up or down to version V
migrate [options] resume             complete a migration that was begun
migrate [options] force V            write the version (-1: none) and run nothing: force -1
migrate [options] version | status   print the version, or every file's state`,
		About: `Runs SQL migrations from a directory: 001_title.up.sql, 001_title.down.sql, and
001_title.sql, which has no way back. Command line, files, version table and lock
are golang-migrate's. Any number of replicas may start at once: one migrates, the
others wait; with nothing to apply no lock is taken.
On PostgreSQL and SQLite a migration and its version are one transaction; what
cannot be in one is found by looking, or said by the first line
"-- migrate:no-transaction", and resumed after an interruption.`,
		Notes: `The database is --database, MIGRATE_DATABASE or DATABASE_URL, or the content of
the file that MIGRATE_DATABASE_FILE or DATABASE_URL_FILE names. A password may also
come from PGPASSWORD (MYSQL_PWD), or its twin with _FILE.

Examples:
  migrate --source file:///migrations --database "$DATABASE_URL" up
  migrate --database postgres://app@db/app --password-file /run/secrets/db --wait 2m up
  migrate --database mysql://app@tcp(db:3306)/app --direction up`,
		Flags: s.register,
		Check: s.complete,
		Run:   s.run,
	}
}

func (s *settings) register(f *cli.Flags) {
	f.StringVar(&s.options.Source, "source", "", "`URL` where the migrations are: file:///DIR, or a path (default file://"+migration.DefaultSource+")")
	f.StringVar(&s.path, "path", "", "`DIR` the same, as golang-migrate's -path")
	f.StringVar(&s.options.Database, "database", "", "`URL` the database: postgres, mysql, mariadb or sqlite")
	f.StringVar(&s.passwordFile, "password-file", "", "`FILE` where the database's password is; it goes over one in the URL")
	f.Duration(&s.options.LockTimeout, "lock-timeout", 5*time.Minute, "how long to wait for other replicas; 0: for ever")
	f.Duration(&s.wait, "wait", 0, "how long to wait for the database to come up; without it not at all")
	f.StringVar(&s.direction, "direction", "", "`up|down` the same as the command of that name")
	f.BoolVar(&s.up, "up", false, "the same as the command up")
	f.BoolVar(&s.all, "all", false, "with down: take all migrations back")
	f.BoolVar(&s.options.OutOfOrder, "allow-out-of-order", false, "apply files whose number is below the database's version, too")
	f.BoolVar(&s.options.Strict, "strict", false, "fail when the database is newer than the files, or an applied file has changed")
	f.BoolVar(&s.skip, "skip-statement", false, "with resume: the statement at which it stopped has taken effect")
	f.BoolVar(&s.dryRun, "dry-run", false, "print what would be run, and run nothing")
	f.BoolVar(&s.verbose, "verbose", false, "log every statement")
	f.UintVar(&s.prefetch, "prefetch", 0, "`N` golang-migrate's; has no effect")
}

// A task is a command with its arguments.
type task struct {
	name string
	n    int64
}

func (s *settings) run(ctx context.Context, p *cli.Process) error {
	t := s.todo
	m, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	switch t.name {
	case "version":
		return printVersion(ctx, m, p)
	case "status":
		return printStatus(ctx, m, p)
	}
	result, err := s.do(ctx, m, t)
	if err != nil && ctx.Err() != nil {
		// The error of a stopped process is the signal alone.
		p.Log.Error("interrupted", "version", result.To, "migrations", len(result.Files), "err", err)
	}
	if err != nil || s.dryRun {
		return err
	}
	if len(result.Files) == 0 {
		p.Log.Info("nothing to do", "version", result.To)
	} else {
		p.Log.Info("migrated", "from", result.From, "to", result.To, "migrations", len(result.Files))
	}
	return nil
}

func (s *settings) do(ctx context.Context, m *migration.Migrator, t task) (migration.Result, error) {
	switch t.name {
	case "up":
		return m.Up(ctx, int(t.n))
	case "down":
		return m.Down(ctx, int(t.n))
	case "goto":
		return m.Goto(ctx, t.n)
	case "force":
		return m.Force(ctx, t.n)
	}
	return m.Resume(ctx, s.skip)
}

// complete fills the options with what is not an option itself.
func (s *settings) complete(p *cli.Process) error {
	o := &s.options
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	var err error
	s.todo, err = s.task(p.Args)
	note(err)
	if s.path != "" && o.Source != "" {
		note(errors.New("--source and --path are both set: one is enough"))
	}
	if s.path != "" {
		o.Source = s.path
	}
	if o.Database == "" {
		o.Database, _, err = hooks.Secret(p.Environ, "DATABASE_URL")
		p.WarnUnreplaced("DATABASE_URL", o.Database)
		note(err)
	}
	o.Database = strings.TrimSpace(o.Database) // a Secret made with echo ends in a line end
	if o.Database == "" && err == nil {
		note(errors.New("no database: give --database, MIGRATE_DATABASE or DATABASE_URL, as postgres://user@host:5432/name"))
	}
	variable := "PGPASSWORD"
	if strings.HasPrefix(o.Database, "mysql:") || strings.HasPrefix(o.Database, "mariadb:") {
		variable = "MYSQL_PWD"
	}
	o.DefaultPassword, _, err = hooks.Secret(p.Environ, variable)
	note(err)
	if s.passwordFile != "" {
		content, err := os.ReadFile(s.passwordFile)
		if err != nil {
			note(fmt.Errorf("--password-file: %w", err))
		}
		o.Password = strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	}
	p.Redact.Add([]string{"DATABASE_URL=" + o.Database, "MIGRATE_PASSWORD=" + o.Password, "PGPASSWORD=" + o.DefaultPassword})
	o.Log = p.Log
	if s.verbose {
		o.Log = slog.New(loud{p.Log.Handler()})
	}
	if s.dryRun {
		o.DryRun = p.Stdout
	}
	o.Application = "migrate"
	if host, err := os.Hostname(); err == nil {
		o.Application += " " + host
	}
	return errors.Join(errs...)
}

// connect opens the database, and tries again for as long as it may take to
// come up.
func (s *settings) connect(ctx context.Context) (*migration.Migrator, error) {
	if s.wait <= 0 {
		return migration.Open(ctx, s.options)
	}
	return migration.OpenWait(ctx, s.options, s.wait)
}
