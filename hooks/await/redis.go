// SPDX-License-Identifier: Apache-2.0

//go:build !no_redis

package await

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/gomodule/redigo/redis"
)

func redisSchemes() []Scheme { return []Scheme{Redis()} }

// Redis is redis://user:password@host/0, and rediss:// with TLS, for Valkey and
// their like too: PING is answered with PONG. A server that is loading its dump,
// or a replica that has lost its master, is not ready. Without a password the
// variables REDIS_PASSWORD and REDISCLI_AUTH have it; a server that wants one and
// gets none, or a wrong one, is a permanent failure.
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
	options := []redis.DialOption{redis.DialDatabase(db)}
	if login.given {
		options = append(options, redis.DialUsername(login.user), redis.DialPassword(login.password))
	}
	return func(ctx context.Context) error {
		connect := func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return secure(ctx, conn, tlsConf, address)
		}
		options := append([]redis.DialOption{redis.DialContextFunc(connect)}, options...)
		return ping(ctx, address, options)
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

func ping(ctx context.Context, address string, options []redis.DialOption) error {
	conn, err := redis.DialContext(ctx, "tcp", address, options...)
	if err != nil {
		return redisError(err)
	}
	defer conn.Close()
	answer, err := redis.String(redis.DoContext(conn, ctx, "PING"))
	switch {
	case err != nil:
		return redisError(err)
	case answer != "PONG":
		return fmt.Errorf("PING was answered with %q", answer)
	}
	return nil
}

// redisError tells rejected credentials from a server that is busy.
func redisError(err error) error {
	var answer redis.Error
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
