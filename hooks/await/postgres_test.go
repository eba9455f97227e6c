// SPDX-License-Identifier: Apache-2.0

//go:build !no_postgres

package await

import (
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPostgres(t *testing.T) {
	t.Parallel()
	installed(t, "postgres")
	server, err := postgres()
	require.NoError(t, err)
	host := "127.0.0.1:" + server.port
	user := url.UserPassword("app", password).String()
	secret := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(secret, []byte(password+"\n"), 0o600))

	tests := []struct {
		name, url string
		env       []string
		want      string // of the error; empty: ready
	}{
		{"no user", "postgres://" + host, nil, ""},
		{"a login is not tried", "postgres://nobody:wrong@" + host + "/nowhere", nil, ""},
		{"the other spelling", "postgresql://" + host + "?sslmode=disable", nil, ""},
		{"socket", "postgres://?host=" + server.dir + "&port=" + server.port, nil, ""},
		{"host and port from variables", "postgres://", []string{"PGHOST=127.0.0.1", "PGPORT=" + server.port}, ""},
		{"one of two hosts", "postgres://127.0.0.1:1," + host, nil, ""},
		{"nobody listens", "postgres://127.0.0.1:1", nil, "connection refused"},
		{"query", "postgres://" + user + "@" + host + "/postgres#query=SELECT 1", nil, ""},
		{"query without a row", "postgres://" + user + "@" + host + "/postgres#query=SELECT 1 WHERE 1=2", nil, "no row"},
		{"wrong query", "postgres://" + user + "@" + host + "/postgres#query=SELEKT", nil, ErrPermanent.Error()},
		{"query on a table to come", "postgres://" + user + "@" + host + "/postgres#query=SELECT 1 FROM later", nil, "does not exist"},
		{"an application's parameters", "postgres://" + user + "@" + host + "/postgres?keepalives=1&fallback_application_name=x&binary_parameters=yes&pool_max_conns=3&gssencmode=disable#query=SELECT 1", nil, ""},
		{"one that matters", "postgres://" + user + "@" + host + "/postgres?gssencmode=require#query=SELECT 1", nil, "gssencmode"},
		{"table", "postgres://" + user + "@" + host + "/postgres#table=public.users", nil, ""},
		{"no table", "postgres://" + user + "@" + host + "/postgres#table=later", nil, "table later does not exist"},
		{"version", "postgres://" + user + "@" + host + "/postgres#schema-version=7", nil, ""},
		{"version to come", "postgres://" + user + "@" + host + "/postgres#schema-version=8", nil, "version is 7, 8 is waited for"},
		{"database to come", "postgres://" + user + "@" + host + "/later#query=SELECT 1", nil, "does not exist"},
		{"PGPASSWORD", "postgres://app@" + host + "/postgres#query=SELECT 1", []string{"PGPASSWORD=" + password}, ""},
		{"PGPASSWORD_FILE", "postgres://" + host + "/postgres#query=SELECT 1", []string{"PGUSER=app", "PGPASSWORD_FILE=" + secret}, ""},
		{"password-file", "postgres://app@" + host + "/postgres#query=SELECT 1&password-file=" + secret, nil, ""},
		{"wrong password", "postgres://app:wr0ngpass@" + host + "/postgres#query=SELECT 1", nil, ErrPermanent.Error()},
		{"no password", "postgres://app@" + host + "/postgres#query=SELECT 1", nil, "none was given: the URL, #password-file or PGPASSWORD"},
		{"read-write", "postgres://" + user + "@" + host + "/postgres?target_session_attrs=read-write", nil, ""},
		{"standby", "postgres://" + user + "@" + host + "/postgres?target_session_attrs=standby", nil, "not ready"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := ask(t, tt.url, tt.env...)
			if tt.want == "" {
				assert.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
			assert.NotContains(t, err.Error(), password)
			assert.NotContains(t, err.Error(), "wr0ngpass")
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

// What is wrong is said with the file that it is about, and with nothing that
// could be a password.
func TestPostgresMistakes(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"postgres://app:hunter22@db/a?sslrootcert=/tls/none.pem":                                 "failed to configure TLS (unable to read CA file: open /tls/none.pem: no such file or directory)",
		"postgres://app:hunter22@db/a?sslmode=always":                                            "failed to configure TLS (sslmode is invalid)",
		"postgres://app:hunter22@db/a?connect_timeout=5s":                                        "invalid connect_timeout (strconv.ParseInt: parsing \"5s\": invalid syntax)",
		"postgres://db/a?application_name=%60:%20hunter22&sslmode=always":                        "failed to parse the settings",
		"postgres://db/a?sslmode=always&options=hunter22&sslpassword=hunter22&password=hunter22": "failed to configure TLS (sslmode is invalid)",
	} {
		_, err := Parse(url, nil, Schemes(nil))
		require.EqualError(t, err, "service postgres://db/a: "+want, url)
	}
	err := ask(t, "postgres:///a?host=/run/nowhere")
	assert.ErrorContains(t, err, "dial unix /run/nowhere/.s.PGSQL.5432: connect: no such file or directory")
}

// A standby that does not let anybody in while it recovers is what every server
// is for some time after a crash.
func TestPostgresInRecovery(t *testing.T) {
	t.Parallel()
	installed(t, "postgres")
	dir, err := scratch(t.Cleanup)
	require.NoError(t, err)
	require.NoError(t, initPostgres(dir))
	require.NoError(t, os.WriteFile(dir+"/data/standby.signal", nil, 0o600))
	port, out, err := startPostgres(dir, t.Cleanup, "hot_standby=off")
	require.NoError(t, err)
	require.NoError(t, become("tcp://127.0.0.1:"+port))

	err = ask(t, "postgres://127.0.0.1:"+port)
	require.ErrorIs(t, err, ErrNotReady, "%s", out)
	assert.ErrorContains(t, err, "57P03")
	assert.ErrorIs(t, ask(t, "postgres://127.0.0.1:"+port+"#query=SELECT 1"), ErrNotReady, "nor for a login")
}

func TestPostgresStartingUp(t *testing.T) {
	t.Parallel()
	address := listen(t, func(conn net.Conn) {
		back := pgproto3.NewBackend(conn, conn)
		for {
			msg, err := back.ReceiveStartupMessage()
			if err != nil {
				return
			}
			if _, ok := msg.(*pgproto3.StartupMessage); ok {
				break
			}
			if _, err := conn.Write([]byte("N")); err != nil { // no TLS
				return
			}
		}
		back.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P03", Message: "the database system is starting up"})
		_ = back.Flush()
		_, _ = io.Copy(io.Discard, conn)
	})
	err := ask(t, "postgres://"+address)
	require.ErrorIs(t, err, ErrNotReady)
	assert.ErrorContains(t, err, "the database system is starting up")
}
