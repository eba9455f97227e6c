// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// defaultTable is golang-migrate's.
const defaultTable = "schema_migrations"

// A target is a database URL, taken apart.
type target struct {
	dialect dialect
	url     string     // without the x- parameters, and with the scheme that the driver knows
	path    string     // as in golang-migrate's lock key
	x       url.Values // the x- parameters

	table   string
	quoted  bool // the table is a quoted, perhaps qualified name
	timeout time.Duration
	noLock  bool
	noWrap  bool
}

// A ConnectError is the error when the database cannot be reached, or not yet.
type ConnectError struct {
	Server string // who was asked, without a password
	Err    error
	// Permanent says that it will not get better by itself: a wrong password, a
	// database that does not exist.
	Permanent bool
}

func (e *ConnectError) Error() string { return fmt.Sprintf("connect to %s: %v", e.Server, e.Err) }

func (e *ConnectError) Unwrap() error { return e.Err }

var dialects = map[string]dialect{
	"postgres": postgreSQL, "postgresql": postgreSQL, "pgx": postgreSQL, "pgx4": postgreSQL, "pgx5": postgreSQL,
	"mysql": mySQL, "mariadb": mySQL,
	"sqlite": sqlite, "sqlite3": sqlite,
}

// The x- parameters, and what each dialect makes of them: what had to be set
// for golang-migrate and is not needed here is ignored.
var parameters = map[dialect]map[string]bool{
	postgreSQL: {
		"x-migrations-table": true, "x-migrations-table-quoted": true, "x-statement-timeout": true,
		"x-multi-statement": false, "x-multi-statement-max-size": false,
	},
	mySQL: {
		"x-migrations-table": true, "x-statement-timeout": true, "x-no-lock": true,
		"x-tls-ca": true, "x-tls-cert": true, "x-tls-key": true, "x-tls-insecure-skip-verify": true,
	},
	sqlite: {"x-migrations-table": true, "x-no-tx-wrap": true},
}

// parseTarget reads a database URL. Its errors never show it: what looks wrong
// may be the password.
func parseTarget(raw string) (target, error) {
	if raw == "" {
		return target{}, errors.New("no database: give its URL, as postgres://user@host:5432/name")
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		if strings.Contains(raw, "=") { // a connection string of libpq
			return target{dialect: postgreSQL, url: raw, table: defaultTable}, nil
		}
		return target{}, errors.New("the database URL has no scheme: accepted are postgres://, mysql://, mariadb:// and sqlite://")
	}
	t := target{x: url.Values{}, table: defaultTable}
	if t.dialect, ok = dialects[strings.ToLower(scheme)]; !ok {
		return t, fmt.Errorf("database scheme %s://: accepted are postgres, postgresql, pgx, pgx4, pgx5, mysql, mariadb, sqlite and sqlite3", scheme)
	}
	if t.dialect == postgreSQL {
		rest = escapePassword(rest)
	}
	base, err := t.takeParameters(rest)
	if err != nil {
		return t, err
	}
	switch t.dialect {
	case postgreSQL:
		t.url = "postgres://" + base
		if u, err := url.Parse(t.url); err == nil {
			t.path = u.Path
		}
	default:
		t.url = base
	}
	return t, t.check()
}

// takeParameters removes the x- parameters from what follows the scheme. The
// others stay as they are.
func (t *target) takeParameters(rest string) (string, error) {
	base, query, ok := cutLast(rest, "?")
	if !ok {
		return rest, nil
	}
	var kept []string
	var errs []error
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		if !strings.HasPrefix(name, "x-") {
			kept = append(kept, part)
			continue
		}
		value, err := url.QueryUnescape(value)
		if _, known := parameters[t.dialect][name]; !known {
			err = fmt.Errorf("%s is not supported for %s", name, t.dialect)
		}
		errs = append(errs, err)
		t.x.Set(name, value)
	}
	if len(kept) > 0 {
		base += "?" + strings.Join(kept, "&")
	}
	return base, errors.Join(errs...)
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// check reads the values of the x- parameters.
func (t *target) check() error {
	var errs []error
	if v := t.x.Get("x-migrations-table"); v != "" {
		t.table = v
	}
	boolean := func(name string, to *bool) {
		if v := t.x.Get(name); v != "" {
			var err error
			if *to, err = strconv.ParseBool(v); err != nil {
				errs = append(errs, fmt.Errorf("%s=%q: accepted are true and false", name, v))
			}
		}
	}
	boolean("x-migrations-table-quoted", &t.quoted)
	boolean("x-no-lock", &t.noLock)
	boolean("x-no-tx-wrap", &t.noWrap)
	if v := t.x.Get("x-statement-timeout"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			errs = append(errs, fmt.Errorf("x-statement-timeout=%q: accepted are milliseconds", v))
		}
		t.timeout = time.Duration(n) * time.Millisecond
	}
	if t.quoted && (len(t.table) < 2 || t.table[0] != '"' || t.table[len(t.table)-1] != '"') {
		errs = append(errs, fmt.Errorf("x-migrations-table=%q: with x-migrations-table-quoted it has to be quoted, as \"schema\".\"table\"", t.table))
	}
	return errors.Join(errs...)
}

// userinfo finds a password with characters that are none of a URL's.
var userinfo = regexp.MustCompile(`^([^:@/?#]*):(.*)@([^@/?#]*(?:[/?].*)?)$`)

// escapePassword escapes a password that was put into a URL as it is: $(DB_PASSWORD)
// in a pod's args does that. One that makes a proper URL stays as it is.
func escapePassword(rest string) string {
	u, err := url.Parse("postgres://" + rest)
	before, query, _ := strings.Cut(rest, "?")
	parameter, _, _ := strings.Cut(query, "=")
	at := strings.Count(before, "@")
	if err == nil && u.Fragment == "" && !strings.Contains(parameter, "@") && (at == 0 || at == 1 && u.User != nil) {
		return rest
	}
	m := userinfo.FindStringSubmatch(rest)
	if m == nil {
		return rest
	}
	var b strings.Builder
	for i := range len(m[2]) {
		if c := m[2][i]; isWordPart(c) && c < 0x80 && c != '$' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return m[1] + ":" + b.String() + "@" + m[3]
}

// open connects.
func (t target) open(ctx context.Context, o Options) (database, error) {
	switch t.dialect {
	case mySQL:
		return openMySQL(ctx, t, o)
	case sqlite:
		return openSQLite(ctx, t, o)
	}
	return openPostgres(ctx, t, o)
}
