// SPDX-License-Identifier: Apache-2.0

//go:build !no_mongodb

package await

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
)

func mongodbSchemes() []Scheme { return []Scheme{MongoDB()} }

// MongoDB is mongodb://host1,host2/?tls=true, and mongodb+srv://name: a server
// says that it is a primary, a secondary, a router or on its own; with #primary
// one of them is the primary. A login is not tried.
//
// The one command that it takes needs no authentication and is a hundred lines;
// the driver would be a third of the program.
func MongoDB() Scheme {
	return Scheme{
		names: []string{"mongodb", "mongodb+srv"}, secure: []string{"mongodb", "mongodb+srv"}, port: "27017",
		options: []string{"primary"}, parse: parseMongoDB,
	}
}

type mongo struct {
	hosts   []string
	srv     string // name whose SRV records are the hosts
	tls     *tls.Config
	primary bool
}

func parseMongoDB(t *target) (Check, error) {
	m := mongo{}
	hosts, err1 := t.hosts()
	if m.hosts = hosts; t.Scheme == "mongodb+srv" {
		m.srv, m.hosts = t.Hostname(), nil
	}
	conf, err2 := t.tlsConfig()
	q := t.Query()
	secured := q.Get("tls") == "true" || q.Get("ssl") == "true" || m.srv != "" && q.Get("tls") != "false"
	for _, name := range tlsOptions {
		secured = secured || t.options.Has(name)
	}
	if secured {
		m.tls = conf
	}
	var err3 error
	m.primary, err3 = t.flag("primary")
	return m.check, errors.Join(err1, err2, err3)
}

// check asks the hosts of the URL, or those that its name has.
func (m mongo) check(ctx context.Context) error {
	hosts := m.hosts
	if m.srv != "" {
		_, records, err := net.DefaultResolver.LookupSRV(ctx, "mongodb", "tcp", m.srv)
		if err != nil {
			return err
		}
		for _, r := range records {
			hosts = append(hosts, net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port))))
		}
	}
	return firstGood(ctx, hosts, m.ask)
}

func (m mongo) ask(ctx context.Context, host string) error {
	conn, err := dial(ctx, "tcp", host)
	if err != nil {
		return err
	}
	if conn, err = secure(ctx, conn, m.tls, host); err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(mongoHello()); err != nil {
		return err
	}
	doc, err := readMongo(conn)
	if err != nil {
		return err
	}
	answer, err := parseBSON(doc)
	if err != nil {
		return err
	}
	return m.judge(answer)
}

func (m mongo) judge(answer map[string]any) error {
	set := answer["ismaster"] == true || answer["isWritablePrimary"] == true
	switch {
	case answer["ok"] != 1.0:
		return fmt.Errorf("not ok: %v", answer["errmsg"])
	case set, answer["secondary"] == true && !m.primary:
		return nil
	case answer["secondary"] == true:
		return errors.New("a secondary, and the primary is waited for")
	case answer["arbiterOnly"] == true:
		return errors.New("an arbiter, which has no data")
	case answer["info"] != nil:
		return fmt.Errorf("neither primary nor secondary: %v", answer["info"])
	}
	return errors.New("neither primary nor secondary: the replica set is not ready")
}

const (
	opMsg       = 2013
	mongoHeader = 16
	mostOfHello = 1 << 20
)

// mongoHello is an OP_MSG with {isMaster: 1, helloOk: true, $db: "admin"}, which
// every server since 3.6 answers before a login.
func mongoHello() []byte {
	le := binary.LittleEndian
	doc := []byte{0, 0, 0, 0}
	doc = append(doc, "\x10isMaster\x00\x01\x00\x00\x00\x08helloOk\x00\x01\x02$db\x00\x06\x00\x00\x00admin\x00\x00"...)
	le.PutUint32(doc, uint32(len(doc)))
	msg := make([]byte, mongoHeader, mongoHeader+5+len(doc))
	le.PutUint32(msg[4:], 1) // its number
	le.PutUint32(msg[12:], opMsg)
	msg = append(msg, 0, 0, 0, 0, 0) // flags, and a section that is one document
	msg = append(msg, doc...)
	le.PutUint32(msg, uint32(len(msg)))
	return msg
}

// readMongo returns the document of an OP_MSG.
func readMongo(r io.Reader) ([]byte, error) {
	var header [mongoHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, fmt.Errorf("connection closed: %w", err)
	}
	size := binary.LittleEndian.Uint32(header[:])
	if op := binary.LittleEndian.Uint32(header[12:]); op != opMsg || size < mongoHeader+5+5 || size > mostOfHello {
		return nil, errors.New("not the answer of a MongoDB")
	}
	body := make([]byte, size-mongoHeader)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("connection closed: %w", err)
	}
	if body[4] != 0 {
		return nil, errors.New("not the answer of a MongoDB")
	}
	return body[5:], nil
}

var errBSON = errors.New("the answer is no BSON document")

// parseBSON returns the booleans, numbers and strings of a document.
func parseBSON(doc []byte) (map[string]any, error) {
	le := binary.LittleEndian
	if len(doc) < 5 || uint64(le.Uint32(doc)) > uint64(len(doc)) {
		return nil, errBSON
	}
	doc = doc[4:]
	values := map[string]any{}
	for len(doc) > 0 && doc[0] != 0 {
		kind := doc[0]
		key, rest, ok := bytes.Cut(doc[1:], []byte{0})
		size := bsonSize(kind, rest)
		if !ok || size < 0 || size > len(rest) {
			return nil, errBSON
		}
		name, value := string(key), rest[:size]
		switch kind {
		case 0x01:
			values[name] = math.Float64frombits(le.Uint64(value))
		case 0x02:
			values[name] = string(value[4 : size-1])
		case 0x08:
			values[name] = value[0] == 1
		case 0x10:
			values[name] = float64(int32(le.Uint32(value)))
		case 0x12:
			values[name] = float64(int64(le.Uint64(value)))
		}
		doc = rest[size:]
	}
	return values, nil
}

// bsonSize is the length of the value that rest begins with, or -1.
func bsonSize(kind byte, rest []byte) int {
	switch kind {
	case 0x0A: // null
		return 0
	case 0x08: // boolean
		return 1
	case 0x10: // int32
		return 4
	case 0x01, 0x09, 0x11, 0x12: // double, date, timestamp, int64
		return 8
	case 0x07: // object id
		return 12
	case 0x13: // decimal128
		return 16
	}
	if len(rest) < 4 {
		return -1
	}
	n := int(int32(binary.LittleEndian.Uint32(rest)))
	switch {
	case kind == 0x02 && n > 0: // string
		return 4 + n
	case (kind == 0x03 || kind == 0x04) && n >= 5: // document, array
		return n
	case kind == 0x05 && n >= 0: // binary
		return 5 + n
	}
	return -1
}
