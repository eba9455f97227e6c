// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
)

// Variable is the setting that the addresses here come from. It is named in
// the errors about them.
const Variable = "CLEANIMG_INIT_HTTP_LISTEN"

// Listen binds addr: a port with or without the IP address of one interface,
// as in ":10101", "127.0.0.1:10101" or "[::1]:10101"; localhost is 127.0.0.1.
// It asks no name server. Port 0 is a free one. Its errors say what to do.
func Listen(addr string) (net.Listener, error) {
	host, port, err := splitAddress(addr)
	if err != nil {
		return nil, err
	}
	// Connections live for seconds: keep-alive is system calls for nothing.
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return nil, listenError(addr, port, err)
	}
	return l, nil
}

// splitAddress checks an address and takes it apart. A wildcard is an empty
// host.
func splitAddress(addr string) (host string, port int, err error) {
	bad := func(why string) error {
		return fmt.Errorf("%s=%q: %s: set it to :PORT, IP:PORT or off", Variable, addr, why)
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, bad("not an address with a port")
	}
	port, err = strconv.Atoi(service)
	if err != nil || !all(service, isDigit) || port > 65535 {
		return "", 0, bad("the port is not a number from 1 to 65535")
	}
	switch host {
	case "", "*":
		return "", port, nil
	case "localhost":
		return "127.0.0.1", port, nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return "", 0, bad("the host is not an IP address")
	}
	return ip.String(), port, nil
}

func listenError(addr string, port int, err error) error {
	remedy := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		remedy = "the containers of a pod share their ports, so another container of this pod may have it:" +
			" give each container a port of its own, or switch the probes off with " + Variable + "=off"
		err = syscall.EADDRINUSE
	case errors.Is(err, syscall.EACCES) && port < 1024:
		remedy = "a port below 1024 needs the capability NET_BIND_SERVICE: use a higher one, such as :10101"
		err = syscall.EACCES
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		remedy = "no interface here has that address: leave it out to listen on all, as in :" + strconv.Itoa(port)
		err = syscall.EADDRNOTAVAIL
	case errors.Is(err, syscall.EAFNOSUPPORT):
		remedy = "the kernel does not speak that family of addresses here: leave the address out, as in :" + strconv.Itoa(port)
		err = syscall.EAFNOSUPPORT
	default:
		return fmt.Errorf("%s=%q: %w", Variable, addr, err)
	}
	return fmt.Errorf("%s=%q: %w: %s", Variable, addr, err, remedy)
}
