// SPDX-License-Identifier: Apache-2.0

//go:build !no_redis

package await

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRedis(t *testing.T) {
	t.Parallel()
	open := "127.0.0.1:" + startRedis(t)
	closed := "127.0.0.1:" + startRedis(t, `requirepass "`+password+`"`, `user app on ">`+password+`" ~* +ping +select`)
	pass, appPass := url.UserPassword("", password).String(), url.UserPassword("app", password).String()
	secret := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(secret, []byte(password+"\n"), 0o600))
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))

	tests := []struct {
		name, url string
		env       []string
		want      string // of the error; empty: ready
	}{
		{"plain", "redis://" + open, nil, ""},
		{"database", "redis://" + open + "/3", nil, ""},
		{"database that is not there", "redis://" + open + "/99", nil, "out of range"},
		{"empty password", "redis://:@" + open, nil, ""},
		{"empty password-file", "redis://" + open + "#password-file=" + empty, nil, ""},
		{"password nobody asked for", "redis://" + pass + "@" + open, nil, ErrPermanent.Error()},
		{"password", "redis://" + pass + "@" + closed, nil, ""},
		{"user", "redis://" + appPass + "@" + closed + "/1", nil, ""},
		{"wrong password of a user", "redis://app:wr0ngpass@" + closed, nil, ErrPermanent.Error()},
		{"wrong password", "redis://:wr0ngpass@" + closed, nil, ErrPermanent.Error()},
		{"no password", "redis://" + closed, nil, "NOAUTH"},
		{"no password is permanent", "redis://" + closed, nil, ErrPermanent.Error()},
		{"REDIS_PASSWORD", "redis://" + closed, []string{"REDIS_PASSWORD=" + password}, ""},
		{"REDISCLI_AUTH", "redis://" + closed, []string{"REDISCLI_AUTH=" + password}, ""},
		{"REDIS_PASSWORD_FILE", "redis://" + closed, []string{"REDIS_PASSWORD_FILE=" + secret}, ""},
		{"password-file", "redis://" + closed + "#password-file=" + secret, nil, ""},
		{"password-env", "redis://" + closed + "#password-env=CACHE", []string{"CACHE=" + password}, ""},
		{"nobody listens", "redis://127.0.0.1:1", nil, "connection refused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := ask(t, tt.url, tt.env...)
			if tt.want == "" {
				assert.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
			assert.NotContains(t, err.Error(), password)
			assert.NotContains(t, err.Error(), "wr0ngpass")
		})
	}
}

// A Redis that reads its dump accepts connections, answers PING with LOADING,
// and redis-cli exits with 0.
func TestRedisIsNotReadyWhileItLoads(t *testing.T) {
	t.Parallel()
	server := installed(t, "redis-server")
	dir, err := scratch(t.Cleanup)
	require.NoError(t, err)
	port := startRedis(t, "dir "+dir, "enable-debug-command local")
	const keys = "20000"
	r := connectRedis(t, port)
	_, err = r.do("DEBUG", "POPULATE", keys)
	require.NoError(t, err)
	_, err = r.do("SAVE")
	require.NoError(t, err)

	port, err = freePort()
	require.NoError(t, err)
	// Each key takes so many microseconds: two seconds in all.
	_, err = start(command(dir, server, "--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", "",
		"--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024"), t.Cleanup)
	require.NoError(t, err)
	s, err := Parse("redis://127.0.0.1:"+port, nil, Schemes(nil))
	require.NoError(t, err)
	var loading int
	rep := Run(context.Background(), []Service{s}, Options{Timeout: patience, Event: func(e Event) {
		if strings.Contains(e.Result.LastError, "LOADING") {
			loading++
		}
	}})
	require.NoError(t, rep.Err())
	assert.Positive(t, loading, "it was never seen loading: %+v", rep)
	n, err := connectRedis(t, port).do("DBSIZE")
	require.NoError(t, err)
	assert.Equal(t, keys, n, "ready before everything was loaded")
}

func connectRedis(t *testing.T, port string) redis {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return redis{conn, bufio.NewReader(conn)}
}

func TestRedisAnswers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		answer    string
		ready     bool
		permanent bool
	}{
		{"+PONG", true, false},
		{"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", false, false},
		{"-BUSY Redis is busy running a script.", false, false},
		{"-NOAUTH Authentication required.", false, true},
		{"+OK", false, false},
		{"$3\r\nabc", false, false},
		{"$9999999999999", false, false},
		{strings.Repeat("*1\r\n", 1<<16), false, false},
		{strings.Repeat("x", mostOfLine+1), false, false},
	}
	for _, tt := range tests {
		t.Run(cut(strings.Fields(tt.answer)[0], 20), func(t *testing.T) {
			t.Parallel()
			address := listen(t, func(conn net.Conn) {
				if _, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
					fmt.Fprintf(conn, "%s\r\n", tt.answer)
				}
			})
			err := ask(t, "redis://"+address)
			assert.Equal(t, tt.ready, err == nil, "%v", err)
			if !tt.ready {
				want := ErrNotReady
				if tt.permanent {
					want = ErrPermanent
				}
				assert.ErrorIs(t, err, want)
			}
		})
	}
}

// A Redis with TLS, which wants a certificate of its clients too.
func TestRedisWithTLS(t *testing.T) {
	t.Parallel()
	pki := newPKI(t)
	port, err := freePort()
	require.NoError(t, err)
	startRedis(t, "tls-port "+port, "tls-cert-file "+pki.certFile, "tls-key-file "+pki.keyFile, "tls-ca-cert-file "+pki.caFile,
		"tls-auth-clients yes", `requirepass "`+password+`"`)
	address := url.UserPassword("", password).String() + "@127.0.0.1:" + port
	require.NoError(t, ask(t, "rediss://"+address+"#ca="+pki.caFile+"&cert="+pki.certFile+"&key="+pki.keyFile))
	err = ask(t, "rediss://"+address+"#cert="+pki.certFile+"&key="+pki.keyFile)
	require.ErrorContains(t, err, "certificate signed by unknown authority")
	assert.NotContains(t, err.Error(), password)
	// In TLS 1.3 the server refuses after the handshake: by an alert, or by
	// hanging up while we write.
	err = ask(t, "rediss://"+address+"#ca="+pki.caFile)
	require.ErrorIs(t, err, ErrNotReady)
	assert.NotContains(t, err.Error(), password)
}
