// SPDX-License-Identifier: Apache-2.0

//go:build !no_nats

package await

import (
	"bufio"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func startNATS(t *testing.T, args ...string) (address string) {
	t.Helper()
	server := installed(t, "nats-server")
	port, err := freePort()
	require.NoError(t, err)
	dir, err := scratch(t.Cleanup)
	require.NoError(t, err)
	_, err = start(command(dir, server, append([]string{"-a", "127.0.0.1", "-p", port}, args...)...), t.Cleanup)
	require.NoError(t, err)
	require.NoError(t, become("tcp://127.0.0.1:"+port))
	return "127.0.0.1:" + port
}

func TestNATS(t *testing.T) {
	t.Parallel()
	pki := newPKI(t)
	open := startNATS(t)
	users := startNATS(t, "--user", "app", "--pass", "s3cr3t-nats")
	tokens := startNATS(t, "--auth", "s3cr3t-token")
	secured := startNATS(t, "--tls", "--tlscert", pki.certFile, "--tlskey", pki.keyFile)

	tests := []struct {
		name, url string
		env       []string
		want      string // of the error; empty: ready
	}{
		{"open", "nats://" + open, nil, ""},
		{"no credentials", "nats://" + users, nil, ""},
		{"user", "nats://app:s3cr3t-nats@" + users, nil, ""},
		{"variable", "nats://app@" + users, []string{"NATS_PASSWORD=s3cr3t-nats"}, ""},
		{"wrong password", "nats://app:wr0ngpass@" + users, nil, ErrPermanent.Error()},
		{"token", "nats://s3cr3t-token@" + tokens, nil, ""},
		{"wrong token", "nats://wr0ngpass@" + tokens, nil, ErrPermanent.Error()},
		{"TLS", "nats://" + secured + "#ca=" + pki.caFile, nil, ""},
		{"TLS of a stranger", "nats://" + secured, nil, "unknown authority"},
		{"nobody listens", "nats://127.0.0.1:1", nil, "connection refused"},
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
			assert.NotContains(t, err.Error(), "wr0ngpass")
		})
	}
}

func TestNATSIsNotEverything(t *testing.T) {
	t.Parallel()
	address := listen(t, func(conn net.Conn) { _, _ = conn.Write([]byte("220 mail.example ESMTP\r\n")) })
	assert.ErrorContains(t, ask(t, "nats://"+address), "not the greeting of a NATS server")
}

func FuzzReadGreeting(f *testing.F) {
	f.Add("INFO {\"auth_required\":true}\r\n")
	f.Add("INFO x\n")
	f.Add("+OK")
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = readGreeting(bufio.NewReader(strings.NewReader(text)))
	})
}
