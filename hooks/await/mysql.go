// SPDX-License-Identifier: Apache-2.0

//go:build !no_mysql

package await

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/go-sql-driver/mysql"
)

func mysqlSchemes() []Scheme { return []Scheme{MySQL()} }

// MySQL is mysql://user:password@host/database, for MariaDB too: a login
// succeeds. Without a user an answer that rejects the login is good enough, as
// for "mysqladmin ping". The query's tls is false, preferred, true or
// skip-verify; options for TLS in the fragment are tls=true.
func MySQL() Scheme {
	return Scheme{names: []string{"mysql", "mariadb"}, port: "3306", options: sqlOptions(), secure: []string{"mysql", "mariadb"}, parse: parseMySQL}
}

func parseMySQL(t *target) (Check, error) {
	expect, err1 := t.expectation()
	login, err2 := t.credentials("MYSQL_PWD")
	conf := mysql.NewConfig()
	conf.Net, conf.User, conf.Passwd = "tcp", login.user, login.password
	if conf.User == "" {
		conf.Passwd = ""
	}
	conf.DBName = strings.TrimPrefix(t.Path, "/")
	conf.Logger = &mysql.NopLogger{}
	conf.InterpolateParams = true
	var err3 error
	if t.Host == "" {
		t.Host, _ = t.env("MYSQL_HOST")
	}
	if socket := t.Query().Get("socket"); socket != "" {
		conf.Net, conf.Addr = "unix", socket
	} else {
		conf.Addr, err3 = t.host()
	}
	err4 := t.mysqlTLS(conf)
	var err5 error
	for key := range t.Query() {
		if key != "tls" && key != "socket" {
			err5 = fmt.Errorf("unknown parameter %q: tls and socket are possible", key)
		}
	}
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return nil, err
	}
	if expect.needed() && login.user == "" {
		return nil, errors.New("a user is needed for what the options ask")
	}
	return func(ctx context.Context) (err error) {
		conf := conf.Clone()
		var conn net.Conn
		conf.DialFunc = func(_ context.Context, network, addr string) (_ net.Conn, err error) {
			conn, err = dial(ctx, network, addr)
			return conn, err
		}
		defer func() {
			if conn != nil {
				conn.Close() // for the driver, which has not come to that when it panics
			}
		}()
		defer Garbled("MySQL", &err)
		return askMySQL(ctx, conf, expect)
	}, nil
}

// mysqlTLS sets what the query's tls and the fragment say.
func (t *target) mysqlTLS(conf *mysql.Config) error {
	tlsConf, err := t.tlsConfig()
	mode := t.Query().Get("tls")
	for _, name := range tlsOptions {
		if t.options.Has(name) && mode == "" {
			mode = "true"
		}
	}
	host := t.Hostname()
	switch mode {
	case "", "false":
		return err
	case "true":
		conf.TLS = serverTLS(tlsConf, net.JoinHostPort(host, "0"))
	case "skip-verify":
		conf.TLS, tlsConf.InsecureSkipVerify = tlsConf, true
	case "preferred":
		conf.TLS, tlsConf.InsecureSkipVerify = tlsConf, true
		conf.AllowFallbackToPlaintext = true
	default:
		return fmt.Errorf("parameter tls is %q: false, preferred, true and skip-verify are accepted", mode)
	}
	return err
}

// The server's errors that say something to us.
const (
	mysqlDatabaseDenied = 1044
	mysqlAccessDenied   = 1045
	mysqlNoDatabase     = 1049
	mysqlSyntax         = 1064
	mysqlPluginDenied   = 1698
)

func askMySQL(ctx context.Context, conf *mysql.Config, expect expectation) error {
	connector, err := mysql.NewConnector(conf)
	if err != nil {
		return Permanent(err)
	}
	conn, err := connector.Connect(ctx)
	if err != nil {
		return mysqlLoginError(err, conf.User != "")
	}
	defer conn.Close()
	if err := conn.(driver.Pinger).Ping(ctx); err != nil {
		return err
	}
	if !expect.needed() {
		return nil
	}
	query := func(ctx context.Context, sql string, args ...string) ([]string, error) {
		return mysqlRow(ctx, conn, sql, args)
	}
	const tableQuery = "SELECT TABLE_NAME FROM information_schema.TABLES " +
		"WHERE CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) = IF(LOCATE('.', ?) > 0, ?, CONCAT(DATABASE(), '.', ?))"
	return expect.check(ctx, query, tableQuery)
}

func mysqlLoginError(err error, withUser bool) error {
	var e *mysql.MySQLError
	if !errors.As(err, &e) {
		return err
	}
	switch e.Number {
	case mysqlAccessDenied, mysqlDatabaseDenied, mysqlPluginDenied:
		if !withUser {
			return nil // it answers: nobody asked to be let in
		}
		return Denied(e)
	case mysqlNoDatabase:
		if !withUser {
			return nil
		}
	}
	return e
}

// mysqlRow returns the first row. All ? of a query get the one argument.
func mysqlRow(ctx context.Context, conn driver.Conn, query string, args []string) ([]string, error) {
	var values []driver.NamedValue
	for i := range strings.Count(query, "?") * min(1, len(args)) {
		values = append(values, driver.NamedValue{Ordinal: i + 1, Value: args[0]})
	}
	rows, err := conn.(driver.QueryerContext).QueryContext(ctx, query, values)
	if err != nil {
		var e *mysql.MySQLError
		if errors.As(err, &e) && e.Number == mysqlSyntax {
			return nil, Permanent(e)
		}
		return nil, err
	}
	defer rows.Close()
	row := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(row); err != nil {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return nil, err
	}
	texts := []string{}
	for _, v := range row {
		if b, ok := v.([]byte); ok {
			v = string(b)
		}
		texts = append(texts, fmt.Sprint(v))
	}
	return texts, nil
}
