// SPDX-License-Identifier: Apache-2.0

package await

import (
	"crypto/rand"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestGarbage asks servers that speak something else, or want to do harm: each
// is not ready, however long they say that they are, and needs little memory.
func TestGarbage(t *testing.T) {
	random := make([]byte, 4096)
	_, _ = rand.Read(random)
	answers := map[string]string{
		"nothing":                "",
		"zeros":                  strings.Repeat("\x00", 1<<16),
		"ones":                   strings.Repeat("\xff", 1<<16),
		"text":                   "SSH-2.0-OpenSSH\r\n",
		"random":                 string(random),
		"a Redis of terabytes":   "$9999999999999\r\n",
		"a Redis of arrays":      strings.Repeat("*1\r\n", 1<<20),
		"a long PostgreSQL":      "S\x3f\xff\xff\xff",
		"a short PostgreSQL":     "S\x00\x00\x00\x00",
		"a short MySQL":          "\x01\x00\x00\x00\x0a",
		"a MySQL without an end": "\x05\x00\x00\x00\x0a5.5.5",
		"a long Kafka":           "\x7f\xff\xff\xff\x00\x00\x00\x00",
		"a long MongoDB":         "\xff\xff\xff\x7f\x00\x00\x00\x00\x01\x00\x00\x00\xdd\x07\x00\x00",
		"a MongoDB of nulls":     mongoAnswer(strings.Repeat("\x0a\x00", 1<<19-20)),
		"a NATS without an end":  "INFO " + strings.Repeat("x", 1<<20),
		"a long HTTP":            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"long pieces of HTTP":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
	}
	urls := []string{
		"redis://u:p@", "postgres://u:p@", "mysql://u:p@", "mysql://", "kafka://", "kafka://u:p@", "amqp://u:p@", "nats://", "mongodb://", "http://", "h2c://", "grpc://", "https://",
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			address := listen(t, func(conn net.Conn) {
				go func() {
					_, _ = conn.Write([]byte(answer))
					_ = conn.(*net.TCPConn).CloseWrite()
				}()
				_, _ = io.Copy(io.Discard, conn)
			})
			for _, url := range urls {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				assert.ErrorIs(t, ask(t, url+address+map[string]string{"http://": "#body=x"}[url]), ErrNotReady, url)
				runtime.ReadMemStats(&after)
				assert.Less(t, (after.TotalAlloc-before.TotalAlloc)>>20, uint64(64), "MiB for %s", url)
			}
		})
	}
}

// mongoAnswer is a message with a document of those elements.
func mongoAnswer(elements string) string {
	return string(le32(26+len(elements))) + strings.Repeat("\x00", 8) + string(le32(opMsg)) + strings.Repeat("\x00", 5) +
		string(le32(5+len(elements))) + elements + "\x00"
}

func le32(n int) []byte { return []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)} }
