// SPDX-License-Identifier: Apache-2.0

//go:build !no_http

package await

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// GRPC is grpc://host:port/SERVICE, and grpcs:// with TLS: the standard health
// service answers SERVING for that service, or for the server as a whole.
//
// It is one HTTP/2 request: the message is two fields, and a gRPC library would
// double the size of the program.
func GRPC() Scheme {
	return Scheme{
		names: []string{"grpc", "grpcs"}, secure: []string{"grpcs"}, options: []string{"request-header"}, parse: parseGRPC,
	}
}

const (
	grpcPrefix    = 5 // a byte for compression, four for the length
	mostOfMessage = 64 << 10
)

func parseGRPC(t *target) (Check, error) {
	address, err1 := t.host()
	transport, err2 := t.transport(t.Scheme == "grpc")
	send, err3 := parseHeaders("request-header", t.options["request-header"])
	for _, values := range send {
		for _, v := range values {
			t.keepSecretIn(v)
		}
	}
	var err4 error
	if t.User != nil || t.RawQuery != "" {
		err4 = errors.New("only HOST:PORT/SERVICE is possible here, without user and query")
	}
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	transport.Protocols.SetHTTP1(false)
	scheme := map[string]string{"grpc": "http", "grpcs": "https"}[t.Scheme]
	service := strings.TrimPrefix(t.Path, "/")
	g := grpcHealth{
		client: &http.Client{Transport: transport, CheckRedirect: neverRedirect}, url: scheme + "://" + address + "/grpc.health.v1.Health/Check",
		service: service, send: send,
	}
	return g.check, nil
}

func neverRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

type grpcHealth struct {
	client  *http.Client
	url     string
	service string
	send    http.Header
}

// The statuses of gRPC that say something to us.
const (
	grpcOK            = "0"
	grpcNotFound      = "5"
	grpcUnimplemented = "12"
)

func (g grpcHealth) check(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url, bytes.NewReader(healthRequest(g.service)))
	if err != nil {
		return Permanent(err)
	}
	req.Header = g.send.Clone()
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	req.Header.Set("User-Agent", userAgent)
	res, err := g.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, mostOfMessage))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP status %s", res.Status)
	}
	trailer := res.Trailer
	if res.Header.Get("Grpc-Status") != "" {
		trailer = res.Header // an answer without a message
	}
	switch status, text := trailer.Get("Grpc-Status"), trailer.Get("Grpc-Message"); status {
	case grpcOK:
		return healthAnswer(body)
	case grpcNotFound:
		return fmt.Errorf("the server does not know the service %q", g.service)
	case grpcUnimplemented:
		return errors.New("the server has no health service (grpc.health.v1.Health); tcp:// or h2c:// ask for less")
	default:
		return fmt.Errorf("gRPC status %s: %s", status, text)
	}
}

// healthRequest is a HealthCheckRequest in its frame: field 1 is the service.
func healthRequest(service string) []byte {
	var msg []byte
	if service != "" {
		msg = append(msg, 1<<3|2)
		msg = binary.AppendUvarint(msg, uint64(len(service)))
		msg = append(msg, service...)
	}
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg)))
	return append(frame, msg...)
}

// healthAnswer reads a HealthCheckResponse in its frame: field 1 is the status.
func healthAnswer(frame []byte) error {
	if len(frame) < grpcPrefix || frame[0] != 0 {
		return errors.New("the answer is no health status")
	}
	msg := frame[grpcPrefix:]
	status := uint64(0) // a field with the value 0 is left out
	if len(msg) > 0 {
		var n int
		if status, n = binary.Uvarint(msg[1:]); msg[0] != 1<<3 || n <= 0 {
			return errors.New("the answer is no health status")
		}
	}
	names := []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}
	switch {
	case status >= uint64(len(names)):
		return fmt.Errorf("health status %d", status)
	case names[status] != "SERVING":
		return errors.New("health status " + names[status])
	}
	return nil
}
