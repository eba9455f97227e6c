// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"bytes"
	"net/netip"
	"strings"
)

// request is what we need to know of one.
type request struct {
	path string // as written, without the query
	head bool   // the answer has no body
	more bool   // the client may send more than the head
}

// headEnd returns the length of the head that b begins with, its empty line
// included, or 0 when it is not complete. The bytes before from were looked at
// before.
func headEnd(b []byte, from int) int {
	for i := max(0, from-len("\r\n")); ; i++ {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0
		}
		i += n
		switch rest := b[i+1:]; {
		case bytes.HasPrefix(rest, []byte("\n")):
			return i + 2
		case bytes.HasPrefix(rest, []byte("\r\n")):
			return i + 3
		}
	}
}

// parseRequest reads a complete head: a request line, headers, an empty line.
// The status is 0 when it is a request that we serve, or that of the answer.
//
// It is stricter than net/http (no folded headers, no methods but GET and
// HEAD, no userinfo in a target) except that it wants no Host: nothing depends
// on it, and simple health checkers send none.
func parseRequest(head []byte) (req request, status int) {
	line, head := cutLine(head)
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, version, _ := bytes.Cut(rest, []byte(" "))
	if len(method) == 0 || !all(method, isToken) || len(target) == 0 || !all(target, isVisible) {
		return request{}, 400
	}
	if status := checkVersion(string(version)); status != 0 {
		return request{}, status
	}
	for {
		line, head = cutLine(head)
		if len(line) == 0 {
			break
		}
		more, ok := parseHeader(line)
		if !ok {
			return request{}, 400
		}
		req.more = req.more || more
	}
	switch string(method) {
	case "GET":
	case "HEAD":
		req.head = true
	default:
		return req, 405
	}
	path, ok := targetPath(string(target))
	if !ok {
		return req, 400
	}
	req.path = path
	return req, 0
}

// cutLine splits b after its first line, which is returned without its end:
// CR LF, or LF alone.
func cutLine(b []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(b, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), rest
}

// checkVersion returns 0 for what we speak, 505 for other versions of HTTP
// (the first line of an HTTP/2 client is "PRI * HTTP/2.0"), 400 for the rest.
func checkVersion(v string) int {
	if v == "HTTP/1.1" || v == "HTTP/1.0" {
		return 0
	}
	if n, ok := strings.CutPrefix(v, "HTTP/"); ok && len(n) == 3 && isDigit(n[0]) && n[1] == '.' && isDigit(n[2]) {
		return 505
	}
	return 400
}

// parseHeader checks a header line. It reports more when the line announces a
// body.
func parseHeader(line []byte) (more, ok bool) {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 || !all(name, isToken) || !all(value, isFieldByte) {
		return false, false
	}
	switch {
	case bytes.EqualFold(name, []byte("Content-Length")):
		return string(bytes.TrimSpace(value)) != "0", true
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		return true, true
	}
	return false, true
}

// targetPath returns the path of a request's target: of "/livez?x", of
// "http://pod:10101/livez", or the "*" of the server as a whole.
func targetPath(target string) (path string, ok bool) {
	target, _, _ = strings.Cut(target, "?")
	if target == "*" || target[:min(1, len(target))] == "/" {
		return target, true
	}
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return "", false
	}
	host := rest
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		host, path = rest[:i], rest[i:]
	}
	return path, isAuthority(host)
}

// isAuthority reports whether s is a host with or without a port.
func isAuthority(s string) bool {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		address, port, ok := strings.Cut(inner, "]")
		ip, err := netip.ParseAddr(address)
		return ok && err == nil && ip.Is6() && ip.Zone() == "" && (port == "" || port[0] == ':' && all(port[1:], isDigit))
	}
	host, port, _ := strings.Cut(s, ":")
	return host != "" && all(host, isHostByte) && all(port, isDigit)
}

func all[S string | []byte](s S, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isAlnum(c byte) bool {
	return isDigit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isHostByte(c byte) bool { return isAlnum(c) || c == '.' || c == '-' || c == '_' }

// isToken reports whether c may be in a method or a header's name.
func isToken(c byte) bool {
	return isAlnum(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isVisible(c byte) bool { return c > ' ' && c != 0x7f }

func isFieldByte(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }
