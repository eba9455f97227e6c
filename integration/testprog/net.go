// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// listen ADDRESS: accept connections for ever, and print "listening".
func listen(args []string) error {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		c.Close()
	}
}

// connect ADDRESS: wait until somebody listens there.
func connect(args []string) error {
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		var c net.Conn
		if c, err = net.Dial("tcp", args[0]); err == nil {
			return c.Close()
		}
	}
	return err
}

// get ADDRESS PATH: one HTTP request; prints the status code and the body.
func get(args []string) error {
	c, err := net.DialTimeout("tcp", args[0], 2*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", args[1], args[0])
	answer, err := io.ReadAll(bufio.NewReader(c))
	if err != nil {
		return err
	}
	head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	_, status, _ := strings.Cut(head, " ")
	status, _, _ = strings.Cut(status, " ")
	fmt.Printf("%s\n%s", status, body)
	return nil
}

// answer ADDRESS FILE: serve HTTP with the status that the file holds; without
// the file no request is ever answered.
func answer(args []string) error {
	return http.ListenAndServe(args[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := os.ReadFile(args[1])
		if err != nil {
			<-r.Context().Done()
			return
		}
		status, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		w.WriteHeader(status)
	}))
}

// notify TEXT...: send the words as the lines of one notification, and wait
// until it was read: by a second one with a descriptor, as
// sd_notify_barrier(3) does it.
func notify(args []string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	if err := unix.Sendto(fd, []byte(strings.Join(args, "\n")), 0, to); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = unix.Sendmsg(fd, []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), to, 0)
	w.Close()
	if err == nil {
		_, err = io.Copy(io.Discard, r) // to its end
	}
	return err
}
