// SPDX-License-Identifier: Apache-2.0

//go:build !no_postgres || !no_mysql

package await

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// sqlOptions are what a database may be asked for: with none of them, whether
// it accepts connections.
func sqlOptions() []string {
	return append([]string{"query", "table", "schema-version"}, passwordOptions...)
}

// expectation is what must be so in a database.
type expectation struct {
	query   string // returns a row
	table   string // exists
	version int    // of schema_migrations, at least and clean; -1: not asked for
}

func (t *target) expectation() (e expectation, err error) {
	e.query, e.table = t.options.Get("query"), t.options.Get("table")
	e.version, err = t.number("schema-version", -1)
	for _, name := range []string{"query", "table"} {
		if t.options.Has(name) && t.options.Get(name) == "" {
			err = errors.Join(err, fmt.Errorf("option %q is empty", name))
		}
	}
	return e, err
}

// needed tells whether a login is needed.
func (e expectation) needed() bool { return e.query != "" || e.table != "" || e.version >= 0 }

// selectFunc runs a query and returns the first row as text; none is nil.
type selectFunc func(ctx context.Context, query string, args ...string) (row []string, err error)

// check asks for all. tableQuery has the name as its only argument.
func (e expectation) check(ctx context.Context, query selectFunc, tableQuery string) error {
	if e.table != "" {
		row, err := query(ctx, tableQuery, e.table)
		if err != nil {
			return err
		}
		if len(row) == 0 || row[0] == "" {
			return fmt.Errorf("table %s does not exist", e.table)
		}
	}
	if e.version >= 0 {
		if err := e.checkVersion(ctx, query); err != nil {
			return err
		}
	}
	if e.query != "" {
		row, err := query(ctx, e.query)
		if err != nil {
			return err
		}
		if row == nil {
			return errors.New("the query returns no row")
		}
	}
	return nil
}

// checkVersion reads the table of golang-migrate and of our migrate.
func (e expectation) checkVersion(ctx context.Context, query selectFunc) error {
	row, err := query(ctx, "SELECT version, CASE WHEN dirty THEN 1 ELSE 0 END FROM schema_migrations ORDER BY version DESC LIMIT 1")
	if err != nil {
		return err
	}
	if len(row) != 2 {
		return fmt.Errorf("no migration is applied, version %d is waited for", e.version)
	}
	version, err := strconv.Atoi(row[0])
	switch {
	case err != nil:
		return fmt.Errorf("schema_migrations has version %q", row[0])
	case row[1] != "0":
		return fmt.Errorf("schema version %d is dirty", version)
	case version < e.version:
		return fmt.Errorf("schema version is %d, %d is waited for", version, e.version)
	}
	return nil
}
