// SPDX-License-Identifier: Apache-2.0

package await

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

// tlsOptions are those of schemes with TLS.
var tlsOptions = []string{"ca", "cert", "key", "servername", "insecure"}

// passwordOptions say where the password comes from, when it is not in the URL.
var passwordOptions = []string{"password-file", "password-env"}

// parseFragment reads NAME=VALUE&NAME=VALUE. A + stays a +, unlike in a query.
func parseFragment(fragment string) (url.Values, error) {
	values := url.Values{}
	for pair := range strings.SplitSeq(fragment, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		value, err := url.PathUnescape(value)
		if err != nil {
			return nil, fmt.Errorf("option %q: a %% is not followed by two hex digits; a %% itself is written %%25", name)
		}
		values.Add(name, value)
	}
	return values, nil
}

// checkOptions finds options that the scheme does not have, or that are there
// twice.
func (t *target) checkOptions(s Scheme) error {
	accepted := slices.Clone(s.options)
	if slices.Contains(s.secure, t.Scheme) {
		accepted = append(accepted, tlsOptions...)
	}
	var errs []error
	for name, values := range t.options {
		switch {
		case !slices.Contains(accepted, name) && len(s.secure) > 0 && slices.Contains(tlsOptions, name):
			errs = append(errs, fmt.Errorf("option %q is for TLS: it needs %s://", name, strings.Join(s.secure, ":// or ")))
		case !slices.Contains(accepted, name) && len(accepted) == 0:
			errs = append(errs, fmt.Errorf("unknown option %q: %s has none", name, s.names[0]))
		case !slices.Contains(accepted, name):
			errs = append(errs, fmt.Errorf("unknown option %q: %s has %s", name, s.names[0], strings.Join(accepted, ", ")))
		case len(values) > 1 && !slices.Contains(repeatable, name):
			errs = append(errs, fmt.Errorf("option %q is there %d times", name, len(values)))
		}
	}
	return errors.Join(errs...)
}

// repeatable options may be there several times.
var repeatable = []string{"header", "request-header", "topic"}

// number returns an option that is a whole number, or missing when it is not
// there.
func (t *target) number(name string, missing int) (int, error) {
	if !t.options.Has(name) {
		return missing, nil
	}
	n, err := strconv.Atoi(t.options.Get(name))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("option %q is %q and not a number", name, t.options.Get(name))
	}
	return n, nil
}

// flag returns an option that is true or false; its bare name is true.
func (t *target) flag(name string) (bool, error) {
	if !t.options.Has(name) {
		return false, nil
	}
	switch v := t.options.Get(name); v {
	case "", "true", "1", "yes":
		return true, nil
	case "false", "0", "no":
		return false, nil
	default:
		return false, fmt.Errorf("option %q is %q and neither true nor false", name, v)
	}
}

// tlsConfig makes the client's side of TLS of the options.
func (t *target) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{ServerName: t.options.Get("servername"), MinVersion: tls.VersionTLS12}
	insecure, err := t.flag("insecure")
	errs := []error{err}
	c.InsecureSkipVerify = insecure //nolint:gosec // asked for
	if ca := t.options.Get("ca"); ca != "" {
		pem, err := os.ReadFile(ca)
		c.RootCAs = x509.NewCertPool()
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("option \"ca\": %w", err))
		case !c.RootCAs.AppendCertsFromPEM(pem):
			errs = append(errs, fmt.Errorf("option \"ca\": no certificate in %s, PEM is accepted", ca))
		}
	}
	cert, key := t.options.Get("cert"), t.options.Get("key")
	switch {
	case (cert == "") != (key == ""):
		errs = append(errs, errors.New(`options "cert" and "key" go together`))
	case cert != "":
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			errs = append(errs, fmt.Errorf("options \"cert\" and \"key\": %w", err))
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, errors.Join(errs...)
}

// serverTLS is conf for one of several hosts.
func serverTLS(conf *tls.Config, hostport string) *tls.Config {
	if conf == nil || conf.ServerName != "" {
		return conf
	}
	conf = conf.Clone()
	u := url.URL{Host: hostport}
	conf.ServerName = u.Hostname()
	return conf
}

// credentials are the user and password to log in with.
type credentials struct {
	user, password string
	given          bool // a password was, even an empty one
}

// credentials takes the password from the fragment's password-file or
// password-env, the URL, or the first of the variables that is set, in that
// order.
func (t *target) credentials(variables ...string) (c credentials, err error) {
	c.user = t.User.Username()
	if password, ok := t.User.Password(); ok {
		c.password, c.given = password, true
	}
	file, variable := t.options.Get("password-file"), t.options.Get("password-env")
	switch {
	case file != "" && variable != "":
		return c, errors.New(`options "password-file" and "password-env" exclude each other`)
	case file != "":
		c.password, err = readSecret(file)
		c.given = true
		if err != nil {
			err = fmt.Errorf("option \"password-file\": %w", err)
		}
	case variable != "":
		c.password, c.given, err = t.secret(variable)
		if err == nil && !c.given {
			err = fmt.Errorf("option \"password-env\": neither %s nor %[1]s_FILE is set", variable)
		}
	}
	for _, name := range variables {
		if c.given || err != nil {
			break
		}
		c.password, c.given, err = t.secret(name)
	}
	t.keepSecret(c.password)
	return c, err
}

// env returns a variable; an empty one is none.
func (t *target) env(name string) (value string, found bool) {
	for _, entry := range t.environ {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			value = v
		}
	}
	return value, value != ""
}

// secret returns a variable, or the content of the file that NAME_FILE names,
// without its last line end.
func (t *target) secret(name string) (value string, found bool, err error) {
	value, found, err = hooks.Secret(t.environ, name)
	return strings.TrimSuffix(value, "\r"), found, err
}

func readSecret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
}

// keepSecret keeps a password out of everything that is shown.
func (t *target) keepSecret(password string) {
	if password != "" {
		t.secrets = append(t.secrets, "PASSWORD="+password)
	}
}

// keepSecretIn does it for a value that may be one.
func (t *target) keepSecretIn(value string) {
	const likely = 8 // shorter ones are words like "disable"
	if len(value) >= likely {
		t.keepSecret(value)
	}
}
