// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// greetingHook is the name of the executable hook.
const greetingHook = "20-greeting"

// roleOf finds what the demo's program is inside the container: the container
// has no other.
func roleOf(args []string) (role func() int, ok bool) {
	if filepath.Base(args[0]) == greetingHook {
		return greet, true
	}
	if len(args) < 2 {
		return nil, false
	}
	switch args[1] {
	case "enter":
		return func() int { return enter(args[2:]) }, true
	case "wait":
		return func() int { return wait(args[2]) }, true
	case "server":
		return func() int { return serve(args[2]) }, true
	case "lose":
		return lose, true
	case "exit":
		return func() int { return 0 }, true
	}
	return nil, false
}

func wait(text string) int {
	d, err := time.ParseDuration(text)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	time.Sleep(d)
	return 0
}

// greet exports a variable to the command.
func greet() int {
	if _, err := fmt.Fprintf(os.NewFile(3, "exports"), "GREETING=%s\n", greeting); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// serve is the command: a web server that finishes its requests when it gets
// TERM.
func serve(address string) int {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getenv("GREETING")) })
	mux.HandleFunc("/orphans", makeOrphans)
	mux.HandleFunc("/zombies", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, zombies(os.Getppid())) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		time.Sleep(answers)
		fmt.Fprint(w, "done")
	})
	server := &http.Server{Addr: address, Handler: mux}

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	var err error
	select {
	case err = <-failed:
	case <-stop:
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = server.Shutdown(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		return 1
	}
	return 0
}

// makeOrphans starts children that leave a child each behind.
func makeOrphans(w http.ResponseWriter, _ *http.Request) {
	for range orphans {
		if err := again("lose").Run(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
}

// lose starts a child and does not wait for it.
func lose() int {
	if err := again("exit").Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// again is this program in another role. Its stdin is ours: os/exec's default,
// /dev/null, does not exist in here.
func again(role string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], role)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// zombies counts the dead children of a process that it has not waited for.
func zombies(parent int) int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	n := 0
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // gone meanwhile
		}
		// "pid (name) state ppid …": the name may hold spaces and brackets.
		f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		if f[0] == "Z" && f[1] == strconv.Itoa(parent) {
			n++
		}
	}
	return n
}
