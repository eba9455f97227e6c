// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// print TEXT... on stdout; an empty argument list prints an empty line.
func printText(args []string) error {
	_, err := os.Stdout.WriteString(strings.Join(args, " ") + "\n")
	return err
}

// err TEXT... on stderr
func printErr(args []string) error {
	_, err := os.Stderr.WriteString(strings.Join(args, " ") + "\n")
	return err
}

// errpart TEXT... on stderr, without the end of a line.
func errPart(args []string) error {
	_, err := os.Stderr.WriteString(strings.Join(args, " "))
	return err
}

// errlines N: numbered lines on stderr.
func errLines(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stderr)
	for i := range n {
		fmt.Fprintf(out, "line %d of stderr\n", i+1)
	}
	return out.Flush()
}

// spam: write to stderr for ever, as a program with too much to say.
func spam([]string) error {
	for i := 0; ; i++ {
		if _, err := fmt.Fprintf(os.Stderr, "spam %d %s\n", i, strings.Repeat("x", 200)); err != nil {
			return err
		}
	}
}

// write FILE TEXT...
func writeFile(args []string) error {
	return os.WriteFile(args[0], []byte(strings.Join(args[1:], " ")+"\n"), 0o666)
}

// append FILE TEXT...
func appendFile(args []string) error {
	return appendText(args[0], strings.Join(args[1:], " ")+"\n")
}

func appendText(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// cat [FILE]: to stdout; without a file from stdin.
func cat(args []string) error {
	in := os.Stdin
	if len(args) > 0 {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	_, err := io.Copy(os.Stdout, in)
	return err
}

// touch FILE
func touch(args []string) error { return os.WriteFile(args[0], nil, 0o666) }

// mkfifo FILE
func mkfifo(args []string) error { return syscall.Mkfifo(args[0], 0o666) }

// await FILE: until it is there, for at most 30 s.
func awaitFile(args []string) error {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(args[0]); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s did not appear", args[0])
}

// install FROM TO: copy a program.
func install(args []string) error {
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	return os.WriteFile(args[1], data, 0o755)
}

// export LINE...: append each argument as a line to descriptor 3; with -path
// first, to the file that $CLEANIMG_INIT_ENV names.
func export(args []string) error {
	if args[0] == "-path" {
		return appendText(os.Getenv("CLEANIMG_INIT_ENV"), strings.Join(args[1:], "\n")+"\n")
	}
	_, err := os.NewFile(3, "exports").WriteString(strings.Join(args, "\n") + "\n")
	return err
}

// counter FILE N STATEMENT...: count the runs in the file, and only in the
// first N of them run the statement. A hook that fails twice is
// "counter /tmp/n 2 exit 7".
func counter(args []string) error {
	text, _ := os.ReadFile(args[0])
	limit, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := appendText(args[0], "run"); err != nil {
		return err
	}
	if strings.Count(string(text), "run") < limit {
		statement(args[2:])
	}
	return nil
}
