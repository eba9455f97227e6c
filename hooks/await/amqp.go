// SPDX-License-Identifier: Apache-2.0

//go:build !no_amqp

package await

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

func amqpSchemes() []Scheme { return []Scheme{AMQP()} }

// AMQP is amqp://user:password@host/vhost, and amqps:// with TLS, for RabbitMQ
// and the like (AMQP 0-9-1): a login succeeds, and the virtual host is there.
// Without a user the server's offer to log in is good enough.
//
// The handshake is written by hand: amqp091-go does not tell the server that it
// understands a rejected login, and RabbitMQ then says nothing and hangs up
// after three seconds, which is what a try has.
func AMQP() Scheme {
	return Scheme{names: []string{"amqp", "amqps"}, secure: []string{"amqps"}, options: passwordOptions, parse: parseAMQP}
}

func parseAMQP(t *target) (Check, error) {
	address, err1 := t.hostWithPort(map[string]string{"amqp": "5672", "amqps": "5671"}[t.Scheme])
	login, err2 := t.credentials("RABBITMQ_PASSWORD")
	conf, err3 := t.tlsConfig()
	if t.Scheme == "amqp" {
		conf = nil
	}
	vhost := strings.TrimPrefix(t.Path, "/")
	if vhost == "" {
		vhost = "/"
	}
	var err4 error
	if len(vhost) > mostOfShort {
		err4 = errors.New("the virtual host's name is longer than 255 bytes")
	}
	return func(ctx context.Context) error {
		conn, err := dial(ctx, "tcp", address)
		if err != nil {
			return err
		}
		if conn, err = secure(ctx, conn, conf, address); err != nil {
			return err
		}
		defer conn.Close()
		a := amqp{conn: conn, in: bufio.NewReader(conn)}
		if err := a.open(); err != nil || login.user == "" {
			return err
		}
		return a.login(login, vhost)
	}, errors.Join(err1, err2, err3, err4)
}

// The methods of a connection (class 10) that we know.
const (
	amqpStart   = 10
	amqpStartOk = 11
	amqpTune    = 30
	amqpTuneOk  = 31
	amqpOpen    = 40
	amqpOpenOk  = 41
	amqpClose   = 50
	amqpCloseOk = 51

	amqpAccessRefused = 403

	amqpConnection = 10
	amqpMethod     = 1
	amqpHeartbeat  = 8
	amqpFrameEnd   = 0xCE
	mostOfFrame    = 128 << 10
	mostOfShort    = 255
)

// amqp is a connection on which the handshake is going on.
type amqp struct {
	conn net.Conn
	in   *bufio.Reader
}

// open says which protocol we speak and reads the server's greeting.
func (a amqp) open() error {
	if _, err := a.conn.Write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
		return err
	}
	_, err := a.expect(amqpStart)
	return err
}

// login logs in, opens the virtual host, and says goodbye.
func (a amqp) login(login credentials, vhost string) error {
	const capability = "\x1cauthentication_failure_closet\x01"
	var args []byte
	properties := append([]byte("\x0ccapabilitiesF"), long(capability)...)
	args = append(args, long(string(properties))...)
	args = append(args, short("PLAIN")...)
	args = append(args, long("\x00"+login.user+"\x00"+login.password)...)
	args = append(args, short("en_US")...)
	if err := a.send(amqpStartOk, args); err != nil {
		return err
	}
	tune, err := a.expect(amqpTune)
	if err != nil {
		return err
	}
	const limits = 2 + 4 // channels and frame size, which we take as they are
	if len(tune) < limits+2 {
		return errAMQP
	}
	if err := a.send(amqpTuneOk, append(tune[:limits:limits], 0, 0)); err != nil { // no heartbeat
		return err
	}
	if err := a.send(amqpOpen, append(short(vhost), 0, 0)); err != nil {
		return err
	}
	if _, err := a.expect(amqpOpenOk); err != nil {
		return err
	}
	if err := a.send(amqpClose, append([]byte{0, 200}, "\x04done\x00\x00\x00\x00"...)); err != nil {
		return err
	}
	_, err = a.expect(amqpCloseOk)
	return err
}

func short(s string) []byte { return append([]byte{byte(len(s))}, s...) }
func long(s string) []byte  { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }

func (a amqp) send(method uint16, args []byte) error {
	_, err := a.conn.Write(methodFrame(method, args))
	return err
}

func methodFrame(method uint16, args []byte) []byte {
	be := binary.BigEndian
	frame := []byte{amqpMethod, 0, 0}
	frame = be.AppendUint32(frame, uint32(4+len(args)))
	frame = be.AppendUint16(frame, amqpConnection)
	frame = be.AppendUint16(frame, method)
	frame = append(frame, args...)
	return append(frame, amqpFrameEnd)
}

var errAMQP = errors.New("not the answer of an AMQP 0-9-1 server")

// expect reads the arguments of a method. Another one is an error; what the
// server says with Close is the reason why.
func (a amqp) expect(method uint16) ([]byte, error) {
	got, args, err := readMethod(a.in)
	switch {
	case err != nil:
		return nil, err
	case got == amqpClose:
		return nil, closeReason(args)
	case got != method:
		return nil, errAMQP
	}
	return args, nil
}

// readMethod reads the next frame that is no heartbeat.
func readMethod(r io.Reader) (method uint16, args []byte, err error) {
	be := binary.BigEndian
	for {
		var head [7]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return 0, nil, fmt.Errorf("connection closed: %w", err)
		}
		size := be.Uint32(head[3:])
		if head[0] != amqpMethod && head[0] != amqpHeartbeat || size > mostOfFrame {
			return 0, nil, errAMQP
		}
		body := make([]byte, size+1)
		if _, err := io.ReadFull(r, body); err != nil {
			return 0, nil, fmt.Errorf("connection closed: %w", err)
		}
		switch {
		case body[size] != amqpFrameEnd:
			return 0, nil, errAMQP
		case head[0] == amqpHeartbeat:
			continue
		case size < 4 || be.Uint16(body) != amqpConnection:
			return 0, nil, errAMQP
		}
		return be.Uint16(body[2:]), body[4:size], nil
	}
}

// closeReason tells rejected credentials from a virtual host that is not there
// yet.
func closeReason(args []byte) error {
	const head = 3 // the code, and the length of the text
	if len(args) < head || len(args) < head+int(args[2]) {
		return errAMQP
	}
	code, text := binary.BigEndian.Uint16(args), string(args[head:head+int(args[2])])
	err := fmt.Errorf("%s (%d)", text, code)
	if code == amqpAccessRefused {
		return Denied(err)
	}
	return err
}
