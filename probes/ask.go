// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// instanceHeader is the header that tells whose answer it is, or that it is
// one of ours at least.
const (
	instanceHeader  = "Cleanimg-Init-Instance"
	unknownInstance = "unknown"
)

// maxAnswer is how much of an answer is read, as the kubelet does it.
const maxAnswer = 10 << 10

// Ask requests path from the instance that listens on addr, in the form that
// [Listen] takes. A wildcard means this machine: 127.0.0.1, and where nothing
// answers there, [::1]. It returns the status and at most 10 KiB of the body,
// or an error when there is no answer, when it is not one of cleanimg-init, or
// when instance is not empty and the answer is another one's. It returns when
// ctx ends.
func Ask(ctx context.Context, addr, path, instance string) (status int, body string, err error) {
	ip, port, err := splitAddress(addr)
	if err != nil {
		return 0, "", err
	}
	hosts := []string{ip.String()}
	if !ip.IsValid() || ip.IsUnspecified() {
		hosts = []string{"127.0.0.1", "::1"}
	}
	for _, host := range hosts {
		to := net.JoinHostPort(host, strconv.Itoa(port))
		status, body, why := ask(ctx, to, path, instance)
		if why == nil {
			return status, body, nil
		}
		// The error of an address where something is says more than that of
		// one where nothing is.
		if err == nil || !unreachable(why) && unreachable(err) {
			err = fmt.Errorf("ask %s: %w", to, why)
		}
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		err = fmt.Errorf("%w: nothing listens there: is %s the same as that of the entrypoint, and does it run?", err, Variable)
	}
	return 0, "", err
}

// unreachable reports whether nothing listens at an address, or the address
// family is missing.
func unreachable(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EADDRNOTAVAIL) ||
		errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.ENETUNREACH)
}

// ask makes one request at one address.
func ask(ctx context.Context, to, path, instance string) (status int, body string, err error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		// Without net's "dial tcp ADDRESS: connect:", which the caller says.
		var sys *os.SyscallError
		if errors.As(err, &sys) {
			err = sys.Err
		}
		return 0, "", err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	request := "GET " + path + " HTTP/1.1\r\nHost: " + to + "\r\nUser-Agent: cleanimg-init\r\nAccept: */*\r\nConnection: close\r\n\r\n"
	if _, err := c.Write([]byte(request)); err != nil {
		return 0, "", answerError(ctx, err)
	}
	buf := make([]byte, 0, maxAnswer)
	for {
		n, err := c.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if end := headEnd(buf, 0); end > 0 {
			a, ok := parseAnswer(buf[:end])
			if e := a.check(ok, instance); e != nil {
				return 0, "", e
			}
			if rest := buf[end:]; len(rest) >= a.length || len(buf) == cap(buf) {
				return a.status, string(rest[:min(len(rest), a.length)]), nil
			}
		} else if len(buf) == cap(buf) {
			return 0, "", errStranger
		}
		if err != nil {
			return 0, "", answerError(ctx, err)
		}
	}
}

// answerError explains the end of a connection before there was an answer.
func answerError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer in time: %w", context.Cause(ctx))
	}
	return fmt.Errorf("no complete answer: %w", err)
}

var (
	errStranger  = errors.New("the answer is not one of cleanimg-init: something else listens there")
	errNeighbour = errors.New("the answer comes from another container of this pod: give each container a port of its own in " + Variable)
)

// answer is what we need of the head of an answer.
type answer struct {
	status   int
	length   int
	instance string
}

// check returns an error when the answer is not from the right instance.
func (a answer) check(ok bool, instance string) error {
	switch {
	case !ok || a.instance == "":
		return errStranger
	case instance != "" && a.instance != instance:
		return errNeighbour
	default:
		return nil
	}
}

// parseAnswer reads the head of an answer. Ours always has a length.
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
			return a, a.length >= 0
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte(instanceHeader)):
			a.instance = string(value)
		case bytes.EqualFold(name, []byte("Content-Length")):
			if a.length, err = strconv.Atoi(string(value)); err != nil {
				return answer{}, false
			}
		}
	}
}

// InstanceID identifies the container that this process runs in by its mount
// namespace: each container of a pod has its own, and an exec probe shares it.
// It is empty where /proc does not tell.
func InstanceID() string { return instanceID("/proc/self/ns/mnt") }

func instanceID(link string) string {
	target, err := os.Readlink(link) // mnt:[4026532256]
	if err != nil {
		return ""
	}
	id, ok := strings.CutPrefix(target, "mnt:[")
	id = strings.TrimSuffix(id, "]")
	if !ok || !all(id, isDigit) {
		return ""
	}
	return id
}
