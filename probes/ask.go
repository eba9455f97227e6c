// SPDX-License-Identifier: Apache-2.0

package probes

import (
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

	x := exchange{c: c}
	a, err := x.get(to, path, "")
	if err != nil {
		return 0, "", answerError(ctx, err)
	}
	if err := a.check(instance); err != nil {
		return 0, "", err
	}
	rest, err := x.body(a)
	if err != nil {
		return 0, "", answerError(ctx, err)
	}
	return a.status, string(rest), nil
}

// answerError explains the end of a connection before there was an answer.
func answerError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer in time: %w", context.Cause(ctx))
	}
	if errors.Is(err, errNotHTTP) {
		return errStranger
	}
	return fmt.Errorf("no complete answer: %w", err)
}

var (
	errStranger  = errors.New("the answer is not one of cleanimg-init: something else listens there")
	errNeighbour = errors.New("the answer comes from another container of this pod: give each container a port of its own in " + Variable)
)

// check returns an error when the answer is not from the right instance. Ours
// always has a length.
func (a answer) check(instance string) error {
	switch {
	case a.instance == "" || a.length < 0:
		return errStranger
	case instance != "" && a.instance != instance:
		return errNeighbour
	default:
		return nil
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
