// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The defaults of a [Check]. Until it has passed for the first time it runs
// every second.
const (
	firstPeriod   = time.Second
	checkPeriod   = 3 * time.Second
	execPeriod    = 10 * time.Second // starting a program costs more
	checkTimeout  = time.Second
	checkSuccess  = 1
	checkFailures = 3
)

// CheckURLs says which URLs [ParseCheck] accepts.
const CheckURLs = "want tcp://HOST:PORT, http://HOST[:PORT]/PATH, unix:///PATH, file:///PATH or exec:/PATH?arg=A&arg=B, and after a # some of period=3s&timeout=1s&success=1&failure=3"

// Check is a question whose answer tells whether the command works: does
// something accept connections, answer with success, is there a file, does a
// program end with 0.
type Check struct {
	Type    string        // tcp, http, unix, file or exec
	Period  time.Duration // from the begin of one run to that of the next, once it has passed
	Timeout time.Duration // of a run
	Success int           // as many successes in a row are needed to pass
	Failure int           // and as many failures to fail

	address string   // tcp, http: HOST:PORT; unix: the socket; file, exec: the path
	host    string   // http: the header
	target  string   // http: path and query
	user    string   // http: user:password
	args    []string // exec
}

// ParseCheck reads a check as a URL says it. The values in the fragment are
// durations as Go writes them or numbers of seconds, and numbers. Its errors
// say what is accepted and hold nothing of the URL that could be secret.
func ParseCheck(text string) (Check, error) {
	where, options, _ := strings.Cut(text, "#")
	u, err := url.Parse(where)
	if err != nil {
		return Check{}, errors.New("not a URL: " + CheckURLs) // url's own error has the password
	}
	c := Check{Type: u.Scheme, Period: checkPeriod, Timeout: checkTimeout, Success: checkSuccess, Failure: checkFailures}
	switch u.Scheme {
	case "tcp":
		err = c.parseTCP(u)
	case "http":
		err = c.parseHTTP(u)
	case "unix", "file":
		err = c.parsePath(u)
	case "exec":
		err = c.parseExec(u)
	case "https":
		err = errors.New("https is not spoken here, to keep TLS out of PID 1: use exec:/usr/local/bin/await?arg=--once&arg=https://HOST/PATH")
	default:
		err = errors.New(CheckURLs)
	}
	if err != nil {
		return Check{}, err
	}
	if err := c.parseOptions(options); err != nil {
		return Check{}, err
	}
	return c, nil
}

func (c *Check) parseTCP(u *url.URL) error {
	if u.Hostname() == "" || !isPort(u.Port()) || u.User != nil || u.Path != "" || u.RawQuery != "" {
		return errors.New("want tcp://HOST:PORT and nothing else, such as tcp://127.0.0.1:8080")
	}
	c.address = net.JoinHostPort(u.Hostname(), u.Port())
	return nil
}

func (c *Check) parseHTTP(u *url.URL) error {
	port := u.Port()
	if port == "" && !strings.HasSuffix(u.Host, ":") {
		port = "80"
	}
	target := u.RequestURI()
	if u.Opaque != "" || u.Hostname() == "" || !isPort(port) || !all(u.Host, isVisible) || !all(target, isVisible) {
		return errors.New("want http://HOST[:PORT]/PATH, such as http://127.0.0.1:8080/healthz")
	}
	c.address, c.host, c.target = net.JoinHostPort(u.Hostname(), port), u.Host, target
	if u.User != nil {
		password, _ := u.User.Password()
		c.user = u.User.Username() + ":" + password
	}
	return nil
}

func (c *Check) parsePath(u *url.URL) error {
	c.address = u.Path
	if u.Scheme == "unix" && strings.HasPrefix(u.Opaque, "@") {
		c.address = u.Opaque // an abstract socket, as ss(8) shows it
	}
	if c.address == "" || c.address[0] != '/' && c.address[0] != '@' || u.Host != "" || u.RawQuery != "" || strings.Contains(c.address, "\x00") {
		return fmt.Errorf("want %s:///PATH from the root and nothing else, such as %[1]s:///run/app/ready", u.Scheme)
	}
	const longest = 107 // of sockaddr_un, see unix(7)
	if u.Scheme == "unix" && len(c.address) > longest {
		return fmt.Errorf("the path of a socket has at most %d bytes", longest)
	}
	return nil
}

