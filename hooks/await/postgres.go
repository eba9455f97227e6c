// SPDX-License-Identifier: Apache-2.0

//go:build !no_postgres

package await

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

func postgresSchemes() []Scheme { return []Scheme{Postgres()} }

// Postgres is postgres://user@host/database: the server answers, and not with
// "starting up", as for pg_isready. A login is not tried. With #query=, #table=
// or #schema-version=, or target_session_attrs in the URL, it is: rejected
// credentials are then permanent.
//
// Hosts, parameters and PG* variables mean what they mean for libpq; ca, cert
// and key in the fragment are its sslrootcert, sslcert and sslkey.
func Postgres() Scheme {
	return Scheme{
		names: []string{"postgres", "postgresql"}, port: "5432",
		options: append(sqlOptions(), "ca", "cert", "key"), parse: parsePostgres,
	}
}

// postgresVariables are parameters of a connection and their variables.
var postgresVariables = map[string]string{
	"PGDATABASE": "dbname", "PGUSER": "user", "PGPASSFILE": "passfile", "PGSERVICE": "service", "PGSERVICEFILE": "servicefile",
	"PGSSLMODE": "sslmode", "PGSSLROOTCERT": "sslrootcert", "PGSSLCERT": "sslcert", "PGSSLKEY": "sslkey", "PGSSLSNI": "sslsni",
	"PGSSLNEGOTIATION": "sslnegotiation", "PGTARGETSESSIONATTRS": "target_session_attrs", "PGOPTIONS": "options", "PGAPPNAME": "application_name",
}

// mostOfAnswer is the longest message that is taken for one of PostgreSQL. What
// answers something else may begin with any length, and the library makes room.
const mostOfAnswer = 16 << 20

func parsePostgres(t *target) (Check, error) {
	expect, expectErr := t.expectation()
	login, loginErr := t.credentials("PGPASSWORD")
	settings, settingsErr := t.postgresSettings(login)
	if err := errors.Join(expectErr, loginErr, settingsErr); err != nil {
		return nil, err
	}
	conf, err := pgconn.ParseConfig(connectionString(settings))
	if err != nil {
		return nil, PostgresMistake(err)
	}
	DropClientParameters(conf.RuntimeParams)
	conf.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		f := pgproto3.NewFrontend(r, w)
		f.SetMaxBodyLen(mostOfAnswer)
		return f
	}
	attrs := settings["target_session_attrs"]
	if expect.needed() || attrs != "" && attrs != "any" {
		return func(ctx context.Context) error { return askPostgres(ctx, conf.Copy(), expect) }, nil
	}
	return func(ctx context.Context) error { return pingPostgres(ctx, conf.Copy()) }, nil
}

// postgresSettings are the parameters of a connection: those of the URL over
// those of the fragment over those of variables.
func (t *target) postgresSettings(login credentials) (map[string]string, error) {
	settings := map[string]string{"user": "postgres", "connect_timeout": "0", "application_name": "await"}
	for variable, name := range postgresVariables {
		if v, ok := t.env(variable); ok {
			settings[name] = v
		}
	}
	for option, name := range map[string]string{"ca": "sslrootcert", "cert": "sslcert", "key": "sslkey"} {
		if v := t.options.Get(option); v != "" {
			settings[name] = v
		}
	}
	for name, values := range t.Query() {
		settings[name] = values[len(values)-1]
	}
	if database := strings.TrimPrefix(t.Path, "/"); database != "" {
		settings["dbname"] = database
	}
	if login.user != "" {
		settings["user"] = login.user
	}
	if login.given {
		settings["password"] = login.password
	}
	err := t.postgresHosts(settings)
	return settings, err
}

