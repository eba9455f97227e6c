// SPDX-License-Identifier: Apache-2.0

//go:build !no_amqp

package await

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const rabbitPassword = "s3cr3t-rabbit"

// startRabbitMQ starts a RabbitMQ with the user "app", and no guest.
func startRabbitMQ(t *testing.T) (port string) {
	t.Helper()
	server := installed(t, "/usr/lib/rabbitmq/bin/rabbitmq-server")
	dir, err := scratch(t.Cleanup)
	require.NoError(t, err)
	port, err = freePort()
	require.NoError(t, err)
	distPort, err := freePort()
	require.NoError(t, err)
	epmdPort, err := freePort()
	require.NoError(t, err)
	conf := filepath.Join(dir, "rabbitmq.conf")
	require.NoError(t, os.WriteFile(conf, []byte("default_user = app\ndefault_pass = "+rabbitPassword+"\n"), 0o644))
	// Erlang would start its name server as a daemon that outlives the test.
	_, err = start(command(dir, "epmd", "-port", epmdPort, "-address", "127.0.0.1"), t.Cleanup)
	require.NoError(t, err)
	require.NoError(t, become("tcp://127.0.0.1:"+epmdPort))
	cmd := command(dir, server)
	cmd.Env = append(cmd.Env, "RABBITMQ_NODENAME=await@localhost", "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT="+port,
		"RABBITMQ_DIST_PORT="+distPort, "ERL_EPMD_PORT="+epmdPort, "ERL_EPMD_ADDRESS=127.0.0.1", "RABBITMQ_CONFIG_FILE="+conf,
		"RABBITMQ_MNESIA_BASE="+dir+"/mnesia", "RABBITMQ_LOG_BASE="+dir+"/log", "RABBITMQ_ENABLED_PLUGINS_FILE="+dir+"/plugins",
		"RABBITMQ_CONF_ENV_FILE="+dir+"/none", "RABBITMQ_PID_FILE="+dir+"/pid", "RABBITMQ_GENERATED_CONFIG_DIR="+dir+"/config",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}")
	out, err := start(cmd, t.Cleanup)
	require.NoError(t, err)
	require.NoError(t, become("amqp://127.0.0.1:"+port), "%s", out)
	return port
}

func TestAMQP(t *testing.T) {
	t.Parallel()
	host := "127.0.0.1:" + startRabbitMQ(t)
	tests := []struct {
		name, url string
		env       []string
		want      string // of the error; empty: ready
	}{
		{"no user", "amqp://" + host, nil, ""},
		{"user", "amqp://app:" + rabbitPassword + "@" + host, nil, ""},
		{"virtual host", "amqp://app:" + rabbitPassword + "@" + host + "/%2f", nil, ""},
		{"variable", "amqp://app@" + host, []string{"RABBITMQ_PASSWORD=" + rabbitPassword}, ""},
		{"virtual host to come", "amqp://app:" + rabbitPassword + "@" + host + "/later", nil, "vhost later not found"},
		{"wrong password", "amqp://app:wr0ngpass@" + host, nil, ErrPermanent.Error()},
		{"nobody listens", "amqp://127.0.0.1:1", nil, "connection refused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := ask(t, tt.url, tt.env...)
			if tt.want == "" {
				assert.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
			assert.NotContains(t, err.Error(), "wr0ngpass")
		})
	}
	t.Run("TLS", func(t *testing.T) {
		pki := newPKI(t)
		address := relayTLS(t, pki, host)
		assert.NoError(t, ask(t, "amqps://app:"+rabbitPassword+"@"+address+"#ca="+pki.caFile))
		assert.ErrorContains(t, ask(t, "amqps://"+address), "unknown authority")
	})
}

// A connection that breaks during the login is no rejected password.
func TestAMQPBrokenLogin(t *testing.T) {
	t.Parallel()
	address := listen(t, func(conn net.Conn) {
		header := make([]byte, 8)
		_, _ = io.ReadFull(conn, header)
	})
	assert.ErrorIs(t, ask(t, "amqp://app:"+rabbitPassword+"@"+address), ErrNotReady)
}

// closeFrame is a server's goodbye with a reason of at most 255 bytes.
func closeFrame(reason string) []byte {
	args := append([]byte{0x01, 0x40}, short(reason)...) // 320, connection-forced
	return methodFrame(amqpClose, append(args, 0, 0, 0, 0))
}

func TestCloseReason(t *testing.T) {
	t.Parallel()
	for _, length := range []int{0, 1, 252, 253, mostOfShort} {
		reason := strings.Repeat("x", length)
		method, args, err := readMethod(bytes.NewReader(closeFrame(reason)))
		require.NoError(t, err)
		require.EqualValues(t, amqpClose, method)
		require.EqualError(t, closeReason(args), reason+" (320)")
		require.ErrorIs(t, closeReason(args[:2+length]), errAMQP, "cut short")
	}
}

func FuzzReadMethod(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x1e\xce"))
	f.Add([]byte("\x08\x00\x00\x00\x00\x00\x00\xce"))
	f.Add([]byte("AMQP\x00\x00\x09\x01"))
	f.Add(closeFrame(strings.Repeat("x", mostOfShort)))
	f.Fuzz(func(_ *testing.T, frames []byte) {
		if method, args, err := readMethod(bytes.NewReader(frames)); err == nil && method == amqpClose {
			_ = closeReason(args)
		}
	})
}
