// SPDX-License-Identifier: Apache-2.0

//go:build !no_mongodb

package await

import (
	"encoding/binary"
	"io"
	"math"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// serveMongoDB answers as a MongoDB does, with a document. Debian has none to
// try it with.
func serveMongoDB(t *testing.T, doc []byte) (address string) {
	t.Helper()
	return listen(t, func(conn net.Conn) {
		le := binary.LittleEndian
		size := make([]byte, 4)
		for {
			if _, err := io.ReadFull(conn, size); err != nil {
				return
			}
			rest := make([]byte, le.Uint32(size)-4)
			if _, err := io.ReadFull(conn, rest); err != nil {
				return
			}
			answer := make([]byte, mongoHeader+5)
			le.PutUint32(answer, uint32(len(answer)+len(doc)))
			le.PutUint32(answer[8:], le.Uint32(rest)) // in answer to
			le.PutUint32(answer[12:], opMsg)
			if _, err := conn.Write(append(answer, doc...)); err != nil {
				return
			}
		}
	})
}

// bson is a document of booleans, strings and doubles.
func bson(fields ...any) []byte {
	doc := make([]byte, 4)
	for i := 0; i < len(fields); i += 2 {
		name := fields[i].(string) + "\x00"
		switch v := fields[i+1].(type) {
		case bool:
			doc = append(append(doc, 0x08), name...)
			doc = append(doc, map[bool]byte{true: 1}[v])
		case string:
			doc = append(append(doc, 0x02), name...)
			doc = binary.LittleEndian.AppendUint32(doc, uint32(len(v)+1))
			doc = append(append(doc, v...), 0)
		case float64:
			doc = append(append(doc, 0x01), name...)
			doc = binary.LittleEndian.AppendUint64(doc, math.Float64bits(v))
		case []byte:
			doc = append(append(doc, 0x03), name...)
			doc = append(doc, v...)
		}
	}
	doc = append(doc, 0)
	binary.LittleEndian.PutUint32(doc, uint32(len(doc)))
	return doc
}

func TestMongoDB(t *testing.T) {
	t.Parallel()
	version := bson("processId", "x", "counter", 3.0)
	tests := []struct {
		name, option string
		doc          []byte
		want         string // of the error; empty: ready
	}{
		{"primary", "", bson("topologyVersion", version, "ismaster", true, "ok", 1.0), ""},
		{"primary by its newer name", "#primary", bson("isWritablePrimary", true, "ok", 1.0), ""},
		{"secondary", "", bson("ismaster", false, "secondary", true, "ok", 1.0), ""},
		{"secondary but the primary is waited for", "#primary", bson("ismaster", false, "secondary", true, "ok", 1.0), "a secondary"},
		{"arbiter", "", bson("ismaster", false, "secondary", false, "arbiterOnly", true, "ok", 1.0), "arbiter"},
		{"not initiated", "", bson("ismaster", false, "secondary", false, "info", "Does not have a valid replica set config", "ok", 1.0), "valid replica set"},
		{"not ok", "", bson("ok", 0.0, "errmsg", "interrupted"), "interrupted"},
		{"no document", "", []byte("\x00\x00\x00\x00\x00\x00"), "not ready"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			address := serveMongoDB(t, tt.doc)
			err := ask(t, "mongodb://app:"+mongoPassword+"@127.0.0.1:1,"+address+"/shop?replicaSet=rs0"+tt.option)
			if tt.want == "" {
				assert.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
			assert.NotContains(t, err.Error(), mongoPassword)
		})
	}
}

const mongoPassword = "s3cr3t-mongo"

func TestMongoDBWithTLS(t *testing.T) {
	t.Parallel()
	pki := newPKI(t)
	address := relayTLS(t, pki, serveMongoDB(t, bson("ismaster", true, "ok", 1.0)))
	assert.NoError(t, ask(t, "mongodb://"+address+"/?tls=true#ca="+pki.caFile))
	assert.ErrorContains(t, ask(t, "mongodb://"+address+"/?tls=true"), "unknown authority")
}

func FuzzParseBSON(f *testing.F) {
	f.Add(bson("ismaster", true, "ok", 1.0, "msg", "isdbgrid", "t", bson("a", "b")))
	f.Add([]byte{5, 0, 0, 0, 0})
	f.Add([]byte("\xff\xff\xff\xff\x02a\x00\x00\x00\x00\x00"))
	f.Fuzz(func(_ *testing.T, doc []byte) { _, _ = parseBSON(doc) })
}