// postgresHosts sets host and port.
func (t *target) postgresHosts(settings map[string]string) error {
	port, ok := t.env("PGPORT")
	if !ok {
		port = t.port
	}
	if t.Host == "" {
		if settings["host"] == "" {
			settings["host"], _ = t.env("PGHOST")
		}
		if settings["port"] == "" {
			settings["port"] = port
		}
		if settings["host"] == "" && settings["service"] == "" {
			return errors.New("the host is missing: it is neither in the URL nor in PGHOST")
		}
		return nil
	}
	t.port = port
	hostports, err := t.hosts()
	if err != nil {
		return err
	}
	var hosts, ports []string
	for _, hp := range hostports {
		host, port, err := net.SplitHostPort(hp)
		if err != nil {
			return err
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	settings["host"], settings["port"] = strings.Join(hosts, ","), strings.Join(ports, ",")
	return nil
}

// connectionString is the keyword/value form, which knows no escapes but two.
func connectionString(settings map[string]string) string {
	var b strings.Builder
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	for name, value := range settings {
		fmt.Fprintf(&b, "%s='%s' ", name, quote.Replace(value))
	}
	return b.String()
}

// errAsksForLogin ends a connection when the server has asked for a login.
var errAsksForLogin = errors.New("the server asks for a login")

// pingPostgres connects until the server has answered. The protocol's first
// answer is a request for authentication (R) or an error (E).
func pingPostgres(ctx context.Context, conf *pgconn.Config) error {
	asked := false
	dial := conf.DialFunc
	conf.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if asked {
			return nil, errAsksForLogin // known already: no second try without TLS
		}
		return dial(ctx, network, addr)
	}
	conf.ValidateConnect = nil
	conf.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
		return firstAnswer{conn, &asked}, nil
	}
	conn, err := pgconn.ConnectConfig(ctx, conf)
	if err == nil {
		return conn.Close(ctx)
	}
	if asked {
		return nil
	}
	answers, startingUp := 0, error(nil)
	for _, e := range postgresErrors(err) {
		if e.Code == "57P03" { // cannot_connect_now
			startingUp = e
		} else {
			answers++
		}
	}
	switch {
	case answers > 0:
		return nil
	case startingUp != nil:
		return startingUp
	}
	return err
}

// firstAnswer is a connection whose first read tells what the server wants.
type firstAnswer struct {
	net.Conn
	asked *bool
}

func (c firstAnswer) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && p[0] == 'R' {
		*c.asked = true
		return 0, errAsksForLogin
	}
	return n, err
}

// askPostgres logs in and asks.
func askPostgres(ctx context.Context, conf *pgconn.Config, expect expectation) error {
	conn, err := pgconn.ConnectConfig(ctx, conf)
	if err != nil {
		return loginError(err, conf.Password != "")
	}
	defer conn.Close(ctx)
	query := func(ctx context.Context, sql string, args ...string) (row []string, err error) {
		var params [][]byte
		for _, a := range args {
			params = append(params, []byte(a))
		}
		res := conn.ExecParams(ctx, sql, params, nil, nil, nil).Read()
		if res.Err != nil || len(res.Rows) == 0 {
			return nil, queryError(res.Err)
		}
		row = []string{}
		for _, value := range res.Rows[0] {
			row = append(row, string(value))
		}
		return row, nil
	}
	return expect.check(ctx, query, "SELECT to_regclass($1)")
}

// loginError tells rejected credentials from a server that is not there yet. A
// database that does not exist may still be made. To the server an empty password
// is a wrong one.
func loginError(err error, withPassword bool) error {
	for _, e := range postgresErrors(err) {
		if e.Code == "28P01" && !withPassword {
			return Denied(fmt.Errorf("%w (none was given: the URL, #password-file or PGPASSWORD may have it)", e))
		}
		if strings.HasPrefix(e.Code, "28") { // invalid authorization
			return Denied(e)
		}
		err = e
	}
	return err
}

// queryError tells a wrong query from one whose tables are not there yet.
func queryError(err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case "42601", "42602": // syntax error, invalid name
		return Permanent(e)
	}
	return e
}

// postgresErrors are the answers among the errors of all addresses.
func postgresErrors(err error) (found []*pgconn.PgError) {
	if e, ok := err.(*pgconn.PgError); ok {
		return []*pgconn.PgError{e}
	}
	switch u := err.(type) {
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			found = append(found, postgresErrors(e)...)
		}
	case interface{ Unwrap() error }:
		if e := u.Unwrap(); e != nil {
			found = postgresErrors(e)
		}
	}
	return found
}
