// SPDX-License-Identifier: Apache-2.0

//go:build !no_nats

package await

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
)

func natsSchemes() []Scheme { return []Scheme{NATS()} }

// NATS is nats://user:password@host or nats://token@host: the server greets, and
// answers PING with PONG. Without credentials a greeting that asks for some is
// good enough. TLS is used where the server or an option asks for it.
//
// The protocol is lines of text and needs no library.
func NATS() Scheme {
	return Scheme{names: []string{"nats"}, secure: []string{"nats"}, port: "4222", options: passwordOptions, parse: parseNATS}
}

func parseNATS(t *target) (Check, error) {
	address, err1 := t.host()
	login, err2 := t.credentials("NATS_PASSWORD")
	conf, err3 := t.tlsConfig()
	wantTLS := false
	for _, name := range tlsOptions {
		wantTLS = wantTLS || t.options.Has(name)
	}
	hello := natsConnect{Name: "await", Lang: "go", Protocol: 1}
	switch {
	case login.given && login.user == "":
		hello.Token = login.password
	case login.given:
		hello.User, hello.Pass = login.user, login.password
	default:
		hello.Token = login.user
		t.keepSecret(login.user)
	}
	return func(ctx context.Context) error {
		conn, err := dial(ctx, "tcp", address)
		if err != nil {
			return err
		}
		defer func() { conn.Close() }()
		lines := bufio.NewReader(conn)
		info, err := readGreeting(lines)
		if err != nil {
			return err
		}
		if info.TLSRequired || wantTLS {
			secured, err := secure(ctx, conn, conf, address)
			if err != nil {
				return err
			}
			conn, lines = secured, bufio.NewReader(secured)
		}
		if info.AuthRequired && hello.User == "" && hello.Token == "" {
			return nil
		}
		return natsPing(conn, lines, hello)
	}, errors.Join(err1, err2, err3)
}

type natsInfo struct {
	TLSRequired  bool `json:"tls_required"`
	AuthRequired bool `json:"auth_required"`
}

type natsConnect struct {
	Verbose  bool   `json:"verbose"`
	Pedantic bool   `json:"pedantic"`
	User     string `json:"user,omitempty"`
	Pass     string `json:"pass,omitempty"`
	Token    string `json:"auth_token,omitempty"`
	Name     string `json:"name"`
	Lang     string `json:"lang"`
	Version  string `json:"version"`
	Protocol int    `json:"protocol"`
}

func readGreeting(lines *bufio.Reader) (info natsInfo, err error) {
	line, err := readLine(lines)
	if err != nil {
		return info, err
	}
	rest, ok := strings.CutPrefix(line, "INFO ")
	if !ok || json.Unmarshal([]byte(rest), &info) != nil {
		return info, fmt.Errorf("not the greeting of a NATS server: %q", cut(line, 60))
	}
	return info, nil
}

func natsPing(conn net.Conn, lines *bufio.Reader, hello natsConnect) error {
	text, err := json.Marshal(hello)
	if err != nil {
		return Permanent(err)
	}
	if _, err := fmt.Fprintf(conn, "CONNECT %s\r\nPING\r\n", text); err != nil {
		return err
	}
	for {
		line, err := readLine(lines)
		switch {
		case err != nil:
			return err
		case line == "PONG":
			return nil
		case strings.HasPrefix(line, "-ERR 'Authorization Violation"), strings.HasPrefix(line, "-ERR 'Authentication"):
			return Denied(errors.New(strings.TrimPrefix(line, "-ERR ")))
		case strings.HasPrefix(line, "-ERR"):
			return errors.New(line)
		}
	}
}
