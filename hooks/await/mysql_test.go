// SPDX-License-Identifier: Apache-2.0

//go:build !no_mysql

package await

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMySQL(t *testing.T) {
	t.Parallel()
	installed(t, "mariadbd")
	server, err := mariadb()
	require.NoError(t, err)
	host := "127.0.0.1:" + server.port
	user := url.UserPassword("app", password).String()

	tests := []struct {
		name, url string
		env       []string
		want      string // of the error; empty: ready
	}{
		{"no user", "mysql://" + host, nil, ""},
		{"no user but a password", "mysql://" + host, []string{"MYSQL_PWD=wr0ngpass"}, ""},
		{"the other spelling", "mariadb://" + user + "@" + host, nil, ""},
		{"socket", "mysql://" + user + "@/shop?socket=" + server.dir + "/sock", nil, ""},
		{"MYSQL_PWD", "mysql://app@" + host + "/shop", []string{"MYSQL_PWD=" + password}, ""},
		{"wrong password", "mysql://app:wr0ngpass@" + host + "/shop", nil, ErrPermanent.Error()},
		{"no password", "mysql://app@" + host + "/shop", nil, ErrPermanent.Error()},
		{"query", "mysql://" + user + "@" + host + "/shop#query=SELECT 1", nil, ""},
		{"query without a row", "mysql://" + user + "@" + host + "/shop#query=SELECT 1 FROM users", nil, "no row"},
		{"wrong query", "mysql://" + user + "@" + host + "/shop#query=SELEKT", nil, ErrPermanent.Error()},
		{"table", "mysql://" + user + "@" + host + "/shop#table=users", nil, ""},
		{"table of a database", "mysql://" + user + "@" + host + "/#table=shop.users", nil, ""},
		{"no table", "mysql://" + user + "@" + host + "/shop#table=later", nil, "table later does not exist"},
		{"version", "mysql://" + user + "@" + host + "/shop#schema-version=7", nil, ""},
		{"version to come", "mysql://" + user + "@" + host + "/shop#schema-version=8", nil, "version is 7, 8 is waited for"},
		{"nobody listens", "mysql://127.0.0.1:1", nil, "connection refused"},
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
		})
	}
}
