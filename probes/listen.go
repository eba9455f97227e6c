// SPDX-License-Identifier: Apache-2.0

package probes

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
)

// Variable is the setting that the addresses here come from. It is named in
// the errors about them.
const Variable = "CLEANIMG_INIT_HTTP_LISTEN"

// Listen binds addr: a port with or without the IP address of one interface,
// as in ":10101", "127.0.0.1:10101" or "[::1]:10101"; localhost is 127.0.0.1.
// It asks no name server. Port 0 is a free one. Its errors say what to do.
//
// It is on the way to the first hook, so that it does no more than to claim
// the port: net.Listen takes ten times as long, finding out what the kernel
// can do and starting the poller. Those wait for the first Accept. Until then
// clients are in the kernel's queue.
func Listen(addr string) (net.Listener, error) {
	ip, port, err := splitAddress(addr)
	if err != nil {
		return nil, err
	}
	fd, err := bind(ip, port)
	if err != nil {
		return nil, listenError(addr, port, err)
	}
	at := net.TCPAddr{IP: ip.AsSlice(), Port: port}
	if !ip.IsValid() {
		at.IP = net.IPv6unspecified
	}
	if port == 0 {
		at.Port = boundPort(fd)
	}
	return &listener{fd: fd, at: at}, nil
}

// backlog is as many clients as may wait for Accept. The kernel's own limit,
// net.core.somaxconn, is often the same.
const backlog = 4096

// bind returns a listening socket. The zero address is all of them, IPv6 and
// IPv4 by one socket, or IPv4 alone where the kernel has nothing else.
func bind(ip netip.Addr, port int) (fd int, err error) {
	switch {
	case ip.Is4():
		return bindTo(syscall.AF_INET, &syscall.SockaddrInet4{Port: port, Addr: ip.As4()})
	case ip.Is6():
		return bindTo(syscall.AF_INET6, &syscall.SockaddrInet6{Port: port, Addr: ip.As16()})
	}
	fd, err = bindTo(syscall.AF_INET6, &syscall.SockaddrInet6{Port: port})
	if errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) {
		return bindTo(syscall.AF_INET, &syscall.SockaddrInet4{Port: port})
	}
	return fd, err
}

func bindTo(family int, to syscall.Sockaddr) (fd int, err error) {
	fd, err = syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if family == syscall.AF_INET6 {
		// Whatever net.ipv6.bindv6only says.
		err = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 0))
	}
	if err == nil {
		// A container that is started again must not wait for the connections
		// of the last time to be forgotten.
		err = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
	}
	if err == nil {
		err = os.NewSyscallError("bind", syscall.Bind(fd, to))
	}
	if err == nil {
		err = os.NewSyscallError("listen", syscall.Listen(fd, backlog))
	}
	if err != nil {
		_ = syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

// boundPort returns the port that the kernel has chosen.
func boundPort(fd int) int {
	switch sa, _ := syscall.Getsockname(fd); sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return sa.Port
	case *syscall.SockaddrInet6:
		return sa.Port
	}
	return 0
}

// listener is a bound socket that becomes a listener of package net at the
// first Accept.
type listener struct {
	at net.TCPAddr

	mu     sync.Mutex
	fd     int
	file   *os.File // owns fd from the first Accept on
	open   net.Listener
	closed bool
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	open, err := l.listen()
	if err != nil {
		return nil, err
	}
	return open.Accept()
}

// listen returns the listener of package net. It can be tried again when it
// fails, as it does when descriptors have run out.
func (l *listener) listen() (net.Listener, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, net.ErrClosed
	}
	if l.open != nil {
		return l.open, nil
	}
	if l.file == nil {
		l.file = os.NewFile(uintptr(l.fd), "http")
	}
	open, err := net.FileListener(l.file) // has a duplicate
	if err != nil {
		return nil, err
	}
	l.open = open
	_ = l.file.Close()
	return open, nil
}

// Close implements [net.Listener].
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return net.ErrClosed
	case l.open != nil:
		l.closed = true
		return l.open.Close()
	case l.file != nil:
		l.closed = true
		return l.file.Close()
	default:
		l.closed = true
		return os.NewSyscallError("close", syscall.Close(l.fd))
	}
}

// Addr implements [net.Listener].
func (l *listener) Addr() net.Addr { return &l.at }

// Valid tells whether addr is in the form that [Listen] takes, with a port that
// can be told to others.
func Valid(addr string) bool {
	_, port, err := splitAddress(addr)
	return err == nil && port > 0
}

// splitAddress checks an address and takes it apart. The zero address stands
// for all of them.
func splitAddress(addr string) (ip netip.Addr, port int, err error) {
	bad := func(why string) error {
		return fmt.Errorf("%s=%q: %s: set it to :PORT, IP:PORT or off", Variable, addr, why)
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return ip, 0, bad("not an address with a port")
	}
	port, err = strconv.Atoi(service)
	if err != nil || !all(service, isDigit) || port > 65535 {
		return ip, 0, bad("the port is not a number from 1 to 65535")
	}
	switch host {
	case "", "*":
		return ip, port, nil
	case "localhost":
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), port, nil
	}
	ip, err = netip.ParseAddr(host)
	if err != nil || ip.Zone() != "" {
		return ip, 0, bad("the host is not an IP address")
	}
	return ip, port, nil
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