func (c *Check) parseExec(u *url.URL) error {
	c.Period = execPeriod
	c.address = u.Path
	if c.address == "" || c.address[0] != '/' || c.address == "/" || u.Host != "" || strings.Contains(c.address, "\x00") {
		return errors.New("want exec:/PATH?arg=A&arg=B with the program's path from the root, such as exec:/usr/local/bin/await?arg=--once&arg=redis://127.0.0.1")
	}
	if u.RawQuery == "" {
		return nil
	}
	for part := range strings.SplitSeq(u.RawQuery, "&") {
		name, value, ok := strings.Cut(part, "=")
		if name != "arg" || !ok {
			return errors.New("what follows the program's path is arg=A&arg=B: within an argument & is written %26, # is %23, + is %2B and % is %25")
		}
		arg, err := url.QueryUnescape(value)
		if err != nil || strings.Contains(arg, "\x00") {
			return errors.New("an argument is not escaped as in a URL: write %25 for %")
		}
		c.args = append(c.args, arg)
	}
	return nil
}

func (c *Check) parseOptions(text string) error {
	if text == "" {
		return nil
	}
	for part := range strings.SplitSeq(text, "&") {
		name, value, _ := strings.Cut(part, "=")
		var err error
		switch name {
		case "period":
			c.Period, err = parseSpan(value, 100*time.Millisecond)
		case "timeout":
			c.Timeout, err = parseSpan(value, 10*time.Millisecond)
		case "success":
			c.Success, err = parseTimes(value)
		case "failure":
			c.Failure, err = parseTimes(value)
		default:
			return errors.New("after the # are accepted: period=3s&timeout=1s&success=1&failure=3 (a # within a URL is written %23)")
		}
		if err != nil {
			return fmt.Errorf("%s after the #: %w", name, err)
		}
	}
	return nil
}

func parseSpan(text string, least time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if n, notNumber := strconv.Atoi(text); notNumber == nil {
		d, err = time.Duration(min(max(n, 0), math.MaxInt32))*time.Second, nil
	}
	if err != nil || d < least || d > time.Hour {
		return 0, fmt.Errorf("want a duration from %v to 1h, or a number of seconds", least)
	}
	return d, nil
}

func parseTimes(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1000 {
		return 0, errors.New("want a number from 1 to 1000")
	}
	return n, nil
}

func isPort(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && all(s, isDigit) && n >= 1 && n <= math.MaxUint16
}

// String is the check for people: without password, query and arguments, which
// may be secret.
func (c Check) String() string {
	switch c.Type {
	case "http":
		path, _, _ := strings.Cut(c.target, "?")
		return "http://" + c.host + path
	case "exec":
		return "exec:" + c.address
	case "unix":
		if c.address[0] == '@' {
			return "unix:" + c.address
		}
	}
	return c.Type + "://" + c.address
}

// Program returns the path of the program that an exec check runs, or nothing.
func (c Check) Program() string {
	if c.Type != "exec" {
		return ""
	}
	return c.address
}

// HideCheck returns the value of a setting, which may be no valid check, as it
// can be shown: what may be secret in it is replaced.
func HideCheck(text string) string {
	const hidden = "***"
	where, options, hasOptions := strings.Cut(text, "#")
	path, _, hasQuery := strings.Cut(where, "?")
	if scheme, rest, ok := strings.Cut(path, "://"); ok {
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			path = scheme + "://" + hidden + rest[i:]
		}
	}
	if hasQuery {
		path += "?" + hidden
	}
	if !hasOptions {
		return path
	}
	for part := range strings.SplitSeq(options, "&") {
		switch name, _, _ := strings.Cut(part, "="); name {
		case "period", "timeout", "success", "failure":
		default:
			return path + "#" + hidden // the rest of a URL, perhaps
		}
	}
	return path + "#" + options
}
