// SPDX-License-Identifier: Apache-2.0

//go:build !no_kafka

package await

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

func kafkaSchemes() []Scheme { return []Scheme{Kafka()} }

// Kafka is kafka://user:password@host1,host2, and kafkas:// with TLS: one of the
// brokers answers a request for metadata. With #brokers=N that many are in the
// cluster, with #topic=NAME that topic exists (several: NAME,NAME) and each
// partition has a leader. #sasl= is plain, scram-sha-256 or scram-sha-512;
// with a user and without it, plain.
func Kafka() Scheme {
	return Scheme{
		names: []string{"kafka", "kafkas"}, secure: []string{"kafkas"}, port: "9092",
		options: append([]string{"brokers", "topic", "sasl"}, passwordOptions...), parse: parseKafka,
	}
}

type cluster struct {
	options []kgo.Opt
	tls     *tls.Config
	brokers int
	topics  []string
}

// mostOfMetadata is how long a broker's answer may be. What answers something
// else may begin with any length, and the library makes room.
const mostOfMetadata = 16 << 20

func parseKafka(t *target) (Check, error) {
	hosts, err1 := t.hosts()
	brokers, err2 := t.number("brokers", 1)
	conf, err3 := t.tlsConfig()
	if t.Scheme == "kafka" {
		conf = nil
	}
	mechanism, err4 := t.kafkaLogin()
	var err5 error
	if strings.Trim(t.Path, "/") != "" || t.RawQuery != "" {
		err5 = errors.New("path and query mean nothing here: topics are #topic=NAME")
	}
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return nil, err
	}
	c := cluster{tls: conf, brokers: brokers}
	for _, names := range t.options["topic"] {
		c.topics = append(c.topics, strings.Split(names, ",")...)
	}
	c.options = []kgo.Opt{
		kgo.SeedBrokers(hosts...), kgo.ClientID("await"), kgo.RequestRetries(0), kgo.DisableClientMetrics(),
		kgo.BrokerMaxReadBytes(mostOfMetadata), kgo.FetchMaxBytes(mostOfMetadata),
	}
	if mechanism != nil {
		c.options = append(c.options, kgo.SASL(mechanism))
	}
	return c.check, nil
}

// kafkaLogin is the mechanism with the credentials, or nil.
func (t *target) kafkaLogin() (sasl.Mechanism, error) {
	login, err := t.credentials("KAFKA_PASSWORD")
	if err != nil {
		return nil, err
	}
	name := strings.ToLower(t.options.Get("sasl"))
	if login.user == "" {
		if name != "" {
			return nil, errors.New(`option "sasl" needs a user and a password`)
		}
		return nil, nil
	}
	if !login.given {
		return nil, errors.New("there is a user but no password: it can be in the URL, #password-file, or KAFKA_PASSWORD")
	}
	switch name {
	case "", "plain":
		return plain.Auth{User: login.user, Pass: login.password}.AsMechanism(), nil
	case "scram-sha-256":
		return scram.Auth{User: login.user, Pass: login.password}.AsSha256Mechanism(), nil
	case "scram-sha-512":
		return scram.Auth{User: login.user, Pass: login.password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("option \"sasl\" is %q: plain, scram-sha-256 and scram-sha-512 are accepted", name)
}

// triesOfLogin is how often a broker may hang up during the login before that
// counts as a rejection: older ones do so instead of saying it.
const triesOfLogin = 3

func (c cluster) check(ctx context.Context) error {
	for try := 1; ; try++ {
		hungUp := &hangUp{}
		err := c.try(ctx, hungUp)
		switch {
		case err == nil || !errors.Is(err, io.EOF) || !hungUp.seen.Load():
			return err
		case try == triesOfLogin:
			return Denied(errors.New("the broker closes the connection during the login: wrong user or password"))
		}
		if hooks.Pause(ctx, firstInterval) != nil {
			return err
		}
	}
}

// hangUp sees that a broker closed a connection instead of answering a login.
type hangUp struct{ seen atomic.Bool }

// OnBrokerRead is kgo's hook.
func (h *hangUp) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key == kmsg.SASLAuthenticate.Int16() && errors.Is(err, io.EOF) {
		h.seen.Store(true)
	}
}

// try asks the brokers of the URL.
func (c cluster) try(ctx context.Context, hungUp *hangUp) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	connect := func(_ context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return secure(ctx, conn, c.tls, addr)
	}
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.Dialer(connect), kgo.WithHooks(hungUp)}, c.options...)...)
	if err != nil {
		return Permanent(err)
	}
	defer client.Close()
	return firstGood(ctx, client.SeedBrokers(), c.ask)
}

func (c cluster) ask(ctx context.Context, broker *kgo.Broker) error {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	req.Topics = []kmsg.MetadataRequestTopic{} // nil would be all
	for _, name := range c.topics {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, topic)
	}
	res, err := broker.Request(ctx, req)
	if err != nil {
		return kafkaError(err)
	}
	meta := res.(*kmsg.MetadataResponse)
	if len(meta.Brokers) < c.brokers {
		return fmt.Errorf("%d of %d brokers", len(meta.Brokers), c.brokers)
	}
	for _, topic := range meta.Topics {
		if err := checkTopic(topic); err != nil {
			return err
		}
	}
	return nil
}

func checkTopic(topic kmsg.MetadataResponseTopic) error {
	name := ""
	if topic.Topic != nil {
		name = *topic.Topic
	}
	if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
		return kafkaError(fmt.Errorf("topic %s: %w", name, err))
	}
	for _, p := range topic.Partitions {
		if p.ErrorCode == kerr.LeaderNotAvailable.Code || p.Leader < 0 {
			return fmt.Errorf("topic %s: partition %d has no leader", name, p.Partition)
		}
	}
	return nil
}

// kafkaError tells rejected credentials from a broker that is not there yet.
func kafkaError(err error) error {
	var eof *kgo.ErrFirstReadEOF
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.UnsupportedSaslMechanism),
		errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return Denied(err)
	case errors.As(err, &eof):
		return fmt.Errorf("the broker closed the connection at the first request: it may want TLS (kafkas://) or a login: %w", eof.Unwrap())
	}
	return err
}
