// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
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
