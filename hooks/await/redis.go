// SPDX-License-Identifier: Apache-2.0

//go:build !no_redis

package await

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

func redisSchemes() []Scheme { return []Scheme{Redis()} }

// Redis is redis://user:password@host/0, and rediss:// with TLS, for Valkey and
// their like too: PING is answered with PONG. A server that is loading its dump,
// or a replica that has lost its master, is not ready. Without a password the
// variables REDIS_PASSWORD and REDISCLI_AUTH have it; a server that wants one and
// gets none, or a wrong one, is a permanent failure.
//
// Three commands with answers of one line need no library; the usual one
// reserves as much memory as an answer says that it is long.
func Redis() Scheme {
	return Scheme{names: []string{"redis", "rediss"}, port: "6379", options: passwordOptions, secure: []string{"rediss"}, parse: parseRedis}
}

func parseRedis(t *target) (Check, error) {
	address, err1 := t.host()
	login, err2 := t.credentials("REDIS_PASSWORD", "REDISCLI_AUTH")
	tlsConf, err3 := t.tlsConfig()
	if t.Scheme == "redis" {
		tlsConf = nil
	}
	db, err4 := redisDatabase(t)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	var commands [][]string
	switch {
	case login.password == "": // an empty one is none
	case login.user != "":
		commands = append(commands, []string{"AUTH", login.user, login.password})
	default:
		commands = append(commands, []string{"AUTH", login.password})
	}
	if db != 0 {
		commands = append(commands, []string{"SELECT", strconv.Itoa(db)})
	}
	return func(ctx context.Context) error {
		conn, err := dial(ctx, "tcp", address)
		if err != nil {
			return err
		}
		if conn, err = secure(ctx, conn, tlsConf, address); err != nil {
			return err
		}
		defer conn.Close()
		r := redis{conn, bufio.NewReader(conn)}
		for _, command := range commands {
			if _, err := r.do(command...); err != nil {
				return redisError(err)
			}
		}
		answer, err := r.do("PING")
		switch {
		case err != nil:
			return redisError(err)
		case answer != "PONG":
			return fmt.Errorf("PING was answered with %q", cut(answer, 60))
		}
		return nil
	}, nil
}

// redisDatabase is the number in the path, or in the query.
func redisDatabase(t *target) (int, error) {
	text := strings.TrimPrefix(t.Path, "/")
	for key, values := range t.Query() {
		if key != "db" || text != "" {
			return 0, fmt.Errorf("unknown parameter %q: the database is a number in the path", key)
		}
		text = values[0]
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("database %q is not a number", text)
	}
	return int(n), nil
}

// redis is a connection to a server.
type redis struct {
	conn  net.Conn
	lines *bufio.Reader
}

// do sends a command and returns its answer, which is one line. That of the
// server's own errors is a [redisRefusal].
func (r redis) do(command ...string) (string, error) {
	request := fmt.Appendf(nil, "*%d\r\n", len(command))
	for _, word := range command {
		request = fmt.Appendf(request, "$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := r.conn.Write(request); err != nil {
		return "", err
	}
	line, err := readLine(r.lines)
	switch {
	case err != nil:
		return "", err
	case strings.HasPrefix(line, "-"):
		return "", redisRefusal(line[1:])
	case !strings.HasPrefix(line, "+") && !strings.HasPrefix(line, ":"):
		return "", fmt.Errorf("not the answer of a Redis server: %q", cut(line, 60))
	}
	return line[1:], nil
}

// redisRefusal is an error that a server answers with.
type redisRefusal string

func (r redisRefusal) Error() string { return string(r) }

// redisError tells rejected credentials from a server that is busy.
func redisError(err error) error {
	var answer redisRefusal
	if !errors.As(err, &answer) {
		return err
	}
	text := string(answer)
	word, _, _ := strings.Cut(text, " ")
	switch {
	case word == "NOAUTH":
		return Denied(fmt.Errorf("%s (the URL, #password-file, REDIS_PASSWORD or REDISCLI_AUTH may have the password)", text))
	case word == "WRONGPASS", word == "NOPERM",
		strings.HasPrefix(text, "ERR invalid password"), strings.Contains(text, "without any password configured"):
		return Denied(answer)
	}
	return answer
}
