// SPDX-License-Identifier: Apache-2.0

package await

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// A Scheme is a kind of service: how its URLs are read and how it is asked.
type Scheme struct {
	names   []string // of URLs
	port    string   // where the URL has none; empty: it must have one
	options []string // that the fragment may have, besides those for TLS
	secure  []string // the names whose fragment may have options for TLS
	// parse makes the check. It reports all that is wrong with the URL.
	parse func(t *target) (Check, error)
}

// Schemes are all schemes of this build. Those that run programs do it with the
// given reaper.
func Schemes(programs *reaper.Reaper) []Scheme {
	return slices.Concat(
		[]Scheme{TCP(), Unix(), File(), DNS(), Exec(programs)},
		httpSchemes(), postgresSchemes(), mysqlSchemes(), redisSchemes(),
		kafkaSchemes(), amqpSchemes(), natsSchemes(), mongodbSchemes(),
	)
}

// Names are the names of the schemes, for a help text.
func Names(schemes []Scheme) (names []string) {
	for _, s := range schemes {
		names = append(names, s.names...)
	}
	return names
}

// Parse makes a service of HOST:PORT, which is a TCP port and nothing else, or
// of a URL of one of the schemes. The fragment of the URL has what belongs to the
// check and not to the service, as NAME=VALUE&NAME=VALUE, with %26 for & and %25
// for %.
//
// What the usual clients take from environment variables (PGPASSWORD,
// REDIS_PASSWORD, …, or the file that PGPASSWORD_FILE names) is looked up in
// environ ("KEY=value"). An error reports all that is wrong and shows no password.
func Parse(raw string, environ []string, schemes []Scheme) (Service, error) {
	t, scheme, err := newTarget(raw, environ, schemes)
	if err != nil {
		return Service{}, err
	}
	errs := []error{t.checkOptions(scheme)}
	check, err := scheme.parse(t)
	errs = append(errs, err)
	redact := report.NewRedactor(t.secrets)
	if err := errors.Join(errs...); err != nil {
		return Service{}, fmt.Errorf("service %s: %s", t.name(), redact.String(err.Error()))
	}
	return Service{name: t.name(), check: check, redact: redact}, nil
}

// target is the URL of a service while it is being parsed.
type target struct {
	*url.URL
	port    string // default
	options url.Values
	environ []string
	secrets []string // "PASSWORD=…", for the redactor
}

func newTarget(raw string, environ []string, schemes []Scheme) (*target, Scheme, error) {
	if isHostPort(raw) {
		if !strings.Contains(raw, "%25") { // the zone of an address, [fe80::1%eth0]:80, is no escape here
			raw = strings.Replace(raw, "%", "%25", 1)
		}
		raw = "tcp://" + raw
	}
	before, fragment, _ := strings.Cut(raw, "#")
	name, rest, ok := strings.Cut(before, ":")
	name = strings.ToLower(name)
	if !ok || strings.ContainsAny(name, "/@?[. ") || name == "" {
		return nil, Scheme{}, fmt.Errorf("service %s: neither HOST:PORT nor a URL (%s)", mask(raw), list(schemes))
	}
	i := slices.IndexFunc(schemes, func(s Scheme) bool { return slices.Contains(s.names, name) })
	if i < 0 {
		return nil, Scheme{}, fmt.Errorf("service %s: unknown scheme %q, this build has %s", mask(raw), name, list(schemes))
	}
	u, err := parseURL(name + ":" + rest)
	if err != nil {
		return nil, Scheme{}, fmt.Errorf("service %s: %w", mask(raw), badURL(err, fragment))
	}
	if strings.Contains(before, "%00") {
		return nil, Scheme{}, fmt.Errorf("service %s: not a valid URL: there is a NUL byte in it, %%00", mask(raw))
	}
	if strayAt(u, schemes[i].names[0], fragment) {
		return nil, Scheme{}, fmt.Errorf("service %s: %w", mask(raw), badURL(nil, fragment))
	}
	t := &target{URL: u, port: schemes[i].port, environ: environ}
	if password, ok := u.User.Password(); ok {
		t.keepSecret(password)
	}
	for name, values := range u.Query() {
		if slices.Contains(places, name) {
			continue
		}
		for _, v := range values {
			t.keepSecretIn(v)
		}
	}
	if t.options, err = parseFragment(fragment); err != nil {
		return nil, Scheme{}, fmt.Errorf("service %s: %w", mask(before), err)
	}
	return t, schemes[i], nil
}

// places are parameters of databases that say where something is, so that an
// error has to show them.
var places = []string{"host", "socket", "service", "servicefile", "passfile", "sslrootcert", "sslcert", "sslkey"}

// isHostPort tells a bare HOST:PORT from a URL like "exec:/bin/true".
func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || strings.ContainsAny(host, "/@#? ") {
		return false
	}
	_, err = strconv.Atoi(port)
	return err == nil && host != ""
}

