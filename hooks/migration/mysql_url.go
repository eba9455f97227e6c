// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// mysqlConfig reads the forms user:password@tcp(host:port)/name, which is
// golang-migrate's and the driver's, and user:password@host:port/name. User and
// password may be percent-encoded.
func mysqlConfig(t target) (*mysql.Config, error) {
	base, query, _ := cutLast(t.url, "?")
	at, slash := strings.LastIndex(base, "@"), strings.LastIndex(base, "/")
	if slash > at && !strings.Contains(base[at+1:slash], "(") {
		host := base[at+1 : slash]
		if h, port, err := net.SplitHostPort(host); err == nil {
			host = net.JoinHostPort(h, port)
		} else if host != "" {
			host = net.JoinHostPort(strings.Trim(host, "[]"), "3306")
		}
		base = base[:at+1] + "tcp(" + host + ")" + base[slash:]
	}
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		// The name of a TLS configuration that golang-migrate would register.
		if name, value, _ := strings.Cut(part, "="); name == "tls" && t.x.Get("x-tls-ca") != "" && !slices.Contains([]string{"true", "false", "skip-verify", "preferred"}, value) {
			continue
		}
		if part != "" {
			kept = append(kept, part)
		}
	}
	config, err := mysql.ParseDSN(base)
	if err == nil && len(kept) > 0 {
		config, err = mysql.ParseDSN(base + "?" + strings.Join(kept, "&"))
		if err != nil && !strings.Contains(query, "@") { // else the ? may be one of the password
			return nil, badParameters(base, kept)
		}
	}
	if err != nil {
		return nil, errors.New("the database URL is not valid: accepted are mysql://user:password@host:3306/name and mysql://user:password@tcp(host:3306)/name")
	}
	if config.DBName == "" {
		return nil, errors.New("the database URL has no database: mysql://user@host:3306/name")
	}
	for _, s := range []*string{&config.User, &config.Passwd} {
		if unescaped, err := url.PathUnescape(*s); err == nil {
			*s = unescaped
		}
	}
	return config, tlsFrom(t.x, config)
}

// badParameters names those that the driver can't take. Their values may be
// secret.
func badParameters(base string, parameters []string) error {
	var bad []string
	for _, part := range parameters {
		if _, err := mysql.ParseDSN(base + "?" + part); err != nil {
			name, _, _ := strings.Cut(part, "=")
			bad = append(bad, name)
		}
	}
	return fmt.Errorf("database URL, after the ?: not valid is %s; values are as in timeout=5s, parseTime=true, tls=skip-verify", strings.Join(bad, ", "))
}

// tlsFrom reads the certificates that the x-tls- parameters name.
func tlsFrom(x url.Values, config *mysql.Config) error {
	ca, cert, key := x.Get("x-tls-ca"), x.Get("x-tls-cert"), x.Get("x-tls-key")
	if ca == "" {
		return nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return fmt.Errorf("x-tls-ca: %w", err)
	}
	host, _, _ := net.SplitHostPort(config.Addr) //nolint:errcheck // without a port there is no name to verify
	config.TLS = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: host}
	if !config.TLS.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("x-tls-ca: no certificate in %s", ca)
	}
	if v := x.Get("x-tls-insecure-skip-verify"); v != "" {
		if config.TLS.InsecureSkipVerify, err = strconv.ParseBool(v); err != nil {
			return fmt.Errorf("x-tls-insecure-skip-verify=%q: accepted are true and false", v)
		}
	}
	if cert == "" && key == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("x-tls-cert and x-tls-key: %w", err)
	}
	config.TLS.Certificates = []tls.Certificate{pair}
	return nil
}
