// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
)

// maxAnswer is how much of an answer is read, as the kubelet does it.
const maxAnswer = 10 << 10

// errNotHTTP is for what is no answer in HTTP/1.
var errNotHTTP = errors.New("the answer is not HTTP/1.1")

// exchange is one request and its answer, on a connection of its own.
type exchange struct {
	c   net.Conn
	buf []byte // from the end of the head on
}

// answer is what we need of the head of an answer.
type answer struct {
	status   int
	length   int // of the body; -1 when it is not said
	instance string
}

// get sends a GET request and reads the head of the final answer. headers are
// whole lines, each with its end.
func (x *exchange) get(host, path, headers string) (answer, error) {
	request := "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: cleanimg-init\r\nAccept: */*\r\n" + headers + "Connection: close\r\n\r\n"
	if _, err := x.c.Write([]byte(request)); err != nil {
		return answer{}, err
	}
	x.buf = make([]byte, 0, maxAnswer)
	for from := 0; ; {
		n, err := x.c.Read(x.buf[len(x.buf):cap(x.buf)])
		x.buf = x.buf[:len(x.buf)+n]
		for end := headEnd(x.buf, from); end > 0; end = headEnd(x.buf, 0) {
			a, ok := parseAnswer(x.buf[:end])
			if !ok {
				return answer{}, errNotHTTP
			}
			x.buf = x.buf[:copy(x.buf, x.buf[end:])]
			if a.status >= 200 {
				return a, nil
			}
			// 1xx: the final one follows
		}
		if from = len(x.buf); from == cap(x.buf) {
			return answer{}, errNotHTTP
		}
		if err != nil {
			return answer{}, err
		}
	}
}

// body reads what follows the head: all of it, but not more than 10 KiB. Where
// the answer has no length it goes on until the connection's end.
func (x *exchange) body(a answer) ([]byte, error) {
	for {
		if a.length >= 0 && len(x.buf) >= a.length {
			return x.buf[:a.length], nil
		}
		if len(x.buf) == cap(x.buf) {
			return x.buf, nil
		}
		n, err := x.c.Read(x.buf[len(x.buf):cap(x.buf)])
		x.buf = x.buf[:len(x.buf)+n]
		if errors.Is(err, io.EOF) && a.length < 0 {
			return x.buf, nil
		}
		if err != nil && (a.length < 0 || len(x.buf) < a.length) {
			return x.buf, err
		}
	}
}

// parseAnswer reads the head of an answer.
func parseAnswer(head []byte) (a answer, ok bool) {
	line, head := cutLine(head)
	version, rest, _ := strings.Cut(string(line), " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || len(code) != 3 || status < 100 || !strings.HasPrefix(version, "HTTP/1.") {
		return answer{}, false
	}
	a = answer{status: status, length: -1}
	for {
		line, head = cutLine(head)
		if len(line) == 0 {
			return a, true
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte(instanceHeader)):
			a.instance = string(value)
		case bytes.EqualFold(name, []byte("Content-Length")):
			if a.length, err = strconv.Atoi(string(value)); err != nil || a.length < 0 {
				return answer{}, false
			}
		}
	}
}
