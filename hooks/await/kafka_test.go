// SPDX-License-Identifier: Apache-2.0

//go:build !no_kafka

package await

import (
	"crypto/tls"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestKafka(t *testing.T) {
	t.Parallel()
	pki := newPKI(t)
	serve := func(options ...kfake.Opt) (hosts string) {
		c, err := kfake.NewCluster(append(options, kfake.SeedTopics(2, "orders"))...)
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return strings.Join(c.ListenAddrs(), ",")
	}
	open := serve(kfake.NumBrokers(3))
	first, _, _ := strings.Cut(open, ",")
	closed := serve(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "app", password),
		kfake.User("SCRAM-SHA-256", "s256", password), kfake.User("SCRAM-SHA-512", "s512", password))
	secured := serve(kfake.NumBrokers(1), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pki.server}}),
		kfake.EnableSASL(), kfake.Superuser("PLAIN", "app", password))
	user := func(name string) string { return url.UserPassword(name, password).String() }

	tests := []struct {
		name, url string
		env       []string
		want      string // of the error; empty: ready
	}{
		{"one of the brokers", "kafka://" + first, nil, ""},
		{"all of the brokers", "kafka://" + open + "#brokers=3", nil, ""},
		{"the first is not there", "kafka://127.0.0.1:1," + first, nil, ""},
		{"more brokers", "kafka://" + first + "#brokers=4", nil, "3 of 4 brokers"},
		{"topic", "kafka://" + first + "#topic=orders", nil, ""},
		{"topic to come", "kafka://" + first + "#topic=orders,later", nil, "topic later"},
		{"plain", "kafka://" + user("app") + "@" + closed, nil, ""},
		{"variable", "kafka://app@" + closed, []string{"KAFKA_PASSWORD=" + password}, ""},
		{"scram", "kafka://" + user("s256") + "@" + closed + "#sasl=scram-sha-256", nil, ""},
		{"long scram", "kafka://" + user("s512") + "@" + closed + "#sasl=SCRAM-SHA-512", nil, ""},
		{"wrong password", "kafka://app:wr0ngpass@" + closed, nil, ErrPermanent.Error()},
		{"wrong scram password", "kafka://s256:wr0ngpass@" + closed + "#sasl=scram-sha-256", nil, ErrPermanent.Error()},
		{"no login", "kafka://" + closed, nil, "closed the connection at the first request"},
		{"TLS", "kafkas://" + user("app") + "@" + secured + "#topic=orders&ca=" + pki.caFile, nil, ""},
		{"TLS of a stranger", "kafkas://" + user("app") + "@" + secured, nil, "unknown authority"},
		{"no TLS", "kafka://" + user("app") + "@" + secured, nil, "not ready"},
		{"nobody listens", "kafka://127.0.0.1:1", nil, "connection refused"},
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

// Brokers since Kafka 1.0 say that they reject a login; the fake one hangs up,
// as those before.
func TestKafkaRejects(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "app", password))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	c.ControlKey(kmsg.SASLAuthenticate.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		res := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		res.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return res, nil, true
	})
	err = ask(t, "kafka://app:wr0ngpass@"+c.ListenAddrs()[0])
	require.ErrorIs(t, err, ErrPermanent)
	assert.ErrorContains(t, err, "SASL_AUTHENTICATION_FAILED")
}