// parseURL is url.Parse for lists of hosts too, whose commas and colons it takes
// for a bad port.
func parseURL(raw string) (*url.URL, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	user, hosts := "", rest[:end]
	if i := strings.LastIndexByte(hosts, '@'); i >= 0 {
		user, hosts = hosts[:i+1], hosts[i+1:]
	}
	if !ok || !strings.Contains(hosts, ",") || strings.ContainsAny(hosts, "% \"") {
		return url.Parse(raw)
	}
	u, err := url.Parse(scheme + "://" + user + "hosts" + rest[end:])
	if err == nil {
		u.Host = hosts
	}
	return u, err
}

// hosts are the HOST:PORT pairs of the URL; usually one.
func (t *target) hosts() (hosts []string, err error) {
	var errs []error
	for h := range strings.SplitSeq(t.Host, ",") {
		hostport, err := withPort(h, t.port)
		hosts, errs = append(hosts, hostport), append(errs, err)
	}
	return hosts, errors.Join(errs...)
}

// host is the HOST:PORT of a URL that has one.
func (t *target) host() (string, error) {
	if strings.Contains(t.Host, ",") {
		return "", errors.New("only one host is possible here: give each a --service of its own")
	}
	return withPort(t.Host, t.port)
}

// hostWithPort is host for a scheme whose default port depends on its spelling.
func (t *target) hostWithPort(port string) (string, error) {
	t.port = port
	return t.host()
}

func withPort(hostport, port string) (string, error) {
	u := url.URL{Host: hostport}
	host := u.Hostname()
	port = cmp.Or(u.Port(), port)
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case host == "":
		return "", errors.New("the host is missing")
	case strings.Contains(host, ":") && !strings.HasPrefix(hostport, "["):
		return "", fmt.Errorf("host %q: an IPv6 address is written in brackets, [::1]:8080, and a port is a number", hostport)
	case port == "":
		return "", fmt.Errorf("host %q: the port is missing", host)
	case err != nil || n == 0:
		return "", fmt.Errorf("port %q is not between 1 and 65535", port)
	}
	return net.JoinHostPort(host, port), nil
}

// name is how the service is called: without user and query, which may be
// secret, and with those settings of the check that tell services apart.
func (t *target) name() string {
	var b strings.Builder
	b.WriteString(t.Scheme + ":")
	if t.Opaque != "" {
		b.WriteString(t.Opaque)
	} else {
		b.WriteString("//" + t.Host + t.Path)
	}
	sep := byte('#')
	for _, key := range []string{"status", "table", "schema-version", "topic", "brokers", "count"} {
		if v := t.options.Get(key); v != "" {
			b.WriteByte(sep)
			b.WriteString(key + "=" + v)
			sep = '&'
		}
	}
	return cut(strings.Join(strings.Fields(b.String()), " "), 120)
}

// mask shows of something that could not be parsed what can't be a password.
func mask(raw string) string {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		if strings.Contains(raw, "@") {
			return `"***"`
		}
		return strconv.Quote(cut(raw, 80))
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = "***" + rest[i:]
	} else if host, port, ok := strings.Cut(rest, ":"); ok && strings.Trim(port, "0123456789") != "" {
		rest = host + ":***" // a password whose @ was forgotten looks like a port
	}
	rest, _, _ = strings.Cut(rest, "?")
	rest, _, _ = strings.Cut(rest, "#")
	return strconv.Quote(cut(scheme+"://"+rest, 80))
}

// strayAt tells whether there is an @ where only a password can have brought
// it, one with / ? or # in it. What is before that would be taken for the host,
// and what is after it shown.
func strayAt(u *url.URL, scheme, fragment string) bool {
	for option := range strings.SplitSeq(fragment, "&") {
		if name, _, _ := strings.Cut(option, "="); strings.Contains(name, "@") {
			return true
		}
	}
	if u.Host == "" || scheme == "http" || scheme == "dns" {
		return false // paths with an @ are usual
	}
	parameter, _, _ := strings.Cut(u.RawQuery, "=")
	return strings.Contains(u.EscapedPath(), "@") || strings.Contains(parameter, "@")
}

// badURL says what is wrong with a URL without the texts of net/url, which
// quote it.
func badURL(err error, fragment string) error {
	var escape url.EscapeError
	switch {
	case strings.Contains(fragment, "@"):
		return errors.New("not a valid URL: there is a # before the @; in a password it is written %23")
	case errors.As(err, &escape):
		return errors.New("not a valid URL: a % is not followed by two hex digits; a % itself is written %25")
	}
	return errors.New("not a valid URL: outside of host and path, special characters (in a password: : / ? # [ ] @ % and blanks) are written %XX; " +
		"or give the password with #password-file")
}

func list(schemes []Scheme) string { return strings.Join(Names(schemes), ", ") }
